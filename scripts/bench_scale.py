"""What sharing a folder out costs and brings: shards, the same command twice, and Ray, against one process.

    python scripts/bench_scale.py videos/ --weights yolo26n.pt

Every contender extracts all recordings into a cache of its own, with so many threads a worker (`--threads`), started as
a user starts it, so that loading Python, PyTorch and the detector counts. Contenders take turns (A B C A B C ...), so
that drift of the machine meets all alike; medians are shown. That all have made the same entries is checked. A
cluster of Ray is there before its commands start, as clusters are. Writes OUT/bench_scale.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from vidgru.cache import SequenceCache
from vidgru.extraction.detector_pool import count_cores
from vidgru.storage import write_atomic

ALONE = "one process"
LEGEND = """\
wall: from the start of the first process to the end of the last. speed-up: wall of one process / wall.
overhead: what the workers took together (workers x wall), over what one process took, less one."""


class Contender(NamedTuple):
    """What is measured.

    Attributes:
        name: in the table.
        workers: that share the recordings.
        flags: of `vidgru extract`, a list for each process that is started.
    """

    name: str
    workers: int
    flags: list[list[str]]

    @property
    def over_ray(self) -> bool:
        """Whether Ray shares the work out."""
        return "--ray=auto" in self.flags[0]


def contenders(ray: bool) -> list[Contender]:
    """One process, and all ways to share its work among one and two workers."""
    found = [Contender(ALONE, 1, [[]])]
    for workers in (1, 2):
        shards = [[f"--shard={number}/{workers}"] for number in range(1, workers + 1)]
        found.append(Contender(f"shards, {workers} worker{'s' * (workers > 1)}", workers, shards))
    found.append(Contender("the same command twice", 2, [[], []]))
    for workers in (1, 2) if ray else ():
        name = f"Ray, {workers} worker{'s' * (workers > 1)}"
        found.append(Contender(name, workers, [["--ray=auto", f"--workers={workers}"]]))
    return found


def measure(contender: Contender, sources: list[str], settings: list[str], threads: int) -> dict[str, Any]:
    """Extract everything into a new cache.

    Returns:
        `wall_s`, `samples`, and `digest`: of all files of the entries.
    """
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "vidgru", "extract", *sources, *settings, f"--out={cache}"]
        by = "--threads-per-worker" if contender.over_ray else "--threads"
        begin = time.perf_counter()
        started = [
            subprocess.Popen(
                [*command, f"{by}={threads}", *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for flags in contender.flags
        ]
        said = [process.communicate()[0] for process in started]
        wall_s = time.perf_counter() - begin
        for process, text in zip(started, said, strict=True):
            if process.returncode not in (0, 1):  # 1: a recording is damaged, for all alike
                raise SystemExit(f"{contender.name} failed:\n{text}")
        samples = sum(entry.samples for entry in SequenceCache(cache).entries())
        return {"wall_s": wall_s, "samples": samples, "digest": digest(Path(cache))}


def digest(cache: Path) -> str:
    """SHA-256 over the names and bytes of all files of all entries."""
    found = hashlib.sha256()
    for path in sorted(cache.glob("[0-9a-f]*/*")):
        found.update(str(path.relative_to(cache)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@contextmanager
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine, for the commands that are run meanwhile."""
    ray = [str(Path(sys.executable).with_name("ray"))]
    if not subprocess.run([*ray, "status"], capture_output=True, check=False).returncode:
        raise SystemExit("a Ray cluster runs here, and this starts and stops one: stop it first, or pass --no-ray")
    begin = ["start", "--head", "--disable-usage-stats", "--include-dashboard=false", "--port=0"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*ray, *begin, f"--num-cpus={max(2, count_cores())}"], **quiet)
    try:
        yield
    finally:
        subprocess.run([*ray, "stop"], **quiet)


def table(report: dict[str, Any]) -> str:
    """What was measured, for people."""
    alone = report["contenders"][ALONE]["wall_s"]
    lines = [f"{'':24} {'wall':>8} {'samples/s':>10} {'speed-up':>9} {'overhead':>9}"]
    for name, one in report["contenders"].items():
        overhead = one["workers"] * one["wall_s"] / alone - 1
        lines.append(
            f"{name:24} {one['wall_s']:6.1f} s {report['samples'] / one['wall_s']:10.1f} {alone / one['wall_s']:8.2f}x"
            f" {overhead:9.0%}"
        )
    same = "all entries are the same bytes" if report["same_bytes"] else "THE ENTRIES DIFFER"
    counted = f"{report['samples']} samples, {report['threads']} thread(s) a worker, {report['repeats']} repeats"
    return "\n".join([*lines, LEGEND, f"{counted}; {same}"])


def main() -> None:
    """Measure, print a table, write a report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="recordings: files, folders")
    parser.add_argument("--weights", required=True, help="an Ultralytics detector")
    parser.add_argument("--fps", type=float, default=8.0, help="samples a second")
    parser.add_argument("--imgsz", type=int, default=640, help="longer side of the network's input")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True, help="with Ray")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    given = parser.parse_args()
    settings = [f"--weights={given.weights}", f"--fps={given.fps:g}", f"--imgsz={given.imgsz}"]
    runs: dict[str, list[dict[str, Any]]] = {}
    everyone = contenders(given.ray)
    for turn in range(given.repeats):
        for contender in everyone:
            print(f"{turn + 1} of {given.repeats}: {contender.name}", file=sys.stderr, flush=True)
            with cluster() if contender.over_ray else nullcontext():
                one = measure(contender, given.sources, settings, given.threads)
            runs.setdefault(contender.name, []).append(one)
    every = [run for repeats in runs.values() for run in repeats]
    report = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": count_cores()},
        "samples": every[0]["samples"],
        "threads": given.threads,
        "repeats": given.repeats,
        "same_bytes": len({run["digest"] for run in every}) == 1,
        "contenders": {
            one.name: {
                "workers": one.workers,
                "wall_s": median(run["wall_s"] for run in runs[one.name]),
                "walls_s": [run["wall_s"] for run in runs[one.name]],
            }
            for one in everyone
        },
    }
    print(table(report))
    write_atomic(given.out / "bench_scale.json", (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)  # the cluster that is started here is meant
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", RAY_USAGE_STATS_ENABLED="0")
    main()
