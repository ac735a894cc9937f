"""A process that decodes: `python -m vidgru.extraction.decode_worker`, one recording (or a stretch of one) at a time.

FFmpeg runs here and not beside the detector, because a decoder that crashes takes its process with it, one that hangs
can only be ended with its process, and because Python's lock is then not shared. Requests come as JSON lines on the
standard input; what is decoded goes to the standard output as messages: two lengths (uint32), JSON of the first
length, bytes of the second. `decoder.py` is the other end.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidgru.detector.motion import scene_motion
from vidgru.detector.preprocess import FramePreprocessor
from vidgru.errors import RecordingError
from vidgru.types import Array
from vidgru.video.keyframe_split import find_split_points
from vidgru.video.reader import ResumePoint, ResumePointNotFoundError, VideoReader, probe

HEADER = struct.Struct("<II")
BEAT_S = 5.0  # a sign of life at least so often while nothing is sampled


def main() -> None:
    """Serve requests until the standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get among the messages
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    worker = Worker(out)
    worker.send({"kind": "ready"})
    while True:
        worker.serve(requests.get())


def _listen(requests: queue.Queue[dict[str, Any]]) -> None:
    """Take requests; leave with the parent, however it ended, also amidst a recording."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


class Worker:
    """Answers requests.

    Args:
        out: where messages go.
    """

    def __init__(self, out: Any) -> None:
        self._out = out
        self._spoke = 0.0

    def send(self, facts: dict[str, Any], *arrays: Array) -> None:
        """Send a message. A parent that is gone ends this process."""
        text = json.dumps(facts).encode()
        try:
            self._out.write(HEADER.pack(len(text), sum(array.nbytes for array in arrays)) + text)
            for array in arrays:
                self._out.write(np.ascontiguousarray(array).data.cast("B"))
            self._out.flush()
        except BrokenPipeError:
            os._exit(0)
        self._spoke = time.monotonic()

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request; what is wrong with the recording, or with this program, is an answer too."""
        try:
            if "probe" in request:
                self.send({"kind": "end", "info": asdict(probe(Path(request["probe"])))})
            else:
                self._decode(**request)
        except RecordingError as error:
            self.send({"kind": "failed", "reason": error.message})
        except ResumePointNotFoundError:
            self.send({"kind": "lost"})
        except (OSError, MemoryError, av.error.FFmpegError) as error:
            self.send({"kind": "failed", "reason": f"cannot be read on: {getattr(error, 'strerror', None) or error}"})
        except Exception as error:  # a fault of this program's costs the recording, not the run; and is not hidden
            traceback.print_exc()
            self.send({"kind": "failed", "reason": f"stumbles over a fault in vidgru, please report it: {error!r}"})

    def _decode(
        self,
        *,
        path: str,
        fps: float,
        imgsz: int,
        stride: int,
        mask: list[list[list[float]]],
        identity: list[int],
        after: dict[str, Any] | None,
        until: int | None,
        mark_every: int,
        cut_every: int,
    ) -> None:
        """Decode a recording.

        Args:
            path: the file.
            fps, imgsz, stride, mask: what is sampled, and the form the network wants it in.
            identity: size and modification time that the file must have.
            after, until, mark_every: see `VideoReader.sample`.
            cut_every: samples after which the recording may be cut for several decoders; 0 is not asking.
        """
        with VideoReader(Path(path), self._beat) as reader:
            if list(reader.identity) != identity:
                raise RecordingError("changed while it was read; run again when it is complete")
            prepare = FramePreprocessor(reader.info.size_px, imgsz, stride, mask)
            self.send({"kind": "opened", "info": asdict(reader.info), "letterbox": asdict(prepare.letterbox)})
            if cut_every:
                begun = after["samples"] if after else 0
                found = find_split_points(Path(path), fps, cut_every, self._beat)
                places = [place for place in found if place.samples > begun]
                self.send({"kind": "cuts", "places": [asdict(place) for place in places]})
                until = places[0].samples if places else None
            known = None if after is None else ResumePoint(**after)
            size_px = prepare.letterbox.content_wh
            for frame in reader.sample(
                fps, size_px, resume_from=known, stop_after=until, resume_point_every=mark_every
            ):
                canvas, flow = prepare(frame.image, frame.time_s)
                if known is not None and frame.number < known.samples:
                    continue
                facts = {
                    "kind": "sample",
                    "number": frame.number,
                    "time_s": frame.time_s,
                    "index": frame.index,
                    "place": None if frame.resume_point is None else asdict(frame.resume_point),
                    "flow": None if flow is None else [*flow.grey_change.shape],
                    "camera": None if flow is None else [*flow.camera],
                }
                moved = () if flow is None else (flow.rate, flow.grey_change)
                self.send(facts, canvas, scene_motion(flow), *moved)
            self.send({"kind": "end", "damage": reader.damage.facts(), "end_s": reader.end_s})

    def _beat(self) -> None:
        if time.monotonic() - self._spoke > BEAT_S:
            self.send({"kind": "beat"})


if __name__ == "__main__":
    main()
