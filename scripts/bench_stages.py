"""One measurement of `bench_extract.py` in its own process: a contender's run, or every stage alone.

    python scripts/bench_stages.py '{"kind": "vidgru", ...}'       # prints one line of JSON

Times are seconds of wall or CPU time, as their names say, for all samples together.
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

STAGE_SAMPLES = 64  # per run of the stages after decoding; their inputs and outputs are kept in memory


# --- contenders -------------------------------------------------------------------------------------------------------


def run_ultralytics(
    files: list[str], detect: DetectorSettings, *, embed: bool, batch: int, threads: int
) -> dict[str, Any]:
    """Run Ultralytics `predict` or `embed` over the files, streamed.

    It decodes by itself with `vid_stride`, unless the source's rate is no multiple of `fps`: then it is given frames.

    Args:
        files: The videos.
        detect: What to compute.
        embed: Whether to run `embed` instead of `predict`.
        batch: Frames per batch.
        threads: PyTorch threads; 0 keeps what Ultralytics sets.
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
    detect_frames = model.embed if embed else model.predict
    with _reader(files[0]) as video:
        blank = np.zeros((int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), 3))
    detect_frames([blank.astype(np.uint8)] * batch, **run_info)
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
                samples += sum(1 for _ in detect_frames(str(listed), stream=True, vid_stride=stride, **run_info))
                continue
            for file in group:
                samples += sum(len(detect_frames(frames, **run_info)) for frames in _sampled(file, detect.fps, batch))
    end = time.perf_counter()
    return {
        "samples": samples,
        "wall_s": end - ready,
        "wall_with_loading_s": end - begin,
        "threads": torch.get_num_threads(),
    }


def run_vidgru(files: list[str], detect: DetectorSettings, *, backend: str, precision: str) -> dict[str, Any]:
    """Run extraction over the files into an empty cache.

    `wall_with_loading_s` is the whole call: it loads the network, starts decoder processes, compiles graphs. `wall_s`
    excludes the time of the same call for the first batch alone, and covers the `timed_samples` after it.
    """
    run = RuntimeSettings(backend=backend, precision=precision, device="cpu")
    recordings = find_recordings(files)

    def timed(count: int, limit: int | None) -> tuple[float, float, int]:
        with tempfile.TemporaryDirectory() as cache:
            cpu, begin = sum(os.times()[:4]), time.perf_counter()
            results = extract_recordings(
                recordings[:count], SequenceCache(cache), detect, run, progress=False, limit=limit
            )
            wall = time.perf_counter() - begin
        failures = [f"{item.recording.path}: {item.status} {item.reason}" for item in results if item.status != "done"]
        if failures:
            raise SystemExit("cannot be measured: " + "; ".join(failures))
        return wall, sum(os.times()[:4]) - cpu, sum(result.samples for result in results)

    timed(1, CPU_BATCH)  # imports, and exports the graph that later runs reuse
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
    """Return the source frames per sample; 0 if that is no integer."""
    with _reader(file) as video:
        ratio = video.get(cv2.CAP_PROP_FPS) / fps
    return round(ratio) if ratio >= 1 and abs(ratio - round(ratio)) < 1e-3 * ratio else 0


def _sampled(file: str, fps: float, batch: int) -> Iterator[list[Array]]:
    """Yield the sampled frames in batches, decoded by OpenCV."""
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
class _StageSample:
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
    detections: Detections | None = None


class _ReplayedBackend:
    """A backend that replays an output, to measure the rest of the detector alone."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.spec, self.device = backend.name, backend.spec, backend.device
        self.precision = backend.precision
        self.raw: RawOutput | None = None

    def __call__(self, images: torch.Tensor) -> RawOutput:
        assert self.raw is not None
        return self.raw


class _StageClock:
    """CPU seconds of this process by stage, of all its threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin


def run_stages(files: list[str], detect: DetectorSettings, *, backends: list[list[str]]) -> dict[str, Any]:
    """Measure CPU milliseconds per sample of every stage, one after another, single-threaded.

    Decoding and scaling are measured over all files, the others over their first STAGE_SAMPLES samples.

    Returns:
        `shared`: stages that do not depend on the backend; `backends`: the others, by "backend precision".
    """
    torch.set_num_threads(1)
    weights = Path(detect.weights)
    sha256 = sha256_file(weights)
    runs = [RuntimeSettings(backend=name, precision=precision, device="cpu") for name, precision in backends]
    opened = [open_backend(weights, sha256, run, 1) for run in runs]
    clock, kept, total = _StageClock(), [], 0
    for number, file in enumerate(files):
        total += _decode(number, Path(file), detect, max(opened[0].spec.strides), clock, kept)
    decoded = {name: seconds / total * 1e3 for name, seconds in clock.seconds.items()}
    decoded["scale"] -= decoded["decode"]  # scaling was measured together with decoding
    clock = _StageClock()
    meters: dict[int, FlowMeter] = {}
    for sample in kept:
        meter = meters.setdefault(sample.file, FlowMeter())
        with clock.stage("flow"):
            sample.flow = meter.step(sample.image, sample.time_s)
        with clock.stage("scene motion"):
            sample.scene_motion = scene_motion(sample.flow)
    moved = {name: seconds / len(kept) * 1e3 for name, seconds in clock.seconds.items()}
    ran = {}
    for backend in opened:
        clock = _StageClock()
        _detect(backend, detect, kept, clock)
        _keep(detect, detect.feature_settings(sha256), kept, clock)
        by_stage = {stage: seconds / len(kept) * 1e3 for stage, seconds in clock.seconds.items()}
        ran[f"{backend.name} {backend.precision}"] = by_stage
    return {"samples": total, "shared": decoded | moved, "backends": ran}


def _decode(
    number: int, path: Path, detect: DetectorSettings, stride: int, clock: _StageClock, kept: list[_StageSample]
) -> int:
    """Decode a file without scaling and with it, keep the first samples, and return its number of samples."""
    with clock.stage("decode"), VideoReader(path) as reader:
        size_px = reader.info.size_px
        letterbox = Letterbox.fit(size_px, detect.imgsz, stride)
        for _ in reader.sample(1e-6, letterbox.content_wh):  # only the first frame is sampled and scaled
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
                    _StageSample(
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


def _detect(backend: Backend, detect: DetectorSettings, kept: list[_StageSample], clock: _StageClock) -> None:
    """Measure forward passes of batches as in a run, and the rest of the detector."""
    shapes: dict[tuple[int, int], list[_StageSample]] = {}
    for sample in kept:
        shapes.setdefault(sample.letterbox.input_hw, []).append(sample)
    replayed = _ReplayedBackend(backend)
    detector = Detector(replayed, detect)
    for shape, group in shapes.items():
        batches = []
        for first in range(0, len(group), CPU_BATCH):
            samples = group[first : first + CPU_BATCH]
            images = np.full((CPU_BATCH, *shape, 3), PAD_VALUE, np.uint8)
            for image, sample in zip(images, samples, strict=False):
                image[:] = sample.canvas
            batches.append((images, samples, [sample.letterbox for sample in samples]))
        images, _, letterboxes = batches[0]
        for _ in range(2):  # compiles graphs, chooses kernels
            replayed.raw = backend(torch.from_numpy(images))
        detector.detect(images, letterboxes)
        for images, samples, letterboxes in batches:
            with clock.stage("forward"):
                replayed.raw = backend(torch.from_numpy(images))
            with clock.stage("rest of detect"):
                detections = detector.detect(images, letterboxes)
            for sample, objects in zip(samples, detections, strict=True):
                sample.detections = objects


def _keep(
    detect: DetectorSettings, feature_settings: dict[str, Any], kept: list[_StageSample], clock: _StageClock
) -> None:
    """Measure object motion, tracking, and writing an entry per file."""
    files: dict[int, list[_StageSample]] = {}
    for sample in kept:
        files.setdefault(sample.file, []).append(sample)
    with tempfile.TemporaryDirectory() as folder:
        cache = SequenceCache(folder)
        for file, samples in files.items():
            rows, size_px = [], samples[0].size_px
            tracker = Tracker(detect.tracker, size_px)
            for sample in samples:
                objects = sample.detections
                assert objects is not None
                assert sample.scene_motion is not None
                # A copy, without the values that scene_motion cached in it.
                flow = None if sample.flow is None else replace(sample.flow)
                with clock.stage("object motion"):
                    motion = object_motion(flow, objects.boxes)
                with clock.stage("tracker"):
                    tracks = tracker.update(objects.boxes, objects.scores, objects.classes)
                frame = FrameRef(
                    number=sample.number,
                    time_s=sample.time_s,
                    index=sample.index,
                    size_px=size_px,
                    flow=None,
                    scene_motion=sample.scene_motion,
                )
                rows.append(DetectedFrame(frame=frame, detections=objects, motion=motion, tracks=tracks))
            with clock.stage("write"), cache.writer(f"{file:064x}", {}) as writer:
                writer.append(to_sequence(rows, detect.fps, size_px, ("object",)))
                writer.finish(
                    status="done",
                    duration_s=samples[-1].time_s,
                    fps=detect.fps,
                    size_px=size_px,
                    names=("object",),
                    feature_settings=feature_settings,
                    damage={},
                    recorded_at=None,
                )


def main() -> None:
    """Measure what the JSON argument requests, and print the result."""
    request = json.loads(sys.argv[1])
    detect = DetectorSettings(**request.pop("detect"))
    run = {"ultralytics": run_ultralytics, "vidgru": run_vidgru, "stages": run_stages}[request.pop("kind")]
    print(json.dumps(run(request.pop("files"), detect, **request)), flush=True)


if __name__ == "__main__":
    main()
