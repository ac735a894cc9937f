"""Damage good recordings in many ways, extract them, and see that nothing crashes and nothing is lost in silence.

    python scripts/check_damage.py --variants 300
    python scripts/check_damage.py --only 17 --keep      # one variant again, and keep its file
    python scripts/check_damage.py --videos FOLDER       # damage these instead of made-up ones

Each variant is extracted twice, in other company: both must come to the same end and the same bytes. Every outcome
must be done, partial or failed, the last two with a reason. A loss is silent where a recording ends as done and lacks
samples of the good one. That is wrong where the damage is in the payload or at the tail. Where bits are flipped
anywhere, or sizes forged, the header may tell of another video: losses are listed. It needs a checkout. Exits with 1 if
anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

# Before numpy and ultralytics are imported: a process that forks must have no threads, and there may be no network.
os.environ.update(OPENBLAS_NUM_THREADS="1", YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import numpy as np
import torch

from tests.detectors import make_weights
from tests.videos import draw_counter, faststart, write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.extraction.detector_pool import count_cores
from vidgru.extraction.pipeline import ExtractionResult, extract_recordings
from vidgru.sources import find_recordings

HANG_S = 10.0
RUN_LIMIT_S = 300
VARIANTS_A_RUN = 32
VPX = {"deadline": "realtime", "cpu-used": "8"}
KINDS: list[tuple[str, str, float, dict[str, str]]] = [  # container, codec, seconds of sound, options
    ("mp4", "libx264", 4.8, {}),
    ("mp4 front", "libx264", 0.0, {}),
    ("mkv", "libx264", 4.8, {}),
    ("avi", "mpeg4", 4.8, {}),
    ("avi h264", "libx264", 0.0, {"bf": "0"}),
    ("ts", "libx264", 4.8, {}),
    ("ts mpeg2", "mpeg2video", 0.0, {}),
    ("webm", "libvpx", 0.0, VPX),
    ("webm vp9", "libvpx-vp9", 0.0, VPX),
]
HOW = RuntimeSettings(backend="torch", precision="fp32", threads=count_cores())
End = tuple[str, str, list[tuple[int, float]], bytes]  # status, reason, index and time of the samples, bytes
Table = Counter[tuple[str, str, str]]  # by kind, container, and how it ended


class Source(NamedTuple):
    """A good recording, first byte and end of its packets, and recordings of its kind that are merely odd."""

    label: str
    suffix: str
    data: bytes
    packets: list[tuple[int, int]]
    others: dict[str, bytes]


def _draw(number: int, width: int, height: int) -> np.ndarray:
    """The counter over a texture that moves, so that packets have some content."""
    frame = draw_counter(number, width, height)
    noise = np.random.default_rng(7).integers(0, 60, (height // 2, width, 1), np.uint8)
    frame[height // 2 :] += np.roll(noise, number, axis=1)[: height - height // 2]
    return frame


def make_sources(folder: Path) -> list[Source]:
    """One recording for each of KINDS."""
    sources = []
    for label, codec, audio_s, options in KINDS:
        stem, suffix, made = folder / label.replace(" ", "-"), f".{label.split()[0]}", {}
        for name, frames in (("none", 0), ("one", 1), ("good", 120)):
            path, rest = stem / f"{name}{suffix}", {"audio_s": audio_s, "options": {"g": "25", **options}}
            write_video(path, frames, fps=25, codec=codec, tick=Fraction(1, 25), draw=_draw, **rest)  # type: ignore
            if path.exists():  # without a packet no file is made
                path = faststart(path) if "front" in label else path
                made[name] = path.read_bytes()
        made["audio"] = _sound(stem / f"audio{suffix}")
        sources.append(Source(label, suffix, made["good"], packets_of(path), made))
    return sources


def given(folder: Path) -> list[Source]:
    """The recordings of a folder."""
    paths = (recording.path for recording in find_recordings([folder]))
    return [Source(path.stem[-11:], path.suffix, path.read_bytes(), packets_of(path), {}) for path in paths]


def _sound(path: Path) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
        for start in range(0, 48000, 960):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def packets_of(path: Path) -> list[tuple[int, int]]:
    """First byte and end of each packet of a recording's video."""
    with av.open(str(path)) as container:
        packets = list(container.demux(container.streams.video[0]))
    return sorted((one.pos, one.pos + one.size) for one in packets if one.size and one.pos >= 0)


FIXED = ("good", "header", "audio", "none", "one")
JUDGED = ("truncated", "payload", "zeros", "cut", "appended", "joined")
LISTED = ("anywhere", "forged")


def damage(kind: str, source: Source, rng: random.Random) -> bytes | None:
    """A recording as `kind` says, of those above; None where there is no such of this source."""
    good, data, begin, end = source.data, bytearray(source.data), source.packets[0][0], source.packets[-1][1]
    match kind:
        case "header":
            return good[:begin]
        case "audio" | "none" | "one":
            return source.others.get(kind)
        case "truncated":  # between two of its packets, a transport stream is a whole one that ends there
            size = rng.randrange(1, len(good))
            return good[: size - (source.suffix == ".ts" and size % 188 == 0)]
        case "zeros":
            at, length = rng.randrange(begin, end), rng.choice((16, 200, 4000))
            return good[:at] + bytes(min(length, end - at)) + good[min(at + length, end) :]
        case "cut":
            first, last = sorted(rng.sample(range(begin, end), 2))
            return good[:first] + good[last:]
        case "appended":
            return good + rng.randbytes(rng.choice((1, 100, 5000)))
        case "joined":
            return good + good[rng.choice((0, 0, len(good) // 2)) :]
        case "payload":
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(*rng.choice(source.packets))] ^= 1 << rng.randrange(8)
        case "anywhere":
            for _ in range(rng.choice((1, 5, 50))):
                data[rng.randrange(begin if rng.random() < 0.5 else len(data))] ^= 1 << rng.randrange(8)
        case "forged":
            _forge(data, begin, rng)
    return bytes(data)


def _forge(data: bytearray, begin: int, rng: random.Random) -> None:
    """Other sizes where the container or a key frame tells them; where neither is understood, other first bytes."""
    size = rng.choice((0, 1, 5000, 16383, 32000))
    two, four = size.to_bytes(2, "little"), size.to_bytes(4, "little")
    for mark, skip, each in ((b"avc1", 28, two[::-1]), (b"\x9d\x01\x2a", 3, two), (b"strf\x28", 12, four)):
        if (at := data.find(mark)) >= 0:
            data[at + skip : at + skip + 2 * len(each)] = 2 * each
            return
    for at in rng.sample(range(begin, begin + 100), 4):
        data[at] = rng.randrange(256)


class Variant(NamedTuple):
    """A damaged recording, and the name of its file."""

    number: int
    name: str
    kind: str
    source: Source
    data: bytes


def make_variants(sources: list[Source], count: int, seed: int) -> list[Variant]:
    """What is good or merely odd once, then damage of all kinds in turn. No two have the same bytes."""
    plan = [(kind, source) for source in sources for kind in FIXED]
    damaging = [(kind, source) for kind in (*JUDGED, *LISTED) for source in sources]
    plan += [damaging[number % len(damaging)] for number in range(count)]
    variants = []
    for number, (kind, source) in enumerate(plan):
        data = damage(kind, source, random.Random(f"{seed}/{number}"))
        name = f"{number:04d}-{kind}-{source.label.replace(' ', '-')}{source.suffix}"
        variants += [Variant(number, name, kind, source, data)] if data is not None else []
    return list({variant.data: variant for variant in reversed(variants)}.values())[::-1]


def extract_all(variants: list[Variant], folder: Path, weights: Path) -> dict[int, End]:
    """What becomes of each, extracted with its neighbours in the list."""
    ends: dict[int, End] = {}
    for first in range(0, len(variants), VARIANTS_A_RUN):
        videos, cache = folder / f"videos{first}", folder / f"cache{first}"
        videos.mkdir(parents=True)
        for variant in variants[first : first + VARIANTS_A_RUN]:
            (videos / variant.name).write_bytes(variant.data)
        opened = SequenceCache(cache)
        for outcome in _extract(videos, cache, weights):
            content: tuple[list[tuple[int, float]], bytes] = ([], b"")
            if outcome.key is not None:
                sequence, files = opened.read(outcome.key), sorted((cache / outcome.key).iterdir())
                samples = list(zip(sequence.frame_index.tolist(), sequence.time_s.tolist(), strict=True))
                content = (samples, b"".join(path.read_bytes() for path in files))
            ends[int(outcome.recording.name[:4])] = (outcome.status, outcome.reason, *content)
    return ends


def _extract(videos: Path, cache: Path, weights: Path) -> list[ExtractionResult]:
    """`extract` in a process of its own, which ends itself when it takes too long."""
    result = cache.with_suffix(".outcomes")
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(RUN_LIMIT_S)
            patch("vidgru.extraction.decode_process.HANG_S", HANG_S).start()
            settings = DetectorSettings(weights=str(weights), imgsz=64, fps=5, conf=0.2, max_objects=6)
            outcomes = extract_recordings(
                find_recordings([videos]), SequenceCache(cache), settings, HOW, progress=False
            )
            result.write_bytes(pickle.dumps(outcomes))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"the run over {videos} {'hangs' if code == -signal.SIGALRM else f'ended with {code}'}")
    return pickle.loads(result.read_bytes())


def judge(variants: list[Variant], once: dict[int, End], again: dict[int, End]) -> tuple[list[str], list[str], Table]:
    """Problems, losses that are only listed, and how often each (kind, container) ended how."""
    problems, listed, table = [], [], Table()
    good = {variant.source.label: once[variant.number][2] for variant in variants if variant.kind == "good"}
    for variant in variants:
        status, reason, samples, content = once[variant.number]
        where = f"{variant.name}: {status} {reason}"
        table[variant.kind, variant.source.label, status] += 1
        if (status == "done") == bool(reason) or (variant.kind == "good" and status != "done"):
            problems.append(f"{where}: not as it has to be")
        if again[variant.number][:2] != (status, reason) or again[variant.number][3] != content:
            problems.append(f"{where}: the second time {again[variant.number][:2]}, or other bytes")
        times = {time_s for _, time_s in samples}
        lost = sum(time_s not in times for _, time_s in good[variant.source.label])
        if status == "done" and not lost and set(good[variant.source.label]) - set(samples):
            # FFmpeg passes over some frames without a sign. Where no sample is among them, only the numbers tell.
            listed.append(f"{where}: no sample is lost, but a frame between two")
        if status == "done" and lost and variant.kind in (*JUDGED, *LISTED):
            table[variant.kind, variant.source.label, "silent"] += 1
            told = f"{where}: lost {lost} of {len(good[variant.source.label])} samples in silence"
            (problems if variant.kind in JUDGED else listed).append(told)
    return problems, listed, table


def show(table: Table, sources: list[Source]) -> None:
    """Print kinds by containers: done/partial/failed, and silent losses after an exclamation mark."""
    print(f"{'done/partial/failed':20}" + "".join(f"{source.label:>12}" for source in sources))
    for kind in (*FIXED, *JUDGED, *LISTED):
        row = f"{kind:20}"
        for source in sources:
            *counts, silent = (table[kind, source.label, end] for end in ("done", "partial", "failed", "silent"))
            row += f"{'/'.join(map(str, counts)) + f' !{silent}' * bool(silent):>12}"
        print(row)


def main() -> int:
    """Parse the command line and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=300, help="damaged at random (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--videos", type=Path, help="folder of good recordings to be damaged")
    parser.add_argument("--only", type=int, help="number of the one variant to look at, beside the good ones")
    parser.add_argument("--keep", action="store_true", help="keep the folder that it works in, and say where it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vidgru-damage-"))
    try:
        weights = make_weights(folder / "tiny.pt")
        sources = given(arguments.videos) if arguments.videos else make_sources(folder / "sources")
        variants = make_variants(sources, arguments.variants, arguments.seed)
        variants = [one for one in variants if arguments.only in (None, one.number) or one.kind == "good"]
        once = extract_all(variants, folder / "once", weights)
        again = extract_all(random.Random(1).sample(variants, len(variants)), folder / "again", weights)
        problems, listed, table = judge(variants, once, again)
        show(table, sources)
        print(f"{len(variants)} variants, each extracted twice; seed {arguments.seed}")
        if arguments.only is not None:
            print(*once[arguments.only][:2], once[arguments.only][2], sep="\n")
        print("\n".join(["lost, but no sample, or the header may tell of another video:"] * bool(listed) + listed))
        print("\n".join([f"{len(problems)} wrong (see one with --only NUMBER --keep):", *problems]))
        return 1 if problems else 0
    finally:
        print(f"kept: {folder}") if arguments.keep else shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
