"""Measure adaptive extraction on long recordings that are still most of the time, against full extraction.

    python scripts/bench_adaptive.py --weights yolo26n.pt videos/ --hours 1 --busy street.mp4    # footage of your own
    python scripts/bench_adaptive.py --weights data/demo/demo.pt --imgsz 320                      # drawn scenes
    python scripts/bench_adaptive.py --weights yolo26n.pt videos/ --hours 24 --codecs crf-2s --shares 0.01

Recordings are composed: a still moment of the given videos, averaged and with sensor noise, in which one of their clips
appears as a part of the picture at known times. With --looped the moment is played back and forth instead, which keeps
its own noise, but also the artefacts of its compression. A few minutes are encoded as IP cameras encode (H.264 without
B frames, low rate, a key frame every 2 or 10 s, constant quality or constant rate); their packets are repeated with
later timestamps.

- speed: real time over the wall time of `vidgru predict --adaptive`, from the command to the report, nothing cached;
  where the time goes (stages measured alone; the rest is decoding and the detector); CPU time and peak memory of all
  processes; share of the samples that were decoded;
- agreement, on recordings of a few minutes: F1 of the events, and share of the objects, of the adaptive run against the
  full one with the same model. Without --model, one is trained on such recordings to name the clips;
- busy street: CPU time of an adaptive run over that of a full one, and of decoding 10 s of it, encoded again in several
  ways, without frames that no sample needs and with them.

Runs on the CPU. Prints tables, and writes OUT/bench_adaptive.json and .png.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np
from bench_extract import log, machine, resident, size
from bench_videos import join
from numpy.typing import NDArray

from tests.compare_runs import CONFIDENT, missing_objects
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.demo import renderer
from vidgru.demo.scenes import plan_clip, write_video
from vidgru.extraction.pipeline import extract_recordings
from vidgru.prediction.event_files import read_jsonl
from vidgru.sources import find_recordings
from vidgru.storage import sha256_file, write_atomic
from vidgru.training.metrics.matching import event_table, match_by_score
from vidgru.types import Event, FrameSequence
from vidgru.video.packets import read_packets
from vidgru.video.reader import VideoReader, probe
from vidgru.video.stillness import plan_still

Image = NDArray[np.uint8]  # yuv420p as OpenCV has it: [3/2 height, width]

FPS = 25  # of composed recordings
UNIT_S = 10  # recordings are composed of units, which begin with a key frame
STILL_UNITS, CLIP_UNITS = 6, 2  # encoded of the still moment, and of each clip
CLIPS = 3  # that appear; those with most motion
STILL_S = 2.0  # seconds of the still moment
SEARCH_PX, SEARCH_S = 160, 20.0  # in which still moments are looked for
COMPARE_UNITS, COMPARE_SHARE = 24, 0.5  # of recordings on which agreement is measured
TRAIN_RECORDINGS = 3


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Settings of the encoder.

    Attributes:
        name: Name in the tables.
        key_s: Seconds between key frames.
        options: Options of libx264 that set the rate.
    """

    name: str
    key_s: int
    options: dict[str, str]

    def encode(self, images: Iterator[Image], size_px: tuple[int, int], path: Path) -> Path:
        """Write a video of pictures of this width and height."""
        keys = str(self.key_s * FPS)
        options = {"preset": "veryfast", "tune": "zerolatency", "g": keys, "keyint_min": keys, "sc_threshold": "0"}
        return encode("libx264", options | self.options, images, size_px, path)


def encode(
    encoder: str, options: dict[str, str], images: Iterator[Image], size_px: tuple[int, int], path: Path
) -> Path:
    """Write a video of pictures of this width and height, with an encoder of FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size_px, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


_RATE = {"b": "400k", "maxrate": "400k", "bufsize": "400k"}
CODECS = {
    codec.name: codec
    for codec in (
        Codec(name="crf-2s", key_s=2, options={"crf": "28"}),
        Codec(name="crf-10s", key_s=10, options={"crf": "28"}),
        Codec(name="cbr-2s", key_s=2, options=_RATE),
        Codec(name="cbr-10s", key_s=10, options=_RATE),
    )
}

# How a busy recording is encoded again, by name: an encoder and its options.
BUSY_S, BUSY_FPS, _QUIET = 10, (2.0, 5.0, 8.0), "log-level=none"
BUSY_ENCODERS = {
    "libx264": ("libx264", {}),
    "libx264, b-pyramid=none": ("libx264", {"x264-params": "b-pyramid=none"}),
    "libx264, bf=0": ("libx264", {"bf": "0"}),
    "libx264, 4 Mbit/s, bf=0, 2 s": (
        "libx264",
        {"b": "4M", "maxrate": "4M", "bufsize": "4M", "bf": "0", "g": str(2 * FPS)},
    ),
    "libx265": ("libx265", {"x265-params": _QUIET}),
    "libx265, temporal-layers=3": ("libx265", {"x265-params": f"{_QUIET}:temporal-layers=3"}),
}


# --- footage ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What recordings are composed of.

    Attributes:
        still: Pictures of a still moment.
        clips: Videos that appear in it, by label.
        noise: Standard deviation of the noise that is added to luma.
        inset: Share of the width and height in which clips appear.
    """

    still: list[Image]
    clips: dict[str, Path]
    noise: float
    inset: float

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        rows, width = self.still[0].shape
        return width, rows * 2 // 3

    def pictures(self, count: int, clip: Path | None, seed: int) -> Iterator[Image]:
        """Yield the still moment back and forth with new noise, and a clip as a part of the picture."""
        rng = np.random.default_rng(seed)
        width, height = self.size_px
        noise = rng.normal(0, self.noise, (height + 64, width + 64)).round().astype(np.int16)
        order = cycle([*range(len(self.still)), *range(len(self.still) - 2, 0, -1)])
        inset_px = (round(width * self.inset / 4) * 4, round(height * self.inset / 4) * 4)
        inset = cycle_pictures(clip, inset_px) if clip else None
        for index in islice(order, count):
            image = self.still[index].copy()
            if inset is not None:
                paste(
                    image,
                    next(inset),
                    *((side - size) // 4 * 2 for side, size in zip((width, height), inset_px, strict=True)),
                )
            dx, dy = rng.integers(0, 64, 2)
            image[:height] = cv2.add(image[:height], noise[dy : dy + height, dx : dx + width], dtype=cv2.CV_8U)
            yield image


def find_footage(videos: list[Path], size_px: tuple[int, int], *, looped: bool, noise: float, inset: float) -> Footage:
    """Choose the stillest moment of the videos, looped or averaged, and the clips with most motion."""
    moments, motion = [], []
    for video in videos:
        small = list(islice(read_pictures(video, (SEARCH_PX, SEARCH_PX)), round(SEARCH_S * FPS)))
        luma = np.array([picture[:SEARCH_PX] for picture in small], np.int16)
        change = np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2))
        length = round(STILL_S * FPS)
        motion.append((float(change.mean()), video))
        for first in range(0, len(change) - length, length // 2):
            span = luma[first : first + length]
            moments.append((float(np.abs(span - span[0]).mean(axis=(1, 2)).max()), video, first, length))
    if not moments:
        raise SystemExit(f"no video is longer than {STILL_S} s")
    still, video, first, length = min(moments)
    log(f"still: {video.name} from picture {first}, luma changes by {still:.2f}")
    pictures = list(islice(read_pictures(video, size_px), first, first + length))
    chosen = sorted(motion, reverse=True)[:CLIPS]
    if not looped:
        pictures = [np.mean(pictures, axis=0).round().astype(np.uint8)]
    return Footage(
        still=pictures, clips={f"clip {n + 1}": path for n, (_, path) in enumerate(chosen)}, noise=noise, inset=inset
    )


def draw_footage(size_px: tuple[int, int], folder: Path, *, noise: float, inset: float) -> Footage:
    """Draw a street and clips of it."""
    margin, (width, height) = renderer.MARGIN_PX, renderer.SIZE_PX
    street = renderer.background(3)[margin : margin + height, margin : margin + width]
    still = to_yuv(cv2.resize(street, size_px, interpolation=cv2.INTER_CUBIC))
    clips = {}
    for kind in ("runs", "car_stops", "leaves_bag")[:CLIPS]:
        clips[kind] = folder / f"{kind}.mp4"
        write_video(plan_clip(kind, 1), clips[kind])
    return Footage(still=[still], clips=clips, noise=noise, inset=inset)


def read_pictures(video: Path, size_px: tuple[int, int]) -> Iterator[Image]:
    """Yield the pictures of a video at `FPS`, scaled."""
    shown = 0
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            due = int(((frame.time or 0.0) - float(container.start_time or 0) / 1e6) * FPS) + 1
            if due > shown:
                picture = frame.reformat(*size_px, "yuv420p").to_ndarray()
                yield from [picture] * min(due - shown, FPS)
                shown = due


def cycle_pictures(video: Path, size_px: tuple[int, int]) -> Iterator[Image]:
    """Yield the pictures of a video again and again."""
    while True:
        yield from read_pictures(video, size_px)


def to_yuv(rgb: Image) -> Image:
    """Convert an RGB picture to yuv420p."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)


def paste(image: Image, inset: Image, x: int, y: int) -> None:
    """Paste a yuv420p picture into another, at even coordinates; sides are multiples of four."""
    for target, source, scale in zip(planes(image), planes(inset), (1, 2, 2), strict=True):
        top, left = y // scale, x // scale
        target[top : top + source.shape[0], left : left + source.shape[1]] = source


def planes(image: Image) -> tuple[Image, Image, Image]:
    """Views of the planes of a yuv420p picture."""
    width, height = image.shape[1], image.shape[0] * 2 // 3
    chroma = image[height:].reshape(2, height // 2, width // 2)
    return image[:height], chroma[0], chroma[1]


# --- composing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Encoded units: the packets of each as (bytes, dts, pts, is key frame), times from the start of the unit.

    Attributes:
        template: A video whose encoder settings all share.
        still: Units of the still moment.
        clips: Units of each clip, by label.
    """

    template: Path
    still: list[list[tuple[bytes, int, int, bool]]]
    clips: dict[str, list[list[tuple[bytes, int, int, bool]]]]


def encode_pieces(footage: Footage, codec: Codec, folder: Path) -> Pieces:
    """Encode the still moment and each clip."""
    log(f"{codec.name}: encoding {STILL_UNITS + CLIP_UNITS * len(footage.clips)} x {UNIT_S} s")
    count = UNIT_S * FPS
    still = codec.encode(
        footage.pictures(STILL_UNITS * count, None, 0), footage.size_px, folder / f"{codec.name}-still.mp4"
    )
    clips = {
        label: read_units(
            codec.encode(
                footage.pictures(CLIP_UNITS * count, path, n + 1), footage.size_px, folder / f"{codec.name}-{n}.mp4"
            )
        )
        for n, (label, path) in enumerate(footage.clips.items())
    }
    return Pieces(template=still, still=read_units(still), clips=clips)


def read_units(video: Path) -> list[list[tuple[bytes, int, int, bool]]]:
    """Read the packets of a video, cut into units."""
    units: list[list[tuple[bytes, int, int, bool]]] = []
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        ticks = round(UNIT_S / stream.time_base)
        for packet in container.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            if packet.pts // ticks == len(units):
                units.append([])
            shift = ticks * (len(units) - 1)
            units[-1].append((bytes(packet), packet.dts - shift, packet.pts - shift, packet.is_keyframe))
    return units


def compose(pieces: Pieces, path: Path, units: int, share: float, seed: int) -> list[tuple[float, float, str]]:
    """Write a recording of so many units, in a share of which clips appear; return the time and label of each."""
    rng = np.random.default_rng(seed)
    count = max(round(units * share / CLIP_UNITS), 1) if share else 0
    room = units - count * (CLIP_UNITS + 1) - 1  # a still unit before each clip and at the end
    starts = np.sort(rng.integers(0, room + 1, count)) + np.arange(count) * (CLIP_UNITS + 1) + 1
    labels = [list(pieces.clips)[n % len(pieces.clips)] for n in range(count)]
    plan = [pieces.still[n % len(pieces.still)] for n in range(units)]
    for start, label in zip(starts.tolist(), labels, strict=True):
        plan[start : start + CLIP_UNITS] = pieces.clips[label]
    with av.open(str(pieces.template)) as template, av.open(str(path), "w") as out:
        source = template.streams.video[0]
        stream = out.add_stream_from_template(source)
        ticks = round(UNIT_S / source.time_base)
        for number, unit in enumerate(plan):
            for data, dts, pts, is_key in unit:
                packet = av.Packet(data)
                packet.dts, packet.pts = dts + number * ticks, pts + number * ticks
                packet.time_base, packet.is_keyframe, packet.stream = source.time_base, is_key, stream
                out.mux(packet)
    times = [(float(s * UNIT_S), float((s + CLIP_UNITS) * UNIT_S)) for s in starts.tolist()]
    return [(start_s, end_s, label) for (start_s, end_s), label in zip(times, labels, strict=True)]


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command used.

    Attributes:
        wall_s: Wall time.
        cpu_s: CPU time of all its processes.
        peak_mib: Peak of their resident memory together, shared pages counted in each.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float


def run_vidgru(*arguments: str) -> Usage:
    """Run a command line."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    begin, peak, used = time.perf_counter(), 0, sum(os.times()[2:4])
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "vidgru", *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": path})
        try:
            while process.poll() is None:
                peak = max(peak, resident(process.pid))
                time.sleep(0.1)
        finally:
            process.kill()
        seconds = time.perf_counter() - begin
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(arguments)} failed:\n{output.read().decode(errors='replace')[-2000:]}")
    return Usage(wall_s=seconds, cpu_s=sum(os.times()[2:4]) - used, peak_mib=peak / 2**20)


def forget(path: Path) -> None:
    """Have the next reading of a file come from disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(action: Callable[[], Any]) -> float:
    """Return the wall time of an action in seconds."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


class Bench:
    """Settings and folders of a run.

    Args:
        options: Command line.
        work: Folder for composed recordings and caches.
    """

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.detect = DetectorSettings(weights=str(options.weights.absolute()), fps=options.fps, imgsz=options.imgsz)
        self.runtime = RuntimeSettings(threads=options.threads)
        self.model = options.model
        self.flags = ("--threads", str(options.threads), "--device", "cpu")
        self.detector_flags = ("--weights", self.detect.weights, "--fps", f"{self.detect.fps:g}")
        self.detector_flags += ("--imgsz", str(self.detect.imgsz))

    def train(self, pieces: Pieces) -> Path:
        """Train a model that names the clips."""
        folder = self.work / "train"
        folder.mkdir()
        rows = []
        for number in range(TRAIN_RECORDINGS):
            name = f"{number}.mp4"
            truth = compose(pieces, folder / name, COMPARE_UNITS // 2, COMPARE_SHARE, number)
            rows += [(name, start_s, end_s, label) for start_s, end_s, label in truth]
        with open(folder / "annotations.csv", "w", newline="") as file:
            csv.writer(file).writerows([("video", "start", "end", "label"), *rows])
        log("training")
        out = ("--features", str(self.work / "features"), "--out", str(self.work / "model"), "--exist-ok")
        flags = ("--videos", str(folder), *self.detector_flags, *out, *self.flags)
        run_vidgru("train", str(folder / "annotations.csv"), *flags)
        return self.work / "model"

    def predict(self, video: Path, features: Path, out: Path, *flags: str) -> Usage:
        """Run `predict`."""
        paths = ("--features", str(features), "--out", str(out), "--weights", self.detect.weights)
        return run_vidgru("predict", str(self.model), str(video), *paths, *self.flags, *flags)

    def speed(self, video: Path, hours: float, load_s: float) -> dict[str, Any]:
        """Measure a prediction with nothing cached, and where its time goes.

        Args:
            video: The recording.
            hours: Its length.
            load_s: Seconds that `predict` takes with everything cached for a short recording.
        """
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            features = Path(folder) / "features"
            forget(video)
            cold = self.predict(video, features, Path(folder) / "events", "--adaptive")
            warm = self.predict(video, features, Path(folder) / "again", "--adaptive")
            (entry,) = SequenceCache(features).entries()
            events = read_jsonl(Path(folder) / "events" / "events.jsonl")
        forget(video)
        stages = {"hash": timed(lambda: sha256_file(video))}
        forget(video)
        stages |= self.plan(video)
        stages["model, report"] = max(warm.wall_s - load_s, 0.0)
        stages["loading"] = load_s
        stages["decoding, detector"] = max(cold.wall_s - sum(stages.values()), 0.0)
        return {
            **asdict(cold),
            "real_time": hours * 3600 / cold.wall_s,
            "decoded": 1 - entry.still / entry.samples,
            "events": len(events),
            "stages": stages,
        }

    def plan(self, video: Path) -> dict[str, float]:
        """Seconds of reading the packets, and of comparing key frames, each alone."""
        begin = time.perf_counter()
        packets, info = read_packets(video), probe(video)
        read = time.perf_counter()
        plan_still(packets, video, info, self.options.fps, lambda size_px: None, threads=self.options.threads)
        return {"packets": read - begin, "key frames": time.perf_counter() - read}

    def compare(self, video: Path) -> dict[str, Any]:
        """Compare adaptive with full extraction, and the events of both."""
        features, events = self.work / "features", {}
        sequences: dict[str, FrameSequence] = {}
        seconds = {}
        for name, flags in (("full", ()), ("adaptive", ("--adaptive",))):
            out = self.work / f"{video.stem}-{name}"
            seconds[name] = self.predict(video, features, out, *flags).wall_s
            events[name] = read_jsonl(out / "events.jsonl")
            settings = replace(self.detect, adaptive=name == "adaptive")
            cache = SequenceCache(features)
            (result,) = extract_recordings(find_recordings([video]), cache, settings, self.runtime, progress=False)
            assert result.key
            sequences[name] = cache.read(result.key)
        adaptive = sequences["adaptive"]
        return {
            "seconds": seconds,
            "decoded": 1.0 if adaptive.still is None else float(1 - adaptive.still.mean()),
            "same_samples": bool(np.array_equal(adaptive.time_s, sequences["full"].time_s)),
            "f1": event_f1(events["full"], events["adaptive"], video.name),
            "events": len(events["full"]),
            "objects": found_share(sequences["full"], adaptive),
            "objects_of_full": found_share(adaptive, sequences["full"]),
        }

    def busy(self, video: Path, repeats: int) -> dict[str, Any]:
        """Measure the CPU time of full and adaptive extraction of a busy recording, in turn, several times."""
        seconds: dict[str, list[float]] = {"full": [], "adaptive": []}
        for number in range(repeats + 1):
            for name, adaptive in (("full", ()), ("adaptive", ("--adaptive",))):
                with tempfile.TemporaryDirectory(dir=self.work) as out:
                    flags = (*self.detector_flags, "--out", out, *self.flags, *adaptive)
                    used = run_vidgru("extract", str(video), *flags)
                if number:  # the first warms up
                    seconds[name].append(used.cpu_s)
        ratios = [a / b for a, b in zip(seconds["adaptive"], seconds["full"], strict=True)]
        return {"seconds": seconds, "ratio": median(ratios)}

    def skipping(self, video: Path, repeats: int) -> Iterator[dict[str, Any]]:
        """Measure decoding with and without the frames that no sample needs, of a recording encoded in several ways."""
        for name, (encoder, options) in BUSY_ENCODERS.items():
            path = self.work / "busy-again.mp4"
            pictures = islice(read_pictures(video, self.options.size), BUSY_S * FPS)
            encode(encoder, options, pictures, self.options.size, path)
            packets = read_packets(path)
            with av.open(str(path)) as container:
                container.streams.video[0].codec_context.skip_frame = "NONREF"
                skippable = 1 - sum(1 for _ in container.decode(video=0)) / len(packets.pts)
            for fps in BUSY_FPS:
                needed = packets.stamps[packets.sample_indices(fps)].tolist()
                turns = [(decode(path, fps, None), decode(path, fps, needed)) for _ in range(repeats)]
                full_ms, skipping_ms = (median(turn[k][0] for turn in turns) for k in (0, 1))
                equal = all(turn[0][1:] == turn[1][1:] for turn in turns)
                facts = {"encoder": name, "skippable": skippable, "fps": fps, "same_samples": equal}
                yield facts | {"full_ms": full_ms, "skipping_ms": skipping_ms}
            path.unlink()


def decode(path: Path, fps: float, needed: list[int] | None) -> tuple[float, list[tuple[float, int, str]], float, str]:
    """Sample a recording at the width that a detector reads.

    Returns:
        CPU ms per sample, the time, frame and hash of each, the end of the recording, and its damage.
    """
    samples, seconds = [], 0.0
    with VideoReader(path) as reader:
        width, height = reader.info.size_px
        begin = time.process_time()
        for sample in reader.sample(fps, (640, round(640 * height / width)), needed=needed):
            seconds += time.process_time() - begin
            samples.append((sample.time_s, sample.index, hashlib.sha256(sample.image.tobytes()).hexdigest()))
            begin = time.process_time()
        return 1000 * seconds / len(samples), samples, reader.end_s, str(reader.damage)


def event_f1(first: list[Event], second: list[Event], video: str) -> float:
    """F1 of the events of one run against those of another, at a temporal IoU of 0.5; 1 if there are none."""
    if not first and not second:
        return 1.0
    labels = sorted({event.label for event in (*first, *second)})
    tables = event_table(first, [video], labels), event_table(second, [video], labels)
    return 2 * int(match_by_score(*tables, np.array([0.5])).sum()) / (len(first) + len(second))


def found_share(first: FrameSequence, second: FrameSequence) -> float:
    """Share of the confident objects of a sequence that the other has too."""
    return 1 - len(missing_objects(first, second)) / max(int((first.scores >= CONFIDENT).sum()), 1)


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure everything; `work` is a folder for composed recordings."""
    videos = [recording.path for recording in find_recordings(options.videos)] if options.videos else []
    look = {"noise": options.noise, "inset": options.inset}
    if videos:
        footage = find_footage(videos, options.size, looped=options.looped, **look)
    else:
        footage = draw_footage(options.size, work, **look)
    bench = Bench(options, work)
    rows, agreement = [], []
    for name in options.codecs:
        pieces = encode_pieces(footage, CODECS[name], work)
        bench.model = bench.model or bench.train(pieces)
        short = work / f"{name}.mp4"
        compose(pieces, short, COMPARE_UNITS, COMPARE_SHARE, 100)
        log(f"{name}: comparing with full extraction")
        agreement.append({"codec": name, **bench.compare(short)})
        log(json.dumps(agreement[-1]))
        load_s = bench.predict(short, work / "features", work / f"{name}-load").wall_s if options.hours else 0.0
        for hours in options.hours:
            for share in options.shares:
                video = work / "long.mp4"
                truth = compose(pieces, video, round(hours * 3600 / UNIT_S), share, 0)
                log(f"{name}: {hours:g} h, {share:.1%} active, {video.stat().st_size / 1e9:.2f} GB")
                row = {"codec": name, "hours": hours, "share": share, "bytes": video.stat().st_size}
                load = os.getloadavg()[0]
                rows.append({**row, "clips": len(truth), "load": load, **bench.speed(video, hours, load_s)})
                video.unlink()
                log(json.dumps(rows[-1]))
    report: dict[str, Any] = {"machine": machine(), "settings": {n: str(v) for n, v in vars(options).items()}}
    report |= {"agreement": agreement, "speed": rows}
    if options.busy:
        log("busy street")
        looped = join([options.busy] * options.loops, work / "busy.mp4")
        report["busy"] = bench.busy(looped, options.repeats)
        report["skipping"] = []
        for row in bench.skipping(options.busy, options.repeats):
            report["skipping"].append(row)
            log(json.dumps(row))
    return report


def text_of(report: dict[str, Any]) -> str:
    """Format the tables."""
    lines = ["agreement   decoded  event F1  events  objects found  of them in full"]
    for row in report["agreement"]:
        lines.append(
            f"{row['codec']:10}{row['decoded']:9.1%}{row['f1']:10.3f}{row['events']:8}{row['objects']:15.3f}"
            f"{row['objects_of_full']:17.3f}"
        )
    stages = list(report["speed"][0]["stages"]) if report["speed"] else []
    lines += [
        "",
        "speed      hours  active  decoded  x real time  CPU s   MiB  " + "  ".join(f"{name} s" for name in stages),
    ]
    for row in report["speed"]:
        cells = "  ".join(f"{row['stages'][name]:>{len(name) + 2}.1f}" for name in stages)
        lines.append(
            f"{row['codec']:10}{row['hours']:6g}{row['share']:8.1%}{row['decoded']:9.1%}{row['real_time']:13.0f}"
            f"{row['cpu_s']:7.0f}{row['peak_mib']:6.0f}  {cells}"
        )
    if "busy" in report:
        lines += ["", f"busy street: adaptive takes {report['busy']['ratio']:.3f} of the CPU time of full extraction"]
        lines += ["", f"{'decoding':30}skippable  samples/s  ms per sample  skipping   less  same samples"]
        for row in report["skipping"]:
            lines.append(
                f"{row['encoder']:30}{row['skippable']:9.0%}{row['fps']:11g}{row['full_ms']:15.1f}{row['skipping_ms']:10.1f}"
                f"{1 - row['skipping_ms'] / row['full_ms']:7.0%}  {row['same_samples']}"
            )
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Plot speed against the share of activity, a line per codec and length."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for codec, hours in dict.fromkeys((row["codec"], row["hours"]) for row in report["speed"]):
        rows = [row for row in report["speed"] if (row["codec"], row["hours"]) == (codec, hours)]
        points = sorted((100 * row["share"], row["real_time"]) for row in rows)
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{codec}, {hours:g} h")
    axes.set(xscale="log", yscale="log", xlabel="share of the time with activity, %", ylabel="speed over real time")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", help="files, folders, globs; none draws scenes")
    parser.add_argument("--weights", required=True, type=Path, help="an Ultralytics detector (.pt)")
    parser.add_argument("--model", type=Path, help="a model that reads this detector; default: train one")
    parser.add_argument("--hours", type=float, nargs="*", default=[1.0], help="lengths of the recordings")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.002, 0.01, 0.05], help="shares with activity")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS), help="encoder settings")
    parser.add_argument("--looped", action="store_true", help="loop the still moment instead of averaging it")
    parser.add_argument("--noise", type=float, default=1.5, help="standard deviation of the noise that is added")
    parser.add_argument("--inset", type=float, default=0.33, help="share of the width in which clips appear; 1 is all")
    parser.add_argument("--busy", type=Path, help="a recording in which something always moves")
    parser.add_argument("--loops", type=int, default=3, help="times that the busy recording is repeated")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the busy recording")
    parser.add_argument("--size", type=size, default=(1920, 1080), help="WIDTHxHEIGHT of the recordings")
    parser.add_argument("--fps", type=float, default=5.0, help="samples per second")
    parser.add_argument("--imgsz", type=int, default=640, help="longer side of the network's input in pixels")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for bench_adaptive.json and .png")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as work:
        report = run(options, Path(work).absolute())
    write_atomic(options.out / "bench_adaptive.json", json.dumps(report, indent=1).encode())
    if report["speed"]:
        plot(report, options.out / "bench_adaptive.png")
    print(text_of(report))


if __name__ == "__main__":
    main()
