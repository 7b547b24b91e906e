"""One module per layout of offline data."""
