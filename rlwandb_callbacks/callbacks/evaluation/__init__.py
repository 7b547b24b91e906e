"""Evaluation episodes: from the hook to rows and videos."""
