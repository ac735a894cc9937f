"""The demo: drawn street scenes with known truth, and the walk from video to events over them."""
