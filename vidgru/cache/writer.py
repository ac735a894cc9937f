"""Write one cache entry part by part, so that a run after a kill resumes where the last one stopped."""

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

from vidgru.cache.entry import (
    RESUME,
    UNFINISHED,
    Entry,
    EntryPart,
    canonical_json,
    delete_resume_file,
    open_part,
    private_folder,
    read_part,
    stored_tensors,
)
from vidgru.errors import CacheError, LockLostError, OutputError
from vidgru.storage import parse_json, sync_folder, write_atomic
from vidgru.types import FrameSequence

PART_SAMPLES = 2048


class EntryWriter:
    """Writer of one entry: `append` sequences of any length, then `finish`.

    It writes to a private folder, which `finish` renames to the entry's: others see the whole entry or none. If a part
    ends exactly where an appended sequence with a known state does, that is a resume point, saved in `resume.json`. A
    folder with a resume point is kept when the block is left without `finish`, and the next writer resumes it.

    The caller must hold the lock of the key. Folders of other writers then belong to processes that are dead, or that
    have lost the lock without noticing. Resuming renames the folder, so such a process no longer finds it, and its
    further writes fail with `LockLostError`. (A network disk may let it write under the old name for some seconds. What
    it writes comes from the same bytes, settings and `run_info`, and `verify` detects any difference.)

    Args:
        folder: Folder of the entry, named after its key.
        run_info: Recorded as `Entry.run_info`. Folders written under another `run_info` are not resumed.

    Attributes:
        samples: Number of samples that were resumed from an earlier writer.
        state: State that was passed to `append` with the last of them, as parsed from JSON; None if nothing was
            resumed.
    """

    def __init__(self, folder: Path, run_info: Mapping[str, Any]) -> None:
        self._entry = folder
        self._run_info: dict[str, Any] = json.loads(canonical_json(run_info))
        self._closed = False  # finished or discarded
        self._reset()

    def _reset(self) -> None:
        self._folder, self._folder_exists = private_folder(self._entry), False
        self._parts: list[EntryPart] = []
        self._states: list[dict[str, Any] | None] = []  # state after each part, None if unknown
        self._pending: list[FrameSequence] = []
        self._pending_samples = 0
        self.samples = 0
        self.state: dict[str, Any] | None = None

    def __enter__(self) -> EntryWriter:
        """Resume what a dead process wrote of this entry, if anything, and delete what cannot be used.

        Raises:
            OutputError: The cache cannot be written.
        """
        parent = self._entry.parent / UNFINISHED
        names = os.listdir(parent) if parent.is_dir() else []
        folders = [parent / name for name in names if name.startswith(f"{self._entry.name}.")]
        folders.sort(key=lambda folder: sum(part.samples for part in self._read_resume_file(folder)[0]), reverse=True)
        for folder in folders:
            if not self._parts:
                self._resume(folder)
            shutil.rmtree(folder, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed and not any(state is not None for state in self._states):
            self.discard()

    def resumed_parts(self) -> Iterator[FrameSequence]:
        """Iterate over the resumed parts in order, each mapped from disk.

        Raises:
            CacheError: A part has become corrupt since it was resumed.
        """
        samples = 0
        for part in self._parts:
            if samples == self.samples:
                return
            yield read_part(self._folder / part.name)
            samples += part.samples

    def restart(self) -> None:
        """Drop everything resumed or appended, and start again."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._reset()

    def discard(self) -> None:
        """Delete everything, so that no later run resumes it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._closed = True

    def append(self, sequence: FrameSequence, state: Mapping[str, Any] | None = None) -> None:
        """Append the next samples; full parts are written at once.

        Args:
            sequence: T samples, T at least 1, that follow the previous ones.
            state: What the caller needs to resume after the last of them, small and serializable as JSON; None if it
                cannot resume there.

        Raises:
            OutputError: A part cannot be written.
            LockLostError: Another process has taken over.
        """
        self._pending.append(sequence)
        self._pending_samples += len(sequence)
        parts_before = len(self._parts)
        while self._pending_samples >= PART_SAMPLES:
            self._write_part(PART_SAMPLES)
        if len(self._parts) > parts_before and not self._pending_samples and state is not None:
            self._states[-1] = dict(state)
            parts = [asdict(part) for part in self._parts]
            self._write(RESUME, canonical_json({"run_info": self._run_info, "parts": parts, "states": self._states}))

    def finish(self, **fields: Any) -> Entry:
        """Write the remaining samples and `entry.json`, and return the entry.

        Args:
            fields: Fields of `Entry`, except `key`, `run_info` and `parts`.

        Raises:
            ValueError: There is no sample; such a recording has no entry, and ends as failed.
            OutputError: The entry cannot be written.
            LockLostError: Another process has taken over.
        """
        if self._pending_samples:
            self._write_part(self._pending_samples)
        if not self._parts:
            raise ValueError("an entry needs at least one sample")
        entry = Entry(key=self._entry.name, run_info=self._run_info, parts=tuple(self._parts), **fields)
        values = asdict(entry)
        del values["key"]
        self._write("entry.json", canonical_json(values))
        replaced = private_folder(self._entry)
        try:
            with suppress(FileNotFoundError):  # an entry finished meanwhile, with equal bytes, or a corrupt one
                self._entry.rename(replaced)
            self._folder.rename(self._entry)
        except OSError as error:
            with suppress(OSError):
                replaced.rename(self._entry)
            self._check_lock()
            raise OutputError(
                f"cannot write {self._entry}: {error.strerror}", "check the disk, then run again"
            ) from error
        self._closed = True
        delete_resume_file(self._entry)
        sync_folder(self._entry.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return entry

    def _read_resume_file(self, folder: Path) -> tuple[list[EntryPart], list[dict[str, Any] | None]]:
        """Read the parts up to the last resume point of a folder, with the state after each; empty if unusable."""
        try:
            content = parse_json((folder / RESUME).read_bytes())
            parts, states = [EntryPart(**part) for part in content["parts"]], content["states"]
            is_usable = content["run_info"] == self._run_info and len(parts) == len(states)
            return (parts, states) if is_usable else ([], [])
        except (OSError, ValueError, TypeError, KeyError):
            return [], []

    def _resume(self, folder: Path) -> None:
        """Continue the folder of an earlier writer, up to the last resume point before its first corrupt part."""
        try:
            folder.rename(self._folder)
            self._folder_exists = True
            parts, states = self._read_resume_file(self._folder)
            valid = 0
            with suppress(CacheError):
                for part in parts:
                    open_part(self._folder, part, verify=True)
                    valid += 1
            count = next((n for n in range(valid, 0, -1) if states[n - 1] is not None), 0)
            if not count:
                return self.restart()
            for path in self._folder.iterdir():
                if path.name not in {RESUME, *(part.name for part in parts[:count])}:
                    path.unlink()
        except FileNotFoundError:  # its writer has just finished or discarded it, or another process has taken over
            return self._reset()
        except OSError as error:
            raise OutputError(f"cannot resume {folder}: {error.strerror}", "check the disk, then run again") from error
        self._parts, self._states = parts[:count], states[:count]
        self.samples, self.state = sum(part.samples for part in self._parts), states[count - 1]

    def _write_part(self, samples: int) -> None:
        """Write the first `samples` pending samples as a part."""
        pending = FrameSequence.concatenate(self._pending)
        sequence, rest = pending.frames(0, samples), pending.frames(samples, len(pending))
        self._pending, self._pending_samples = ([rest] if len(rest) else []), len(rest)
        metadata = {"fps": sequence.fps, "names": sequence.names, "size_px": sequence.size_px}
        metadata |= {"flip_idx": sequence.flip_idx} if sequence.flip_idx else {}
        tensors = {name: np.ascontiguousarray(value) for name, value in stored_tensors(sequence).items()}
        data = save(tensors, metadata={"vidgru": canonical_json(metadata).decode()})
        part = EntryPart(
            name=f"part-{len(self._parts):05d}.safetensors",
            samples=len(sequence),
            objects=len(sequence.boxes),
            still=0 if sequence.still is None else int(sequence.still.sum()),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        self._write(part.name, data)
        self._parts.append(part)
        self._states.append(None)

    def _write(self, name: str, data: bytes) -> None:
        """Write a file to the private folder. The folder is created once; if it is gone later, the write fails."""
        try:
            if not self._folder_exists:
                self._folder.parent.mkdir(parents=True, exist_ok=True)
                self._folder.mkdir()
                self._folder_exists = True
        except OSError as error:
            raise OutputError(
                f"cannot write {self._folder}: {error.strerror}", "free disk space or choose another folder with --out"
            ) from error
        try:
            write_atomic(self._folder / name, data, make_folder=False)
        except OutputError:
            self._check_lock()
            raise

    def _check_lock(self) -> None:
        """Raise LockLostError if the private folder is gone although the cache is still there."""
        if self._folder_exists and self._entry.parent.is_dir() and not self._folder.exists():
            raise LockLostError(
                f"{self._folder} is gone: another process has taken over this recording",
                "let that process finish; its features are then reused",
            ) from None
