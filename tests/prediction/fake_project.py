"""A small project for prediction: recordings with known features, and a model with known scores."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.sequences import NAMES, make_sequence
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, NetworkSettings, PredictConfig
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.member_layers import MemberLinear
from vidgru.storage import sha256_file
from vidgru.types import FrameSequence

DETECT = DetectorSettings(weights="detector.pt")


def logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


def make_model(
    path: Path,
    feature_settings: dict[str, Any],
    *,
    weights: str = "detector.pt",
    sequence: FrameSequence | None = None,
    timed: bool = False,
    **scores: float,
) -> EventModel:
    """Make a model that gives each label a constant score, for sequences with the tensors of this sequence.

    It has a head for clips or, with `timed`, for frames.
    """
    sequence = sequence or make_sequence(1)
    scores = scores or {"fall": 0.9, "run": 0.2, "walk": 0.6}
    labels = tuple(scores)
    torch.manual_seed(0)
    head = HeadSpec(background=False, multi_label=True)
    task = EventTask(labels=labels, clip_head=None if timed else head, frame_head=head if timed else None)
    network = build_network(FeatureSpec.from_sequence(sequence), task, NetworkSettings()).eval()
    layers = network.frame_head if timed else network.clip_head
    assert layers is not None
    last = layers[-1]
    assert isinstance(last, MemberLinear)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([logit(score) for score in scores.values()]))
    thresholds = (0.5,) * len(labels)
    model = EventModel(
        network=network,
        task=task,
        feature_settings=feature_settings,
        weights=weights,
        names=sequence.names,
        decode=DecodeSettings(high=thresholds, low=thresholds, min_s=0.5, merge_s=0.5, exclusive=False),
        window_s=2.0,
        metrics={"macro_f1": 0.75},
        versions={"vidgru": "0.1.0"},
    )
    model.save(path)
    return model


class FakeProject:
    """A folder with `videos/`, a detector, a model and a cache. The videos are text files, and never decoded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights = root / "detector.pt"
        self.weights.write_bytes(b"a detector")
        self.feature_settings = DETECT.feature_settings(sha256_file(self.weights))
        self.model = root / "model.safetensors"
        make_model(self.model, self.feature_settings, weights=str(self.weights))
        self.videos = root / "videos"
        self.videos.mkdir()
        self.out = root / "events"
        self.cache = SequenceCache(root / "features")

    def record(
        self,
        name: str,
        *,
        frames: int = 40,
        sequence: FrameSequence | None = None,
        content: str = "",
        folder: Path | None = None,
        **facts: Any,
    ) -> Path:
        """Add a recording with `frames` samples at 8 per second, or with this sequence, to the cache."""
        sequence = sequence or make_sequence(frames, seed=frames)
        path = (folder or self.videos) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content or name)
        key = self.cache.key(self.cache.sha256(path), self.feature_settings)
        values: dict[str, Any] = {
            "status": "done", "duration_s": len(sequence) / 8, "fps": 8.0, "size_px": (320, 192), "names": NAMES,
            "feature_settings": self.feature_settings,
        }  # fmt: skip
        with self.cache.writer(key, {"device": "cpu"}) as writer:
            writer.append(sequence)
            writer.finish(**{**values, **facts})
        self.cache.set_last_entry(path, key)
        return path

    def entry_folder(self, path: Path) -> Path:
        """Return the folder of the cache entry of a recording."""
        return self.cache.root / self.cache.key(self.cache.sha256(path), self.feature_settings)

    def config(self, **values: Any) -> PredictConfig:
        """Make a config; without reports, which take time, by default."""
        return from_settings(
            PredictConfig, **{"out": str(self.out), "features": str(self.cache.root), "report": False, **values}
        )


def flip_bit(entry: Path) -> None:
    """Change the last byte of the first part of a cache entry."""
    part = entry / "part-00000.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
