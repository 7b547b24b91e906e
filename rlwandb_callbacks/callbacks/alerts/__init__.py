"""Alerts through W&B when training goes wrong."""
