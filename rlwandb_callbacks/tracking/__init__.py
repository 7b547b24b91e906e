"""Where values go: the only folder that imports wandb."""
