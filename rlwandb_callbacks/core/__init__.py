"""Data types that all folders share. Depends on numpy only: not on torch, Lightning, wandb or drawing libraries."""
