"""How each recording of a run ended, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from vidgru.errors import OutputError
from vidgru.storage import write_atomic
from vidgru.types import Recording

_NAMED = 3  # recordings that are named one by one of those that ended alike

Status = Literal["done", "reused", "partial", "failed"]


@dataclass(frozen=True, kw_only=True)
class ExtractionResult:
    """How one recording ended.

    Attributes:
        recording: which.
        status: done, reused (was there already), partial (damaged; what could be decoded is there) or failed.
        key: its cache entry; None if it failed.
        samples: frames in the entry.
        duration_s: of the recording; None if unknown.
        reason: why it failed or is partial; empty otherwise.
        seconds: wall time it took.
    """

    recording: Recording
    status: Status
    key: str | None
    samples: int
    duration_s: float | None
    reason: str
    seconds: float


def say_outcome(outcome: ExtractionResult) -> None:
    """A line on stderr about a recording, above the progress bar if there is one."""
    line = f"{outcome.status:8} {outcome.recording.name}: "
    if outcome.status != "failed":
        line += f"{outcome.samples} samples"
    if outcome.status in ("done", "partial") and outcome.duration_s is not None:
        speed = outcome.duration_s / max(outcome.seconds, 1e-3)
        line += f" of {outcome.duration_s:.1f} s in {outcome.seconds:.1f} s, {speed:.1f}x real time"
    if outcome.reason:
        line += f"{'' if outcome.status == 'failed' else '; '}{outcome.reason}"
    tqdm.write(line, file=sys.stderr)


def summary_table(outcomes: Sequence[ExtractionResult]) -> str:
    """The outcomes as text: a line for each that is not whole, with the reason, then the counts.

    Of many that have the same reason a few are named, so that what differs can be seen; `summary.jsonl` has them all.
    """
    alike: dict[tuple[Status, str], list[str]] = {}
    for one in outcomes:
        if one.reason:
            alike.setdefault((one.status, one.reason), []).append(one.recording.name)
    lines = []
    for (status, reason), names in alike.items():
        named = names if len(names) <= _NAMED + 1 else names[:_NAMED]
        lines += [f"{status:8} {name}: {reason}" for name in named]
        if len(named) < len(names):
            lines.append(f"{status:8} {len(names) - len(named)} more: {reason}")
    counts = {
        status: sum(one.status == status for one in outcomes) for status in ("done", "reused", "partial", "failed")
    }
    total = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
    seconds = sum(one.duration_s or 0 for one in outcomes if one.key)
    samples = sum(one.samples for one in outcomes)
    return "\n".join([*lines, f"{total}: {seconds / 3600:.2f} hours of video, {samples} samples"])


@contextmanager
def summarised(path: Path) -> Iterator[dict[int, ExtractionResult]]:
    """Note a run's outcomes by number; they are written to its `summary.jsonl` at the end, also where it breaks off.

    Not where all were there already; and where nothing was made it is no error that it cannot be written, for then
    the cache may be read-only.

    Raises:
        OutputError: it cannot be written.
    """
    outcomes: dict[int, ExtractionResult] = {}
    try:
        yield outcomes
    except BaseException:
        with suppress(OutputError):  # what ended the run is what is to be told
            _write_summary(path, outcomes)
        raise
    made = any(outcome.status in ("done", "partial") for outcome in outcomes.values())
    with nullcontext() if made else suppress(OutputError):
        _write_summary(path, outcomes)


def in_order(outcomes: Mapping[int, ExtractionResult]) -> list[ExtractionResult]:
    """Outcomes by their numbers."""
    return [outcomes[number] for number in sorted(outcomes)]


def _write_summary(path: Path, outcomes: Mapping[int, ExtractionResult]) -> None:
    if all(outcome.status == "reused" for outcome in outcomes.values()):
        return
    rows = [
        {
            "recording": one.recording.name,
            "status": one.status,
            "reason": one.reason,
            "key": one.key,
            "samples": one.samples,
            "duration_s": one.duration_s,
            "seconds": round(one.seconds, 3),
        }
        for one in in_order(outcomes)
    ]
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
