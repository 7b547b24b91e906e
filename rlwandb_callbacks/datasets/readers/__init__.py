"""Reads selected rows of large files in bounded memory."""
