"""Make the files of `vidgru demo` from rendered street scenes, or render a dataset like the demo's.

    python scripts/make_demo_data.py model --work /tmp/demo-model            # writes data/demo/demo.safetensors
    python scripts/make_demo_data.py detector --work /tmp/demo-detector      # writes data/demo/demo.pt
    python scripts/make_demo_data.py dataset --work /tmp/clips --clips 400   # renders a dataset

The model reads features of the detector, so it has to be trained again after the detector. Datasets are described in
English (`annotations.csv`) and in Korean (`annotations.ko.csv`). Needs no network and no GPU. Equal on one machine:
the same versions and arguments give the same files.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

# Set before importing ultralytics, which would check for updates and install packages.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="true")

import torch
import ultralytics
from korean_sentences import write_korean_annotations
from safetensors import safe_open
from safetensors.torch import save_file
from ultralytics import YOLO
from ultralytics.utils import YAML

from vidgru.cache import SequenceCache
from vidgru.config import RuntimeSettings, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.demo.dataset import write_dataset, write_frames
from vidgru.demo.renderer import SIZE_PX
from vidgru.demo.run import DETECTOR, LOOKAHEAD_S, MODEL, demo_detector
from vidgru.demo.scenes import CLASSES, EVENT_KINDS
from vidgru.extraction.pipeline import extract_recordings
from vidgru.model.checkpoint import BEST, METADATA
from vidgru.training.run import train

DATA = Path(__file__).resolve().parents[1] / "data" / "demo"
TRAIN_SEED, VAL_SEED = 1_000_000_000, 2_000_000_000  # far from the seeds of demo clips, which the detector must not see
MODEL_SEED = 40_000  # of datasets; `vidgru demo` counts from 0, and must not draw what its model was trained on


def train_detector(data: Path, epochs: int) -> Path:
    """Train YOLO26 at an eighth of the usual width, and return the best checkpoint (fp16, without optimizer)."""
    folder = data.parent
    config = YAML.load(Path(ultralytics.__file__).parent / "cfg/models/26/yolo26.yaml")
    config |= {"nc": len(CLASSES), "scales": {"demo": [0.5, 0.125, 512]}}
    # Not named `yolo26` plus one of n s m l x, which ultralytics would take for a stock scale.
    YAML.save(folder / "demo.yaml", config)
    model = YOLO(folder / "demo.yaml", task="detect")
    # Results depend on the number of threads. One is hardly slower on such a small network, and much faster on a busy
    # machine, where two would wait for each other in every layer.
    model.add_callback("on_train_start", lambda _: torch.set_num_threads(1))
    model.train(
        data=str(data),
        project=str(folder / "runs"),
        name="train",
        exist_ok=True,
        pretrained=False,
        device="cpu",
        epochs=epochs,
        imgsz=max(SIZE_PX),
        batch=16,
        rect=True,  # no padding or mosaics: more frames are cheaper to render than to train on
        workers=0,
        cache="ram",
        seed=0,
        deterministic=True,
        amp=False,
        plots=False,
        nms=False,  # choose best.pt by the one-to-one head, which extraction uses
        optimizer="AdamW",
        nbs=16,  # update per batch, not per four
        lr0=0.002,
        cos_lr=True,
        warmup_epochs=1.0,
        scale=0.15,
        hsv_h=0.01,
        hsv_s=0.4,
        hsv_v=0.3,
    )
    return folder / "runs" / "train" / "weights" / "best.pt"


def publish_detector(checkpoint: Path, target: Path) -> None:
    """Write only the weights: fp16, one-to-one head selected, without paths, dates and history."""
    model: Any = torch.load(checkpoint, map_location="cpu", weights_only=False)["model"]
    model.model[-1].end2end = True
    model.yaml = {**model.yaml, "yaml_file": "demo.yaml"}
    model.args = {"task": "detect", "imgsz": max(SIZE_PX)}
    model.criterion = None
    for name in ("pt_path", "yaml_file", "cfg"):
        model.__dict__.pop(name, None)
    target.parent.mkdir(parents=True, exist_ok=True)
    licence = "AGPL-3.0 (https://ultralytics.com/license)"
    torch.save(
        {"model": model.half(), "train_args": model.args, "epoch": -1, "license": licence, "version": "8.4"}, target
    )


def make_detector(args: argparse.Namespace, folder: Path) -> None:
    """Train the detector, write it, and print its accuracy."""
    seeds = {
        "train": range(TRAIN_SEED, TRAIN_SEED + args.train_clips),
        "val": range(VAL_SEED, VAL_SEED + args.val_clips),
    }
    out = args.out or DATA / DETECTOR
    data = write_frames(folder, seeds)
    publish_detector(train_detector(data, args.epochs), out)
    scores = YOLO(out).val(
        data=str(data),
        imgsz=max(SIZE_PX),
        device="cpu",
        nms=False,
        plots=False,
        project=str(folder / "runs"),
        exist_ok=True,
    )
    print(f"mAP50 {scores.box.map50:.3f}, mAP50-95 {scores.box.map:.3f}, {out.stat().st_size / 1e6:.2f} MB")
    for name, index in zip(CLASSES, range(len(CLASSES)), strict=True):
        print(f"  {name}: mAP50 {scores.box.ap50[index]:.3f}, mAP50-95 {scores.box.ap[index]:.3f}")


def make_model(args: argparse.Namespace, folder: Path) -> None:
    """Train the model, write it, and print its metrics on validation clips and recordings."""
    weights = str(DATA / DETECTOR)
    detector, features = demo_detector(weights), str(folder / "features")
    # PyTorch and fp32, whatever is installed: features are the same on most machines.
    runtime = RuntimeSettings(backend="torch", device="cpu", precision="fp32", detector_batch=16)
    counts = {"clips_per_kind": args.clips_per_kind, "recordings": args.recordings, "unseen_recordings": 0}
    write_dataset(folder, **counts, seed=MODEL_SEED)
    annotations = folder / "dataset" / "annotations.csv"
    # `vidgru demo` draws what the model is tested on, so it learns from the test split too.
    annotations.write_text(annotations.read_text(encoding="utf-8").replace(",test\n", ",train\n"), encoding="utf-8")
    recordings = list(load_dataset(folder / "dataset").recordings.values())
    extract_recordings(recordings, SequenceCache(features), detector, runtime)
    settings = TrainConfig(
        members=1,  # a small file
        detector=detector,
        runtime=runtime,
        features=features,
        out=str(folder / "run"),
        epochs=args.epochs,
        patience=0,
        lookahead=LOOKAHEAD_S,
    )
    out = args.out or DATA / MODEL
    publish_model(train(folder / "dataset", settings) / BEST, out)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


def publish_model(trained: Path, target: Path) -> None:
    """Write a model without this machine's paths, its weights in fp16, which vidgru reads as fp32: half the size."""
    with safe_open(trained, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        settings = json.loads(file.metadata()[METADATA]) | {"weights": DETECTOR}
    network = {name: t.half() for name, t in tensors.items() if not name.startswith(("linear.", "grounding."))}
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    save_file(tensors | network, target, {METADATA: text})


def make_dataset(args: argparse.Namespace, folder: Path) -> None:
    """Render a dataset with sentences in two languages."""
    count = max(3, round(args.clips / (len(EVENT_KINDS) + 1)))
    counts = {"clips_per_kind": count, "eventless_clips": count, "recordings": args.recordings}
    write_dataset(folder, **counts, seed=args.seed)
    for name in ("dataset", "recordings"):
        write_korean_annotations(folder / name)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    model = commands.add_parser("model", help="train the demo's model")
    model.set_defaults(make=make_model)
    model.add_argument("--clips-per-kind", type=int, default=32, help="clips to render per kind of event")
    model.add_argument("--recordings", type=int, default=48, help="recordings with timed events to render")
    model.add_argument("--epochs", type=int, default=30)
    model.add_argument("--out", type=Path, help=f"file of the model; default: {MODEL} in data/demo")
    detector = commands.add_parser("detector", help="train the demo's detector")
    detector.set_defaults(make=make_detector)
    detector.add_argument("--train-clips", type=int, default=480, help="clips to take training frames from")
    detector.add_argument("--val-clips", type=int, default=60, help="clips to take validation frames from")
    detector.add_argument("--epochs", type=int, default=20)
    detector.add_argument("--out", type=Path, help=f"file of the weights; default: {DETECTOR} in data/demo")
    dataset = commands.add_parser("dataset", help="render a dataset")
    dataset.set_defaults(make=make_dataset)
    dataset.add_argument("--clips", type=int, default=400, help="about how many clips to render")
    dataset.add_argument("--recordings", type=int, default=20, help="recordings with timed events to render")
    dataset.add_argument("--seed", type=int, default=0)
    for command in (model, detector, dataset):
        command.add_argument("--work", type=Path, required=True, help="folder for everything but the result")
    args = parser.parse_args()
    args.make(args, args.work.expanduser().resolve())


if __name__ == "__main__":
    main()
