"""Metrics of clips, timed events and captions."""
