"""Compare extraction by one process with shards, the same command run twice, and Ray.

    python scripts/bench_scale.py videos/ --weights yolo26n.pt

Every variant extracts all recordings into an empty cache, with --threads per worker, from the command line, so loading
Python, PyTorch and the detector counts. Variants take turns (A B C A B C ...), so that drift of the machine affects all
of them equally; medians are shown. All must write the same entries. Ray's cluster is started beforehand, as clusters
are. Writes OUT/bench_scale.json.
"""

from __future__ import annotations

import argparse
import functools
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

SINGLE = "one process"
LEGEND = """\
wall: from the start of the first process to the end of the last. speed-up: wall of one process / wall.
overhead: workers x wall / wall of one process - 1."""


class Variant(NamedTuple):
    """A way to run extraction.

    Attributes:
        name: Name in the table.
        workers: Number of workers.
        flags: Flags of `vidgru extract`, a list per process to start.
    """

    name: str
    workers: int
    flags: list[list[str]]

    @property
    def uses_ray(self) -> bool:
        """Whether it runs on Ray."""
        return "--ray=auto" in self.flags[0]


def list_variants(ray: bool) -> list[Variant]:
    """Return one process, and every way to use one and two workers."""
    variants = [Variant(SINGLE, 1, [[]])]
    for workers in (1, 2):
        shards = [[f"--shard={number}/{workers}"] for number in range(1, workers + 1)]
        variants.append(Variant(f"shards, {workers} worker{'s' * (workers > 1)}", workers, shards))
    variants.append(Variant("the same command twice", 2, [[], []]))
    for workers in (1, 2) if ray else ():
        name = f"Ray, {workers} worker{'s' * (workers > 1)}"
        variants.append(Variant(name, workers, [["--ray=auto", f"--workers={workers}"]]))
    return variants


def measure(variant: Variant, sources: list[str], settings: list[str], threads: int) -> dict[str, Any]:
    """Extract everything into a new cache; return `wall_s`, `samples` and the `digest` of the entries."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "vidgru", "extract", *sources, *settings, f"--out={cache}"]
        threads_flag = "--threads-per-worker" if variant.uses_ray else "--threads"
        begin = time.perf_counter()
        processes = [
            subprocess.Popen(
                [*command, f"{threads_flag}={threads}", *flags],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for flags in variant.flags
        ]
        outputs = [process.communicate()[0] for process in processes]
        wall_s = time.perf_counter() - begin
        for process, output in zip(processes, outputs, strict=True):
            if process.returncode not in (0, 1):  # 1: a recording is damaged, which is the same for all variants
                raise SystemExit(f"{variant.name} failed:\n{output}")
        samples = sum(entry.samples for entry in SequenceCache(cache).entries())
        return {"wall_s": wall_s, "samples": samples, "digest": hash_entries(Path(cache))}


def hash_entries(cache: Path) -> str:
    """Return the SHA-256 of the names and contents of all files of all entries."""
    digest = hashlib.sha256()
    for path in sorted(cache.glob("[0-9a-f]*/*")):
        digest.update(str(path.relative_to(cache)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Run a Ray cluster on this machine."""
    ray = [str(Path(sys.executable).with_name("ray"))]
    if not subprocess.run([*ray, "status"], capture_output=True, check=False).returncode:
        raise SystemExit("a Ray cluster is already running here: stop it (ray stop), or pass --no-ray")
    start = ["start", "--head", "--disable-usage-stats", "--include-dashboard=false", "--port=0"]
    run_quietly = functools.partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run_quietly([*ray, *start, f"--num-cpus={max(2, count_cores())}"])
    try:
        yield
    finally:
        run_quietly([*ray, "stop"])


def table(report: dict[str, Any]) -> str:
    """Format the report."""
    single_s = report["variants"][SINGLE]["wall_s"]
    lines = [f"{'':24} {'wall':>8} {'samples/s':>10} {'speed-up':>9} {'overhead':>9}"]
    for name, variant in report["variants"].items():
        overhead = variant["workers"] * variant["wall_s"] / single_s - 1
        lines.append(
            f"{name:24} {variant['wall_s']:6.1f} s {report['samples'] / variant['wall_s']:10.1f}"
            f" {single_s / variant['wall_s']:8.2f}x {overhead:9.0%}"
        )
    same = "all entries are byte-equal" if report["same_bytes"] else "THE ENTRIES DIFFER"
    settings = f"{report['samples']} samples, {report['threads']} threads per worker, {report['repeats']} repeats"
    return "\n".join([*lines, LEGEND, f"{settings}; {same}"])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="recordings: files, folders")
    parser.add_argument("--weights", required=True, help="an Ultralytics detector")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to sample")
    parser.add_argument("--imgsz", type=int, default=640, help="longer side of the network's input")
    parser.add_argument("--threads", type=int, default=1, help="threads per worker")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True, help="include Ray")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    args = parser.parse_args()
    settings = [f"--weights={args.weights}", f"--fps={args.fps:g}", f"--imgsz={args.imgsz}"]
    runs: dict[str, list[dict[str, Any]]] = {}
    variants = list_variants(args.ray)
    for turn in range(args.repeats):
        for variant in variants:
            print(f"{turn + 1} of {args.repeats}: {variant.name}", file=sys.stderr, flush=True)
            with ray_cluster() if variant.uses_ray else nullcontext():
                run = measure(variant, args.sources, settings, args.threads)
            runs.setdefault(variant.name, []).append(run)
    all_runs = [run for repeats in runs.values() for run in repeats]
    report = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": count_cores()},
        "samples": all_runs[0]["samples"],
        "threads": args.threads,
        "repeats": args.repeats,
        "same_bytes": len({run["digest"] for run in all_runs}) == 1,
        "variants": {
            variant.name: {
                "workers": variant.workers,
                "wall_s": median(run["wall_s"] for run in runs[variant.name]),
                "walls_s": [run["wall_s"] for run in runs[variant.name]],
            }
            for variant in variants
        },
    }
    print(table(report))
    write_atomic(args.out / "bench_scale.json", (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)  # use the cluster that is started here
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", RAY_USAGE_STATS_ENABLED="0")
    main()
