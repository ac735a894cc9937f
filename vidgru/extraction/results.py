"""How each recording of a run ended, for people and for programs, and the progress bar."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from tqdm import tqdm

from vidgru.errors import OutputError
from vidgru.storage import write_atomic
from vidgru.types import Recording, Span, covered_seconds

_LISTED = 3  # recordings listed by name of those with the same status and reason
_MAX_LINES = 20  # of a summary, so that it fits a screen

Status = Literal["done", "reused", "partial", "failed"]


class ExtractionStoppedError(Exception):
    """The run has ended: raised in its threads wherever they wait."""


@dataclass(frozen=True, kw_only=True)
class ExtractionResult:
    """How one recording ended.

    Attributes:
        recording: The recording.
        status: done, reused (from the cache), partial (damaged; what could be decoded is cached) or failed.
        key: Its cache entry; None if it failed.
        samples: Frames in the entry.
        duration_s: Length of the recording in seconds; None if unknown.
        reason: Why it failed or is partial, or what of it was not read; empty otherwise.
        seconds: Wall time it took.
        still: How many of the samples are still, and were not decoded.
        span: The part that the entry covers, in seconds; an end of None is the recording's. None: all of it.
    """

    recording: Recording
    status: Status
    key: str | None
    samples: int
    duration_s: float | None
    reason: str
    seconds: float
    still: int = 0
    span: Span | None = None

    @property
    def covered_s(self) -> float:
        """Seconds of the recording that the entry covers; 0 if its length is unknown."""
        return covered_seconds(self.span, self.duration_s or 0)


def print_result(result: ExtractionResult) -> None:
    """Write a line about a recording to stderr, above the progress bar if there is one."""
    line = f"{result.status:8} {result.recording.name}: "
    if result.status != "failed":
        line += f"{result.samples} samples"
        line += f" ({result.still / result.samples:.1%} still)" if result.still else ""
    if result.status in ("done", "partial") and result.duration_s is not None:
        speed = result.covered_s / max(result.seconds, 1e-3)
        line += f" of {result.covered_s:.1f} s in {result.seconds:.1f} s, {speed:.1f}x real time"
    if result.reason:
        line += f"{'' if result.status == 'failed' else '; '}{result.reason}"
    tqdm.write(line, file=sys.stderr)


def summary_table(results: Sequence[ExtractionResult]) -> str:
    """Format results: one line per recording with a reason, then the counts.

    Of many with the same reason only a few are listed, so that rare reasons stay visible; `summary.jsonl` has them all.
    """
    names_by_reason: dict[tuple[Status, str], list[str]] = {}
    for result in results:
        if result.reason:
            names_by_reason.setdefault((result.status, result.reason), []).append(result.recording.name)
    lines = []
    for (status, reason), names in names_by_reason.items():
        listed = names if len(names) <= _LISTED + 1 else names[:_LISTED]
        lines += [f"{status:8} {name}: {reason}" for name in listed]
        if len(listed) < len(names):
            lines.append(f"{status:8} {len(names) - len(listed)} more: {reason}")
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"... and {len(lines) - _MAX_LINES} more in summary.jsonl"]
    counts = {
        status: sum(result.status == status for result in results) for status in ("done", "reused", "partial", "failed")
    }
    total = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
    seconds = sum(result.covered_s for result in results if result.key)
    samples = sum(result.samples for result in results)
    still = sum(result.still for result in results)
    share = f", {still / samples:.1%} of them still" if still else ""
    return "\n".join([*lines, f"{total}: {seconds / 3600:.2f} hours of video, {samples} samples{share}"])


# --- summary.jsonl ----------------------------------------------------------------------------------------------------


@contextmanager
def summary_writer(path: Path) -> Iterator[dict[int, ExtractionResult]]:
    """Collect the results of a run by number and write them to `path` at the end, even if the run is aborted.

    Nothing is written where all recordings were reused. If none was extracted, failing to write is no error: a cache
    that is only read may be read-only.

    Raises:
        OutputError: The file cannot be written.
    """
    results: dict[int, ExtractionResult] = {}
    try:
        yield results
    except BaseException:
        with suppress(OutputError):  # the user needs to see what ended the run
            _write_summary(path, results)
        raise
    has_new = any(result.status in ("done", "partial") for result in results.values())
    with nullcontext() if has_new else suppress(OutputError):
        _write_summary(path, results)


def _write_summary(path: Path, results: Mapping[int, ExtractionResult]) -> None:
    if all(result.status == "reused" for result in results.values()):
        return
    lines = []
    for _, result in sorted(results.items()):
        row = {
            "recording": result.recording.name,
            "status": result.status,
            "reason": result.reason,
            "key": result.key,
            "samples": result.samples,
            "still": result.still,
            "duration_s": result.duration_s,
            "span": result.span,
            "seconds": round(result.seconds, 3),
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines).encode())


# --- progress ---------------------------------------------------------------------------------------------------------


class ProgressListener(Protocol):
    """Follows the recordings of a run by number. `ProgressBar` shows them; a Ray worker passes them on."""

    def advance(self, number: int, seconds: float, share: float, samples: int = 1) -> None:
        """Count more samples, the last of them `seconds` after the previous ones; `share` of the recording is done."""

    def end(self, number: int, *, reused: bool) -> None:
        """Count a recording that has ended."""

    def log(self, line: str) -> None:
        """Show a line to the user. May be called from any thread."""


class ProgressBar:
    """A progress bar on stderr, if that is a terminal. Recordings are weighted by file size, which is known beforehand.

    The bar is left on the screen at the end of the `with` block.

    Args:
        paths: The recordings.
        shown: Whether to write anything at all.
    """

    def __init__(self, paths: Iterable[Path], shown: bool) -> None:
        self._sizes = [_file_size(path) for path in paths]
        self._done = [0] * len(self._sizes)
        self._shown = shown
        self._ended = self._samples = 0
        self._video_s = 0.0
        self._started: float | None = None
        self._bar = tqdm(
            total=sum(self._sizes),
            bar_format="{percentage:3.0f}%|{bar}| {desc}[{elapsed}<{remaining}]",
            disable=not (shown and sys.stderr.isatty()),
        )
        self._describe()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, number: int, seconds: float, share: float, samples: int = 1) -> None:
        """Count more samples of recording `number`, `seconds` after the previous ones; `share` of it is done."""
        if self._started is None:
            self._started = time.monotonic()
        self._samples += samples
        self._video_s += seconds
        self._update(number, share)

    def end(self, number: int, *, reused: bool) -> None:
        """Count a recording that has ended. Reused ones leave the total: they take no time."""
        self._ended += 1
        if reused:
            self._sizes[number] = 0
            self._bar.total = max(sum(self._sizes), 1)
        self._update(number, 1.0)

    def log(self, line: str) -> None:
        """Write a line to stderr, above the bar."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)

    def _update(self, number: int, share: float) -> None:
        done = int(share * self._sizes[number])
        self._describe()
        self._bar.update(done - self._done[number])
        self._done[number] = done

    def _describe(self) -> None:
        elapsed = time.monotonic() - self._started if self._started is not None else 0.0
        speed = f", {self._samples / elapsed:.0f} frames/s, {self._video_s / elapsed:.1f}x real time" if elapsed else ""
        self._bar.set_description_str(f"{self._ended}/{len(self._sizes)} recordings{speed} ", refresh=False)


def _file_size(path: Path) -> int:
    try:
        return max(path.stat().st_size, 1)
    except OSError:
        return 1
