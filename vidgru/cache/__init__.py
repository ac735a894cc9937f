"""Frame sequences on disk: one entry per recording, keyed by content and settings, safe to kill at any moment."""

from vidgru.cache.entry import Entry
from vidgru.cache.store import SequenceCache
from vidgru.cache.writer import EntryWriter

__all__ = ["Entry", "EntryWriter", "SequenceCache"]
