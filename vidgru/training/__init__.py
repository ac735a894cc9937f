"""Training and what it is judged by: the loop, losses, metrics, plots."""
