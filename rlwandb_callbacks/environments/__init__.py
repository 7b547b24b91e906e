"""Makes, copies, normalizes, renders and describes any environment."""
