"""Live sources: streams and cameras, as sequences."""
