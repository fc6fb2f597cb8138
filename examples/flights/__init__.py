"""The flights that left New York in 2013, replayed through eventcore: an example application that checks its own results."""
