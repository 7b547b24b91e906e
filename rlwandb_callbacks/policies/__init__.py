"""Asks any policy and reads its output."""
