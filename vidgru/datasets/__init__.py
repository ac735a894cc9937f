"""Annotations and what training makes of them: data sets, splits, windows, batches."""
