"""Annotations and what training makes of them: datasets, splits, windows, batches."""
