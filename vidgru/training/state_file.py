"""The file with the state of a training run: its name, and what other processes read from it without PyTorch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from vidgru.storage import parse_json

STATE = "state.safetensors"
METADATA = "vidgru"  # key of metrics and settings, as JSON


def finished_epochs(path: Path) -> int:
    """Return the number of finished epochs in the state of a run that another process writes; 0 without a state."""
    try:
        with safe_open(path, framework="numpy") as file:  # "pt" would import PyTorch, which takes seconds
            return len(parse_json(file.metadata()[METADATA])["epochs"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return 0
