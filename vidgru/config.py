"""One frozen dataclass a verb. Flags and YAML keys are its fields; bad values are refused here, before heavy work.

Extraction settings come in two kinds. WHAT is computed (`DetectorSettings`) decides the features: it is part of a cache
entry's key and is stored in every model. HOW it ran (`RunSettings`) is only recorded, so that a model trained from a
GPU's features runs on a laptop's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from vidgru.errors import SettingsError

AnnotationFormat = Literal[
    "native", "folders", "list", "activitynet", "e2e-spot", "soccernet", "label-studio", "elan", "msr-vtt", "cvat",
    "kinetics",
]  # fmt: skip
FeatureGroup = Literal[
    "geometry", "angle", "score", "class", "speed", "motion", "keypoints", "keypoint_speed", "relations", "appearance",
    "colour", "time", "scene", "scene_motion",
]  # fmt: skip
Cell = Literal["gru", "lstm", "rnn", "none"]
FEATURE_SCHEMA = 2  # raised whenever the same settings would give other features


def _need(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}")


def _moment(name: str, text: str) -> datetime | None:
    """The moment that an ISO 8601 text means, None where it is empty. Without an offset it is this machine's time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; it must be an ISO 8601 time", "such as 2024-05-06T07:08:09") from None


def _polygons(mask: str) -> str:
    """The polygons of a mask, given as a file or as they are, as JSON; empty where there are none."""
    if not mask:
        return ""
    what = f"mask is {mask!r}"
    text = mask
    if not mask.lstrip().startswith("["):
        try:
            text = Path(mask).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{what}, which cannot be read: {getattr(error, 'strerror', error)}") from None
    try:
        polygons = [[[float(x), float(y)] for x, y in polygon] for polygon in yaml.safe_load(text)]
    except (yaml.YAMLError, TypeError, ValueError):
        polygons = []
    inside = all(0 <= number <= 1 for polygon in polygons for corner in polygon for number in corner)
    if not polygons or not inside or min(map(len, polygons)) < 3:
        raise SettingsError(
            f"{what}; it must be a list of polygons, each of three corners or more, [x, y] from 0 to 1",
            "for example [[[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]]] for the upper left",
        )
    return json.dumps(polygons)


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What is computed from a recording.

    Attributes:
        weights: an Ultralytics detector: detect, segment, pose or OBB; v8, 11, 26 or your own `.pt`.
        fps: samples a second.
        imgsz: longer side of the network's input in pixels, a multiple of 32.
        conf: objects scored below this are left out (the tracker likes weak ones, so keep it low).
        iou: overlap above which NMS drops the weaker box (heads without NMS ignore it).
        max_objects: at most this many objects a frame, the best scored.
        tracker: how track ids are made.
        mask: what is not to be looked at (a burnt-in clock, a screen): a YAML or JSON file with a list of polygons,
            each a list of corners [x, y] from 0 to 1; or that list itself. It is kept as the list.
    """

    weights: str = "yolo26n.pt"
    fps: float = 8.0
    imgsz: int = 640
    conf: float = 0.1
    iou: float = 0.7
    max_objects: int = 32
    tracker: Literal["bytetrack", "ocsort", "none"] = "bytetrack"
    mask: str = ""

    def __post_init__(self) -> None:
        for name in ("fps", "conf", "iou"):  # 5 and 5.0 are one setting, and have to be one key
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "mask", _polygons(self.mask))
        _need(0 < self.fps <= 240, "fps", self.fps, "above 0 and at most 240")
        _need(self.imgsz >= 32 and self.imgsz % 32 == 0, "imgsz", self.imgsz, "a multiple of 32")
        _need(0 < self.conf < 1, "conf", self.conf, "between 0 and 1")
        _need(0 < self.iou <= 1, "iou", self.iou, "above 0 and at most 1")
        _need(self.max_objects >= 1, "max_objects", self.max_objects, "at least 1")

    def what(self, weights_sha256: str) -> dict[str, Any]:
        """The settings that decide the features, as they stand in keys, entries and models."""
        values = {name: getattr(self, name) for name in DetectorSettings.__dataclass_fields__ if name != "weights"}
        return {**values, "weights_sha256": weights_sha256, "schema": FEATURE_SCHEMA}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How the detector runs. Recorded in each entry, not part of its key.

    Attributes:
        backend: what runs the network. auto: the fastest that is installed: OpenVINO on x86 CPUs if the extra is there,
            else torch.
        device: of the detector and of training: auto, cpu, cuda, cuda:1, mps. Training's auto is cuda, else cpu.
        precision: of the convolutions; boxes are always decoded in fp32. auto: bf16 where the device has units for it.
        detector_batch: frames a forward pass; 0 chooses by device.
        threads: CPU threads of the detector, 0 is one a core; and of training, 0 is one.
        start_time: when the recordings begin, if their containers do not tell, or tell wrongly: an ISO 8601 time, or a
            pattern of their names such as %Y%m%d_%H%M%S (Python's strptime).
    """

    backend: Literal["auto", "torch", "openvino"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    detector_batch: int = 0
    threads: int = 0
    start_time: str = ""

    def __post_init__(self) -> None:
        _need(self.detector_batch >= 0, "detector_batch", self.detector_batch, "0 or more")
        _need(self.threads >= 0, "threads", self.threads, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(DetectorSettings, RunSettings):
    """Settings of `vidgru extract`.

    Attributes:
        out: folder of the sequence cache.
        verbose: a line on stderr for each recording as it ends.
        dry_run: tell what there is to do, and how long it would take, tried on a few seconds; write nothing.
    """

    out: str = "features"
    verbose: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        DetectorSettings.__post_init__(self)
        RunSettings.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DetectorSettings, RunSettings):
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
        lag: seconds of what follows that are known when a frame is scored; a live model answers so much later.
            Not used with --bidirectional or --cell none.
        describe: learn to write descriptions, where the annotations hold some.
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
        without: groups of features that the model does not look at.
    """

    features: str = "features"
    out: str = "runs/train"
    allow_missing: bool = False
    folds: int = 0
    by: str = ""
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
    lag: float = 1.0
    describe: bool = True
    amp: bool = True
    seed: int = 0
    cell: Cell = "gru"
    width: int = 64
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.2
    group_dropout: float = 0.5
    without: tuple[FeatureGroup, ...] = ()

    def __post_init__(self) -> None:
        DetectorSettings.__post_init__(self)
        RunSettings.__post_init__(self)
        _need(self.folds == 0 or self.folds >= 2, "folds", self.folds, "0, or at least 2")
        where = "left out without --folds; `split: {by: ...}` in the data set's YAML is what eval reads too"
        _need(not self.by or self.folds > 0, "by", self.by, where)
        for name in ("epochs", "batch", "width", "hidden", "layers"):
            _need(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _need(self.patience >= 0, "patience", self.patience, "0 or more")
        _need(self.seed >= 0, "seed", self.seed, "0 or more")
        _need(0 < self.lr <= 1, "lr", self.lr, "above 0 and at most 1")
        _need(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _need(self.window == 0 or 1 <= self.window <= 3600, "window", self.window, "0, or from 1 to 3600 seconds")
        _need(0 <= self.lag <= 60, "lag", self.lag, "from 0 to 60 seconds")
        _need(not (self.resume and self.init), "init", self.init, "left out under --resume")
        _need(not (self.resume and self.folds), "folds", self.folds, "left out under --resume")
        for name in ("label_smoothing", "dropout", "group_dropout"):
            _need(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(TrainConfig):
    """Settings of `vidgru compare`: those of `vidgru train`, which all that is compared has in common, and these.

    Attributes:
        out: folder of the tables and charts.
        cells: each is trained.
        variants: what else is trained: settings on top of the common ones, such as hidden=64; several are parted by
            spaces, values of a list by plus signs: "without=appearance+scene lr=0.001".
        probe: try on made-up sequences how far back each cell remembers.
        distances: frames between what decides and what is decided, of the probe.
        describe: as for `vidgru train`, but off by default: what is compared is what cells remember.
    """

    out: str = "runs/compare"
    describe: bool = False
    cells: tuple[Cell, ...] = ("gru", "lstm", "rnn")
    variants: tuple[str, ...] = ()
    probe: bool = True
    distances: tuple[int, ...] = (8, 32, 128, 512)

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        _need(not self.resume, "resume", self.resume, "left out: a comparison trains from the beginning")
        _need(bool(self.cells or self.variants), "cells", self.cells, "at least one, or give variants")
        _need(bool(self.distances) and min(self.distances) >= 1, "distances", self.distances, "1 or more, each")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(RunSettings):
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
        _need(1 <= self.beam <= 64, "beam", self.beam, "from 1 to 64")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(RunSettings):
    """Settings of `vidgru predict`. What the detector computes comes from the model.

    Attributes:
        out: folder of the events.
        features: folder of the sequence cache.
        weights: where the model's detector lies, if not under the name it was trained with; it must be the same file.
        min_score: events scored below this are left out.
        labels: only events with these labels; all the model's where none is given.
        since: only events that end after this wall-clock time (ISO 8601). A recording that does not tell its own fails.
        until: only events that begin before this wall-clock time.
        report: write a page to look at for each recording, and one for all.
        clips: cut every event to a file of its own.
        context: seconds before and after each event that its file shows.
        save_video: write each recording with boxes, tracks and events drawn.
        record: of a live stream, keep what was seen in the cache.
        beam: sentences that are followed at once in writing a description; 1 is greedy, and faster.
    """

    out: str = "events"
    features: str = "features"
    weights: str = ""
    min_score: float = 0.0
    labels: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    report: bool = True
    clips: bool = False
    context: float = 1.0
    save_video: bool = False
    record: bool = False
    beam: int = 4

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        _need(0 <= self.min_score <= 1, "min_score", self.min_score, "between 0 and 1")
        _need(0 <= self.context <= 3600, "context", self.context, "from 0 to 3600 seconds")
        _need(1 <= self.beam <= 64, "beam", self.beam, "from 1 to 64")
        since, until = (_moment(name, getattr(self, name)) for name in ("since", "until"))
        ordered = since is None or until is None or since < until
        _need(ordered, "until", self.until, f"after since, which is {self.since!r}")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(RunSettings):
    """Settings of `vidgru explain`. What the detector computes comes from the model.

    Attributes:
        at: only what happens at this second of the recording.
        event: only the event of this number, by start, the first is 1.
        features: folder of the sequence cache.
        weights: where the model's detector lies, if not under the name it was trained with; it must be the same file.
    """

    at: float | None = None
    event: int | None = None
    features: str = "features"
    weights: str = ""

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        _need(self.at is None or 0 <= self.at < float("inf"), "at", self.at, "a second of the recording, from 0")
        _need(self.event is None or self.event >= 1, "event", self.event, "the number of an event, from 1")
        _need(self.at is None or self.event is None, "at", self.at, "left out where event is given")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of `vidgru convert`. What a data set YAML says comes from there, and these on top.

    Attributes:
        format: of the file that is read; recognised by its content where none is given.
        fps: frames a second in which the file counts, where it does not tell (CVAT, Label Studio); 0 leaves it to it.
        half_width: seconds before and after a moment that its event reaches; 0 takes the data set YAML's, or half a
            second.
        tiers: tiers (ELAN) or attributes (CVAT) that hold the labels; all where none is given.
    """

    format: AnnotationFormat | None = None
    fps: float = 0.0
    half_width: float = 0.0
    tiers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(0 <= self.fps <= 1000, "fps", self.fps, "from 0 to 1000")
        _need(0 <= self.half_width <= 3600, "half_width", self.half_width, "from 0 to 3600 seconds")


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Settings of `vidgru info`.

    Attributes:
        verify: read every byte of a cache or an entry and hold it against what was written; unsound entries are marked,
            and the next extraction makes them again.
        prune: delete from a cache the entries of recordings that are gone or have changed, and what killed runs left.
    """

    verify: bool = False
    prune: bool = False


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of `vidgru demo`.

    Attributes:
        out: folder of everything it makes.
        clips_per_kind: clips drawn of each kind of event.
        recordings: of about a minute, drawn with timed events.
        seed: of the scenes and of the training.
    """

    out: str = "demo"
    clips_per_kind: int = 32
    recordings: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clips_per_kind", "recordings"):
            _need(getattr(self, name) >= 3, name, getattr(self, name), "at least 3, one for each split")
        _need(self.seed >= 0, "seed", self.seed, "0 or more")
