"""Datasets of rendered street scenes: recordings with annotated events, and frames with annotated objects."""

from __future__ import annotations

import csv
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import yaml
from tqdm import tqdm

from vidgru.demo.scenes import CLASSES, EVENT_KINDS, Scene, plan_clip, plan_recording, write_video

EVENTS_PER_RECORDING = 6  # even, so that both kinds of an order pair are always dealt together
FRAMES_PER_CLIP = 5

_UNSEEN_SEED = 90_000  # recordings outside the dataset have seeds of their own
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _VideoJob:
    """A video to render. Small enough to send to another process, which plans the scene itself."""

    path: Path
    kinds: tuple[str | None, ...]
    seed: int
    split: str
    is_recording: bool = False

    def plan(self) -> Scene:
        if self.is_recording:
            return plan_recording([kind for kind in self.kinds if kind], self.seed)
        return plan_clip(self.kinds[0], self.seed)


def write_dataset(
    folder: Path,
    *,
    clips_per_kind: int = 16,
    eventless_clips: int = 16,
    recordings: int = 24,
    unseen_recordings: int = 1,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Render two datasets, each a folder with `videos/` and `annotations.csv`.

    `folder/dataset` has clips, whose labels apply to the whole clip, and recordings of about a minute, whose events
    have times and eventless gaps between them. A fifth of each is for validation, a fifth for test. Every split has
    equally many events of both kinds of an order pair.
    `folder/recordings` has further recordings, as `write_recordings` makes them.

    Args:
        folder: Created if missing.
        clips_per_kind: Clips of each of `EVENT_KINDS`, at least 3, so that each split has one.
        eventless_clips: Clips without events.
        recordings: Recordings in the dataset, of `EVENTS_PER_RECORDING` events each; 0 or at least 3.
        unseen_recordings: Recordings outside it.
        seed: Random seed.
        workers: Processes that render; 1 renders in this one. More are spawned, so a script that calls this needs the
            usual `if __name__ == "__main__"`.

    Raises:
        ValueError: Too few clips or recordings for three splits.
    """
    if clips_per_kind < 3:
        raise ValueError(f"clips_per_kind must be at least 3, one for each split, got {clips_per_kind}")
    if 0 < recordings < 3:
        raise ValueError(f"recordings must be 0, or at least 3, one for each split, got {recordings}")
    rng = np.random.default_rng([seed, 101])
    videos = folder / "dataset" / "videos"
    cases: list[tuple[str | None, str]] = []
    for kind, count in (*((kind, clips_per_kind) for kind in EVENT_KINDS), (None, eventless_clips)):
        cases += [(kind, split) for split in _splits(count)]
    # In random order, so that names give no hint of the event.
    clip_jobs = [
        _VideoJob(videos / f"clip_{n:04d}.mp4", (cases[k][0],), seed * 100_000 + n, cases[k][1])
        for n, k in enumerate(rng.permutation(len(cases)))
    ]
    # Kinds are dealt over all recordings of a split, not per recording: else the events so far would give away which
    # are still to come.
    splits = _splits(recordings)
    dealt_kinds = {
        split: rng.permutation(np.resize(EVENT_KINDS, EVENTS_PER_RECORDING * splits.count(split))).tolist()
        for split in _SPLITS
    }
    recording_jobs = [
        _VideoJob(
            videos / f"long_{n:03d}.mp4",
            tuple(dealt_kinds[split].pop() for _ in range(EVENTS_PER_RECORDING)),
            seed * 100_000 + n,
            split,
            is_recording=True,
        )
        for n, split in enumerate(splits)
    ]
    # Longest first, so that no process ends long after the others.
    _render_all([*recording_jobs, *clip_jobs], workers)
    _write_annotations([*clip_jobs, *recording_jobs], folder / "dataset" / "annotations.csv")
    if unseen_recordings:
        write_recordings(folder / "recordings", unseen_recordings, seed=seed)


def write_recordings(folder: Path, count: int = 1, *, seed: int = 0) -> None:
    """Render recordings that no dataset of `write_dataset` has, each with one event of every kind, in split test.

    Args:
        folder: Where `videos/` and `annotations.csv` are written; created if missing.
        count: Number of recordings.
        seed: Random seed.
    """
    rng = np.random.default_rng([seed, 102])
    jobs = [
        _VideoJob(
            folder / "videos" / f"recording_{n:02d}.mp4",
            tuple(rng.permutation(EVENT_KINDS).tolist()),
            seed * 100_000 + _UNSEEN_SEED + n,
            "test",
            is_recording=True,
        )
        for n in range(count)
    ]
    _render_all(jobs, workers=1)
    _write_annotations(jobs, folder / "annotations.csv")


def _splits(count: int) -> list[str]:
    """Return the split of each of `count` videos: a fifth val, a fifth test, at least one of each."""
    fifth = max(1, round(count / 5))
    return [("val", "test", "train")[min(k // fifth, 2)] for k in range(count)]


def _render_all(jobs: Sequence[_VideoJob], workers: int) -> None:
    """Render videos, in this process or in several, with a progress bar on stderr if that is a terminal."""
    for folder in {job.path.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(jobs), desc="rendering", unit="video", leave=False, disable=not sys.stderr.isatty())
    with bar:
        if workers > 1:
            # each process is busy with its own video: threads of OpenCV would only get in the way
            context, limit_threads = multiprocessing.get_context("spawn"), (1,)
            with context.Pool(workers, initializer=cv2.setNumThreads, initargs=limit_threads) as pool:
                for _ in pool.imap_unordered(_render, jobs, chunksize=1):
                    bar.update()
        else:
            for job in jobs:
                _render(job)
                bar.update()


def _render(job: _VideoJob) -> None:
    write_video(job.plan(), job.path)


def _write_annotations(jobs: Sequence[_VideoJob], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("video", "start", "end", "label", "description", "split"))
        for job in jobs:
            scene = job.plan()
            for event in scene.events:
                interval = (f"{event.start_s:.3f}", f"{event.end_s:.3f}") if job.is_recording else ("", "")
                writer.writerow((job.path.name, *interval, event.label, event.description, job.split))
            if not scene.events:
                writer.writerow((job.path.name, "", "", "", "", job.split))


def write_frames(folder: Path, splits: Mapping[str, range], classes: Sequence[str] = CLASSES) -> Path:
    """Write frames of clips, with compression artefacts, and their objects in Ultralytics' detection format.

    Each line of `labels/SPLIT/NAME.txt` is an object of `images/SPLIT/NAME.png`: class, then centre, width and height
    of its box, normalised (https://docs.ultralytics.com/datasets/detect/).

    Args:
        folder: Created if missing.
        splits: Seeds of the clips of each split; `FRAMES_PER_CLIP` frames are taken from each clip.
        classes: Classes to annotate, of `CLASSES`, in the order of their numbers.

    Returns:
        Path of the `data.yaml` for `yolo detect train`.
    """
    for split, seeds in splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            scene = plan_clip((*EVENT_KINDS, None)[number % (len(EVENT_KINDS) + 1)], seed)
            chosen = np.random.default_rng(seed).permutation(len(scene))[:FRAMES_PER_CLIP].tolist()
            clip = folder / "clip.mp4"
            write_video(scene, clip)
            with av.open(str(clip)) as container:
                for index, frame in enumerate(container.decode(video=0)):
                    if index in chosen:
                        name = f"{number:05d}_{index:03d}"
                        cv2.imwrite(str(images / f"{name}.png"), frame.to_ndarray(format="bgr24"))
                        (labels / f"{name}.txt").write_text(_object_lines(scene, index, classes))
            clip.unlink()
    data = folder / "data.yaml"
    contents = {
        "path": str(folder.resolve()),
        **{split: f"images/{split}" for split in splits},
        "names": dict(enumerate(classes)),
    }
    data.write_text(yaml.safe_dump(contents, sort_keys=False))
    return data


def _object_lines(scene: Scene, frame: int, classes: Sequence[str]) -> str:
    boxes, class_indices = scene.truth(frame)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return "".join(
        f"{classes.index(CLASSES[index])} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"
        for index, (x, y), (width, height) in zip(class_indices, centres, sizes, strict=True)
        if CLASSES[index] in classes
    )
