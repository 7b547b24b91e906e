"""Episodes that end while the agent trains."""
