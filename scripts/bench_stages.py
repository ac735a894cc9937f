"""One measurement of `bench_extract.py`, in a process of its own: a contender's run, or every stage alone.

    python scripts/bench_stages.py '{"kind": "vidgru", ...}'       # prints one line of JSON

Times are seconds of the wall clock or of the CPU, as their names say, for all samples together.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Before ultralytics is imported: it would look for updates and install packages while it runs.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")

import cv2
import numpy as np
import torch

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.backends import Backend, open_backend
from vidgru.detector.motion import Flow, FlowMeter, object_motion, scene_motion
from vidgru.detector.preprocess import PAD_VALUE, Letterbox
from vidgru.detector.tracker import Tracker
from vidgru.detector.yolo import Detections, Detector
from vidgru.detector.yolo_head import RawOutput
from vidgru.extraction.detector_pool import CPU_BATCH, DetectedFrame, FrameRef, to_sequence
from vidgru.extraction.pipeline import extract_recordings
from vidgru.sources import find_recordings
from vidgru.storage import sha256_file
from vidgru.types import Array
from vidgru.video.reader import VideoReader

STAGE_SAMPLES = 64  # for the stages after decoding; their inputs and outputs are kept in memory


# --- contenders -------------------------------------------------------------------------------------------------------


def run_ultralytics(
    files: list[str], detect: DetectorSettings, *, embed: bool, batch: int, threads: int
) -> dict[str, Any]:
    """Ultralytics `predict`, or `embed`, over the files, streamed.

    It decodes by itself, with `vid_stride`; only where the source's rate is no multiple of `fps` is it fed frames.

    Args:
        threads: of PyTorch; 0 leaves what Ultralytics sets.
    """
    from ultralytics import YOLO

    begin = time.perf_counter()
    model = YOLO(detect.weights)
    run_info = {
        "imgsz": detect.imgsz,
        "conf": detect.conf,
        "iou": detect.iou,
        "max_det": detect.max_objects,
        "batch": batch,
        "device": "cpu",
        "verbose": False,
    }
    see = model.embed if embed else model.predict
    with _reader(files[0]) as video:
        blank = np.zeros((int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), 3))
    see([blank.astype(np.uint8)] * batch, **run_info)
    if threads:
        torch.set_num_threads(threads)
    ready = time.perf_counter()
    strides: dict[int, list[str]] = {}
    for file in files:
        strides.setdefault(_stride(file, detect.fps), []).append(file)
    samples = 0
    with tempfile.TemporaryDirectory() as folder:
        for stride, group in strides.items():
            if stride:
                listed = Path(folder, "files.txt")
                listed.write_text("".join(f"{file}\n" for file in group))
                samples += sum(1 for _ in see(str(listed), stream=True, vid_stride=stride, **run_info))
                continue
            for file in group:
                samples += sum(len(see(frames, **run_info)) for frames in _sampled(file, detect.fps, batch))
    end = time.perf_counter()
    return {
        "samples": samples,
        "wall_s": end - ready,
        "wall_with_loading_s": end - begin,
        "threads": torch.get_num_threads(),
    }


def run_vidgru(files: list[str], detect: DetectorSettings, *, backend: str, precision: str) -> dict[str, Any]:
    """`extract` over the files into an empty cache.

    `wall_with_loading_s` is the call as users make it: it loads the network, starts decoder processes, compiles graphs.
    `wall_s` is that less the time of the same call for the first batch alone, and stands for the `samples` after it.
    """
    run = RuntimeSettings(backend=backend, precision=precision, device="cpu")
    recordings = find_recordings(files)

    def timed(count: int, limit: int | None) -> tuple[float, float, int]:
        with tempfile.TemporaryDirectory() as cache:
            cpu, begin = sum(os.times()[:4]), time.perf_counter()
            outcomes = extract_recordings(
                recordings[:count], SequenceCache(cache), detect, run, progress=False, limit=limit
            )
            wall = time.perf_counter() - begin
        bad = [f"{one.recording.path}: {one.status} {one.reason}" for one in outcomes if one.status != "done"]
        if bad:
            raise SystemExit("not to be measured: " + "; ".join(bad))
        return wall, sum(os.times()[:4]) - cpu, sum(one.samples for one in outcomes)

    timed(1, CPU_BATCH)  # imports, and a graph that is kept for later runs
    start_wall, start_cpu, start = timed(1, CPU_BATCH)
    wall, cpu, samples = timed(len(recordings), None)
    return {
        "samples": samples,
        "timed_samples": samples - start,
        "wall_s": wall - start_wall,
        "wall_with_loading_s": wall,
        "cpu_s": cpu - start_cpu,
    }


@contextmanager
def _reader(file: str) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(file)
    try:
        yield video
    finally:
        video.release()


def _stride(file: str, fps: float) -> int:
    """Source frames a sample; 0 where that is no whole number."""
    with _reader(file) as video:
        ratio = video.get(cv2.CAP_PROP_FPS) / fps
    return round(ratio) if ratio >= 1 and abs(ratio - round(ratio)) < 1e-3 * ratio else 0


def _sampled(file: str, fps: float, batch: int) -> Iterator[list[Array]]:
    """Batches of the frames that are samples, decoded by OpenCV."""
    frames: list[Array] = []
    with _reader(file) as video:
        rate, index, next_point = video.get(cv2.CAP_PROP_FPS), 0, 0
        while video.grab():
            point = (index + 0.01) * fps / rate  # half a tick early counts as on time, as in vidgru
            index += 1
            if point < next_point:
                continue
            next_point = int(point) + 1
            frames.append(video.retrieve()[1])
            if len(frames) == batch:
                yield frames
                frames = []
    if frames:
        yield frames


# --- stages -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Seen:
    """A sample on its way through the stages."""

    file: int
    number: int
    time_s: float
    index: int
    size_px: tuple[int, int]
    image: Array
    canvas: Array
    letterbox: Letterbox
    flow: Flow | None = None
    scene_motion: Array | None = None
    seen: Detections | None = None


class _Replayed:
    """A backend that has run already, so that the detector's own work stands alone."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.spec, self.device = backend.name, backend.spec, backend.device
        self.precision = backend.precision
        self.raw: RawOutput | None = None

    def __call__(self, images: torch.Tensor) -> RawOutput:
        assert self.raw is not None
        return self.raw


class _Clock:
    """CPU seconds of this process by stage, all its threads together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin


def run_stages(files: list[str], detect: DetectorSettings, *, backends: list[list[str]]) -> dict[str, Any]:
    """CPU milliseconds a sample of every stage, one after the other, single-threaded.

    Decoding and scaling are measured over all of the files, the others over their first STAGE_SAMPLES samples.

    Returns:
        `shared`: stages that do not depend on the backend; `backends`: the others, by "backend precision".
    """
    torch.set_num_threads(1)
    weights = Path(detect.weights)
    sha256 = sha256_file(weights)
    runs = [RuntimeSettings(backend=name, precision=precision, device="cpu") for name, precision in backends]
    opened = [open_backend(weights, sha256, run, 1) for run in runs]
    clock, kept, total = _Clock(), [], 0
    for number, file in enumerate(files):
        total += _decode(number, Path(file), detect, max(opened[0].spec.strides), clock, kept)
    decoded = {name: seconds / total * 1e3 for name, seconds in clock.seconds.items()}
    decoded["scale"] -= decoded["decode"]  # it was decoded once more to be scaled
    clock = _Clock()
    meters: dict[int, FlowMeter] = {}
    for one in kept:
        meter = meters.setdefault(one.file, FlowMeter())
        with clock.stage("flow"):
            one.flow = meter.step(one.image, one.time_s)
        with clock.stage("scene motion"):
            one.scene_motion = scene_motion(one.flow)
    moved = {name: seconds / len(kept) * 1e3 for name, seconds in clock.seconds.items()}
    ran = {}
    for backend in opened:
        clock = _Clock()
        _see(backend, detect, kept, clock)
        _keep(detect, detect.feature_settings(sha256), kept, clock)
        by_stage = {stage: seconds / len(kept) * 1e3 for stage, seconds in clock.seconds.items()}
        ran[f"{backend.name} {backend.precision}"] = by_stage
    return {"samples": total, "shared": decoded | moved, "backends": ran}


def _decode(number: int, path: Path, detect: DetectorSettings, stride: int, clock: _Clock, kept: list[_Seen]) -> int:
    """Decode a file, without scaling and with it; the first samples are kept. Returns how many samples it has."""
    with clock.stage("decode"), VideoReader(path) as reader:
        size_px = reader.info.size_px
        letterbox = Letterbox.fit(size_px, detect.imgsz, stride)
        for _ in reader.sample(1e-6, letterbox.content_wh):  # the first frame alone is a sample, and is scaled
            pass
    samples, canvas = 0, np.empty((*letterbox.input_hw, 3), np.uint8)
    with VideoReader(path) as reader:
        frames = reader.sample(detect.fps, letterbox.content_wh)
        while True:
            with clock.stage("scale"):
                frame = next(frames, None)
                if frame is None:
                    return samples
                letterbox.place(frame.image, canvas)
            samples += 1
            if len(kept) < STAGE_SAMPLES:
                kept.append(
                    _Seen(
                        file=number,
                        number=frame.number,
                        time_s=frame.time_s,
                        index=frame.index,
                        size_px=size_px,
                        image=frame.image,
                        canvas=canvas.copy(),
                        letterbox=letterbox,
                    )
                )


def _see(backend: Backend, detect: DetectorSettings, kept: list[_Seen], clock: _Clock) -> None:
    """Forward passes of batches as in a run, and what the detector makes of their outputs."""
    shapes: dict[tuple[int, int], list[_Seen]] = {}
    for one in kept:
        shapes.setdefault(one.letterbox.input_hw, []).append(one)
    replayed = _Replayed(backend)
    detector = Detector(replayed, detect)
    for shape, group in shapes.items():
        batches = []
        for first in range(0, len(group), CPU_BATCH):
            images = np.full((CPU_BATCH, *shape, 3), PAD_VALUE, np.uint8)
            for image, one in zip(images, group[first : first + CPU_BATCH], strict=False):
                image[:] = one.canvas
            batches.append((images, group[first : first + CPU_BATCH]))
        for _ in range(2):  # graphs are compiled, kernels chosen
            replayed.raw = backend(torch.from_numpy(batches[0][0]))
        detector.detect(batches[0][0], [one.letterbox for one in batches[0][1]])
        for images, ones in batches:
            with clock.stage("forward"):
                replayed.raw = backend(torch.from_numpy(images))
            with clock.stage("rest of detect"):
                detections = detector.detect(images, [one.letterbox for one in ones])
            for one, seen in zip(ones, detections, strict=True):
                one.seen = seen


def _keep(detect: DetectorSettings, feature_settings: dict[str, Any], kept: list[_Seen], clock: _Clock) -> None:
    """Motion of objects, tracks, and an entry for each file."""
    files: dict[int, list[_Seen]] = {}
    for one in kept:
        files.setdefault(one.file, []).append(one)
    with tempfile.TemporaryDirectory() as folder:
        cache = SequenceCache(folder)
        for file, ones in files.items():
            rows, tracker = [], Tracker(detect.tracker, ones[0].size_px)
            for one in ones:
                assert one.seen is not None
                assert one.scene_motion is not None
                flow = None if one.flow is None else replace(one.flow)  # without what scene motion derived from it
                with clock.stage("object motion"):
                    motion = object_motion(flow, one.seen.boxes)
                with clock.stage("tracker"):
                    tracks = tracker.update(one.seen.boxes, one.seen.scores, one.seen.classes)
                sample = FrameRef(
                    number=one.number,
                    time_s=one.time_s,
                    index=one.index,
                    size_px=one.size_px,
                    flow=None,
                    scene_motion=one.scene_motion,
                )
                rows.append(DetectedFrame(frame=sample, detections=one.seen, motion=motion, tracks=tracks))
            with clock.stage("write"), cache.writer(f"{file:064x}", {}) as writer:
                writer.append(to_sequence(rows, detect.fps, ones[0].size_px, ("object",)))
                writer.finish(
                    status="done",
                    duration_s=ones[-1].time_s,
                    fps=detect.fps,
                    size_px=ones[0].size_px,
                    names=("object",),
                    feature_settings=feature_settings,
                    damage={},
                    recorded_at=None,
                )


def main() -> None:
    """Measure what the only argument asks for, and print it."""
    request = json.loads(sys.argv[1])
    detect = DetectorSettings(**request.pop("detect"))
    run = {"ultralytics": run_ultralytics, "vidgru": run_vidgru, "stages": run_stages}[request.pop("kind")]
    print(json.dumps(run(request.pop("files"), detect, **request)), flush=True)


if __name__ == "__main__":
    main()
