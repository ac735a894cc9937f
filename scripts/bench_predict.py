"""Measure the speed of prediction: on cached features, live, and from a video file to its events.

    python scripts/bench_predict.py                                              # synthetic recordings, about 4 minutes
    python scripts/bench_predict.py --video street.mp4 --weights yolo26n.pt      # the detector too

Everything runs on the CPU. Prints a table, and writes it to OUT/bench_predict.json:

- head: frames per second of CPU time of one core, from cache entries to events, with the share of each stage. Once with
  recordings scored together, as `vidgru predict` does, once one after the other;
- live: milliseconds of wall time per frame, one frame at a time, from features to events; with a video also from the
  decoded image, through the detector;
- memory: resident memory at a tenth, half and the end of a long stream, fed in chunks of one and of 16 frames;
- end to end, with a video: speed of `predict` over real time, loading included, with an empty and with a full cache.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

# Set before importing ultralytics, which would check for updates and install packages.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")

import numpy as np
import psutil
import torch
from bench_train import FEATURE_SPEC, FPS, LABELS
from bench_videos import join

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, NetworkSettings, PredictConfig, RuntimeSettings
from vidgru.detector.backends import open_backend
from vidgru.detector.motion import FlowMeter, object_motion, scene_motion
from vidgru.detector.preprocess import PAD_VALUE, Letterbox
from vidgru.detector.tracker import Tracker
from vidgru.detector.yolo import Detector
from vidgru.extraction.detector_pool import DetectedFrame, FrameRef, count_cores, to_sequence
from vidgru.extraction.pipeline import extract_recordings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network
from vidgru.model.event_decoder import DecodeSettings, decode_events
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features, stream_features
from vidgru.model.scoring import encode_features, encode_recording, score_frames
from vidgru.model.stream import EventStream, score_recording
from vidgru.prediction.batch import predict
from vidgru.sources import find_recordings
from vidgru.storage import sha256_file, write_json
from vidgru.types import FrameSequence
from vidgru.video.reader import VideoReader

TARGETS = {3: 50_000, 20: 20_000}  # frames per second, by objects per frame
LOOKAHEAD = 4  # steps
TRACK_FRAMES = 100  # lifetime of an object
WARM_UP_FRAMES = 50  # excluded from latencies
CHUNKS = (1, 16)  # frames per push to the long stream
MEMORY_AT = (0.1, 0.5, 1.0)  # shares of the long stream at which memory is read


# --- synthetic data ---------------------------------------------------------------------------------------------------


def make_sequence(frames: int, objects: int, seed: int = 0) -> FrameSequence:
    """Return a recording with `objects` per frame on average, each visible for a while, as from yolo26n.pt."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(objects, frames)
    total = int(counts.sum())
    offsets = np.concatenate([[0], np.cumsum(counts)])
    frame = np.repeat(np.arange(frames), counts)
    slot = np.arange(total) - offsets[frame]
    tracks = slot + (counts.max() + 1) * (frame // TRACK_FRAMES)
    centre = 0.5 + 0.4 * np.sin(np.column_stack([slot + frame / 40, slot * 2 + frame / 60]))
    half = 0.02 + 0.02 * (slot % 4)[:, None] * [0.5, 1.0]

    def random_half(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32).astype(np.float16)

    return FrameSequence(
        time_s=np.arange(frames) / FPS,
        frame_index=np.arange(frames, dtype=np.int64) * 3,
        offsets=offsets.astype(np.int64),
        boxes=np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, 1).astype(np.float32),
        scores=rng.uniform(0.1, 1.0, total).astype(np.float16),
        classes=(slot % FEATURE_SPEC.classes).astype(np.int16),
        tracks=tracks.astype(np.int32),
        motion=random_half(total, FEATURE_SPEC.motion),
        appearance=random_half(total, FEATURE_SPEC.appearance),
        colour=random_half(total, FEATURE_SPEC.colour),
        scene=random_half(frames, FEATURE_SPEC.scene),
        scene_motion=random_half(frames, FEATURE_SPEC.scene_motion),
        fps=FPS,
        size_px=(1920, 1080),
        names=tuple(f"class {number}" for number in range(FEATURE_SPEC.classes)),
    )


def make_model(sequence: FrameSequence, detect: DetectorSettings, sha256: str) -> EventModel:
    """Return a model with random weights that predicts some timed events in a sequence like this one."""
    torch.manual_seed(0)
    task = EventTask(labels=LABELS, frame_head=HeadSpec(background=True, multi_label=False))
    network = build_network(FeatureSpec.from_sequence(sequence), task, NetworkSettings()).eval()
    network.encoder.fit_normalization([compute_features(sequence)])
    settings = DecodeSettings(high=(), low=(), min_s=1.0, merge_s=0.5, exclusive=True, smooth_s=0.5)
    model = EventModel(
        network=network,
        task=task,
        feature_settings=detect.feature_settings(sha256),
        weights=detect.weights,
        names=sequence.names,
        decode=settings,
        window_s=10.0,
        lookahead=LOOKAHEAD,
    )
    (scores,) = score_frames(model, [encode_recording(model, [sequence])])
    low, high = np.quantile(scores[:, : len(LABELS)], [0.8, 0.95], axis=0)
    return replace(model, decode=replace(settings, high=tuple(high.tolist()), low=tuple(low.tolist())))


def fill_cache(folder: Path, recordings: int, frames: int, objects: int) -> tuple[SequenceCache, list[str]]:
    """Return a cache with synthetic recordings, and their keys."""
    cache, keys = SequenceCache(folder), []
    for number in range(recordings):
        sequence = make_sequence(frames, objects, seed=number)
        keys.append(cache.key(f"{number:064x}", {"objects": objects}))
        with cache.writer(keys[-1], {}) as writer:
            writer.append(sequence)
            facts = {"fps": FPS, "size_px": sequence.size_px, "names": sequence.names}
            writer.finish(status="done", duration_s=frames / FPS, feature_settings={"objects": objects}, **facts)
    return cache, keys


# --- the head ---------------------------------------------------------------------------------------------------------


class StageTimer:
    """CPU seconds of this process by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block."""
        begin = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin


def score_batched(model: EventModel, cache: SequenceCache, keys: list[str], timer: StageTimer) -> int:
    """Score recordings together; return the number of events."""
    recordings = []
    for key in keys:
        with timer.stage("read"):
            parts = list(cache.parts(key))
        with timer.stage("features"):
            features = list(stream_features(parts, model.feature_spec))
        with timer.stage("encoder"):
            recordings.append(encode_features(model, features))
    with timer.stage("GRU"):
        scores = score_frames(model, recordings)
    num_events = 0
    with timer.stage("events"):
        for recording, frame_scores in zip(recordings, scores, strict=True):
            end_s = len(recording) / FPS
            events = decode_events(
                recording.time_s, frame_scores, model.labels, model.decode, video="a.mp4", step_s=1 / FPS, end_s=end_s
            )
            num_events += len(events)
    return num_events


def score_one_by_one(model: EventModel, cache: SequenceCache, keys: list[str], timer: StageTimer) -> int:
    """Score recordings one after the other, as streams; return the number of events."""
    num_events = 0
    with timer.stage("all"):
        for key in keys:
            entry = cache.entry(key)
            assert entry is not None
            duration_s = entry.duration_s
            num_events += len(score_recording(model, cache.parts(key), video="a.mp4", duration_s=duration_s).events)
    return num_events


def measure_head(objects: int, recordings: int, frames: int, repeats: int) -> list[dict[str, Any]]:
    """Return the rows for a number of objects per frame."""
    detect = DetectorSettings()
    model = make_model(make_sequence(2000, objects), detect, "0" * 64)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache, keys = fill_cache(Path(folder), recordings, frames, objects)
        for name, run in (("batched", score_batched), ("one by one", score_one_by_one)):
            runs = []
            for _ in range(repeats + 1):
                timer = StageTimer()
                events = run(model, cache, keys, timer)
                runs.append(timer.seconds)
            runs = runs[1:]  # the first is a warm-up
            total = median(sum(stages.values()) for stages in runs)
            shares = {stage: median(stages[stage] / sum(stages.values()) for stages in runs) for stage in runs[0]}
            detail = ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items() if len(shares) > 1)
            rows.append(
                {
                    "name": f"head, {objects} objects per frame, {name}",
                    "value": recordings * frames / total,
                    "unit": "frames/s",
                    "target": TARGETS.get(objects) if run is score_batched else None,
                    "detail": detail or f"{events} events in {recordings} x {frames / FPS:.0f} s",
                }
            )
    return rows


# --- live -------------------------------------------------------------------------------------------------------------


def latency_row(name: str, seconds: list[float], detail: str) -> dict[str, Any]:
    """Return a row with the median latency."""
    p50, p99 = np.quantile(np.array(seconds) * 1e3, [0.5, 0.99])
    detail = f"p99 {p99:.2f}, max {max(seconds) * 1e3:.2f}; {detail}"
    return {"name": name, "value": float(p50), "unit": "ms, p50", "target": None, "detail": detail, "p99": p99}


def measure_live(objects: int, frames: int) -> dict[str, Any]:
    """Measure features, model and events, one frame at a time."""
    sequence = make_sequence(frames, objects)
    stream = EventStream(make_model(sequence, DetectorSettings(), "0" * 64), video="live")
    seconds, closed = [], 0
    for number in range(frames):
        frame = sequence.frames(number, number + 1)
        begin = time.perf_counter()
        closed += len(stream.push(frame).closed)
        seconds.append(time.perf_counter() - begin)
    return latency_row(
        f"live, {objects} objects per frame, model alone",
        seconds[WARM_UP_FRAMES:],
        f"{frames} frames, {closed} events; scores are {stream.lookahead_s:.2f} s late",
    )


def measure_detector(video: Path, model: EventModel, detect: DetectorSettings, sha256: str, frames: int) -> Any:
    """Measure from a decoded, scaled image to events; the detector reads one frame at a time."""
    torch.set_num_threads(count_cores())
    backend = open_backend(Path(detect.weights), sha256, RuntimeSettings(device="cpu"), count_cores())
    detector = Detector(backend, detect)
    stream, meter, seconds = EventStream(model, video="live"), FlowMeter(), []
    with VideoReader(video) as reader:
        size_px = reader.info.size_px
        letterbox = Letterbox.fit(size_px, detect.imgsz, detector.stride)
        tracker = Tracker(detect.tracker, size_px)
        canvas = np.full((1, *letterbox.input_hw, 3), PAD_VALUE, np.uint8)
        for frame in islice(reader.sample(detect.fps, letterbox.content_wh), frames):
            begin = time.perf_counter()
            letterbox.place(frame.image, canvas[0])
            flow = meter.step(frame.image, frame.time_s)
            (detections,) = detector.detect(canvas, [letterbox])
            sample = FrameRef(
                number=frame.number,
                time_s=frame.time_s,
                index=frame.index,
                size_px=size_px,
                flow=flow,
                scene_motion=scene_motion(flow),
            )
            tracks = tracker.update(detections.boxes, detections.scores, detections.classes)
            row = DetectedFrame(
                frame=sample, detections=detections, tracks=tracks, motion=object_motion(flow, detections.boxes)
            )
            stream.push(to_sequence([row], detect.fps, size_px, detector.names, detector.flip_idx))
            seconds.append(time.perf_counter() - begin)
    torch.set_num_threads(1)
    detail = (
        f"{len(seconds)} frames of {size_px[0]}x{size_px[1]}, {backend.name} {backend.precision}, {count_cores()} cores"
    )
    return latency_row("live, with the detector", seconds[min(WARM_UP_FRAMES, len(seconds) // 2) :], detail)


# --- memory -----------------------------------------------------------------------------------------------------------


def run_long_stream(hours: float, chunk: int, objects: int) -> tuple[list[int], int]:
    """Return the resident bytes at `MEMORY_AT` of a long stream, and its events. Run it in a new process."""
    torch.set_num_threads(1)
    block = make_sequence(4096, objects)
    stream = EventStream(make_model(block, DetectorSettings(), "0" * 64), video="live")
    total = round(hours * 3600 * FPS)
    marks, closed, resident = [round(share * total) for share in MEMORY_AT], 0, []
    done = 0
    for shifted in _repeat(block, total):
        for first in range(0, len(shifted), chunk):
            closed += len(stream.push(shifted.frames(first, first + chunk)).closed)
            done += min(chunk, len(shifted) - first)
            while marks and done >= marks[0]:
                gc.collect()
                resident.append(psutil.Process().memory_info().rss)
                marks.pop(0)
    return resident, closed


def _repeat(block: FrameSequence, total: int) -> Iterator[FrameSequence]:
    """Yield the same block over and over, with times and tracks shifted."""
    max_track = int(block.tracks.max()) + 1
    for number, first in enumerate(range(0, total, len(block))):
        shifted = replace(
            block, time_s=block.time_s + first / FPS, tracks=(block.tracks + number * max_track).astype(np.int32)
        )
        yield shifted.frames(0, min(len(block), total - first))


def measure_memory(hours: float, objects: int) -> list[dict[str, Any]]:
    """Return a row per chunk size."""
    rows = []
    for chunk in CHUNKS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            resident, closed = pool.submit(run_long_stream, hours, chunk, objects).result()
        at = ", ".join(f"{size / 2**20:.1f} at {share:.0%}" for size, share in zip(resident, MEMORY_AT, strict=True))
        rows.append(
            {
                "name": f"memory, {hours:g} hours in chunks of {chunk}",
                "value": (resident[-1] - resident[0]) / 2**20,
                "unit": "MiB growth",
                "target": None,
                "detail": f"MiB resident: {at}; {closed} events",
            }
        )
    return rows


# --- end to end -------------------------------------------------------------------------------------------------------


def measure_video(video: Path, weights: Path, loops: int, live_frames: int) -> list[dict[str, Any]]:
    """Return the rows that need a video and a detector."""
    rows = []
    detect = DetectorSettings(weights=str(weights))
    sha256 = sha256_file(weights)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        long = join([video] * loops, folder / "videos" / f"{video.stem}.mp4")
        # A first run pays for imports and for the compiled graph, and gives the model its feature spec.
        cache = SequenceCache(folder / "first")
        (result,) = extract_recordings(
            find_recordings([long]), cache, detect, RuntimeSettings(), progress=False, limit=64
        )
        if result.key is None:
            raise SystemExit(f"{video}: {result.reason}")
        model = make_model(cache.read(result.key), detect, sha256)
        model.save(folder / "model.safetensors")
        for state in ("cold cache", "warm cache"):
            features = str(folder / "features")
            config = PredictConfig(out=str(folder / state), features=features, weights=str(weights), report=False)
            begin = time.perf_counter()
            (prediction,) = predict(folder / "model.safetensors", [long], config, progress=False)
            wall = time.perf_counter() - begin
            if prediction.status != "done" or not prediction.duration_s:
                raise SystemExit(f"{video}: {prediction.status} {prediction.reason}")
            rows.append(
                {
                    "name": f"end to end, {state}",
                    "value": prediction.duration_s / wall,
                    "unit": "x real time",
                    "target": None,
                    "detail": f"{prediction.duration_s:.0f} s in {wall:.1f} s, {len(prediction.events)} events",
                }
            )
        rows.append(measure_detector(long, model, detect, sha256, live_frames))
    return rows


# --- report -----------------------------------------------------------------------------------------------------------


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Format the rows, aligned."""
    lines = []
    for row in rows:
        value = f"{row['value']:,.0f}" if row["value"] >= 1000 else f"{row['value']:.2f}"
        verdict = ""
        if row["target"]:
            share = row["value"] / row["target"]
            verdict = f">= {row['target']:,}: {'met' if share >= 1 else f'at {share:.0%}'}"
        lines.append((row["name"], value, row["unit"], verdict, row["detail"]))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{name:{widths[0]}}  {value:>{widths[1]}} {unit:{widths[2]}}  {verdict:{widths[3]}}  {detail}"
        for name, value, unit, verdict, detail in lines
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=32, help="recordings that the head scores")
    parser.add_argument("--frames", type=int, default=1024, help="frames per recording")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--live-frames", type=int, default=2000)
    parser.add_argument("--hours", type=float, default=2.0, help="length of the long stream")
    parser.add_argument("--video", type=Path, help="video for the rows with decoding and the detector")
    parser.add_argument("--weights", type=Path, help="detector for --video")
    parser.add_argument("--loops", type=int, default=1, help="repetitions of the video in one long file")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    args = parser.parse_args()
    if (args.video is None) != (args.weights is None):
        parser.error("--video and --weights go together")
    torch.set_num_threads(1)
    rows = [row for objects in TARGETS for row in measure_head(objects, args.recordings, args.frames, args.repeats)]
    rows += [measure_live(objects, args.live_frames) for objects in TARGETS]
    rows += measure_memory(args.hours, min(TARGETS))
    if args.video is not None:
        rows += measure_video(args.video, args.weights, args.loops, args.live_frames)
    print(table(rows))
    values = {name: str(value) for name, value in vars(args).items()}
    write_json(args.out / "bench_predict.json", {**values, "torch": torch.__version__, "rows": rows})


if __name__ == "__main__":
    main()
