"""The flights that left New York in 2013, replayed through eventcore: an example, and a demonstration that checks itself."""
