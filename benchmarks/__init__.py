"""What the callbacks cost, as ratios against something known, measured in one run."""
