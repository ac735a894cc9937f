"""Measure extraction: against Ultralytics on the same frames, against the machine's bound, and its start-up.

    python scripts/bench_extract.py street.mp4 --weights yolo26n.pt              # a video, or several, or folders
    python scripts/bench_extract.py street.mp4 --weights yolo26n.pt --clips 40 --size 320x240    # short clips of it

Everything runs on the CPU, each measurement in a fresh process, interleaved (A B C A B C ...) so that drift of the
machine affects all equally; medians are shown. Writes OUT/bench_extract.json and OUT/bench_extract.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg")

import psutil
from bench_videos import join, make_clips

from vidgru.config import DetectorSettings
from vidgru.detector.backends import has_bf16_units
from vidgru.extraction.detector_pool import count_cores
from vidgru.sources import find_recordings
from vidgru.storage import write_atomic

BATCHES = (1, 4, 8, 16)  # tried for Ultralytics
PREDICT, EMBED, LONG = "Ultralytics predict", "Ultralytics embed", "vidgru, one long file"
BOTH = "Ultralytics predict + embed"
VERSIONS = ("vidgru", "ultralytics", "torch", "openvino", "av", "opencv-python", "numpy")
LEGEND = """\
ms/sample: wall time without loading, which for Ultralytics ends with a prediction on blank images, and for vidgru is
  the time of a run on the first batch alone. Loading: wall time with it (Python's imports excluded on both sides).
x predict, x both: speed relative to Ultralytics with its default threads.
CPU: CPU ms/sample of all processes. MiB: peak resident memory of all processes, counting shared pages in each."""
STAGES_LEGEND = """\
CPU ms/sample of each stage alone, single-threaded{busy}. Bound: their sum / {cores} cores; reached: bound / measured.
Others: all but decode, scale and forward, relative to those."""
# Runs the command line in a fresh process, and writes the time from its start to its first decoded frame to stderr.
FIRST_FRAME = """\
import sys, time
from vidgru.cli import run
from vidgru.extraction.decode_task import SegmentDecoder

started, pass_on = float(sys.argv[1]), SegmentDecoder._pass_on

def first(*arguments):
    SegmentDecoder._pass_on = pass_on
    print(f"first frame: {time.time() - started}", file=sys.stderr)
    pass_on(*arguments)

SegmentDecoder._pass_on = first
sys.exit(run(sys.argv[2:]))
"""


# --- running ----------------------------------------------------------------------------------------------------------


def measure(request: dict[str, Any], copies: int = 1) -> dict[str, Any]:
    """Measure in a fresh process, or in several at once, of which the first is reported.

    Returns:
        The output of `bench_stages.py`, with `peak_rss_mib` of the process and its children, and `others_cores`: cores
        that other programs kept busy meanwhile.
    """
    command = [sys.executable, str(Path(__file__).with_name("bench_stages.py")), json.dumps(request)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) for _ in range(copies)]
    peak, begin, busy, own = 0, time.perf_counter(), _busy(), sum(os.times()[2:4])
    try:
        while processes[0].poll() is None:
            peak = max(peak, resident(processes[0].pid))
            time.sleep(0.1)
        printed = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit(f"a measurement failed: {json.dumps(request)}")
    others = (_busy() - busy - sum(os.times()[2:4]) + own) / (time.perf_counter() - begin)
    return {**json.loads(printed[0].splitlines()[-1]), "peak_rss_mib": peak / 2**20, "others_cores": others}


def _busy() -> float:
    """Return the CPU seconds that all programs have used since boot, including those the host took away."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def resident(pid: int) -> int:
    """Return the resident bytes of a process and its children, shared pages counted in each."""
    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.Error:  # it, or a child, has just ended
        pass
    return total


def best_batch(base: dict[str, Any]) -> tuple[int, int, dict[int, float]]:
    """Try each batch size once. Returns Ultralytics' fastest, the threads it sets, and seconds by batch."""
    tried = {}
    for batch in BATCHES:
        log(f"trying {PREDICT} at batch {batch}")
        result = measure({**base, "kind": "ultralytics", "embed": False, "batch": batch, "threads": 0})
        tried[batch] = result["wall_s"]
    return min(tried, key=tried.__getitem__), result["threads"], tried


def backends() -> list[tuple[str, str]]:
    """Return the backends and precisions of this machine, the default first."""
    precisions = ("bf16", "fp32") if has_bf16_units() else ("fp32",)
    names = ("openvino", "torch") if find_spec("openvino") else ("torch",)
    return [(name, precision) for name in names for precision in precisions]


def measure_startup(video: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure `vidgru extract` as a user starts it.

    Returns:
        Seconds from the start of the process to the first decoded frame, to the end of the run, and to the end of a
        second run, which finds everything in the cache: medians over the repeats, after one that warms up.
    """
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    seconds: dict[str, list[float]] = {"first_frame_s": [], "run_s": [], "cached_run_s": []}
    for _ in range(options.repeats + 1):
        with tempfile.TemporaryDirectory() as cache:
            flags = ["extract", str(video), "--weights", str(options.weights), "--fps", str(options.fps)]
            flags += ["--imgsz", str(options.imgsz), "--device", "cpu", "--out", cache]
            for name in ("run_s", "cached_run_s"):
                start = time.time()
                command = [sys.executable, "-c", FIRST_FRAME, str(start), *flags]
                ran = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
                seconds[name].append(time.time() - start)
                if name == "run_s":
                    line = next(line for line in ran.stderr.splitlines() if line.startswith("first frame: "))
                    seconds["first_frame_s"].append(float(line.rpartition(" ")[2]))
    return {name: median(values[1:]) for name, values in seconds.items()}


def log(text: str) -> None:
    """Write progress to stderr."""
    print(text, file=sys.stderr, flush=True)


# --- figures ----------------------------------------------------------------------------------------------------------


def add_runs(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Add up two consecutive runs over the same samples."""
    times = {name: first[name] + second[name] for name in ("wall_s", "wall_with_loading_s")}
    return first | times | {"peak_rss_mib": max(first["peak_rss_mib"], second["peak_rss_mib"])}


def row(name: str, repeats: list[dict[str, Any]], fps: float) -> dict[str, Any]:
    """Return the table's values of a contender: medians over its repeats."""
    first = repeats[0]
    timed = first.get("timed_samples", first["samples"])
    ms = median(run["wall_s"] for run in repeats) / timed * 1e3
    return {
        "name": name,
        "samples": first["samples"],
        "ms": ms,
        "per_s": 1e3 / ms,
        "real_time": 1e3 / ms / fps,
        "ms_with_loading": median(run["wall_with_loading_s"] for run in repeats) / first["samples"] * 1e3,
        "cpu_ms": median(run["cpu_s"] for run in repeats) / timed * 1e3 if "cpu_s" in first else None,
        "peak_rss_mib": median(run["peak_rss_mib"] for run in repeats),
        "threads": first.get("threads"),
    }


def rows_of(
    contenders: dict[str, Any], repeats: dict[str, list[dict[str, Any]]], fps: float
) -> dict[str, dict[str, Any]]:
    """Return the rows of the table by name. Embedding has no row of its own: who wants it wants the objects too."""
    rows = {}
    for name in contenders:
        if not name.startswith(EMBED):
            rows[name] = row(name, repeats[name], fps)
        else:
            both, predict = name.replace(EMBED, BOTH), name.replace(EMBED, PREDICT)
            pairs = [add_runs(*pair) for pair in zip(repeats[predict], repeats[name], strict=True)]
            rows[both] = row(both, pairs, fps)
    return rows


def stage_table(repeats: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return CPU milliseconds per sample by "backend precision" and stage, in order."""
    table = {}
    for name, stages in repeats[0]["backends"].items():
        shared = {stage: median(run["shared"][stage] for run in repeats) for stage in repeats[0]["shared"]}
        table[name] = shared | {stage: median(run["backends"][name][stage] for run in repeats) for stage in stages}
    return table


def bounds(stages: dict[str, dict[str, float]], rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each "backend precision" the bound in milliseconds per sample and the share of it that is reached."""
    found = {}
    for name, by_stage in stages.items():
        main = by_stage["decode"] + by_stage["scale"] + by_stage["forward"]
        bound = sum(by_stage.values()) / count_cores()
        reached = bound / rows[f"vidgru {name}"]["ms"]
        found[name] = {"bound_ms": bound, "reached": reached, "others": sum(by_stage.values()) / main - 1}
    return found


def targets(rows: dict[str, dict[str, Any]], bound: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return each target with its figure."""
    figures: list[tuple[str, float, str, float]] = []
    for precision, least in (("bf16", 5.0), ("fp32", 3.0)):
        contenders = [row for name, row in rows.items() if name.endswith(precision)]
        if contenders:
            best = min(contenders, key=lambda row: row["ms"])
            figures.append((f"{best['name']} against predict + embed", rows[BOTH]["ms"] / best["ms"], ">=", least))
    for name, values in bound.items():
        figures.append((f"vidgru {name}: bound / measured", values["reached"], ">=", 0.9))
    for name, values in bound.items():
        if name.endswith("bf16"):
            figures.append((f"vidgru {name}: other stages / (decode + forward)", values["others"], "<=", 0.3))
    if LONG in rows:
        folder = rows[f"vidgru {next(iter(bound))}"]
        figures.append(
            (f"{folder['name']}: one long file / folder of clips", rows[LONG]["ms"] / folder["ms"], ">=", 0.9)
        )
    return [
        {"what": name, "figure": figure, "target": f"{sign} {target:g}", "missed_by": max(0.0, missed)}
        for name, figure, sign, target in figures
        for missed in [target - figure if sign == ">=" else figure - target]
    ]


def machine() -> dict[str, Any]:
    """Describe the machine."""
    facts: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # an extra, or OpenCV under one of its other names
            continue
    flags = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"} & set(facts.get("flags", "").split()))
    cpu = facts.get("model name") or platform.processor() or platform.machine()
    return {"cpu": cpu, "cores": count_cores(), "flags": flags, "system": platform.system(), "versions": versions}


# --- output -----------------------------------------------------------------------------------------------------------


def text_of(report: dict[str, Any]) -> str:
    """Format the tables and targets."""
    rows, here = report["contenders"], report["machine"]
    lines = [f"{here['cpu']}, {here['cores']} cores, {' '.join(here['flags'])}", ""]
    head = ("", "ms/sample", "samples/s", "x real time", "x predict", "x both", "loading", "CPU", "MiB", "samples")
    lines.append(f"{head[0]:40}" + "".join(f"{name:>13}" for name in head[1:]))
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        ratios = [by_name[name]["ms"] / row["ms"] for name in (PREDICT, BOTH)]
        figures = [f"{row[name]:.1f}" for name in ("ms", "per_s", "real_time")] + [f"{ratio:.2f}" for ratio in ratios]
        figures += [f"{row[name]:.1f}" if row[name] else "" for name in ("ms_with_loading", "cpu_ms")]
        figures += [f"{row['peak_rss_mib']:.0f}", str(row["samples"])]
        threads = f", {row['threads']} threads" if row["threads"] and "threads" not in row["name"] else ""
        lines.append(f"{row['name'] + threads:40}" + "".join(f"{figure:>13}" for figure in figures))
    startup = report["startup"]
    lines.append(
        f"start-up: {startup['first_frame_s']:.1f} s to the first decoded frame, {startup['run_s']:.1f} s for the run, "
        f"{startup['cached_run_s']:.1f} s for a run with everything cached"
    )
    others = max(run["others_cores"] for runs in report["repeats"].values() for run in runs)
    lines += [LEGEND, f"Other programs kept up to {others:.2f} cores busy during a measurement."]
    lines.append("" if report["samples_agree"] else "The numbers of samples DIFFER: the rows do not compare.\n")
    names = list(report["stages"])
    lines.append(f"{'':20}" + "".join(f"{name:>26}" for name in names))
    for stage in report["stages"][names[0]]:
        cells = (f"{report['stages'][n][stage]:.2f} ({report['stages_busy'][n][stage]:.2f})" for n in names)
        lines.append(f"{stage:20}" + "".join(f"{cell:>26}" for cell in cells))
    for title, figure in (("bound", "bound_ms"), ("reached", "reached"), ("others", "others")):
        lines.append(f"{title:20}" + "".join(f"{report['bounds'][name][figure]:>26.2f}" for name in names))
    busy = f" (in brackets: while {here['cores']} processes do the same)"
    lines += [STAGES_LEGEND.format(busy=busy, cores=here["cores"]), ""]
    for target in report["targets"]:
        verdict = f"missed by {target['missed_by']:.2f}" if target["missed_by"] else "met"
        lines.append(f"{target['what']:66}{target['figure']:>8.2f}   target {target['target']:8}{verdict}")
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Plot milliseconds per sample by contender, and CPU by stage with the bound and the measured time."""
    import matplotlib.pyplot as plt

    rows, stages = report["contenders"], report["stages"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5), layout="constrained")
    colours = ["tab:gray" if row["name"].startswith("Ultra") else "tab:blue" for row in rows]
    bars = left.barh([run["name"] for run in rows], [run["ms"] for run in rows], color=colours)
    left.bar_label(bars, fmt="%.1f", padding=3)
    left.invert_yaxis()
    left.margins(x=0.1)
    left.set_xlabel("ms/sample, wall time without loading")
    ends = dict.fromkeys(stages, 0.0)
    for number, stage in enumerate(next(iter(stages.values()))):
        widths = [stages[name][stage] for name in stages]
        right.barh(list(stages), widths, left=list(ends.values()), label=stage, color=f"C{number}")
        ends = {name: ends[name] + stages[name][stage] for name in stages}
    measured = {run["name"].removeprefix("vidgru "): run["ms"] for run in rows}
    for number, name in enumerate(stages):
        low, high = number - 0.45, number + 0.45
        right.vlines(
            report["bounds"][name]["bound_ms"], low, high, "black", label="" if number else "bound: sum / cores"
        )
        right.vlines(measured[name], low, high, "red", "dashed", label="" if number else "measured")
    right.invert_yaxis()
    right.set_xlabel("ms/sample: CPU of each stage alone, wall time of the run")
    figure.legend(loc="outside lower right", ncols=6)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure everything; `work` is a folder for generated videos."""
    videos = [recording.path for recording in find_recordings(options.videos)]
    long: Path | None = None
    if options.clips:
        log(f"cutting {options.clips} clips")
        videos = make_clips(videos[0], work / "clips", options.clips, options.size)
        long = join(videos, work / "long.mp4")
    elif options.loops > 1:
        videos = [join([video] * options.loops, work / f"{n}_{video.stem}.mp4") for n, video in enumerate(videos)]
    detect = DetectorSettings(weights=str(options.weights), fps=options.fps, imgsz=options.imgsz)
    base = {"files": [str(video) for video in videos], "detect": asdict(detect)}
    batch, threads, tried = best_batch(base)
    variants = backends()
    contenders = {}
    for count in sorted({0, count_cores()} - {threads}):  # its own choice, and all cores
        note = f", {count} threads" if count else ""
        ultralytics = {**base, "kind": "ultralytics", "batch": batch, "threads": count}
        contenders[PREDICT + note] = {**ultralytics, "embed": False}
        contenders[EMBED + note] = {**ultralytics, "embed": True}
    for name, precision in variants:
        contenders[f"vidgru {name} {precision}"] = {**base, "kind": "vidgru", "backend": name, "precision": precision}
    if long is not None:
        contenders[LONG] = {**contenders[f"vidgru {' '.join(variants[0])}"], "files": [str(long)]}
    stages = {**base, "kind": "stages", "backends": variants}
    repeats: dict[str, list[dict[str, Any]]] = {name: [] for name in (*contenders, "stages", "stages, busy")}
    for number in range(options.repeats):
        for name, request in (*contenders.items(), ("stages", stages), ("stages, busy", stages)):
            log(f"repeat {number + 1} of {options.repeats}: {name}")
            repeats[name].append(measure(request, count_cores() if name == "stages, busy" else 1))
    rows = rows_of(contenders, repeats, options.fps)
    alone = stage_table(repeats["stages"])
    bound = bounds(alone, rows)
    counts = [row["samples"] for row in rows.values()]
    log("start-up")
    startup = measure_startup(videos[0], options)
    return {
        "machine": machine(),
        "settings": {name: str(value) for name, value in vars(options).items()},
        "videos": len(videos),
        "batch": batch,
        "seconds_by_batch": tried,
        "samples_agree": max(counts) - min(counts) <= len(videos),  # within one per video
        "startup": startup,
        "contenders": list(rows.values()),
        "stages": alone,
        "stages_busy": stage_table(repeats["stages, busy"]),
        "bounds": bound,
        "targets": targets(rows, bound),
        "repeats": repeats,
    }


def size(text: str) -> tuple[int, int]:
    """Parse `320x240`; both sides must be even."""
    width, height = (int(side) for side in text.split("x"))
    if width % 2 or height % 2:
        raise ValueError(text)
    return width, height


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", help="files, folders, globs")
    parser.add_argument("--weights", required=True, type=Path, help="an Ultralytics detector (.pt)")
    parser.add_argument("--fps", type=float, default=5.0, help="samples per second")
    parser.add_argument("--imgsz", type=int, default=640, help="longer side of the network's input in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender")
    parser.add_argument("--loops", type=int, default=1, help="times each video is repeated, for short ones")
    parser.add_argument("--clips", type=int, default=0, help="measure this many 2-second clips of the first video")
    parser.add_argument("--size", type=size, help="scale the clips to WIDTHxHEIGHT")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for bench_extract.json and .png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        report = run(options, Path(work))
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / "bench_extract.json", json.dumps(report, indent=1).encode())
    plot(report, options.out / "bench_extract.png")
    print(text_of(report))


if __name__ == "__main__":
    main()
