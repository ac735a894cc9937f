"""The detector: YOLO networks, their backends, and what is measured around their boxes."""
