"""A decoder process with injected faults, which happen at the fifth sample of recordings named after them.

`crash` and `hang` happen whenever that sample is decoded, `crash_once` and `hang_once` only the first time; `touch`
changes the file, `bug` raises an unexpected error, `slow` waits before each sample, `early` crashes when it is opened.
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

FAULT_SAMPLE = 5


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
            if frame.number == FAULT_SAMPLE and not self._has_happened():
                if name.startswith("crash"):
                    os.kill(os.getpid(), signal.SIGSEGV)
                elif name.startswith("hang"):
                    time.sleep(600)
                elif name.startswith("touch"):
                    os.utime(self.path, ns=(5, 5))
                elif name.startswith("bug"):
                    raise KeyError("a bug")
            yield frame

    def _has_happened(self) -> bool:
        mark = self.path.with_suffix(".mark")
        has_happened = "once" in self.path.stem and mark.exists()
        mark.touch()
        return has_happened


if __name__ == "__main__":
    worker.VideoReader = video.VideoReader = FaultyReader  # type: ignore[misc]
    worker.main()
