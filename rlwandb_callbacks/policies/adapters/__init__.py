"""Adapters for the kinds of policies."""
