"""Recordings to sequences: decode, detect once, measure motion, track, cache."""

import os

# Ultralytics reads these when it is first imported: it must not install packages, phone home, or write to stdout.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_VERBOSE", "false")
