"""Writes one entry, stretch by stretch, so that a run after a kill goes on where the last one had got to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import save

from vidgru.cache.entry import RESUME, UNFINISHED, Entry, Part, canonical_json, fault, private_folder, read_part, tidy
from vidgru.errors import LockLostError, OutputError
from vidgru.storage import sync_folder, write_atomic
from vidgru.types import FrameSequence

PART_SAMPLES = 2048


class EntryWriter:
    """Writes one entry: `append` stretches of any length, then `finish`.

    It works in a folder of its own, which `finish` gives the entry's name: others see the whole entry or none. A part
    that ends with an appended stretch of known state is a resume point, noted in `resume.json`. Left without `finish`,
    the folder stays if it holds such a point, and the next writer of the entry adopts it.

    Who writes holds the lease of the key: what others left of it is then of processes that are dead, or have lost
    their lease without knowing. Adopting renames the folder, so such a one finds it gone, and all it writes from then
    on fails with `LockLostError`. (A network disk may let it write by the old name for some seconds: what arrives
    was made
    from the same bytes under the same settings and `run_info`, and `verify` finds it if it should differ.)

    Args:
        folder: the entry's, named after its key.
        run_info: what is recorded as `Entry.run_info`. What was left under another `run_info` is not gone on with.

    Attributes:
        samples: those adopted, finished by a writer before this one.
        state: what was given to `append` with the last of them, as JSON reads it; None where nothing was adopted.
    """

    def __init__(self, folder: Path, run_info: Mapping[str, Any]) -> None:
        self._entry = folder
        self._how: dict[str, Any] = json.loads(canonical_json(run_info))
        self._over = False  # finished or discarded
        self._reset()

    def _reset(self) -> None:
        self._folder, self._made = private_folder(self._entry), False
        self._parts: list[Part] = []
        self._states: list[dict[str, Any] | None] = []  # after each part, None where it is not known
        self._pending: list[FrameSequence] = []
        self._waiting = 0
        self.samples = 0
        self.state: dict[str, Any] | None = None

    def __enter__(self) -> EntryWriter:
        """Adopt what a dead process left of this entry, if anything; what cannot be used of it is deleted.

        Raises:
            OutputError: the cache cannot be written.
        """
        apart = self._entry.parent / UNFINISHED
        names = os.listdir(apart) if apart.is_dir() else []
        found = [apart / name for name in names if name.startswith(f"{self._entry.name}.")]
        for folder in sorted(
            found, key=lambda folder: sum(part.samples for part in self._left(folder)[0]), reverse=True
        ):
            if not self._parts:
                self._adopt(folder)
            shutil.rmtree(folder, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._over and not any(state is not None for state in self._states):
            self.discard()

    def resumed_parts(self) -> Iterator[FrameSequence]:
        """The adopted parts in order, each mapped from disk.

        Raises:
            CacheError: one has become unsound since it was adopted.
        """
        seen = 0
        for part in self._parts:
            if seen == self.samples:
                return
            yield read_part(self._folder / part.name)
            seen += part.samples

    def restart(self) -> None:
        """Drop what was adopted or appended, and begin anew."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._reset()

    def discard(self) -> None:
        """Delete everything: nothing is kept for a next run."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._over = True

    def append(self, sequence: FrameSequence, state: Mapping[str, Any] | None = None) -> None:
        """Add the next stretch; full parts go to disk at once.

        Args:
            sequence: T samples, T at least 1, that follow those before.
            state: small and JSON-able; what the caller needs to go on after the last of them, None if that cannot be.

        Raises:
            OutputError: it cannot be written.
            LockLostError: another process has taken over.
        """
        self._pending.append(sequence)
        self._waiting += len(sequence)
        before = len(self._parts)
        while self._waiting >= PART_SAMPLES:
            self._flush(PART_SAMPLES)
        if len(self._parts) > before and not self._waiting and state is not None:
            self._states[-1] = dict(state)
            parts = [asdict(part) for part in self._parts]
            self._write(RESUME, canonical_json({"run_info": self._how, "parts": parts, "states": self._states}))

    def finish(self, **facts: Any) -> None:
        """Write what is left and `entry.json`. `facts` are the fields of `Entry` but `key`, `run_info` and `parts`.

        An entry of a recording without a sample cannot be: such a recording is failed.

        Raises:
            OutputError: it cannot be written.
            LockLostError: another process has taken over.
        """
        if self._waiting:
            self._flush(self._waiting)
        if not self._parts:
            raise ValueError("an entry needs at least one sample")
        entry = asdict(Entry(key="", run_info=self._how, parts=tuple(self._parts), **facts))
        del entry["key"]
        self._write("entry.json", canonical_json(entry))
        old = private_folder(self._entry)
        try:
            with suppress(FileNotFoundError):  # an entry made meanwhile, and equal, or unsound: replaced either way
                self._entry.rename(old)
            self._folder.rename(self._entry)
        except OSError as error:
            with suppress(OSError):
                old.rename(self._entry)
            self._say_if_taken()
            raise OutputError(
                f"cannot write {self._entry}: {error.strerror}", "see to the disk, then run again"
            ) from error
        self._over = True
        tidy(self._entry)
        sync_folder(self._entry.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _left(self, folder: Path) -> tuple[list[Part], list[dict[str, Any] | None]]:
        """The parts up to the last resume point that a writer left in `folder`, with the state after each."""
        try:
            left = json.loads((folder / RESUME).read_bytes())
            parts, states = [Part(**part) for part in left["parts"]], left["states"]
            return (parts, states) if left["run_info"] == self._how and len(parts) == len(states) else ([], [])
        except (OSError, ValueError, TypeError, KeyError):
            return [], []

    def _adopt(self, folder: Path) -> None:
        try:
            folder.rename(self._folder)
            self._made = True
            parts, states = self._left(self._folder)
            sound = next((n for n, part in enumerate(parts) if fault(self._folder, part)), len(parts))
            kept = next((n for n in range(sound, 0, -1) if states[n - 1] is not None), 0)
            if not kept:
                return self.restart()
            for path in self._folder.iterdir():
                if path.name not in {RESUME, *(part.name for part in parts[:kept])}:
                    path.unlink()
        except FileNotFoundError:  # its writer has just given it the entry's name or deleted it, or it was taken again
            return self._reset()
        except OSError as error:
            raise OutputError(f"cannot adopt {folder}: {error.strerror}", "see to the disk, then run again") from error
        self._parts, self._states = parts[:kept], states[:kept]
        self.samples, self.state = sum(part.samples for part in self._parts), states[kept - 1]

    def _flush(self, samples: int) -> None:
        joined = FrameSequence.concatenate(self._pending)
        part, rest = joined.frames(0, samples), joined.frames(samples, len(joined))
        self._pending, self._waiting = ([rest] if len(rest) else []), len(rest)
        facts = {"fps": part.fps, "names": part.names, "size_px": part.size_px}
        tensors = {name: np.ascontiguousarray(value) for name, value in part.tensors().items()}
        data = save(tensors, metadata={"vidgru": canonical_json(facts).decode()})
        name = f"part-{len(self._parts):05d}.safetensors"
        self._write(name, data)
        self._parts.append(
            Part(
                name=name,
                samples=len(part),
                objects=len(part.boxes),
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
        self._states.append(None)

    def _write(self, name: str, data: bytes) -> None:
        """Write a file of this writer's folder, which is made once, and never again where it is gone."""
        try:
            if not self._made:
                self._folder.parent.mkdir(parents=True, exist_ok=True)
                self._folder.mkdir()
                self._made = True
        except OSError as error:
            raise OutputError(
                f"cannot write {self._folder}: {error.strerror}", "free disk space or choose another folder with --out"
            ) from error
        try:
            write_atomic(self._folder / name, data, make_folder=False)
        except OutputError:
            self._say_if_taken()
            raise

    def _say_if_taken(self) -> None:
        if self._made and self._entry.parent.is_dir() and not self._folder.exists():
            raise LockLostError(
                f"{self._folder} is gone: another process has taken this recording over",
                "let that one finish it; its features are then reused",
            ) from None
