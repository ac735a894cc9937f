"""Reports: one self-contained HTML page per recording, and an index of all recordings."""
