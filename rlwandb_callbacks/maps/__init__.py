"""From a data set to its map, and the policy on it."""
