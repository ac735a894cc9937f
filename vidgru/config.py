"""Settings of every command, as frozen dataclasses composed of groups.

    ExtractConfig(detector=DetectorSettings(fps=5), runtime=RuntimeSettings(device="cuda"), out="features")

Each group checks its own values, a command's config only what spans groups; a bad value raises `SettingsError` before
any heavy work. On the command line and in YAML the settings are flat (`--fps 5 --device cuda --out features`), see
`vidgru.flags`; their help is under `Attributes:` here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vidgru.errors import SettingsError
from vidgru.flags import RecordingTime, check_choices, parse_duration, parse_time, require
from vidgru.storage import user_path

FEATURE_SCHEMA = 2  # increase when equal settings would give other features
MAX_MEMBERS = 32
DETECTIONS_SCHEMA = 1  # increase when equal imported detections would give other sequences

_MASK_HINT = "for example [[[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]]] for the upper left, or a file that holds it"

AnnotationFormat = Literal[
    "native", "folders", "list", "activitynet", "e2e-spot", "soccernet", "label-studio", "elan", "msr-vtt", "cvat",
    "kinetics", "boris", "via", "losslesscut", "subtitles", "charades", "qvhighlights", "fiftyone",
    "frame-labels",
]  # fmt: skip
OutputFormat = Literal["csv", "jsonl", "activitynet", "vtt", "boris", "cvat", "fiftyone", "label-studio"]
Cell = Literal["gru", "lstm", "rnn", "none"]
FeatureGroup = Literal[
    "geometry", "angle", "score", "class", "speed", "motion", "keypoints", "keypoint_speed", "keypoint_pairs",
    "relations", "appearance", "colour", "time", "scene", "scene_motion",
]  # fmt: skip


# --- groups of settings ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """Detector and sampling, which decide the features and their cache key.

    Attributes:
        weights: Ultralytics detector weights: detect, segment, pose or OBB; v8, 11, 26 or your own `.pt`.
        fps: Frames per second to sample.
        imgsz: Longer side of the network's input in pixels, a multiple of 32.
        conf: Score below which objects are dropped; keep it low, since the tracker uses weak objects.
        iou: Overlap above which NMS drops the weaker box; ignored by NMS-free heads.
        only: Classes of the objects to keep, by the detector's names, such as person,car; empty keeps all.
        max_objects: Maximum number of objects per frame; those with the best scores are kept.
        tracker: Multi-object tracker that assigns track ids.
        mask: Regions to ignore, such as a burnt-in clock: a YAML or JSON file with a list of polygons, each a list of
            [x, y] corners from 0 to 1; or that list itself. Stored as the list.
        adaptive: Decode only where something moves or changes; still stretches repeat the objects of the sample before.
            For surveillance video that is still most of the time; recordings where that is unclear are decoded
            completely.
    """

    weights: str = "yolo26n.pt"
    fps: float = 8.0
    imgsz: int = 640
    conf: float = 0.1
    iou: float = 0.7
    only: tuple[str, ...] = ()
    max_objects: int = 32
    tracker: Literal["bytetrack", "ocsort", "none"] = "bytetrack"
    mask: str = ""
    adaptive: bool = False

    def __post_init__(self) -> None:
        for name in ("fps", "conf", "iou"):  # 5 and 5.0 are the same setting and must give the same key
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "mask", _read_polygons(self.mask))
        object.__setattr__(self, "only", tuple(sorted(set(self.only))))  # files of models and caches have lists
        check_choices(self)
        require(0 < self.fps <= 240, "fps", self.fps, "above 0 and at most 240")
        require(
            32 <= self.imgsz <= 16384 and self.imgsz % 32 == 0, "imgsz", self.imgsz, "a multiple of 32, up to 16384"
        )
        require(0 < self.conf < 1, "conf", self.conf, "between 0 and 1")
        require(0 < self.iou <= 1, "iou", self.iou, "above 0 and at most 1")
        require(self.max_objects >= 1, "max_objects", self.max_objects, "at least 1")

    def feature_settings(self, weights_sha256: str) -> dict[str, Any]:
        """Return the settings that decide the features, as stored in keys, entries and models."""
        values = {name: value for name, value in vars(self).items() if name not in ("weights", "only", "adaptive")}
        optional = {"only": list(self.only), "adaptive": self.adaptive}
        values |= {name: value for name, value in optional.items() if value}  # left out, so that older keys remain
        return {**values, "weights_sha256": weights_sha256, "schema": FEATURE_SCHEMA}

    def imported_feature_settings(
        self, names: Sequence[str], keypoints: int, flip_idx: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Return the settings that decide the features of imported detections.

        The tracker applies to detections without track ids.

        Args:
            names: Class names.
            keypoints: Number of keypoints per object.
            flip_idx: Left-right partner of each keypoint; empty if unknown.
        """
        values = {name: getattr(self, name) for name in ("fps", "conf", "max_objects", "tracker")}
        settings = {**values, "names": list(names), "keypoints": keypoints, "detections": DETECTIONS_SCHEMA}
        return settings | ({"flip_idx": list(flip_idx)} if flip_idx else {})


def _read_polygons(mask: str) -> str:
    """Return the polygons of a mask, given as a file or as a list, as JSON; empty if there is no mask."""
    if not mask:
        return ""
    import yaml

    text = mask
    if not mask.lstrip().startswith("["):
        try:
            text = user_path(mask).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", error)
            raise SettingsError(f"mask is {mask!r}, which cannot be read: {reason}", _MASK_HINT) from None
    try:
        polygons = [[[float(x), float(y)] for x, y in polygon] for polygon in yaml.safe_load(text)]
    except (yaml.YAMLError, TypeError, ValueError):
        polygons = []
    inside = all(0 <= number <= 1 for polygon in polygons for corner in polygon for number in corner)
    if not polygons or not inside or min(map(len, polygons)) < 3:
        raise SettingsError(
            f"mask is {mask!r}; it must be a list of polygons, each of three corners or more, [x, y] from 0 to 1",
            _MASK_HINT,
        )
    return json.dumps(polygons)


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Runtime, which is recorded with the features but not part of their key.

    Attributes:
        backend: Inference backend; auto is OpenVINO on x86 CPUs where the extra is installed, else torch.
        device: Device of the detector and of training: auto, cpu, cuda, cuda:1, mps; auto trains on cuda, else cpu.
        precision: Precision of the convolutions; auto is bf16 where the device has units for it. Boxes are always
            decoded in fp32.
        detector_batch: Frames per forward pass of the detector; 0 chooses by device.
        threads: CPU cores for extraction, each with a decoder and a detector thread, 0 uses all; CPU threads for
            training, 0 uses one.
        start_time: Start of the recordings, if their containers have none or a wrong one: an ISO 8601 time, or a
            strptime pattern of their file names such as %Y%m%d_%H%M%S.
        trust_weights: Load detector weights that need more than Ultralytics' own layers. Such a file may run any code:
            trust its author.
    """

    backend: Literal["auto", "torch", "openvino"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    detector_batch: int = 0
    threads: int = 0
    start_time: str = ""
    trust_weights: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.detector_batch >= 0, "detector_batch", self.detector_batch, "0 or more")
        require(self.threads >= 0, "threads", self.threads, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ImportedDetectionSettings:
    """Imported detections, used instead of running a detector.

    Attributes:
        detections: File or folder of boxes: Ultralytics save_txt, MOT, COCO with videos, CSV poses of DeepLabCut or
            SLEAP; or a cache of imported detections.
        source_fps: Frame rate of the detected videos, if neither the videos nor the detections state it, or if only
            some frames were detected; 0 reads it from them.
        source_size: Width and height of the videos in pixels, such as 1920x1080, if nothing else states them.
        classes: Class names, if the detections lack them: a data.yaml with `names`, or a text file with one per line.
    """

    detections: str = ""
    source_fps: float = 0.0
    source_size: str = ""
    classes: str = ""

    def __post_init__(self) -> None:
        require(0 <= self.source_fps <= 1000, "source_fps", self.source_fps, "from 0 to 1000")
        valid = not self.source_size or self.size_px is not None
        require(valid, "source_size", self.source_size, "width and height in pixels, such as 1920x1080")
        for name in ("source_fps", "source_size", "classes"):
            used = bool(self.detections) or not getattr(self, name)
            hint = "; --only keeps some classes of objects" if name == "classes" else ""
            require(used, name, getattr(self, name), f"left out without detections{hint}")

    @property
    def size_px(self) -> tuple[int, int] | None:
        """`source_size` as (width, height); None if it is empty or malformed."""
        match = re.fullmatch(r"([1-9]\d{0,4})[x*]([1-9]\d{0,4})", self.source_size)
        return (int(match[1]), int(match[2])) if match else None


def comparable_settings(feature_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the feature settings that a model and the features it reads must share: all but `adaptive`."""
    return {name: value for name, value in feature_settings.items() if name != "adaptive"}


def uses_imported_detections(feature_settings: Mapping[str, Any]) -> bool:
    """Return whether features with these settings come from imported detections rather than from vidgru's detector."""
    return "detections" in feature_settings


@dataclass(frozen=True, kw_only=True)
class ScaleSettings:
    """Sharding and Ray, which do not change results.

    Attributes:
        shard: Share of the recordings to process, such as 2/8: the second of eight shares of about equal duration.
        ray: Address of a Ray cluster whose machines share a disk; auto joins the one running here or starts one for
            this run; local always starts one.
        workers: Number of Ray workers; 0 uses as many as fit the cluster.
        gpus_per_worker: GPUs per Ray worker; fractions share a GPU; 0 uses CPUs.
        threads_per_worker: CPU cores per Ray worker, instead of threads; 0 divides all cores evenly among the workers
            or, if workers is 0 too, uses a machine per worker, as large as the smallest.
    """

    shard: str = ""
    ray: str = ""
    workers: int = 0
    gpus_per_worker: float = 0.0
    threads_per_worker: int = 0

    def __post_init__(self) -> None:
        number, count = self.shard_of_count
        valid = 1 <= number <= count
        require(valid, "shard", self.shard, "a number and how many there are, such as 2/8, from 1/8 to 8/8")
        require(not (self.shard and self.ray), "shard", self.shard, "left out with ray, which divides the work itself")
        require(self.workers >= 0, "workers", self.workers, "0 or more")
        require(self.gpus_per_worker >= 0, "gpus_per_worker", self.gpus_per_worker, "0 or more")
        whole = self.gpus_per_worker <= 1 or self.gpus_per_worker == int(self.gpus_per_worker)
        require(whole, "gpus_per_worker", self.gpus_per_worker, "a whole number, or less than 1")
        require(self.threads_per_worker >= 0, "threads_per_worker", self.threads_per_worker, "0 or more")
        for name in ("workers", "gpus_per_worker", "threads_per_worker"):
            require(bool(self.ray) or not getattr(self, name), name, getattr(self, name), "left out without ray")

    @property
    def shard_of_count(self) -> tuple[int, int]:
        """Number of the shard, from 1, and count of shards: (1, 1) is everything, (0, 0) a malformed `shard`."""
        if not self.shard:
            return 1, 1
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        return (int(match[1]), int(match[2])) if match else (0, 0)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Network architecture and regularization.

    Attributes:
        cell: Recurrent cell; none is the mean-pooling baseline.
        width: Size of the encoded frame vector, the input of the recurrent layer.
        hidden: Size of the recurrent state.
        layers: Number of stacked recurrent layers.
        bidirectional: Read sequences backwards too; such a model cannot run live.
        dropout: Dropout probability within the network.
        group_dropout: Probability of dropping appearance, colour, scene or scene motion of a whole clip in a training
            step; other feature groups are dropped a fifth as often.
        drop_features: Feature groups that the model ignores.
    """

    cell: Cell = "gru"
    width: int = 64
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.2
    group_dropout: float = 0.5
    drop_features: tuple[FeatureGroup, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        for name, most in (("width", 8192), ("hidden", 8192), ("layers", 32)):
            require(1 <= getattr(self, name) <= most, name, getattr(self, name), f"from 1 to {most}")
        for name in ("dropout", "group_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")


# --- commands -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Settings of `vidgru extract`.

    Attributes:
        out: Folder of the sequence cache.
        verbose: Print a line to stderr as each recording ends.
        dry_run: Print what would be done and an estimate of the time, from a trial on a few seconds; write nothing.
    """

    detector: DetectorSettings = DetectorSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    imported: ImportedDetectionSettings = ImportedDetectionSettings()
    scale: ScaleSettings = ScaleSettings()
    out: str = "features"
    verbose: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        values = {"mask": self.detector.mask, "only": self.detector.only, "dry_run": self.dry_run}
        values |= {"adaptive": self.detector.adaptive}
        for name, value in (values | {"shard": self.scale.shard, "ray": self.scale.ray}).items():
            require(not (self.imported.detections and value), name, value, "left out with detections")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `vidgru train`. Those of the detector and the runtime apply to recordings not yet extracted.

    Attributes:
        features: Folder of the sequence cache.
        out: Folder of the run: models, results, plots. If it holds a run, the next free one is used: runs/train2.
        exist_ok: Overwrite an earlier run in `out`.
        videos: Folder of the videos, if it is not beside the annotation file.
        allow_missing: Skip rows whose video is missing instead of failing.
        folds: Number of cross-validation folds, instead of training one model; each of the models is evaluated on the
            fold it has not seen, and none is kept. Ignores the dataset's splits. 0 trains one model.
        group_by: What stays within a fold: folder, video, or a column of the annotation file; the dataset's own
            setting if empty.
        members: Networks in the model, whose scores are averaged. Each is trained without another part of the
            recordings, on which it is measured, so that none has to be set aside. 0 chooses: 5, or as many as there are
            groups; 1 with more than 2,000 clips or 50 hours. 1 trains a single network and sets a validation split
            aside.
        linear: Combine the networks with a linear model of pooled statistics, which is strong on few examples.
        resume: Resume the run in `out`, with the result of an uninterrupted run; with the same `init`, if it had one.
        init: Model to start from, or the start that `vidgru pretrain` wrote. Settings of the detector, the features and
            the network are its own where they are left at their defaults, and its labels remain.
        epochs: Maximum number of passes over the training data. A finished run can be resumed with more.
        patience: Epochs without a better validation score before training stops; 0 never stops early. Several members
            stop when their out-of-fold loss has not fallen for as long.
        batch: Clips, or windows of recordings, per training step.
        lr: Peak learning rate, reached after warm-up.
        weight_decay: Weight decay of AdamW.
        label_smoothing: Share of each target that is spread over all labels.
        balance: Draw rare labels more often, and place windows over events.
        augment: Augment training data: mirror, crop, speed, position, dropped objects.
        mirror: Mirror training data left to right; by default unless a label names a side (left, right), the sides of
            the keypoints are unknown, or held-out recordings are predicted worse with it.
        flip_idx: Left-right partner of each keypoint, as in the detector's data.yaml: 0,2,1 for nose, left eye, right
            eye. By default that of the weights or detections, and COCO's for 17 keypoints.
        window: Seconds per training window of recordings with timed events; 0 chooses by the length of the events.
        lookahead: Seconds after a frame that its score may depend on, and thus the delay of a live model. Unused with
            --bidirectional and --cell none.
        captions: Learn to write descriptions, if the annotations have any.
        plots: Draw plots of the run and of its metrics.
        amp: Mixed precision (bfloat16) on CUDA devices that have units for it.
        seed: Random seed.
    """

    detector: DetectorSettings = DetectorSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    imported: ImportedDetectionSettings = ImportedDetectionSettings()
    network: NetworkSettings = NetworkSettings()
    features: str = "features"
    out: str = "runs/train"
    exist_ok: bool = False
    videos: str = ""
    allow_missing: bool = False
    folds: int = 0
    group_by: str = ""
    members: int = 0
    linear: bool = True
    resume: bool = False
    init: str = ""
    epochs: int = 40
    patience: int = 10
    batch: int = 16
    lr: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    balance: bool = True
    augment: bool = True
    mirror: bool | None = None
    flip_idx: tuple[int, ...] = ()
    window: float = 0.0
    lookahead: float = 1.0
    captions: bool = True
    plots: bool = True
    amp: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("mask", "only", "adaptive"):
            value = getattr(self.detector, name)
            require(not (self.imported.detections and value), name, value, "left out with detections")
        require(self.folds == 0 or self.folds >= 2, "folds", self.folds, "0, or at least 2")
        hint = "left out without --folds; `split: {by: ...}` in the dataset's YAML applies to eval too"
        require(not self.group_by or self.folds > 0, "group_by", self.group_by, hint)
        for name in ("epochs", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 <= self.members <= MAX_MEMBERS, "members", self.members, f"from 0 to {MAX_MEMBERS}")
        for name in ("patience", "seed", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(0 < self.lr <= 1, "lr", self.lr, "above 0 and at most 1")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        require(self.window == 0 or 1 <= self.window <= 3600, "window", self.window, "0, or from 1 to 3600 seconds")
        require(0 <= self.lookahead <= 60, "lookahead", self.lookahead, "from 0 to 60 seconds")
        require(self.augment or not self.mirror, "mirror", self.mirror, "left out with --no-augment")
        require(not (self.resume and self.folds), "folds", self.folds, "left out with --resume")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of `vidgru pretrain`. Training from the start takes over those of the network.

    Attributes:
        out: File of the start. If it exists, the next free one is used: start2.safetensors.
        exist_ok: Overwrite `out`.
        epochs: Number of passes over the recordings.
        batch: Windows of recordings per training step.
        window: Seconds per window.
        lr: Peak learning rate, reached after warm-up.
        weight_decay: Weight decay of AdamW.
        seed: Random seed.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    network: NetworkSettings = NetworkSettings()
    out: str = "start.safetensors"
    exist_ok: bool = False
    epochs: int = 20
    batch: int = 16
    window: float = 8.0
    lr: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "weight_decay"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(0 < self.lr <= 1, "lr", self.lr, "above 0 and at most 1")
        require(1 <= self.window <= 3600, "window", self.window, "from 1 to 3600 seconds")
        require(self.network.cell != "none", "cell", "none", "one that remembers: gru, lstm or rnn")
        hint = "left out: a start is causal"
        require(not self.network.bidirectional, "bidirectional", self.network.bidirectional, hint)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Settings of `vidgru compare`.

    Attributes:
        train: Training settings that all rows share. `out` is the folder of the tables; `captions` is off by
            default.
        cells: Recurrent cells to compare.
        variants: Further rows: settings on top of the common ones, such as hidden=64; separated by spaces, list values
            by plus signs: "drop_features=appearance+scene lr=0.001".
    """

    train: TrainConfig = TrainConfig(out="runs/compare", captions=False)
    cells: tuple[Cell, ...] = ("gru", "lstm", "rnn")
    variants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        require(not self.train.resume, "resume", self.train.resume, "left out: a comparison always trains from scratch")
        require(bool(self.cells or self.variants), "cells", self.cells, "at least one, or give variants")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Settings of `vidgru eval`. The detector settings come from the model.

    Attributes:
        split: Split of the dataset to evaluate on.
        features: Folder of the sequence cache.
        weights: Path of the model's detector weights, if they have moved; the file must be the same.
        out: Folder of the results.
        videos: Folder of the videos, if it is not beside the annotation file.
        allow_missing: Skip rows whose video is missing instead of failing.
        threshold: Score from 0 to 1 that an event must reach, as for predict, instead of the model's thresholds.
        beam: Beam width for writing descriptions; 1 is greedy, and faster.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    imported: ImportedDetectionSettings = ImportedDetectionSettings()
    split: str = "test"
    features: str = "features"
    weights: str = ""
    out: str = "eval"
    videos: str = ""
    allow_missing: bool = False
    threshold: float | Mapping[str, float] | None = None
    beam: int = 4

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        require(1 <= self.beam <= 64, "beam", self.beam, "from 1 to 64")


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Settings of `vidgru tune`. The detector settings come from the model.

    Attributes:
        min_recall: Share of the events of each label to find, with as few others as possible; by default the best F1
            decides.
        max_false_alarms: False alarms per hour and label to allow, to find as many events as possible.
        split: Split of the dataset to use; empty uses all recordings that the model was not trained on.
        features: Folder of the sequence cache.
        weights: Path of the model's detector weights, if they have moved; the file must be the same.
        out: Model file to write; empty replaces the model.
        videos: Folder of the videos, if it is not beside the annotation file.
        allow_missing: Skip rows whose video is missing instead of failing.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    imported: ImportedDetectionSettings = ImportedDetectionSettings()
    min_recall: float | None = None
    max_false_alarms: float | None = None
    split: str = ""
    features: str = "features"
    weights: str = ""
    out: str = ""
    videos: str = ""
    allow_missing: bool = False

    def __post_init__(self) -> None:
        recall, alarms = self.min_recall, self.max_false_alarms
        require(recall is None or 0 < recall <= 1, "min_recall", recall, "above 0 and at most 1")
        require(alarms is None or 0 <= alarms < float("inf"), "max_false_alarms", alarms, "0 or more")
        require(recall is None or alarms is None, "min_recall", recall, "left out with max_false_alarms")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Settings of `vidgru predict`. The detector settings come from the model.

    Attributes:
        out: Folder of the events of recordings; those of a live source are printed.
        features: Folder of the sequence cache.
        weights: Path of the model's detector weights, if they have moved; the file must be the same.
        adaptive: Decode only where something moves or changes, as for extract; by default as in training.
        threshold: Score from 0 to 1 that an event must reach, instead of the model's thresholds: 0.5 for all labels,
            or fall=0.4,sit=0.6 for some. The score that it must keep follows in proportion.
        labels: Labels of the events to keep; empty keeps all.
        since: Keep only events that end after this wall-clock time (ISO 8601). Recordings of unknown time fail.
        until: Keep only events that start before this wall-clock time (ISO 8601).
        report: Write an HTML page per recording and an index.
        clips: Cut each event into a file of its own.
        context: Seconds of video before and after each event in its clip.
        save_video: Write each recording with boxes, tracks and events drawn.
        record: Keep the features of a live stream in the cache.
        once: End with a live stream instead of reconnecting.
        for_: Time after which a live source is left, such as 90s, 30m or 2h; without it, it is watched until it ends.
        beam: Beam width for writing descriptions; 1 is greedy, and faster.
        merge_only: Predict nothing: rebuild the files of the whole run, and list what is still to be predicted.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    scale: ScaleSettings = ScaleSettings()
    out: str = "events"
    features: str = "features"
    weights: str = ""
    adaptive: bool | None = None
    threshold: float | Mapping[str, float] | None = None
    labels: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    report: bool = True
    clips: bool = False
    context: float = 1.0
    save_video: bool = False
    record: bool = False
    once: bool = False
    for_: str = ""
    beam: int = 4
    merge_only: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        _check_threshold(self.threshold)
        require(0 <= self.context <= 3600, "context", self.context, "from 0 to 3600 seconds")
        require(1 <= self.beam <= 64, "beam", self.beam, "from 1 to 64")
        for name in ("shard", "ray"):
            value = getattr(self.scale, name)
            require(
                not (self.merge_only and value), name, value, "left out with merge_only, which covers the whole run"
            )
        parse_duration("for_", self.for_)
        since, until = (parse_time(name, getattr(self, name)) for name in ("since", "until"))
        ordered = since is None or until is None or since < until
        require(ordered, "until", self.until, f"after since, which is {self.since!r}")


def _check_threshold(threshold: float | Mapping[str, float] | None) -> None:
    values = threshold.values() if isinstance(threshold, Mapping) else [threshold] if threshold is not None else []
    valid = all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
    require(valid, "threshold", threshold, "from 0 to 1, for all labels or by label: fall=0.4,sit=0.6")


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Settings of `vidgru label`.

    Attributes:
        out: Annotation file to write; an existing one, of any known format, is continued.
        labels: Labels to offer from the start; others can be added while labelling.
        features: Folder of the sequence cache.
        run: Folder of the model that is trained meanwhile, and of proxies of videos that browsers cannot play.
        train_every: New labels after which a model is trained; 0 trains on request only.
        port: Port of the server; 0 uses a free one.
        browser: Open the page in a browser.
    """

    detector: DetectorSettings = DetectorSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    out: str = "labels.csv"
    labels: tuple[str, ...] = ()
    features: str = "features"
    run: str = "runs/label"
    train_every: int = 5
    port: int = 0
    browser: bool = True

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.train_every >= 0, "train_every", self.train_every, "0 or more")
        require(0 <= self.port <= 65535, "port", self.port, "from 0 to 65535")


@dataclass(frozen=True, kw_only=True)
class SuggestConfig:
    """Settings of `vidgru suggest`. The detector settings come from the model.

    Attributes:
        n: Number of suggestions.
        labelled: Annotation file or dataset of what is labelled already; the rest is suggested.
        out: File to write, .csv or .jsonl; empty prints a table.
        features: Folder of the sequence cache.
        weights: Path of the model's detector weights, if they have moved; the file must be the same.
        seed: Seed of the random suggestions.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    n: int = 20
    labelled: str = ""
    out: str = ""
    features: str = "features"
    weights: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.n >= 1, "n", self.n, "at least 1")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        is_known = self.out.lower().endswith((".csv", ".jsonl"))
        require(not self.out or is_known, "out", self.out, "a file with the suffix .csv or .jsonl")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Settings of `vidgru explain`. The detector settings come from the model.

    Attributes:
        at: Explain this time of the recording, in seconds or as 1:23.5, whether there is an event or not.
        label: Explain only this label; with `at`, by default that of the event there, or of the highest score.
        event: Explain only the event of this number, in order of start, from 1.
        threshold: Score that an event must reach, as for predict.
        features: Folder of the sequence cache.
        weights: Path of the model's detector weights, if they have moved; the file must be the same.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    at: RecordingTime | None = None
    label: str = ""
    event: int | None = None
    threshold: float | Mapping[str, float] | None = None
    features: str = "features"
    weights: str = ""

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        require(self.at is None or 0 <= self.at < float("inf"), "at", self.at, "a second of the recording, from 0")
        require(self.event is None or self.event >= 1, "event", self.event, "the number of an event, from 1")
        require(self.at is None or self.event is None, "at", self.at, "left out with event")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `vidgru export`.

    Attributes:
        format: Output format.
        out: Output file; empty writes next to the model, under its name.
    """

    format: Literal["onnx"] = "onnx"
    out: str = ""

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of `vidgru convert`. They override those of a dataset YAML.

    Attributes:
        format: Format of the annotation file; detected from its content by default.
        fps: Frame rate in which the file counts, if it does not state one (CVAT, Label Studio), and in which an output
            for such a tool is to count; 0 reads it from the file or the video.
        half_width: Seconds before and after a point annotation that its event covers; 0 uses the dataset YAML's
            setting, or half a second.
        tiers: Tiers (ELAN), attributes (CVAT, VIA) or columns (label tables) that hold the labels; empty uses all.
        to: Format of the output; by default that of its suffix.
        videos: Folder of the videos, if it is not beside the annotation file.
    """

    format: AnnotationFormat | None = None
    fps: float = 0.0
    half_width: float = 0.0
    tiers: tuple[str, ...] = ()
    to: OutputFormat | None = None
    videos: str = ""

    def __post_init__(self) -> None:
        check_choices(self)
        require(0 <= self.fps <= 1000, "fps", self.fps, "from 0 to 1000")
        require(0 <= self.half_width <= 3600, "half_width", self.half_width, "from 0 to 3600 seconds")


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Settings of `vidgru info`.

    Attributes:
        verify: Read every byte of a cache or an entry and compare checksums; the next extraction replaces corrupt
            entries.
        prune: Delete from a cache the entries of recordings that are gone or have changed, and incomplete entries
            of killed runs.
        detections: Imported detections, in place of the videos of a dataset.
        videos: Folder of the videos of a dataset, if it is not beside the annotation file.
    """

    verify: bool = False
    prune: bool = False
    detections: str = ""
    videos: str = ""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of `vidgru demo`.

    Attributes:
        out: Folder of all output.
        full: Train a model on a large dataset, captions too, and predict with it; takes some minutes.
        seed: Random seed of the scenes and the training.
    """

    out: str = "demo"
    full: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")
