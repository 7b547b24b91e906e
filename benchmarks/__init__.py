"""Costs of the callbacks, as ratios to known references that are measured in the same run."""
