"""Training and evaluation: the loop, losses, metrics, plots."""
