"""A decoder process with faults planted in it: what a recording's name says befalls it at its fifth sample.

`crash` and `hang` happen whenever that sample comes, `crash_once` and `hang_once` the first time only; `touch` changes
the file, `bug` is a mistake in this program, `slow` waits a little before each sample, `early` crashes at the opening.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidgru.extraction import decode_worker as worker
from vidgru.video import reader as video
from vidgru.video.reader import SampledFrame, VideoReader

AT = 5


class FaultyReader(VideoReader):
    def __init__(self, path: Path, *arguments: Any) -> None:
        if path.stem.startswith("early"):
            os.kill(os.getpid(), signal.SIGSEGV)
        super().__init__(path, *arguments)

    def sample(self, *arguments: Any, **options: Any) -> Iterator[SampledFrame]:
        name = self.path.stem
        for frame in super().sample(*arguments, **options):
            if name.startswith("slow"):
                time.sleep(0.05)
            if frame.number == AT and not self._was_here():
                if name.startswith("crash"):
                    os.kill(os.getpid(), signal.SIGSEGV)
                elif name.startswith("hang"):
                    time.sleep(600)
                elif name.startswith("touch"):
                    os.utime(self.path, ns=(5, 5))
                elif name.startswith("bug"):
                    raise KeyError("a bug")
            yield frame

    def _was_here(self) -> bool:
        mark = self.path.with_suffix(".mark")
        before = "once" in self.path.stem and mark.exists()
        mark.touch()
        return before


if __name__ == "__main__":
    worker.VideoReader = video.VideoReader = FaultyReader  # type: ignore[misc]
    worker.main()
