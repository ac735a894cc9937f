"""The demo: synthetic street scenes with known truth, and the whole pipeline run on them."""
