"""Kill extraction at random moments and check that nothing is lost and the same bytes are written.

    python scripts/check_kills.py                    # 300 kills of whole runs, then of decoders alone
    python scripts/check_kills.py --processes 2      # two runs share the work, and either is killed
    python scripts/check_kills.py --adaptive         # recordings that are still, and one whose plan is given up

A small folder is extracted once undisturbed, as the reference. Then runs are killed (SIGKILL) at random moments; each
resumes in the cache that the previous one left. Whenever a run completes, its entries must equal the reference byte for
byte, and the next run starts with an empty cache. Needs a checkout, and Linux to list the remaining processes. Exits
with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

# Before numpy and ultralytics are imported: a process that forks must have no threads, and there may be no network.
os.environ.update(OPENBLAS_NUM_THREADS="1", YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import torch

from tests.detectors import make_weights
from tests.still_videos import WALK_S, write_still
from tests.videos import faststart, write_video
from vidgru.cache import EntryWriter, SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.extraction import decode_task
from vidgru.extraction.decode_process import DecoderProcess
from vidgru.extraction.detector_pool import count_cores
from vidgru.extraction.pipeline import extract_recordings, summary_table
from vidgru.sources import find_recordings

PART_SAMPLES = 16  # small, so that short recordings have resume points
SEGMENT_SAMPLES = 24
MARK = "VIDGRU_CHECK_KILLS"  # environment variable that identifies the decoders of a run
ORPHAN_TIMEOUT_S = 10.0
RUNTIME = RuntimeSettings(backend="torch", precision="fp32", threads=count_cores())


def make_videos(folder: Path, scratch: Path) -> None:
    """Write recordings of several kinds: a long one and its copy, damaged ones, and short ones."""
    write_video(folder / "long.mp4", 320, options={"g": "16"})
    (folder / "long_again.mp4").write_bytes((folder / "long.mp4").read_bytes())
    write_video(folder / "b.mkv", 60, options={"g": "10"})
    write_video(folder / "c.avi", 45, codec="mpeg4", size_px=(96, 160))
    write_video(folder / "d.ts", 50)
    data = bytearray(write_video(scratch / "damaged.mkv", 120, options={"g": "20"}).read_bytes())
    for at in range(len(data) // 3, len(data) // 3 + 40):
        data[at] ^= 0x55
    (folder / "damaged.mkv").write_bytes(data)
    whole = faststart(write_video(scratch / "cut.mp4", 100)).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])


def make_quiet_videos(folder: Path) -> None:
    """Write recordings that are still but for a few seconds, in which one of them is damaged."""
    data = bytearray(write_still(folder / "quiet.mp4").read_bytes())
    with av.open(str(folder / "quiet.mp4")) as container:
        packet = next(p for p in container.demux(video=0) if p.pts * p.time_base > WALK_S[0] + 1)
        data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    (folder / "damaged.mp4").write_bytes(data)


@dataclass
class Runs:
    """Runs of extraction in forked processes. Those of one slot follow each other and share a log of their progress."""

    videos: Path
    weights: Path
    logs: Path
    adaptive: bool
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def start(self, cache: Path, slot: int = 0) -> int:
        """Fork a run and return its process id."""
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            self._work(cache, slot)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _work(self, cache: Path, slot: int) -> None:
        os.environ[MARK] = f"{self.token}-{slot}"
        adopt = EntryWriter.__enter__

        def log(kind: str) -> None:
            with open(self.logs / str(slot), "a") as file:
                file.write(f"{kind}\n")

        def enter_and_log(writer: EntryWriter) -> EntryWriter:
            adopt(writer)
            if writer.samples:
                log("resumed")
            return writer

        start = DecoderProcess._start

        def start_and_log(decoder: DecoderProcess) -> None:
            start(decoder)
            log(f"decoder-{decoder._process.pid}")  # type: ignore[union-attr]

        for module in ("vidgru.cache.writer", "vidgru.extraction.decode_task", "vidgru.extraction.pipeline"):
            patch(f"{module}.PART_SAMPLES", PART_SAMPLES).start()
        patch.object(decode_task, "SEGMENT_SAMPLES", SEGMENT_SAMPLES).start()
        patch.object(EntryWriter, "__enter__", enter_and_log).start()
        patch.object(DecoderProcess, "_start", start_and_log).start()
        settings = DetectorSettings(
            weights=str(self.weights), imgsz=64, fps=10, conf=0.2, max_objects=6, adaptive=self.adaptive
        )
        results = extract_recordings(
            find_recordings([self.videos]),
            SequenceCache(cache),
            settings,
            RUNTIME,
            progress=False,
            on_result=lambda result: log(result.status),
        )
        if any(result.status == "failed" for result in results):
            raise RuntimeError(summary_table(results))

    def logged(self, slot: int = 0) -> Counter[str]:
        """Count the log lines of a slot by kind."""
        path = self.logs / str(slot)
        return Counter(path.read_text().split() if path.exists() else [])

    def decoders(self, slot: int = 0) -> set[int]:
        """Return the process ids of a slot's live decoders."""
        variable = f"{MARK}={self.token}-{slot}".encode()
        pids = set()
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and variable in (folder / "environ").read_bytes().split(b"\0"):
                    pids.add(int(folder.name))
            except OSError:  # it has ended, or is another user's
                continue
        return pids

    def orphans(self, slot: int) -> set[int]:
        """Return the decoders that outlive their run by some seconds."""
        end = time.monotonic() + ORPHAN_TIMEOUT_S
        while (left := self.decoders(slot)) and time.monotonic() < end:
            time.sleep(0.05)
        return left


def content(cache: Path) -> dict[str, bytes]:
    """Return the contents of all files of entries, by path."""
    folders = [path for path in cache.iterdir() if len(path.name) == 64] if cache.is_dir() else []
    return {str(path.relative_to(cache)): path.read_bytes() for folder in folders for path in folder.iterdir()}


def faults(cache: Path, reference: dict[str, bytes]) -> list[str]:
    """Describe what is wrong with the cache of a complete run."""
    written, opened = content(cache), SequenceCache(cache)
    names = sorted(written.keys() | reference.keys())
    problems = [f"{name}: differs from the reference" for name in names if written.get(name) != reference.get(name)]
    problems += [f"{entry.key}: {fault}" for entry in opened.entries() for fault in opened.verify(entry.key)]
    left = [path for path in cache.rglob("*.tmp") if path.parent != opened.lock_folder]  # locks deletes old ones itself
    left += [folder for _, folder in opened.incomplete_entries()]
    problems += [f"left over: {path.relative_to(cache)}" for path in sorted(left)]
    return problems


def ended(pid: int, patience_s: float) -> int | None:
    """Return the exit status of a child as `os.waitpid` does; None if it is still running after `patience_s`."""
    end = time.monotonic() + patience_s
    while True:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
        if ended_pid:
            return status
        if time.monotonic() > end:
            return None
        time.sleep(min(0.002, max(end - time.monotonic(), 0)))


class KillCheck:
    """Kills runs and collects problems."""

    def __init__(self, runs: Runs, folder: Path, rng: random.Random, kills: int) -> None:
        self.runs, self.folder, self.rng, self.kills = runs, folder, rng, kills
        self.cache = folder / "cache"
        self.problems: list[str] = []
        self.killed = self.completed = 0
        self.depths: Counter[int] = Counter()  # tenths of the reference's parts that were on disk at a kill
        start = time.monotonic()
        if ended(runs.start(folder / "reference"), 600) != 0:
            raise SystemExit("the undisturbed run failed")
        self.full_s = time.monotonic() - start
        self.reference = content(folder / "reference")
        shutil.rmtree(runs.logs)
        runs.logs.mkdir()

    def kill_processes(self, processes: int) -> None:
        """Kill whole runs, `processes` of which work at once, until the kills are used up."""
        alive: dict[int, int] = {}
        finished: set[int] = set()
        while self.killed < self.kills or alive:
            for slot in set(range(processes)) - alive.keys() - finished:
                alive[slot] = self.runs.start(self.cache, slot)
            victim = self.rng.choice(sorted(alive))
            patience = self.rng.uniform(0, self.full_s) if self.killed < self.kills else 600.0
            status = ended(alive[victim], patience)
            if status is None:
                os.kill(alive[victim], signal.SIGKILL)
                os.waitpid(alive.pop(victim), 0)
                self._count_kill(victim)
                continue
            del alive[victim]
            finished.add(victim)
            if status:
                self.problems.append(f"run ended with status {status}")
            if not alive and len(finished) == processes:
                finished.clear()
                self._compare()
            if self.problems:
                break
        for pid in alive.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def kill_decoders(self, runs: int) -> None:
        """Kill each decoder process of a run once, in `runs` runs: the run must complete all the same."""
        for _ in range(runs):
            known = self.runs.logged().keys()
            start, pid = time.monotonic(), self.runs.start(self.cache)
            first: list[int] = []  # not their replacements: two deaths at one place end a recording
            while len(first) < count_cores() and time.monotonic() - start < self.full_s:
                first = [int(line[8:]) for line in self.runs.logged().keys() - known if line.startswith("decoder-")]
                time.sleep(0.005)
            moments = sorted(self.rng.uniform(0, self.full_s / 2) for _ in first)
            for decoder, moment in zip(first, moments, strict=True):
                time.sleep(max(start + self.full_s / 4 + moment - time.monotonic(), 0))
                if decoder in self.runs.decoders():
                    os.kill(decoder, signal.SIGKILL)
                    self.killed += 1
            status = ended(pid, 600)
            if status != 0:
                self.problems.append(f"run ended with status {status} after a decoder's death")
                return
            self._compare()

    def _count_kill(self, slot: int) -> None:
        self.killed += 1
        parts = len(list(self.cache.rglob("part-*.safetensors")))
        whole = sum("part-" in name for name in self.reference)
        self.depths[min(parts * 10 // whole, 9)] += 1
        if left := self.runs.orphans(slot):
            self.problems.append(f"decoders {sorted(left)} outlived their run by {ORPHAN_TIMEOUT_S:.0f} s")

    def _compare(self) -> None:
        self.problems += [f"cache {self.completed}: {fault}" for fault in faults(self.cache, self.reference)]
        if not self.problems:
            shutil.rmtree(self.cache)
        self.completed += 1


def main() -> int:
    """Parse the command line and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="kills of whole runs (300)")
    parser.add_argument("--decoder-runs", type=int, help="runs whose decoders are killed (a tenth of --kills)")
    parser.add_argument("--processes", type=int, default=1, help="runs at once (1)")
    parser.add_argument("--adaptive", action="store_true", help="extract recordings that are still adaptively")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the working folder and print its path")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vidgru-kills-"))
    try:
        (folder / "logs").mkdir()
        if arguments.adaptive:
            make_quiet_videos(folder / "videos")
        else:
            make_videos(folder / "videos", folder / "scratch")
        runs = Runs(folder / "videos", make_weights(folder / "tiny.pt"), folder / "logs", arguments.adaptive)
        check = KillCheck(runs, folder, random.Random(arguments.seed), arguments.kills)
        print(f"undisturbed: {check.full_s:.1f} s, {sum('part-' in name for name in check.reference)} parts")
        check.kill_processes(arguments.processes)
        logs = [runs.logged(slot) for slot in range(arguments.processes)]
        resumed, extracted = sum(log["resumed"] for log in logs), [log["done"] + log["partial"] for log in logs]
        print(f"{check.killed} kills, {check.completed} caches completed, {resumed} times resumed inside a recording")
        print("kills by how much was on disk: " + " ".join(f"{10 * n}%:{check.depths[n]}" for n in range(10)))
        check.problems += ["no run resumed inside a recording"] * (not resumed)
        if arguments.processes > 1:
            print(f"recordings extracted by each process: {extracted}")
            check.problems += ["the work was not shared"] * (0 in extracted)
        decoder_runs = arguments.kills // 10 if arguments.decoder_runs is None else arguments.decoder_runs
        if not check.problems and decoder_runs:
            before = check.killed
            check.kill_decoders(decoder_runs)
            print(f"{check.killed - before} kills of decoders alone, in {decoder_runs} runs")
        print("\n".join(check.problems) or "all caches equal the undisturbed one")
        return 1 if check.problems else 0
    finally:
        print(f"kept: {folder}") if arguments.keep else shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
