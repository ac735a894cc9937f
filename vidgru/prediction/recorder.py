"""Keeps what a live source showed in the sequence cache, as an entry like that of a recording.

Full parts go to disk as they fill, with all that is needed to finish the entry: what a killed run left is finished by
the next that records into the same cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from vidgru.cache import SequenceCache
from vidgru.cache.entry import LIVE, RESUME, canonical_json, live_source
from vidgru.cache.writer import PART_SAMPLES
from vidgru.locks import Locks
from vidgru.types import FrameSequence

_STATE = LIVE  # what the resume points of such entries are known by


class Recorder:
    """Writes one entry, sequence by sequence; `finish` names it, `close` leaves it as it is.

    Args:
        cache: where it goes.
        name: of the source, without credentials.
        recorded_at: ISO 8601 time of its beginning.
        feature_settings, how: settings, as of any entry.

    Attributes:
        key: of the entry.

    Raises:
        OutputError: the cache cannot be written; so do `append` and `finish`.
    """

    def __init__(
        self,
        cache: SequenceCache,
        name: str,
        recorded_at: str,
        feature_settings: Mapping[str, Any],
        run_info: Mapping[str, Any],
    ) -> None:
        # There are no bytes to hash: when and from where it came tells this sequence from any other.
        identity = hashlib.sha256(canonical_json({"source": name, "recorded_at": recorded_at})).hexdigest()
        self.key = cache.key(identity, feature_settings)
        self._recorded_at, self._feature_settings = recorded_at, dict(feature_settings)
        self._stack = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self._stack.close)
            locks = self._stack.enter_context(Locks(cache.lock_folder))
            locks.acquire(self.key)
            self._writer = self._stack.enter_context(cache.writer(self.key, {**run_info, LIVE: name}))
            on_error.pop_all()
        self._samples = 0
        self._last: FrameSequence | None = None

    def append(self, sequence: FrameSequence) -> None:
        """Add the next frame: a sequence of one."""
        self._samples += 1
        self._last = sequence
        full = self._samples % PART_SAMPLES == 0
        end_s = float(sequence.time_s[-1]) + 1 / sequence.fps
        self._writer.append(sequence, {_STATE: self._facts(sequence, end_s, {})} if full else None)

    def finish(self, end_s: float, recorded_at: str, damage: Mapping[str, Any]) -> None:
        """Finish the entry.

        Args:
            end_s: end of the source.
            recorded_at: ISO 8601 time of its beginning, as it is known by now.
            damage: what was wrong with it, as `Entry.damage`.
        """
        assert self._last is not None
        self._recorded_at = recorded_at
        self._writer.finish(**self._facts(self._last, end_s, damage))
        self._stack.close()

    def close(self) -> None:
        """Give up; full parts stay for `finish_left`."""
        self._stack.close()

    def _facts(self, last: FrameSequence, end_s: float, damage: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "status": "partial" if damage else "done",
            "duration_s": end_s,
            "fps": last.fps,
            "size_px": last.size_px,
            "names": last.names,
            "feature_settings": self._feature_settings,
            "damage": dict(damage),
            "recorded_at": self._recorded_at,
        }


def finish_left(cache: SequenceCache) -> list[str]:
    """Finish what killed runs left of live sources, up to the last full part. Returns the keys of the entries.

    Raises:
        OutputError: the cache cannot be written.
    """
    finished = []
    with Locks(cache.lock_folder) as locks:
        for key, folder in cache.incomplete_entries():
            if live_source(folder) is None or not locks.acquire(key):  # of a file, or being recorded at this moment
                continue
            run_info = json.loads((folder / RESUME).read_bytes())["run_info"]
            with cache.writer(key, run_info) as writer:
                if writer.state and _STATE in writer.state:
                    writer.finish(**writer.state[_STATE])
                    finished.append(key)
    return finished
