"""Replay buffers, in memory and saved: their rows in the order in which they were written."""
