"""One bar for a run: how far it is, how fast, and how long it still takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar on stderr, if that is a terminal. Recordings count by the size of their files, which is known beforehand.

    It stays as it stands at the end of a `with` block.

    Args:
        paths: the recordings.
        shown: whether to tell anything at all.
    """

    def __init__(self, paths: Iterable[Path], shown: bool) -> None:
        self._sizes = [_size(path) for path in paths]
        self._done = [0] * len(self._sizes)
        self._shown = shown
        self._ended = self._samples = 0
        self._video_s = 0.0
        self._began: float | None = None
        self._bar = tqdm(
            total=sum(self._sizes),
            bar_format="{percentage:3.0f}%|{bar}| {desc}[{elapsed}<{remaining}]",
            disable=not (shown and sys.stderr.isatty()),
        )
        self._tell()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def sampled(self, number: int, seconds: float, share: float, samples: int = 1) -> None:
        """More samples of recording `number`, `seconds` after those before; `share` of the recording is done."""
        if self._began is None:
            self._began = time.monotonic()
        self._samples += samples
        self._video_s += seconds
        self._advance(number, share)

    def ended(self, number: int, *, reused: bool) -> None:
        """A recording has ended. One that was there already says nothing about how long others take."""
        self._ended += 1
        if reused:
            self._sizes[number] = 0
            self._bar.total = max(sum(self._sizes), 1)
        self._advance(number, 1.0)

    def say(self, line: str) -> None:
        """Write a line on stderr, above the bar."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)

    def _advance(self, number: int, share: float) -> None:
        done = int(share * self._sizes[number])
        self._tell()
        self._bar.update(done - self._done[number])
        self._done[number] = done

    def _tell(self) -> None:
        elapsed = time.monotonic() - self._began if self._began is not None else 0.0
        speed = f", {self._samples / elapsed:.0f} frames/s, {self._video_s / elapsed:.1f}x real time" if elapsed else ""
        self._bar.set_description_str(f"{self._ended}/{len(self._sizes)} recordings{speed} ", refresh=False)


def _size(path: Path) -> int:
    try:
        return max(path.stat().st_size, 1)
    except OSError:
        return 1
