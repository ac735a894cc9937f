"""Measure the time per training batch, against the network alone and against a naive data loader.

    python scripts/bench_train.py                       # synthetic clips of ten seconds, 3 objects per frame
    python scripts/bench_train.py --objects 20 --steps 200

Everything runs on the CPU with one thread, as training does. The variants take turns (A B C A B C ...), so that drift
of the machine affects all of them equally. Prints the median of passes, in ms per batch.

- bare: forward and backward of encoder, recurrent layer and head on prepared batches;
- bare, PyTorch's GRU: the same with the backward pass of nn.GRU in place of vidgru's;
- step: bare plus the loss, gradient clipping, AdamW and the running mean of the weights;
- loop: step plus slicing, augmenting and collating the windows, as in training;
- naive: a file per clip (.npy, padded to its largest number of objects), read by a DataLoader without workers and
  padded again, then step. Its clips are not augmented.

Both kinds of training data are measured: clips, and windows of timed recordings. Writes OUT/bench_train.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from torch.utils.data import DataLoader

from vidgru.config import NetworkSettings, TrainConfig
from vidgru.datasets.windows import Batch
from vidgru.model import fast_gru
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.event_gru import EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.storage import write_atomic
from vidgru.training.augment import Augmenter
from vidgru.training.batches import ClipBatches, EpochBatches, WindowBatches
from vidgru.training.data import LoadedFeatures
from vidgru.training.distributed import ProcessGroup
from vidgru.training.examples import LabelledClip, TimedRecording
from vidgru.training.trainer import Learner
from vidgru.types import Features

# As extracted with yolo26n.pt.
FEATURE_SPEC = FeatureSpec(classes=80, motion=22, appearance=64, colour=9, scene=64, scene_motion=20)
LABELS = tuple(f"label {number}" for number in range(6))
FPS = 8.0


def make_features(frames: int, objects: int, rng: np.random.Generator) -> Features:
    """Return random features of a recording, with `objects` per frame on average."""
    counts = rng.poisson(objects, frames)
    rows = rng.standard_normal((int(counts.sum()), FEATURE_SPEC.object_width), np.float32)
    rows[:, FEATURE_SPEC.object_groups()["score"].start] = rng.random(len(rows))
    rows[:, FEATURE_SPEC.object_groups()["class"].start] = rng.integers(0, FEATURE_SPEC.classes, len(rows))
    return Features(
        objects=rows,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        frame=rng.standard_normal((frames, FEATURE_SPEC.frame_width), np.float32),
        time_s=np.arange(frames) / FPS,
    )


def clip_set(
    clips: int, steps: int, objects: int, config: TrainConfig
) -> tuple[EventTask, EpochBatches, LoadedFeatures]:
    """Return clips with one label each."""
    rng = np.random.default_rng(0)
    task = EventTask(labels=LABELS, clip_head=HeadSpec(background=False, multi_label=False))
    features = {f"clip {n}": make_features(steps, objects, rng) for n in range(clips)}
    loaded = LoadedFeatures(features=features, feature_spec=FEATURE_SPEC, names=(), keys={})
    labels = np.eye(len(LABELS), dtype=np.float32)
    labelled_clips = [
        LabelledClip(video=v, frames=steps, labels=labels[n % len(LABELS)]) for n, v in enumerate(features)
    ]
    part = ClipBatches(
        labelled_clips,
        loaded,
        len(LABELS),
        size=config.batch,
        seed=0,
        balance=True,
        augment=Augmenter(FEATURE_SPEC, LABELS),
    )
    return task, EpochBatches(clips=part, seed=0), loaded


def timed_set(clips: int, steps: int, objects: int, config: TrainConfig) -> tuple[EventTask, EpochBatches]:
    """Return as many frames in recordings as long as twenty clips, with an event per clip length."""
    rng = np.random.default_rng(0)
    task = EventTask(labels=LABELS, frame_head=HeadSpec(background=True, multi_label=False))
    length = 20 * steps
    features = {f"recording {n}": make_features(length, objects, rng) for n in range(max(1, clips // 20))}
    loaded = LoadedFeatures(features=features, feature_spec=FEATURE_SPEC, names=(), keys={})
    recordings = []
    for video in features:
        targets = np.zeros((length, len(LABELS) + 1), np.float32)
        targets[:, -1] = 1.0
        table = [(at, at + steps // 3, int(rng.integers(len(LABELS)))) for at in range(0, length - steps, steps)]
        for first, stop, label in table:
            targets[first:stop] = 0.0
            targets[first:stop, label] = 1.0
        weights = np.ones(length, np.float32)
        events = np.array(table)
        recordings.append(
            TimedRecording(video=video, targets=targets, weights=weights, events=events, spans_s=events[:, :2] / FPS)
        )
    part = WindowBatches(
        recordings,
        loaded,
        size=config.batch,
        seed=0,
        balance=True,
        augment=Augmenter(FEATURE_SPEC, LABELS),
        length=steps,
        lookahead=4,
    )
    return task, EpochBatches(windows=part, seed=0)


def make_learner(task: EventTask, config: TrainConfig, lookahead: int) -> Learner:
    """Return a network with an optimizer."""
    torch.manual_seed(0)
    model = EventModel(
        network=build_network(FEATURE_SPEC, task, NetworkSettings()),
        task=task,
        feature_settings={"fps": FPS},
        weights="",
        names=(),
        decode=DecodeSettings(high=(), low=(), min_s=0, merge_s=0, exclusive=False),
        window_s=0.0,
        lookahead=lookahead,
    )
    weights = torch.ones(task.num_outputs(task.frame_head))
    return Learner(model, config, torch.device("cpu"), class_weights=weights, process_group=ProcessGroup())


def run_bare(network: EventGRU, batches: list[Batch]) -> None:
    """Run forward and backward on prepared batches."""
    for batch in batches:
        scores = network(batch.objects, batch.counts, batch.frame, batch.mask)
        network.zero_grad()
        sum(part.sum() for part in scores if part is not None).backward()  # type: ignore[union-attr]


def run_bare_pytorch(network: EventGRU, batches: list[Batch]) -> None:
    """Run forward and backward with PyTorch's own backward pass of the GRU."""
    with mock.patch.object(fast_gru, "_has_fast_path", return_value=False):
        run_bare(network, batches)


class ClipFiles(torch.utils.data.Dataset[tuple[np.ndarray, np.ndarray, np.ndarray, int]]):
    """A file per clip, with objects padded to the largest number in any frame."""

    def __init__(self, folder: Path, loaded: LoadedFeatures) -> None:
        self.paths = []
        for number, features in enumerate(loaded.features.values()):
            counts = np.diff(features.offsets)
            mask = np.arange(int(counts.max())) < counts[:, None]
            dense = np.zeros((*mask.shape, features.objects.shape[1]), np.float32)
            dense[mask] = features.objects
            path = folder / f"{number}.npy"
            np.save(path, {"objects": dense, "mask": mask, "frame": features.frame}, allow_pickle=True)  # type: ignore[arg-type]
            self.paths.append(path)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Load a clip: objects, mask of real objects, frame features and label."""
        values = np.load(self.paths[index], allow_pickle=True).item()
        return values["objects"], values["mask"], values["frame"], index % len(LABELS)


def pad_clips(clips: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]) -> Batch:
    """Pad clips to a batch, then drop the padded objects again, which the network does not take."""
    steps, slots = max(len(m) for _, m, _, _ in clips), max(m.shape[1] for _, m, _, _ in clips)
    objects = torch.zeros(len(clips), steps, slots, FEATURE_SPEC.object_width)
    is_object = torch.zeros(len(clips), steps, slots, dtype=torch.bool)
    frame, mask = (
        torch.zeros(len(clips), steps, FEATURE_SPEC.frame_width),
        torch.zeros(len(clips), steps, dtype=torch.bool),
    )
    labels = torch.zeros(len(clips), len(LABELS))
    for row, (clip_objects, clip_mask, clip_frame, label) in enumerate(clips):
        objects[row, : len(clip_mask), : clip_mask.shape[1]] = torch.from_numpy(clip_objects)
        is_object[row, : len(clip_mask), : clip_mask.shape[1]] = torch.from_numpy(clip_mask)
        frame[row, : len(clip_mask)] = torch.from_numpy(clip_frame)
        mask[row, : len(clip_mask)] = True
        labels[row, label] = 1.0
    return Batch(objects=objects[is_object], counts=is_object.sum(dim=2), frame=frame, mask=mask, labels=labels)


def measure(variants: dict[str, Callable[[int], int]], repeats: int) -> dict[str, float]:
    """Return the median ms per batch of each variant, a function of the pass number that returns its batches."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(repeats + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            batches = run(number + 1)
            if number:  # the first pass warms up
                times[name].append(1000 * (time.perf_counter() - began) / batches)
    return {name: median(values) for name, values in times.items()}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--steps", type=int, default=80, help="frames per clip")
    parser.add_argument("--objects", type=int, default=3, help="objects per frame")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig()
    report = {}
    for kind in ("clips", "windows"):
        if kind == "clips":
            task, batches, loaded = clip_set(args.clips, args.steps, args.objects, config)
            lookahead = 0
        else:
            (task, batches), lookahead = timed_set(args.clips, args.steps, args.objects, config), 4
        ready = [batch for batch, _ in batches(0) if batch is not None]
        step_learner, loop_learner, naive_learner = (make_learner(task, config, lookahead) for _ in range(3))
        bare_network, pytorch_network = (make_learner(task, config, lookahead).network for _ in range(2))

        def bare_pass(_: int, network: EventGRU = bare_network, ready: list[Batch] = ready) -> int:
            run_bare(network, ready)
            return len(ready)

        def pytorch_pass(_: int, network: EventGRU = pytorch_network, ready: list[Batch] = ready) -> int:
            run_bare_pytorch(network, ready)
            return len(ready)

        def step_pass(number: int, learner: Learner = step_learner, ready: list[Batch] = ready) -> int:
            for batch in ready:
                learner.step(batch, len(batch), number)
            return len(ready)

        def loop_pass(number: int, learner: Learner = loop_learner, batches: EpochBatches = batches) -> int:
            num_batches = 0
            for batch, size in batches(number):
                learner.step(batch, size, number)
                num_batches += 1
            return num_batches

        variants = {"bare": bare_pass, "bare, PyTorch's GRU": pytorch_pass, "step": step_pass, "loop": loop_pass}
        with tempfile.TemporaryDirectory() as folder:
            if kind == "clips":
                files = ClipFiles(Path(folder), loaded)
                loader = DataLoader(files, config.batch, shuffle=True, collate_fn=pad_clips)

                def naive_pass(
                    number: int, learner: Learner = naive_learner, loader: DataLoader[object] = loader
                ) -> int:
                    for batch in loader:
                        learner.step(batch, len(batch), number)  # type: ignore[arg-type]
                    return len(loader)

                variants["naive"] = naive_pass
            report[kind] = measure(variants, args.repeats)
    for kind, times in report.items():
        print(f"{kind}: batches of {config.batch}, {args.steps} steps, {args.objects} objects per frame")
        for name, value in times.items():
            print(f"  {name:20} {value:8.2f} ms per batch  {value / times['bare']:5.2f} x bare")
    values = {**{k: str(v) for k, v in vars(args).items()}, "torch": torch.__version__, "ms_per_batch": report}
    write_atomic(args.out / "bench_train.json", (json.dumps(values, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
