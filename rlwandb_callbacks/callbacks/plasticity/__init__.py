"""Plasticity: dormant neurons, effective rank and sizes of weights and updates of the trained networks."""
