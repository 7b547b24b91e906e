"""Messages through W&B when training goes wrong."""
