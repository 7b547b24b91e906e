"""Dormant neurons, effective rank and the like: whether a network can still learn."""
