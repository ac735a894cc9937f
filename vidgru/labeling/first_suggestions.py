"""Choose what to label first, before there is a model.

`python -m vidgru.labeling.first_suggestions SETTINGS SOURCES N OUT` is a process of its own, because the features of
all recordings are read into memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.errors import SourceError, VidgruError
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.flags import from_settings, to_settings
from vidgru.labeling.child import end_with_parent
from vidgru.labeling.suggest import suggest
from vidgru.labeling.suggest_command import suggestions_jsonl
from vidgru.sources import find_recordings
from vidgru.storage import write_atomic
from vidgru.training.data import load_features


def suggest_first(settings: Path, sources: Path, n: int, out: Path) -> None:
    """Write suggestions for recordings whose features are in a cache, as `vidgru suggest` does.

    Args:
        settings: YAML with the settings of the detector, and the folder `features`.
        sources: List of the recordings.
        n: Number of suggestions.
        out: JSONL file to write.

    Raises:
        SourceError: No recording has features.
        WeightsError, CacheError, OutputError: With a remedy each.
    """
    values = yaml.safe_load(settings.read_bytes())
    known = to_settings(DetectorSettings())
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    detector = from_settings(DetectorSettings, **{name: plain[name] for name in known if name in plain})
    cache, feature_settings = SequenceCache(values["features"]), feature_settings_for(detector)
    entries = {item.name: cache.lookup(item.path, feature_settings) for item in find_recordings([sources])}
    keys = {name: entry.key for name, entry in entries.items() if entry is not None}
    if not keys:
        raise SourceError("no recording has features yet", "wait until one has")
    suggestions = suggest(None, load_features(cache, keys), {}, n)
    write_atomic(out, suggestions_jsonl(suggestions).encode())


if __name__ == "__main__":
    end_with_parent()
    try:
        suggest_first(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    except VidgruError as error:
        sys.exit(f"vidgru: error: {error}")
