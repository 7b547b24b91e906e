"""Plays, records, replays and summarizes evaluation episodes."""
