"""Settings of training, and of the judgement of what was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidgru.config.checks import require
from vidgru.config.detections import DetectionSettings
from vidgru.config.extract import DetectorSettings, RunSettings

FeatureGroup = Literal[
    "geometry", "angle", "score", "class", "speed", "motion", "keypoints", "keypoint_speed", "relations", "appearance",
    "colour", "time", "scene", "scene_motion",
]  # fmt: skip
Cell = Literal["gru", "lstm", "rnn", "none"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DetectorSettings, RunSettings, DetectionSettings):
    """Settings of `vidgru train`. Those of the detector and of how it runs are for recordings not yet extracted.

    Attributes:
        features: folder of the sequence cache.
        out: folder of the run: models, results, plots. What it holds of an earlier run is overwritten.
        allow_missing: leave out rows whose video is missing, instead of failing.
        folds: 0 trains one model; k cross-validates: k models, each judged on the part it has not seen; none
            is kept, and the file's own splits are not used.
        by: what folds keep together: folder, video, or a column of the annotation file; the data set's own setting
            where it is empty.
        resume: go on with the run in `out`, exactly as if it had not been stopped.
        init: a model to start from, trained on other data with the same detector.
        epochs: at most, passes over the training clips. A finished run can be resumed with more.
        patience: stop after so many epochs without a better validation score; 0 never does.
        batch: clips, or windows of recordings, a step.
        lr: highest learning rate, after the warm-up.
        weight_decay: of AdamW.
        label_smoothing: share of each target that is spread over all labels.
        balance: draw rare labels more often, and lay windows over events.
        augment: change clips and windows in training: mirror, crop, speed, place, lost objects. They are not mirrored
            where a label names a side (left, right).
        window: seconds of a recording with timed events that a training step sees; 0 chooses by the events.
        lookahead: seconds of what follows that are known when a frame is scored; a live model answers so much later.
            Not used with --bidirectional or --cell none.
        captions: learn to write descriptions, where the annotations hold some.
        amp: mixed precision (bfloat16) on CUDA, where the GPU has units for it.
        seed: of everything random.
        cell: what remembers; none is the baseline that averages frames.
        width: of a frame's vector, which the cell reads.
        hidden: of the cell's state.
        layers: cells on top of each other.
        bidirectional: read backwards as well; such a model cannot run live.
        dropout: within the network.
        group_dropout: probability that a clip loses appearance, colour, the scene or its motion in a training step;
            each other group of features is lost a fifth as often.
        drop_features: groups of features that the model does not look at.
    """

    features: str = "features"
    out: str = "runs/train"
    allow_missing: bool = False
    folds: int = 0
    group_by: str = ""
    resume: bool = False
    init: str = ""
    epochs: int = 40
    patience: int = 20
    batch: int = 16
    lr: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    balance: bool = True
    augment: bool = True
    window: float = 0.0
    lookahead: float = 1.0
    captions: bool = True
    amp: bool = True
    seed: int = 0
    cell: Cell = "gru"
    width: int = 64
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.2
    group_dropout: float = 0.5
    drop_features: tuple[FeatureGroup, ...] = ()

    def __post_init__(self) -> None:
        DetectorSettings.__post_init__(self)
        RunSettings.__post_init__(self)
        DetectionSettings.__post_init__(self)
        require(not (self.detections and self.mask), "mask", self.mask, "left out with detections")
        require(self.folds == 0 or self.folds >= 2, "folds", self.folds, "0, or at least 2")
        where = "left out without --folds; `split: {by: ...}` in the data set's YAML is what eval reads too"
        require(not self.group_by or self.folds > 0, "group_by", self.group_by, where)
        for name in ("epochs", "batch", "width", "hidden", "layers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.patience >= 0, "patience", self.patience, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(0 < self.lr <= 1, "lr", self.lr, "above 0 and at most 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(self.window == 0 or 1 <= self.window <= 3600, "window", self.window, "0, or from 1 to 3600 seconds")
        require(0 <= self.lookahead <= 60, "lookahead", self.lookahead, "from 0 to 60 seconds")
        require(not (self.resume and self.init), "init", self.init, "left out under --resume")
        require(not (self.resume and self.folds), "folds", self.folds, "left out under --resume")
        for name in ("label_smoothing", "dropout", "group_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(TrainConfig):
    """Settings of `vidgru compare`: those of `vidgru train`, which all that is compared has in common, and these.

    Attributes:
        out: folder of the tables and charts.
        cells: each is trained.
        variants: what else is trained: settings on top of the common ones, such as hidden=64; several are parted by
            spaces, values of a list by plus signs: "drop_features=appearance+scene lr=0.001".
        probe: try on made-up sequences how far back each cell remembers.
        distances: frames between what decides and what is decided, of the probe.
        captions: as for `vidgru train`, but off by default: what is compared is what cells remember.
    """

    out: str = "runs/compare"
    captions: bool = False
    cells: tuple[Cell, ...] = ("gru", "lstm", "rnn")
    variants: tuple[str, ...] = ()
    probe: bool = True
    distances: tuple[int, ...] = (8, 32, 128, 512)

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        require(not self.resume, "resume", self.resume, "left out: a comparison trains from the beginning")
        require(bool(self.cells or self.variants), "cells", self.cells, "at least one, or give variants")
        require(bool(self.distances) and min(self.distances) >= 1, "distances", self.distances, "1 or more, each")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(RunSettings, DetectionSettings):
    """Settings of `vidgru eval`. What the detector computes comes from the model.

    Attributes:
        split: which rows to judge by.
        features: folder of the sequence cache.
        weights: where the model's detector lies, if not under the name it was trained with; it must be the same file.
        out: folder of the results.
        allow_missing: leave out rows whose video is missing, instead of failing.
        beam: sentences that are followed at once in writing a description; 1 is greedy, and faster.
    """

    split: str = "test"
    features: str = "features"
    weights: str = ""
    out: str = "eval"
    allow_missing: bool = False
    beam: int = 4

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        DetectionSettings.__post_init__(self)
        require(1 <= self.beam <= 64, "beam", self.beam, "from 1 to 64")
