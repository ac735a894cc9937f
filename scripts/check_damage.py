"""Damage good recordings in many ways, extract them, and check that nothing crashes and no loss goes unreported.

    python scripts/check_damage.py --variants 300
    python scripts/check_damage.py --only 17 --keep      # repeat one variant, and keep its file
    python scripts/check_damage.py --videos FOLDER       # damage these instead of synthetic ones

Each variant is extracted twice, beside different others: both must give the same status and bytes. Every result must
be done, partial or failed, the last two with a reason. A loss is silent if a recording ends as done but lacks samples
of the good one. That is an error if the damage is in the payload or at the tail. Where bits are flipped anywhere, or
sizes forged, the header may describe another video: losses are only listed. Needs a checkout. Exits with 1 if anything
was wrong.
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
RUNTIME = RuntimeSettings(backend="torch", precision="fp32", threads=count_cores())
End = tuple[str, str, list[tuple[int, float]], bytes]  # status, reason, index and time of the samples, bytes
Table = Counter[tuple[str, str, str]]  # by kind, container, and how it ended


class Source(NamedTuple):
    """A good recording, the byte ranges of its packets, and unusual recordings of its kind."""

    label: str
    suffix: str
    data: bytes
    packets: list[tuple[int, int]]
    others: dict[str, bytes]


def _draw(number: int, width: int, height: int) -> np.ndarray:
    """Draw the counter over a moving texture, so that packets have some content."""
    frame = draw_counter(number, width, height)
    noise = np.random.default_rng(7).integers(0, 60, (height // 2, width, 1), np.uint8)
    frame[height // 2 :] += np.roll(noise, number, axis=1)[: height - height // 2]
    return frame


def make_sources(folder: Path) -> list[Source]:
    """Make a recording for each of KINDS."""
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
    """Read the recordings of a folder."""
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
    """Return the byte range of each video packet of a recording."""
    with av.open(str(path)) as container:
        packets = list(container.demux(container.streams.video[0]))
    return sorted((packet.pos, packet.pos + packet.size) for packet in packets if packet.size and packet.pos >= 0)


FIXED = ("good", "header", "audio", "none", "one")
CHECKED = ("truncated", "payload", "zeros", "cut", "appended", "joined")
LISTED = ("anywhere", "forged")


def damage(kind: str, source: Source, rng: random.Random) -> bytes | None:
    """Damage a recording as `kind` says, one of those above; None if the source has no such recording."""
    good, data, begin, end = source.data, bytearray(source.data), source.packets[0][0], source.packets[-1][1]
    match kind:
        case "header":
            return good[:begin]
        case "audio" | "none" | "one":
            return source.others.get(kind)
        case "truncated":  # cut between two of its packets, a transport stream is an intact shorter one
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
    """Change the frame size in the container or a key frame; where neither is known, change some of the first bytes."""
    size = rng.choice((0, 1, 5000, 16383, 32000))
    two, four = size.to_bytes(2, "little"), size.to_bytes(4, "little")
    for mark, skip, each in ((b"avc1", 28, two[::-1]), (b"\x9d\x01\x2a", 3, two), (b"strf\x28", 12, four)):
        if (at := data.find(mark)) >= 0:
            data[at + skip : at + skip + 2 * len(each)] = 2 * each
            return
    for at in rng.sample(range(begin, begin + 100), 4):
        data[at] = rng.randrange(256)


class Variant(NamedTuple):
    """A damaged recording and its file name."""

    number: int
    name: str
    kind: str
    source: Source
    data: bytes


def make_variants(sources: list[Source], count: int, seed: int) -> list[Variant]:
    """Make each good or unusual recording once, then damage of all kinds in turn. No two have the same bytes."""
    plan = [(kind, source) for source in sources for kind in FIXED]
    damaging = [(kind, source) for kind in (*CHECKED, *LISTED) for source in sources]
    plan += [damaging[number % len(damaging)] for number in range(count)]
    variants = []
    for number, (kind, source) in enumerate(plan):
        data = damage(kind, source, random.Random(f"{seed}/{number}"))
        name = f"{number:04d}-{kind}-{source.label.replace(' ', '-')}{source.suffix}"
        variants += [Variant(number, name, kind, source, data)] if data is not None else []
    return list({variant.data: variant for variant in reversed(variants)}.values())[::-1]


def extract_all(variants: list[Variant], folder: Path, weights: Path) -> dict[int, End]:
    """Extract each with its neighbours in the list, and return how it ended."""
    ends: dict[int, End] = {}
    for first in range(0, len(variants), VARIANTS_A_RUN):
        videos, cache = folder / f"videos{first}", folder / f"cache{first}"
        videos.mkdir(parents=True)
        for variant in variants[first : first + VARIANTS_A_RUN]:
            (videos / variant.name).write_bytes(variant.data)
        opened = SequenceCache(cache)
        for result in _extract(videos, cache, weights):
            content: tuple[list[tuple[int, float]], bytes] = ([], b"")
            if result.key is not None:
                sequence, files = opened.read(result.key), sorted((cache / result.key).iterdir())
                samples = list(zip(sequence.frame_index.tolist(), sequence.time_s.tolist(), strict=True))
                content = (samples, b"".join(path.read_bytes() for path in files))
            ends[int(result.recording.name[:4])] = (result.status, result.reason, *content)
    return ends


def _extract(videos: Path, cache: Path, weights: Path) -> list[ExtractionResult]:
    """Extract in a forked process, which is ended when it takes too long."""
    pickled = cache.with_suffix(".results")
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(RUN_LIMIT_S)
            patch("vidgru.extraction.decode_process.HANG_S", HANG_S).start()
            settings = DetectorSettings(weights=str(weights), imgsz=64, fps=5, conf=0.2, max_objects=6)
            results = extract_recordings(
                find_recordings([videos]), SequenceCache(cache), settings, RUNTIME, progress=False
            )
            pickled.write_bytes(pickle.dumps(results))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"the run over {videos} {'hangs' if code == -signal.SIGALRM else f'ended with {code}'}")
    return pickle.loads(pickled.read_bytes())


def evaluate(
    variants: list[Variant], once: dict[int, End], again: dict[int, End]
) -> tuple[list[str], list[str], Table]:
    """Return problems, losses that are only listed, and counts of (kind, container, status)."""
    problems, listed, table = [], [], Table()
    good = {variant.source.label: once[variant.number][2] for variant in variants if variant.kind == "good"}
    for variant in variants:
        status, reason, samples, content = once[variant.number]
        where = f"{variant.name}: {status} {reason}"
        table[variant.kind, variant.source.label, status] += 1
        if (status == "done") == bool(reason) or (variant.kind == "good" and status != "done"):
            problems.append(f"{where}: unexpected result")
        if again[variant.number][:2] != (status, reason) or again[variant.number][3] != content:
            problems.append(f"{where}: the second time: {again[variant.number][:2]}, or other bytes")
        times = {time_s for _, time_s in samples}
        lost = sum(time_s not in times for _, time_s in good[variant.source.label])
        if status == "done" and not lost and set(good[variant.source.label]) - set(samples):
            # FFmpeg skips some frames without reporting it. If none of them is sampled, only the frame numbers show it.
            listed.append(f"{where}: a frame between two samples is lost")
        if status == "done" and lost and variant.kind in (*CHECKED, *LISTED):
            table[variant.kind, variant.source.label, "silent"] += 1
            loss = f"{where}: silently lost {lost} of {len(good[variant.source.label])} samples"
            (problems if variant.kind in CHECKED else listed).append(loss)
    return problems, listed, table


def show(table: Table, sources: list[Source]) -> None:
    """Print done/partial/failed counts by kind and container, with silent losses after an exclamation mark."""
    print(f"{'done/partial/failed':20}" + "".join(f"{source.label:>12}" for source in sources))
    for kind in (*FIXED, *CHECKED, *LISTED):
        row = f"{kind:20}"
        for source in sources:
            *counts, silent = (table[kind, source.label, end] for end in ("done", "partial", "failed", "silent"))
            row += f"{'/'.join(map(str, counts)) + f' !{silent}' * bool(silent):>12}"
        print(row)


def main() -> int:
    """Parse the command line and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=300, help="number of randomly damaged variants (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--videos", type=Path, help="folder of good recordings to damage")
    parser.add_argument("--only", type=int, help="number of a single variant to extract, beside the good ones")
    parser.add_argument("--keep", action="store_true", help="keep the working folder and print its path")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vidgru-damage-"))
    try:
        weights = make_weights(folder / "tiny.pt")
        sources = given(arguments.videos) if arguments.videos else make_sources(folder / "sources")
        variants = make_variants(sources, arguments.variants, arguments.seed)
        variants = [v for v in variants if arguments.only in (None, v.number) or v.kind == "good"]
        once = extract_all(variants, folder / "once", weights)
        again = extract_all(random.Random(1).sample(variants, len(variants)), folder / "again", weights)
        problems, listed, table = evaluate(variants, once, again)
        show(table, sources)
        print(f"{len(variants)} variants, each extracted twice; seed {arguments.seed}")
        if arguments.only is not None:
            print(*once[arguments.only][:2], once[arguments.only][2], sep="\n")
        print("\n".join(["losses of no sample, or where the header may be wrong:"] * bool(listed) + listed))
        print("\n".join([f"{len(problems)} problems (inspect one with --only NUMBER --keep):", *problems]))
        return 1 if problems else 0
    finally:
        print(f"kept: {folder}") if arguments.keep else shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
