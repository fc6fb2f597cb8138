"""The streams that commands read: loading them, folding them, and what is kept of them between commands."""
