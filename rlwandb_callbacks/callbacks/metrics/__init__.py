"""Training metrics: from what a batch returns to rows."""
