"""Data sets of street scenes on disk: recordings with annotated events, and frames with annotated objects."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from vidgru.demo.episodes import KINDS
from vidgru.demo.scene import CLASSES, Scene, plan_clip, plan_recording, write_video
from vidgru.demo.sentences import LANGUAGES, Language

EVENTS = 6  # a recording; even, so that the two kinds of an order pair are always dealt together
FRAMES = 5  # a clip

_UNSEEN = 90_000  # recordings that are never trained on have seeds apart


@dataclass(frozen=True)
class _Job:
    # One video to write, small enough to be sent to another process: the scene is planned there.
    path: Path
    kinds: tuple[str | None, ...]
    seed: int
    split: str
    recording: bool = False

    def scene(self) -> Scene:
        if self.recording:
            return plan_recording([kind for kind in self.kinds if kind], self.seed)
        return plan_clip(self.kinds[0], self.seed)


def write_dataset(
    folder: Path,
    *,
    clips_per_kind: int = 16,
    eventless: int = 16,
    recordings: int = 24,
    unseen: int = 1,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Write two data sets, each with `videos/`, `annotations.csv`, and `annotations.ko.csv`: the same in Korean.

    `folder/dataset`: clips, whose labels speak of the whole clip, and recordings of a minute or so, whose events have
    times, with stretches between them in which nothing happens. A fifth of each is for validation, a fifth for test.
    Every split holds as many events of one kind of an order pair as of the other.
    `folder/recordings`: recordings apart from those, in which every kind happens once; split test.

    Args:
        folder: made if need be.
        clips_per_kind: clips of each of `KINDS`, at least 3, so that each split has one.
        eventless: clips in which nothing happens.
        recordings: of `EVENTS` events each, in the data set; none, or at least 3, so that each split has one.
        unseen: recordings apart.
        seed: of everything.
        workers: processes that draw; 1 draws in this one. More are spawned: a script that calls this needs the usual
            `if __name__ == "__main__"`.

    Raises:
        ValueError: too few clips or recordings for three splits.
    """
    if clips_per_kind < 3:
        raise ValueError(f"clips_per_kind must be at least 3, one for each split, got {clips_per_kind}")
    if 0 < recordings < 3:
        raise ValueError(f"recordings must be 0, or at least 3, one for each split, got {recordings}")
    rng = np.random.default_rng([seed, 101])
    videos, apart = folder / "dataset" / "videos", folder / "recordings" / "videos"
    cases: list[tuple[str | None, str]] = []
    for kind, count in (*((kind, clips_per_kind) for kind in KINDS), (None, eventless)):
        cases += [(kind, split) for split in _splits(count)]
    # Names and order tell nothing about what happens.
    clips = [
        _Job(videos / f"clip_{n:04d}.mp4", (cases[k][0],), seed * 100_000 + n, cases[k][1])
        for n, k in enumerate(rng.permutation(len(cases)))
    ]
    # Kinds are dealt over the recordings of a split, not within each: what has happened tells nothing about what will.
    splits = _splits(recordings)
    deals = {
        split: rng.permutation(np.resize(KINDS, EVENTS * splits.count(split))).tolist()
        for split in ("train", "val", "test")
    }
    timed = [
        _Job(
            videos / f"long_{n:03d}.mp4",
            tuple(deals[split].pop() for _ in range(EVENTS)),
            seed * 100_000 + n,
            split,
            recording=True,
        )
        for n, split in enumerate(splits)
    ]
    new = [
        _Job(
            apart / f"recording_{n:02d}.mp4",
            tuple(rng.permutation(KINDS).tolist()),
            seed * 100_000 + _UNSEEN + n,
            "test",
            recording=True,
        )
        for n in range(unseen)
    ]
    videos.mkdir(parents=True, exist_ok=True)
    apart.mkdir(parents=True, exist_ok=True)
    jobs = [*new, *timed, *clips]  # the longest first, so that no process is left with one at the end
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for _ in pool.imap_unordered(_draw, jobs, chunksize=1):
                pass
    else:
        for job in jobs:
            _draw(job)
    for language in LANGUAGES:
        name = "annotations.csv" if language == "en" else f"annotations.{language}.csv"
        _annotate([*clips, *timed], folder / "dataset" / name, language)
        _annotate(new, folder / "recordings" / name, language)


def _splits(count: int) -> list[str]:
    part = max(1, round(count / 5))
    return [("val", "test", "train")[min(k // part, 2)] for k in range(count)]


def _draw(job: _Job) -> None:
    write_video(job.scene(), job.path)


def _annotate(jobs: Sequence[_Job], path: Path, language: Language) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("video", "start", "end", "label", "description", "split"))
        for job in jobs:
            scene = job.scene()
            for event in scene.events:
                when = (f"{event.start_s:.3f}", f"{event.end_s:.3f}") if job.recording else ("", "")
                rows.writerow((job.path.name, *when, event.label, event.sentences[language], job.split))
            if not scene.events:
                rows.writerow((job.path.name, "", "", "", "", job.split))


def write_frames(folder: Path, splits: Mapping[str, range], classes: Sequence[str] = CLASSES) -> Path:
    """Write frames of clips, as compressed, with their objects in Ultralytics' format.

    A line of `labels/SPLIT/NAME.txt` is an object of `images/SPLIT/NAME.png`: its class, and centre, width and height
    of its box as shares of the picture (https://docs.ultralytics.com/datasets/detect/).

    Args:
        folder: made if need be.
        splits: the seeds of each split's clips; `FRAMES` frames are taken of each clip.
        classes: what is annotated, of `CLASSES`, in the order of its numbers.

    Returns:
        The `data.yaml` that names it all, for `yolo detect train`.
    """
    for split, seeds in splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            scene = plan_clip((*KINDS, None)[number % (len(KINDS) + 1)], seed)
            wanted = np.random.default_rng(seed).permutation(len(scene))[:FRAMES].tolist()
            for index, image in _decoded(scene, folder / "clip.mp4"):
                if index in wanted:
                    name = f"{number:05d}_{index:03d}"
                    cv2.imwrite(str(images / f"{name}.png"), image)
                    (labels / f"{name}.txt").write_text(_objects(scene, index, classes))
    where = {split: f"images/{split}" for split in splits}
    data = folder / "data.yaml"
    facts = {"path": str(folder.resolve()), **where, "names": dict(enumerate(classes))}
    data.write_text(yaml.safe_dump(facts, sort_keys=False))
    return data


def _decoded(scene: Scene, video: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    # As a file would show it: number and picture, BGR.
    write_video(scene, video)
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield index, frame.to_ndarray(format="bgr24")
    video.unlink()


def _objects(scene: Scene, frame: int, classes: Sequence[str]) -> str:
    boxes, kinds = scene.truth(frame)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return "".join(
        f"{classes.index(CLASSES[kind])} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"
        for kind, (x, y), (width, height) in zip(kinds, centres, sizes, strict=True)
        if CLASSES[kind] in classes
    )
