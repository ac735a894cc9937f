"""Run extraction in tests and read what it wrote."""

from pathlib import Path
from typing import Any

import pytest

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.extraction.pipeline import ExtractionResult, extract_recordings
from vidgru.sources import find_recordings

RUNTIME = RuntimeSettings(backend="torch", precision="fp32", threads=1)
KEY_FRAMES = {"g": "10", "sc_threshold": "0"}  # encoder options for a key frame every ten frames


def extract(
    videos: Path, cache: Path, settings: DetectorSettings, runtime: RuntimeSettings = RUNTIME, **options: Any
) -> list[ExtractionResult]:
    """Extract a video or a folder of them."""
    recordings = find_recordings([videos])
    return extract_recordings(recordings, SequenceCache(cache), settings, runtime, progress=False, **options)


def set_part_samples(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Have parts end after this many samples."""
    for module in ("cache.writer", "extraction.decode_task", "extraction.pipeline"):
        monkeypatch.setattr(f"vidgru.{module}.PART_SAMPLES", samples)


def part_files(cache: Path) -> dict[str, bytes]:
    """Contents of all part files, by path in the cache."""
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("part-*.safetensors"))}


def entry_files(cache: Path) -> dict[str, bytes]:
    """Contents of all files of entries, by path in the cache."""
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.parent.parent == cache}
