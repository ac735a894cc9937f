"""How fast prediction is: the head on cached features, one frame at a time as live, and from a file to its events.

    python scripts/bench_predict.py                                              # made-up recordings, about 4 minutes
    python scripts/bench_predict.py --video street.mp4 --weights yolo26n.pt      # the detector too

Everything runs on the CPU. One table is printed, and written to OUT/bench_predict.json:

- head: frames a second of CPU time of one core, from entries of a cache to events, with the share of each stage. Once
  with the recordings scored side by side, as `vidgru predict` does, once one after the other;
- live: milliseconds of the wall clock from a frame to what it settles, one frame at a time; with a video, also from the
  decoded picture, through the detector;
- memory: what is resident at a tenth, half and the end of a long stream, fed in stretches of one and of 16 frames;
- end to end, with a video: hours of it an hour, loading included, by `predict` with an empty cache and with a full one.
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

# Before ultralytics is imported: it would look for updates and install packages while it runs.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")

import numpy as np
import psutil
import torch
from bench_train import FPS, LABELS, LAYOUT
from bench_videos import join

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, PredictConfig, RuntimeSettings
from vidgru.detector.backends import open_backend
from vidgru.detector.motion import FlowMeter, object_motion, scene_motion
from vidgru.detector.preprocess import PAD_VALUE, Letterbox
from vidgru.detector.tracker import Tracker
from vidgru.detector.yolo import Detector
from vidgru.extraction.detector_pool import DetectedFrame, FrameRef, count_cores, to_sequence
from vidgru.extraction.pipeline import extract_recordings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network
from vidgru.model.event_decoder import DecodeSettings, decode_events
from vidgru.model.event_gru import Architecture
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features, stream_features
from vidgru.model.scoring import encode_features, encode_recording, score_frames
from vidgru.model.stream import EventStream, score_recording
from vidgru.prediction.batch import predict
from vidgru.sources import find_recordings
from vidgru.storage import sha256_file, write_json
from vidgru.types import FrameSequence
from vidgru.video.reader import VideoReader

TARGETS = {3: 50_000, 20: 20_000}  # frames a second, by objects a frame
LAG = 4  # steps
TRACK_FRAMES = 100  # that an object is seen
WARM_UP = 50  # frames before latencies count
STRETCHES = (1, 16)  # frames a push, of the long stream
MARKS = (0.1, 0.5, 1.0)  # shares of the long stream at which memory is looked at


# --- what is worked on ------------------------------------------------------------------------------------------------


def make_sequence(frames: int, objects: int, seed: int = 0) -> FrameSequence:
    """A recording with `objects` a frame on average, each seen for a while, laid out as yolo26n.pt's are."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(objects, frames)
    total = int(counts.sum())
    offsets = np.concatenate([[0], np.cumsum(counts)])
    frame = np.repeat(np.arange(frames), counts)
    slot = np.arange(total) - offsets[frame]
    tracks = slot + (counts.max() + 1) * (frame // TRACK_FRAMES)
    centre = 0.5 + 0.4 * np.sin(np.column_stack([slot + frame / 40, slot * 2 + frame / 60]))
    half = 0.02 + 0.02 * (slot % 4)[:, None] * [0.5, 1.0]

    def narrow(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32).astype(np.float16)

    return FrameSequence(
        time_s=np.arange(frames) / FPS,
        frame_index=np.arange(frames, dtype=np.int64) * 3,
        offsets=offsets.astype(np.int64),
        boxes=np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, 1).astype(np.float32),
        scores=rng.uniform(0.1, 1.0, total).astype(np.float16),
        classes=(slot % LAYOUT.classes).astype(np.int16),
        tracks=tracks.astype(np.int32),
        motion=narrow(total, LAYOUT.motion),
        appearance=narrow(total, LAYOUT.appearance),
        colour=narrow(total, LAYOUT.colour),
        scene=narrow(frames, LAYOUT.scene),
        scene_motion=narrow(frames, LAYOUT.scene_motion),
        fps=FPS,
        size_px=(1920, 1080),
        names=tuple(f"class {number}" for number in range(LAYOUT.classes)),
    )


def make_model(sequence: FrameSequence, detect: DetectorSettings, sha256: str) -> EventModel:
    """A model with random weights and timed events, which finds some in a sequence like this one."""
    torch.manual_seed(0)
    task = EventTask(labels=LABELS, frame_head=HeadSpec(background=True, multi_label=False))
    network = build_network(FeatureSpec.from_sequence(sequence), task, Architecture()).eval()
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
        lookahead=LAG,
    )
    (scores,) = score_frames(model, [encode_recording(model, [sequence]).vectors])
    low, high = np.quantile(scores[:, : len(LABELS)], [0.8, 0.95], axis=0)
    return replace(model, decode=replace(settings, high=tuple(high.tolist()), low=tuple(low.tolist())))


def fill_cache(folder: Path, recordings: int, frames: int, objects: int) -> tuple[SequenceCache, list[str]]:
    """A cache with made-up recordings, and their keys."""
    cache, keys = SequenceCache(folder), []
    for number in range(recordings):
        sequence = make_sequence(frames, objects, seed=number)
        keys.append(cache.key(f"{number:064x}", {"objects": objects}))
        with cache.writer(keys[-1], {}) as writer:
            writer.append(sequence)
            facts = {"fps": FPS, "size_px": sequence.size_px, "names": sequence.names}
            writer.finish(status="done", duration_s=frames / FPS, what={"objects": objects}, **facts)
    return cache, keys


# --- the head ---------------------------------------------------------------------------------------------------------


class Clock:
    """CPU seconds of this process by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what is done in the `with` block."""
        begin = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begin


def together(model: EventModel, cache: SequenceCache, keys: list[str], clock: Clock) -> int:
    """Recordings side by side; returns how many events were found."""
    vectors, times = [], []
    for key in keys:
        with clock.stage("read"):
            parts = list(cache.parts(key))
        features = stream_features(parts, model.feature_spec)
        pieces = []
        for _ in parts:
            with clock.stage("features"):
                piece = next(features)
            with clock.stage("encoder"):
                pieces.append(encode_features(model, [piece]).vectors)
        vectors.append(torch.cat(pieces))
        times.append(np.concatenate([part.time_s for part in parts]))
    with clock.stage("GRU"):
        scores = score_frames(model, vectors)
    found = 0
    with clock.stage("events"):
        for time_s, some in zip(times, scores, strict=True):
            where = {"video": "a.mp4", "step_s": 1 / FPS, "end_s": len(time_s) / FPS}
            found += len(decode_events(time_s, some, model.labels, model.decode, **where))
    return found


def one_by_one(model: EventModel, cache: SequenceCache, keys: list[str], clock: Clock) -> int:
    """Recordings one after the other, as a stream; returns how many events were found."""
    found = 0
    with clock.stage("all"):
        for key in keys:
            entry = cache.entry(key)
            assert entry is not None
            duration_s = entry.duration_s
            found += len(score_recording(model, cache.parts(key), video="a.mp4", duration_s=duration_s).events)
    return found


def measure_head(objects: int, recordings: int, frames: int, repeats: int) -> list[dict[str, Any]]:
    """Rows of the table for so many objects a frame."""
    detect = DetectorSettings()
    model = make_model(make_sequence(2000, objects), detect, "0" * 64)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache, keys = fill_cache(Path(folder), recordings, frames, objects)
        for name, run in (("recordings together", together), ("one by one", one_by_one)):
            runs = []
            for _ in range(repeats + 1):
                clock = Clock()
                events = run(model, cache, keys, clock)
                runs.append(clock.seconds)
            runs = runs[1:]  # the first warms up
            total = median(sum(one.values()) for one in runs)
            shares = {stage: median(one[stage] / sum(one.values()) for one in runs) for stage in runs[0]}
            detail = ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items() if len(shares) > 1)
            rows.append(
                {
                    "what": f"head, {objects} objects a frame, {name}",
                    "figure": recordings * frames / total,
                    "unit": "frames/s",
                    "target": TARGETS.get(objects) if run is together else None,
                    "detail": detail or f"{events} events in {recordings} x {frames / FPS:.0f} s",
                }
            )
    return rows


# --- live -------------------------------------------------------------------------------------------------------------


def latency_row(what: str, seconds: list[float], detail: str) -> dict[str, Any]:
    """A row of the table."""
    low, high = np.quantile(np.array(seconds) * 1e3, [0.5, 0.99])
    detail = f"p99 {high:.2f}, most {max(seconds) * 1e3:.2f}; {detail}"
    return {"what": what, "figure": float(low), "unit": "ms, p50", "target": None, "detail": detail, "p99": high}


def measure_live(objects: int, frames: int) -> dict[str, Any]:
    """Features, model and events, a frame at a time."""
    sequence = make_sequence(frames, objects)
    stream = EventStream(make_model(sequence, DetectorSettings(), "0" * 64), video="live")
    seconds, closed = [], 0
    for number in range(frames):
        frame = sequence.frames(number, number + 1)
        begin = time.perf_counter()
        closed += len(stream.push(frame).closed)
        seconds.append(time.perf_counter() - begin)
    return latency_row(
        f"live, {objects} objects a frame, model alone",
        seconds[WARM_UP:],
        f"{frames} frames, {closed} events; scores lag {stream.lookahead_s:.2f} s",
    )


def measure_detector(video: Path, model: EventModel, detect: DetectorSettings, sha256: str, frames: int) -> Any:
    """From a decoded picture of a video, scaled, to events: the detector sees one frame at a time."""
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
            moved = scene_motion(flow)
            (seen,) = detector.detect(canvas, [letterbox])
            sample = FrameRef(
                number=frame.number,
                time_s=frame.time_s,
                index=frame.index,
                size_px=size_px,
                flow=flow,
                scene_motion=moved,
            )
            tracks = tracker.update(seen.boxes, seen.scores, seen.classes)
            row = DetectedFrame(frame=sample, detections=seen, tracks=tracks, motion=object_motion(flow, seen.boxes))
            stream.push(to_sequence([row], detect.fps, size_px, detector.names))
            seconds.append(time.perf_counter() - begin)
    torch.set_num_threads(1)
    detail = (
        f"{len(seconds)} frames of {size_px[0]}x{size_px[1]}, {backend.name} {backend.precision}, {count_cores()} cores"
    )
    return latency_row("live, with the detector", seconds[min(WARM_UP, len(seconds) // 2) :], detail)


# --- memory -----------------------------------------------------------------------------------------------------------


def long_stream(hours: float, frames_a_push: int, objects: int) -> tuple[list[int], int]:
    """Bytes resident at the MARKS of a long stream, and how many events it had. To be run in a fresh process."""
    torch.set_num_threads(1)
    block = make_sequence(4096, objects)
    stream = EventStream(make_model(block, DetectorSettings(), "0" * 64), video="live")
    total = round(hours * 3600 * FPS)
    marks, closed, resident = [round(share * total) for share in MARKS], 0, []
    done = 0
    for shifted in _shifted(block, total):
        for first in range(0, len(shifted), frames_a_push):
            closed += len(stream.push(shifted.frames(first, first + frames_a_push)).closed)
            done += min(frames_a_push, len(shifted) - first)
            while marks and done >= marks[0]:
                gc.collect()
                resident.append(psutil.Process().memory_info().rss)
                marks.pop(0)
    return resident, closed


def _shifted(block: FrameSequence, total: int) -> Iterator[FrameSequence]:
    """The same block over and over, its times and tracks moved on."""
    most = int(block.tracks.max()) + 1
    for number, first in enumerate(range(0, total, len(block))):
        moved = replace(
            block, time_s=block.time_s + first / FPS, tracks=(block.tracks + number * most).astype(np.int32)
        )
        yield moved.frames(0, min(len(block), total - first))


def measure_memory(hours: float, objects: int) -> list[dict[str, Any]]:
    """Rows of the table, one for each way to feed the stream."""
    rows = []
    for frames in STRETCHES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            resident, closed = pool.submit(long_stream, hours, frames, objects).result()
        at = ", ".join(f"{size / 2**20:.1f} at {share:.0%}" for size, share in zip(resident, MARKS, strict=True))
        rows.append(
            {
                "what": f"memory, {hours:g} hours in stretches of {frames}",
                "figure": (resident[-1] - resident[0]) / 2**20,
                "unit": "MiB grown",
                "target": None,
                "detail": f"MiB resident: {at}; {closed} events",
            }
        )
    return rows


# --- end to end -------------------------------------------------------------------------------------------------------


def measure_video(video: Path, weights: Path, loops: int, live_frames: int) -> list[dict[str, Any]]:
    """Rows of the table that need a video and a detector."""
    rows = []
    detect = DetectorSettings(weights=str(weights))
    sha256 = sha256_file(weights)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "videos").mkdir()
        long = join([video] * loops, folder / "videos" / f"{video.stem}.mp4")
        # a first run for imports, a graph that is kept for later runs, and to see how features are laid out
        cache = SequenceCache(folder / "first")
        (outcome,) = extract_recordings(
            find_recordings([long]), cache, detect, RuntimeSettings(), progress=False, limit=64
        )
        if outcome.key is None:
            raise SystemExit(f"{video}: {outcome.reason}")
        model = make_model(cache.read(outcome.key), detect, sha256)
        model.save(folder / "model.safetensors")
        for what in ("cold cache", "warm cache"):
            config = PredictConfig(out=str(folder / what), features=str(folder / "features"), report=False)
            begin = time.perf_counter()
            (found,) = predict(folder / "model.safetensors", [long], config, progress=False)
            wall = time.perf_counter() - begin
            if found.status != "done" or not found.duration_s:
                raise SystemExit(f"{video}: {found.status} {found.reason}")
            rows.append(
                {
                    "what": f"end to end, {what}",
                    "figure": found.duration_s / wall,
                    "unit": "x real time",
                    "target": None,
                    "detail": f"{found.duration_s:.0f} s of video in {wall:.1f} s, {len(found.events)} events",
                }
            )
        rows.append(measure_detector(long, model, detect, sha256, live_frames))
    return rows


# --- telling ----------------------------------------------------------------------------------------------------------


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows, aligned."""
    lines = []
    for row in rows:
        figure = f"{row['figure']:,.0f}" if row["figure"] >= 1000 else f"{row['figure']:.2f}"
        verdict = ""
        if row["target"]:
            share = row["figure"] / row["target"]
            verdict = f">= {row['target']:,}: {'met' if share >= 1 else f'at {share:.0%}'}"
        lines.append((row["what"], figure, row["unit"], verdict, row["detail"]))
    wide = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{what:{wide[0]}}  {figure:>{wide[1]}} {unit:{wide[2]}}  {verdict:{wide[3]}}  {detail}"
        for what, figure, unit, verdict, detail in lines
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=32, help="that the head scores together")
    parser.add_argument("--frames", type=int, default=1024, help="of each of them")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--live-frames", type=int, default=2000)
    parser.add_argument("--hours", type=float, default=2.0, help="of the long stream")
    parser.add_argument("--video", type=Path, help="for the figures that include decoding and the detector")
    parser.add_argument("--weights", type=Path, help="the detector for it")
    parser.add_argument("--loops", type=int, default=1, help="times the video is repeated in one long file")
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
