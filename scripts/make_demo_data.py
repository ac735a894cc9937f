"""Train the demo's small detector from scratch on rendered street scenes, or render a dataset like the demo's.

    python scripts/make_demo_data.py --work /tmp/demo-detector        # writes data/demo/demo.pt
    python scripts/make_demo_data.py --work /tmp/clips --clips 400    # only renders a dataset

Datasets are described in English (`annotations.csv`) and in Korean (`annotations.ko.csv`). Needs no network and no GPU.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

# Set before importing ultralytics, which would check for updates and install packages.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="true")

import torch
import ultralytics
from korean_sentences import write_korean_annotations
from ultralytics import YOLO
from ultralytics.utils import YAML

from vidgru.demo.dataset import write_dataset, write_frames
from vidgru.demo.renderer import SIZE_PX
from vidgru.demo.scenes import CLASSES, EVENT_KINDS

ROOT = Path(__file__).resolve().parents[1]
TRAIN_SEED, VAL_SEED = 1_000_000_000, 2_000_000_000  # far from the seeds of demo clips, which the detector must not see


def train(data: Path, epochs: int) -> Path:
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


def publish(checkpoint: Path, target: Path) -> None:
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


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for frames, labels and training runs")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "demo" / "demo.pt", help="file of the weights")
    parser.add_argument("--train-clips", type=int, default=480, help="clips to take training frames from")
    parser.add_argument("--val-clips", type=int, default=60, help="clips to take validation frames from")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--clips", type=int, default=0, help="only render about this many clips into --work")
    parser.add_argument(
        "--recordings", type=int, default=20, help="recordings with timed events to render with --clips"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of --clips")
    args = parser.parse_args()
    folder = args.work.resolve()
    if args.clips:
        count = max(3, round(args.clips / (len(EVENT_KINDS) + 1)))
        counts = {"clips_per_kind": count, "eventless_clips": count, "recordings": args.recordings}
        write_dataset(folder, **counts, seed=args.seed)
        for name in ("dataset", "recordings"):
            write_korean_annotations(folder / name)
        return
    seeds = {
        "train": range(TRAIN_SEED, TRAIN_SEED + args.train_clips),
        "val": range(VAL_SEED, VAL_SEED + args.val_clips),
    }
    data = write_frames(folder, seeds)
    publish(train(data, args.epochs), args.out)
    scores = YOLO(args.out).val(
        data=str(data),
        imgsz=max(SIZE_PX),
        device="cpu",
        nms=False,
        plots=False,
        project=str(folder / "runs"),
        exist_ok=True,
    )
    print(f"mAP50 {scores.box.map50:.3f}, mAP50-95 {scores.box.map:.3f}, {args.out.stat().st_size / 1e6:.2f} MB")
    for name, index in zip(CLASSES, range(len(CLASSES)), strict=True):
        print(f"  {name}: mAP50 {scores.box.ap50[index]:.3f}, mAP50-95 {scores.box.ap[index]:.3f}")


if __name__ == "__main__":
    main()
