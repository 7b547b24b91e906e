"""LightningModules that the configs and notebooks train."""
