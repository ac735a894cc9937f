"""Annotated videos and clips of events."""
