"""The model: features, encoder, GRU and heads, model files, scores, events and captions."""
