"""vidgru: folders of recordings into timelines of labelled, described events."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidgru.cache import SequenceCache as SequenceCache
    from vidgru.types import Annotation as Annotation
    from vidgru.types import Event as Event
    from vidgru.types import Recording as Recording
    from vidgru.types import Sequence as Sequence

# Loaded on first use, so that `vidgru --help` does not wait for torch.
_HOME = {
    "Annotation": "vidgru.types",
    "Event": "vidgru.types",
    "Recording": "vidgru.types",
    "Sequence": "vidgru.types",
    "SequenceCache": "vidgru.cache",
}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'vidgru' has no attribute {name!r}")
