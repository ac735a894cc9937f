"""Annotate recordings in a browser, with features, training and drafts in the background."""
