"""The detector: YOLO networks and their backends, preprocessing, appearance and colour, motion, tracking."""
