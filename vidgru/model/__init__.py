"""The model: features of a sequence, encoder, GRU, its file, and from scores to events."""
