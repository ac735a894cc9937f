"""When recordings begin and how long they last, without seeing what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from vidgru.cache import SequenceCache
from vidgru.errors import RecordingError
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess, watching
from vidgru.types import Recording
from vidgru.video.timestamps import StartTimes


class Span(NamedTuple):
    """`recorded_at`, ISO 8601, and length in seconds; None where they are not known."""

    recorded_at: str | None
    duration_s: float | None


def spans(recordings: Iterable[Recording], cache: SequenceCache, start_time: str) -> Iterator[tuple[Recording, Span]]:
    """What containers say of recordings; what cannot be opened says nothing.

    Args:
        recordings: to look at.
        cache: that may know when they begin.
        start_time: see `RuntimeSettings`.
    """
    said = StartTimes(start_time)
    decoder = DecoderProcess()
    with watching([decoder]), ExitStack() as stack:
        stack.callback(decoder.end)
        for recording in recordings:
            yield (
                recording,
                _span(recording.path, decoder, said.of(recording.path) or cache.recorded_at(recording.path)),
            )


def _span(path: Path, decoder: DecoderProcess, known: str | None) -> Span:
    try:
        info = decoder.probe(path)
    except (RecordingError, DecoderDiedError):
        return Span(known, None)
    return Span(known or info.recorded_at, info.duration_s)
