"""Pure core: numpy in, values out. No torch, no Lightning, no wandb, no files, no clocks, no global random state."""
