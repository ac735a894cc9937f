"""From recordings and a model to events, in files of many formats."""
