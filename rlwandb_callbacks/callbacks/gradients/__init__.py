"""Histograms and norms of gradients and parameters."""
