"""The decoder process: `python -m vidgru.extraction.decode_worker` decodes one segment of a recording at a time.

FFmpeg runs here and not beside the detector, because a decoder that crashes takes its process with it, one that hangs
can only be ended with its process, and because Python's global lock is then not shared. Requests arrive as JSON lines
on standard input. Replies leave on standard output as messages: two lengths (uint32), JSON of the first length, bytes
of the second. `decode_process.py` is the other end.
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
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidgru.detector.motion import scene_motion
from vidgru.detector.preprocess import FramePreprocessor, PictureComparer, rasterize_polygons
from vidgru.errors import RecordingError
from vidgru.types import Array, Span
from vidgru.video.keyframe_split import find_split_points
from vidgru.video.packets import AmbiguousPacketsError, read_packets
from vidgru.video.reader import ResumePoint, ResumePointNotFoundError, VideoReader, probe
from vidgru.video.stillness import NotPlannableError, StillPlan, plan_span, plan_still, share_still

HEADER = struct.Struct("<II")
ALIVE_S = 5.0  # a sign of life is sent at least this often while nothing is sampled


def main() -> None:
    """Serve requests until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the messages
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    worker = DecodeWorker(out)
    worker.send({"kind": "ready"})
    while True:
        worker.serve(requests.get())


def _listen(requests: queue.Queue[dict[str, Any]]) -> None:
    """Receive requests. Exit with the parent however it ended, also in the middle of a recording."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


class DecodeWorker:
    """Answers requests.

    Args:
        out: Binary stream that messages are written to.
    """

    def __init__(self, out: Any) -> None:
        self._out = out
        self._last_sent = 0.0
        self._reader: VideoReader | None = None  # kept open: opening a recording of a day takes a second

    def send(self, message: dict[str, Any], *arrays: Array) -> None:
        """Send a message. If the parent is gone, exit."""
        text = json.dumps(message).encode()
        try:
            self._out.write(HEADER.pack(len(text), sum(array.nbytes for array in arrays)) + text)
            for array in arrays:
                self._out.write(np.ascontiguousarray(array).data.cast("B"))
            self._out.flush()
        except BrokenPipeError:
            os._exit(0)
        self._last_sent = time.monotonic()

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request. Errors of the recording, and bugs, are answers too."""
        try:
            match request.pop("kind"):
                case "probe":
                    self.send({"kind": "end", "info": asdict(probe(Path(request["path"])))})
                case "share_still":
                    self._share_still(Path(request["path"]), request["fps"])
                case "plan":
                    self._plan(**request)
                case "decode":
                    self._decode(**request)
        except RecordingError as error:
            self.send({"kind": "failed", "reason": error.message})
        except ResumePointNotFoundError:
            self.send({"kind": "lost"})
        except (OSError, MemoryError, av.error.FFmpegError) as error:
            self.send(
                {"kind": "failed", "reason": f"cannot be read further: {getattr(error, 'strerror', None) or error}"}
            )
        except Exception as error:  # a bug costs the recording, not the run, and is not hidden
            traceback.print_exc()
            self.send({"kind": "failed", "reason": f"hit a bug in vidgru, please report it: {error!r}"})

    def _decode(
        self,
        *,
        path: str,
        fps: float,
        imgsz: int,
        mask: list[list[list[float]]],
        identity: list[int],
        resume_from: dict[str, Any] | None,
        stop_after: int | None,
        resume_point_every: int,
        split_every: int,
        first: int,
        is_planned: bool,
        sample_pts: list[int] | None,
    ) -> None:
        """Decode a segment.

        Args:
            path: The file.
            fps: Samples per second.
            imgsz: Longer side that frames are scaled to, in pixels.
            mask: Polygons to grey out.
            identity: Size and modification time the file must have.
            resume_from, stop_after, resume_point_every: See `VideoReader.sample`.
            split_every: Least samples per segment if the recording can be split among decoders; 0 does not split.
            first: Number of the first sample to send: samples before it are decoded only to measure motion from them.
            is_planned: Whether the segment is part of a plan. The recording then stays open for the next one.
            sample_pts: PTS of its samples and of the one to resume from, of an adaptive extraction: frames that no
                sample needs are not decoded, and samples that look like the last one are sent without their image,
                except the first and the last of the segment. None does neither.
        """
        with ExitStack() as stack:
            reader = stack.enter_context(self._open(path, identity, may_reuse=is_planned and resume_from is not None))
            # Frames are not padded here: how much the network needs is known once the detector is loaded.
            preprocess = FramePreprocessor(reader.info.size_px, imgsz, mask)
            width, height = preprocess.scaled_wh
            self.send({"kind": "opened", "info": asdict(reader.info), "image_hw": [height, width]})
            comparer = PictureComparer()
            start = None if resume_from is None else ResumePoint(**resume_from)
            if split_every:
                points = find_split_points(Path(path), fps, split_every, self._send_alive)
                points = [point for point in points if start is None or point.samples > start.samples]
                self.send({"kind": "split", "points": [asdict(point) for point in points]})
                stop_after = points[0].samples if points else None
            for frame in reader.sample(
                fps,
                (width, height),
                resume_from=start,
                stop_after=stop_after,
                resume_point_every=resume_point_every,
                needed=sample_pts,
            ):
                image, flow = preprocess(frame.image, frame.time_s)
                if frame.number < first:
                    continue
                message = {
                    "kind": "sample",
                    "number": frame.number,
                    "time_s": frame.time_s,
                    "index": frame.index,
                    "resume_point": None if frame.resume_point is None else asdict(frame.resume_point),
                    "flow": None if flow is None else [*flow.grey_change.shape],
                    "camera": None if flow is None else [*flow.camera],
                }
                arrays = (scene_motion(flow), *(() if flow is None else (flow.rate, flow.grey_change)))
                if (
                    sample_pts is not None
                    and comparer.is_unchanged(image, frame.time_s)
                    and frame.number + 1 != stop_after
                ):
                    self.send(message | {"kind": "unchanged"}, *arrays)
                else:
                    self.send(message, image, *arrays)
            if is_planned:
                reader.check_unchanged()  # a segment that ends early, as the last one of a span, does not check it
                stack.pop_all()
                self._reader = reader
            self.send({"kind": "end", "damage": reader.damage.facts(), "end_s": reader.end_s})

    def _plan(
        self,
        *,
        path: str,
        fps: float,
        mask: list[list[list[float]]],
        identity: list[int],
        span: list[int | None] | None,
        adaptive: bool,
        threads: int,
    ) -> None:
        """Plan which samples are decoded: those that are not still, those in a span, or both.

        Args:
            path, fps, mask, identity: See `_decode`.
            span: Part of the recording to read; None is all of it.
            adaptive: Whether still stretches are left out; see `plan_still`.
            threads: Threads to use.
        """
        part: Span | None = None if span is None else (int(span[0] or 0), span[1])
        note = ""
        with self._open(path, identity) as reader:
            self.send({"kind": "opened", "info": asdict(reader.info), "image_hw": [0, 0]})
        try:
            if part is not None and reader.info.container == "avi":
                raise NotPlannableError("AVI files do not store the times of frames")
            packets = read_packets(Path(path), self._send_alive)
            plan: StillPlan | None = None
            if adaptive:
                try:
                    plan = plan_still(
                        packets,
                        Path(path),
                        reader.info,
                        fps,
                        partial(rasterize_polygons, mask),
                        span=part,
                        threads=threads,
                        on_progress=self._send_alive,
                    )
                except NotPlannableError as error:
                    if part is None:
                        raise
                    note = f"the span is decoded completely: {error}"
            if plan is None:
                assert part is not None
                plan = plan_span(packets, fps, part)
        except (AmbiguousPacketsError, NotPlannableError) as error:
            self.send({"kind": "plan", "reason": str(error)})
        else:
            facts = {"samples": len(plan.still), "keys": len(plan.key_pts), "blind": plan.blind}
            facts |= {"starts_late": plan.starts_late, "ends_early": plan.ends_early}
            arrays = (plan.time_s, plan.pts, plan.frame_index, plan.key_pts, plan.key_index, plan.still)
            self.send({"kind": "plan", "reason": "", "note": note, **facts}, *arrays)
        self.send({"kind": "end"})

    def _share_still(self, path: Path, fps: float) -> None:
        """Find the share of a recording's samples that are still as far as packets show."""
        info, share = probe(path), None
        end_s = info.duration_s or 0.0
        with suppress(AmbiguousPacketsError, NotPlannableError):
            packets = read_packets(path, self._send_alive)
            end_s = packets.end_s
            share = share_still(packets, info, fps)
        self.send({"kind": "end", "share": share, "end_s": end_s})

    def _open(self, path: str, identity: list[int], *, may_reuse: bool = False) -> VideoReader:
        """Open a recording, or reuse the last one, and check its size and modification time."""
        reader, self._reader = self._reader, None
        if reader is not None and may_reuse and reader.path == Path(path):
            reader.check_unchanged()
            return reader
        if reader is not None:
            reader.close()
        reader = VideoReader(Path(path), self._send_alive)
        if list(reader.identity) != identity:
            reader.close()
            raise RecordingError("changed while it was read; run again when it is complete")
        return reader

    def _send_alive(self) -> None:
        if time.monotonic() - self._last_sent > ALIVE_S:
            self.send({"kind": "alive"})


if __name__ == "__main__":
    main()
