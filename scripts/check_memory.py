"""Check that memory does not grow with the length of a recording: eight hours against one.

    python scripts/check_memory.py                   # scaled down to a hundredth, in a minute or two
    python scripts/check_memory.py --scale 1         # in full

Makes two recordings that differ only in length, of one encoded minute that is repeated without encoding it again,
extracts each in its own process, and compares the memory of that process and its decoders. When scaled down, what a run
buffers on purpose (the part being filled, segments waiting for their turn) is scaled too, or it would hold the whole
shorter recording. Each sample has hundreds of objects, so that frames kept by mistake show in a short run. Needs Linux
and a checkout. Exits with 1 if the longer run takes more than 10 % more memory.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

# Before numpy and ultralytics are imported: a process that forks must have no threads, and there may be no network.
os.environ.update(OPENBLAS_NUM_THREADS="1", YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import torch

from tests.detectors import make_weights
from tests.videos import draw_counter, write_video
from vidgru.cache import SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.extraction.decode_task import SEGMENT_SAMPLES
from vidgru.extraction.detector_pool import count_cores
from vidgru.extraction.pipeline import extract_recordings
from vidgru.sources import find_recordings

TOLERANCE = 0.10
SOURCE_FPS = 10  # every frame is sampled
PIECE_S = 60
POLL_S = 0.1
_M_ARENA_MAX = -8  # of glibc's malloc.h
_USE_PARTS = ("vidgru.cache.writer", "vidgru.extraction.decode_task", "vidgru.extraction.pipeline")
RUNTIME = RuntimeSettings(backend="torch", precision="fp32", threads=count_cores())


@dataclass(frozen=True)
class MemoryUse:
    """Memory of a run, in bytes.

    Attributes:
        peak: The most at any moment.
        late: The median over the last quarter of the run, where growth shows; of the main process alone, since its
            decoders may have ended.
        parts, samples: Parts and samples of the entry.
    """

    peak: int
    late: int
    parts: int
    samples: int


def make_recording(path: Path, seconds: float) -> Path:
    """Write a recording of this length: one encoded piece repeated, with shifted timestamps."""
    frames = round(seconds * SOURCE_FPS)
    piece = write_video(
        path.with_name("piece.mp4"),
        min(PIECE_S * SOURCE_FPS, frames),
        fps=SOURCE_FPS,
        size_px=(96, 96),
        options={"g": "50", "bf": "0", "preset": "ultrafast"},
        draw=lambda number, width, height: draw_counter(number // 10, width, height),
    )
    with av.open(str(piece)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        step = round(1 / SOURCE_FPS / stream.time_base)
        for number in range(frames):
            packet = av.Packet(bytes(packets[number % len(packets)]))
            packet.is_keyframe = packets[number % len(packets)].is_keyframe
            packet.pts = packet.dts = number * step
            packet.duration, packet.time_base, packet.stream = step, stream.time_base, copy
            target.mux(packet)
    piece.unlink()
    return path


def measure(video: Path, cache: Path, settings: DetectorSettings, scale: float) -> MemoryUse:
    """Extract a recording in a forked process, and poll the memory of that process and its decoders.

    Raises:
        RuntimeError: The extraction failed.
    """
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            _use_one_arena()
            _extract(video, cache, settings, scale)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    totals: list[int] = []
    main: list[int] = []  # of the main process
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        main.append(_resident(pid))
        totals.append(main[-1] + sum(map(_resident, _decoders(pid))))
        time.sleep(POLL_S)
    if ended[1]:
        raise RuntimeError(f"extraction of {video} ended with status {ended[1]}")
    entry = next(iter(SequenceCache(cache).entries()))
    last = sorted(main[len(main) * 3 // 4 :])
    return MemoryUse(peak=max(totals), late=last[len(last) // 2], parts=len(entry.parts), samples=entry.samples)


def _use_one_arena() -> None:
    """Make all threads allocate from one heap, if the C library supports it.

    glibc gives a thread its own heap when the others are in use at that moment. How many there are, and how much is
    unused in each, is chance: 10 % of a run's memory, which is as much as this check allows.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _extract(video: Path, cache: Path, settings: DetectorSettings, scale: float) -> None:
    scaled = {
        **dict.fromkeys((f"{module}.PART_SAMPLES" for module in _USE_PARTS), max(round(PART_SAMPLES * scale), 8)),
        "vidgru.extraction.decode_task.SEGMENT_SAMPLES": min(max(round(SEGMENT_SAMPLES * scale), 16), SEGMENT_SAMPLES),
        "vidgru.extraction.pipeline._CHUNK_SAMPLES": 16,
    }
    with ExitStack() as stack:
        for name, value in scaled.items() if scale < 1 else ():
            stack.enter_context(patch(name, value))
        recordings = find_recordings([video])
        (result,) = extract_recordings(recordings, SequenceCache(cache), settings, RUNTIME, progress=False)
    if result.status != "done":
        raise RuntimeError(f"{result.status}: {result.reason}")


def _resident(pid: int) -> int:
    """Return the resident bytes of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _decoders(pid: int) -> list[int]:
    """Return the decoders among a process's children. A child just forked still looks like its parent."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
        return [int(child) for child in children if b"decode_worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def settings_for(weights: Path) -> DetectorSettings:
    """Return settings under which every cell of the network is an object and every frame a sample."""
    return DetectorSettings(weights=str(weights), imgsz=128, fps=SOURCE_FPS, conf=0.0001, max_objects=300)


def compare(short: MemoryUse, long: MemoryUse) -> list[str]:
    """Describe how the longer run exceeds the shorter one."""
    growth = {"at its peak": (short.peak, long.peak), "towards its end": (short.late, long.late)}
    return [
        f"the longer run takes {b / a - 1:+.1%} {when}; {TOLERANCE:.0%} is allowed"
        for when, (a, b) in growth.items()
        if b > a * (1 + TOLERANCE)
    ]


def main() -> int:
    """Parse the command line and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=8.0, help="hours of the longer recording (8); the other has one")
    parser.add_argument("--scale", type=float, default=0.01, help="scale of both lengths (0.01)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vidgru-memory-"))
    try:
        settings = settings_for(make_weights(folder / "tiny.pt"))
        uses = []
        for hours in (1.0, arguments.hours):
            seconds = hours * 3600 * arguments.scale
            video = make_recording(folder / f"{hours}.mp4", seconds)
            start = time.monotonic()
            use = measure(video, folder / f"cache{hours}", settings, arguments.scale)
            uses.append(use)
            print(
                f"{hours:4g} h x {arguments.scale:g}: {use.samples} samples in {use.parts} parts, "
                f"{use.peak / 1e6:.0f} MB peak, {use.late / 1e6:.0f} MB late, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
        problems = compare(*uses)
        print("\n".join(problems) or f"equal within {TOLERANCE:.0%}")
        return 1 if problems else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
