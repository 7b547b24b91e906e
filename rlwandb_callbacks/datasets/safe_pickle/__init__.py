"""Reads pickled data without running what a pickle asks for."""
