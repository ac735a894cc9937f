"""Models and model files: safetensors with one JSON metadata key; equal models give equal bytes.

Format: https://github.com/huggingface/safetensors ("Format"). Loading a file never executes code from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, convert
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vidgru.config import (
    MAX_MEMBERS,
    DetectorSettings,
    FeatureGroup,
    NetworkSettings,
    comparable_settings,
    uses_imported_detections,
)
from vidgru.errors import ModelError, SettingsError, SettingsMismatchError
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.event_gru import EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.grounding import Grounding
from vidgru.model.linear_path import LinearMetadata, LinearModel
from vidgru.model.tokenizer import Tokenizer
from vidgru.storage import user_path, write_atomic
from vidgru.types import Array, format_span

FORMAT = 8
METADATA = "vidgru"  # metadata key that holds everything but the weights, as JSON
_LINEAR, _GROUNDING = "linear.", "grounding."  # prefixes of the tensors of the linear paths, and of captions' slots
BEST = "best.safetensors"
NO_EVENT = "(no event)"
_NO_MODEL = "give a model file, or the folder that vidgru train wrote"


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """Outputs of the clip head or of the frame head.

    Attributes:
        background: Whether there is one more output, the last, for "no event"; never with `multi_label`.
        multi_label: Whether labels are independent (sigmoid) rather than exclusive (softmax).
    """

    background: bool
    multi_label: bool

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return scores from 0 to 1, of the same shape; with `background` its column is the last."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class EventTask:
    """Labels of a model, and the heads that score them; the annotations determine both.

    Without any head, the model has a single label and writes captions only.

    Attributes:
        labels: Names of the labels, without the background.
        clip_head: Head for labels of whole clips; None if no annotation labels a whole clip.
        frame_head: Head for labels of frames; None if no annotation has times.
    """

    labels: tuple[str, ...]
    clip_head: HeadSpec | None = None
    frame_head: HeadSpec | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("EventTask needs labels")
        if self.clip_head is None and self.frame_head is None and len(self.labels) > 1:
            raise ValueError(f"EventTask needs a head for its labels {', '.join(self.labels)}")

    def output_names(self, head: HeadSpec) -> tuple[str, ...]:
        """Return the names of a head's outputs, as tables and plots show them."""
        return (*self.labels, NO_EVENT) if head.background else self.labels

    def num_outputs(self, head: HeadSpec | None) -> int:
        """Return the number of a head's outputs, 0 for None."""
        return 0 if head is None else len(self.labels) + head.background

    def target_vector(self, head: HeadSpec, labels: Iterable[str]) -> Array:
        """Return a head's target for a clip or frame with these labels: float32 [C], 0 and 1."""
        vector = np.zeros(self.num_outputs(head), np.float32)
        vector[[self.labels.index(label) for label in labels]] = 1.0
        if head.background and not vector.any():
            vector[-1] = 1.0
        return vector


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionSettings:
    """How a model writes captions.

    Attributes:
        tokenizer: Tokenizer of the caption head.
        longest: Maximum number of words per caption.
        labels: Labels with captions in training; captions of other events start as those of unknown ones.
        threshold: Minimum score of a caption without slots; below it a template caption is used.
        grounding: The slots in captions; None for sentences without slots.
        templates: By label, what a caption of low confidence says instead; `template_caption` writes those of others.
    """

    tokenizer: Tokenizer
    longest: Annotated[int, Meta(ge=1, le=1000)]
    labels: tuple[str, ...]
    threshold: float = 0.0
    grounding: Grounding | None = None
    templates: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Return everything but the tensors, for the model file."""
        return {
            **vars(self),
            "tokenizer": self.tokenizer.to_json(),
            "grounding": self.grounding and self.grounding.metadata(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class EventModel:
    """A network and everything needed to run it.

    Attributes:
        network: The network; loaded models are on the CPU and in eval mode.
        task: Labels and heads, in the order of the network's outputs.
        feature_settings: Settings that decide the features, as in a cache entry.
        weights: File name of the detector's weights; empty for imported detections.
        names: Class names of the detector.
        decode: How scores become events.
        window_s: Length of the clips the model was trained on; without a frame head, recordings are read in windows of
            this length.
        lookahead: Frames the frame head sees ahead: step t scores frame t - lookahead.
        caption: How the model writes captions; None if it writes none.
        linear: Linear paths beside the network; None for none.
        masked_groups: Feature groups that the network was trained with, but whose scores are better without.
        metrics: Metrics on the validation split, by name.
        versions: Versions of vidgru and torch at training.
        trained_on: Sorted digests of the entries in training and validation; evaluation warns if they recur.
    """

    network: EventGRU
    task: EventTask
    feature_settings: dict[str, Any]
    weights: str
    names: tuple[str, ...]
    decode: DecodeSettings
    window_s: float
    lookahead: int = 0
    caption: CaptionSettings | None = None
    linear: LinearModel | None = None
    masked_groups: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    def member(self, index: int) -> EventModel:
        """Return a model with a copy of one member's network; captions remain with the first."""
        caption = None if index else self.caption
        if caption and caption.grounding and self.network.members > 1:
            caption = replace(caption, grounding=caption.grounding.without_fold(index))
        words = len(self.caption.tokenizer) if self.caption and caption else 0
        network = build_network(self.feature_spec, self.task, self.network.architecture, words=words)
        network.load_state_dict(self.network.member_state(index))
        return replace(self, network=network.to(self.network.device).eval(), caption=caption)

    @property
    def is_start(self) -> bool:
        """Whether it only serves to start training from: it has no head and writes no captions."""
        return self.task.clip_head is None and self.task.frame_head is None and self.caption is None

    @property
    def feature_spec(self) -> FeatureSpec:
        """Groups and widths of the features the model reads."""
        return self.network.feature_spec

    @property
    def fps(self) -> float:
        """Samples per second the model expects."""
        return float(self.feature_settings["fps"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the network's outputs."""
        return self.task.labels

    def with_adaptive(self, adaptive: bool | None) -> EventModel:
        """Return the model with recordings to be extracted adaptively, or not; None changes nothing."""
        if adaptive is None or uses_imported_detections(self.feature_settings):
            return self
        settings = comparable_settings(self.feature_settings) | ({"adaptive": True} if adaptive else {})
        return replace(self, feature_settings=settings)

    def with_thresholds(self, threshold: float | Mapping[str, float] | None) -> EventModel:
        """Return the model with other thresholds; `DecodeSettings.with_high` says how the lower ones follow.

        Args:
            threshold: Score that an event must reach: of all labels, or by label, in which case labels that are left
                out keep the model's; None changes nothing.

        Raises:
            SettingsError: The model does not have one of the labels, or has no scores because it only writes captions.
        """
        if threshold is None:
            return self
        if self.task.clip_head is None and self.task.frame_head is None:
            raise SettingsError("threshold is given, but this model only writes captions", "leave it out")
        if not isinstance(threshold, Mapping):
            threshold = dict.fromkeys(self.labels, threshold)
        self.check_labels("threshold", threshold)
        high = [threshold.get(label, old) for label, old in zip(self.labels, self.decode.high, strict=True)]
        return replace(self, decode=self.decode.with_high(high))

    def check_labels(self, setting: str, labels: Iterable[str]) -> None:
        """Raise SettingsError, naming the setting, if the model does not have one of these labels."""
        if unknown := sorted(set(labels).difference(self.labels)):
            raise SettingsError(
                f"{setting} holds {', '.join(map(repr, unknown))}, which the model does not have",
                f"its labels are {', '.join(self.labels)}",
            )

    def metadata(self) -> dict[str, Any]:
        """Return everything but the weights, as stored in the file's metadata."""
        return {
            "format": FORMAT,
            "architecture": asdict(self.network.architecture),
            "members": self.network.members,
            "feature_spec": asdict(self.feature_spec),
            "task": asdict(self.task),
            "feature_settings": self.feature_settings,
            "weights": self.weights,
            "names": self.names,
            "decode": asdict(self.decode),
            "window_s": self.window_s,
            "lookahead": self.lookahead,
            "caption": self.caption and self.caption.metadata(),
            "linear": self.linear and self.linear.metadata(),
            "masked_groups": self.masked_groups,
            "metrics": self.metrics,
            "versions": self.versions,
            "trained_on": self.trained_on,
        }

    def to_bytes(self) -> bytes:
        """Return the file's bytes, a pure function of the model."""
        tensors = dict(self.network.state_dict())
        if self.linear:
            tensors |= {f"{_LINEAR}{name}": tensor for name, tensor in self.linear.tensors().items()}
        if self.caption and self.caption.grounding:
            slots = self.caption.grounding.tensors()
            tensors |= {f"{_GROUNDING}{name}": tensor for name, tensor in slots.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps(self.metadata(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return save(tensors, metadata={METADATA: text})

    def save(self, path: str | Path) -> None:
        """Write the model file atomically.

        Raises:
            OutputError: The file cannot be written.
        """
        write_atomic(user_path(path), self.to_bytes())


def build_network(
    feature_spec: FeatureSpec, task: EventTask, architecture: NetworkSettings, *, members: int = 1, words: int = 0
) -> EventGRU:
    """Build a network with random weights; a caption vocabulary of `words` > 0 adds a caption head."""
    outputs = task.num_outputs(task.clip_head), task.num_outputs(task.frame_head)
    return EventGRU(feature_spec, *outputs, architecture, members=members, words=words, labels=len(task.labels))


def entry_digest(key: str) -> str:
    """Return the digest of a cache entry's key by which a model recognises the entries it was trained on."""
    return key[:16]


# --- model files ------------------------------------------------------------------------------------------------------


def model_file(path: str | Path) -> Path:
    """Return the path of a model file: the file itself, or the best model in the folder of a training run.

    Raises:
        ModelError: There is no model, or `path` is an exported model (`.onnx`) or a loaded one.
    """
    if isinstance(path, EventModel):
        raise ModelError("a path is needed here, not a loaded model", "write it to a file with model.save(path)")
    path = user_path(path)
    if path.is_dir():
        if not (path / BEST).is_file():
            raise ModelError(f"{path} contains no {BEST}", _NO_MODEL)
        return path / BEST
    if not path.is_file():
        raise ModelError(f"there is no model {path}" if not path.exists() else f"{path} is not a file", _NO_MODEL)
    if path.suffix.lower() == ".onnx":
        raise ModelError(
            f"{path} is an exported model (ONNX), which vidgru does not run",
            "use the .safetensors model it was exported from; scripts/onnx_events.py runs exported models",
        )
    return path


def load_model(path: str | Path, *, start: bool = False) -> EventModel:
    """Load a model file, or the best model in the folder of a training run.

    Args:
        path: The file or folder.
        start: Whether a start that `vidgru pretrain` wrote, which cannot predict, is allowed.

    Returns:
        The model, on the CPU and in eval mode.

    Raises:
        ModelError: There is no model, it is not a valid vidgru model, or it has another format version.
    """
    path = model_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            file_metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a vidgru model: {error}", _NO_MODEL) from None
    if METADATA not in file_metadata:
        raise ModelError(f"{path} is not a vidgru model: its metadata has no key {METADATA}", _NO_MODEL)
    try:
        metadata = json.loads(file_metadata[METADATA])
        if metadata["format"] != FORMAT:
            raise ModelError(
                f"{path} has model format {metadata['format']}, this vidgru reads {FORMAT}",
                "train it again, or use the vidgru version that wrote it",
            )
        model = _assemble(metadata, tensors)
    except (SettingsError, ValueError, AttributeError, LookupError, TypeError, RuntimeError, RecursionError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} is not a valid vidgru model: {problem}", "train it again") from None
    if model.is_start and not start:
        raise ModelError(
            f"{path} is a start that vidgru pretrain wrote: it predicts nothing",
            f"train a model from it: vidgru train DATASET --init {path}",
        )
    return model


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """Everything but the tensors of a model file; msgspec checks the types and ranges of what is read."""

    architecture: NetworkSettings
    members: Annotated[int, Meta(ge=1, le=MAX_MEMBERS)]
    feature_spec: FeatureSpec
    task: EventTask
    feature_settings: dict[str, Any]
    weights: str
    names: tuple[str, ...]
    decode: DecodeSettings
    window_s: Annotated[float, Meta(ge=0, le=86400)]
    lookahead: Annotated[int, Meta(ge=0, le=86400)]
    caption: CaptionSettings | None
    linear: LinearMetadata | None
    masked_groups: tuple[FeatureGroup, ...]
    metrics: dict[str, float]
    versions: dict[str, str]
    trained_on: tuple[str, ...]

    def __post_init__(self) -> None:
        labels, settings = len(self.task.labels), self.feature_settings
        if not len(self.decode.high) == len(self.decode.low) == labels:
            raise ValueError(f"{len(self.decode.high)} and {len(self.decode.low)} thresholds of {labels} labels")
        if not uses_imported_detections(settings):
            if not isinstance(settings.get("mask", ""), str) or settings.get("mask", "")[:1] not in ("", "["):
                raise ValueError("its mask is not a list of polygons")  # a path would be opened
            convert({name: settings[name] for name in _detector_fields(settings)}, DetectorSettings)
        convert(settings.get("fps"), Annotated[float, Meta(gt=0, le=240)])


class _NoInitialWeights(TorchFunctionMode):
    """Leaves out normally distributed initial weights: on the meta device they import PyTorch's compiler (a second)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)


def _assemble(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> EventModel:
    """Return the model of a file's metadata and tensors. Nothing is larger than the file before it is allocated."""
    if infinite := sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
        raise ValueError(f"{infinite[0]} holds numbers that are not finite")
    linear_tensors, slot_tensors = (
        {name.removeprefix(prefix): tensors.pop(name) for name in sorted(tensors) if name.startswith(prefix)}
        for prefix in (_LINEAR, _GROUNDING)
    )
    slots = metadata["caption"].pop("grounding") if metadata["caption"] else None
    values = convert(metadata, _Metadata, dec_hook=lambda kind, text: kind.from_json(text))  # of the tokenizer
    caption = values.caption
    if caption and slots:
        caption = replace(caption, grounding=Grounding.load(slots, slot_tensors))
    words = len(caption.tokenizer) if caption else 0
    with torch.device("meta"), _NoInitialWeights():  # spends no random numbers on weights that are replaced below
        network = build_network(
            values.feature_spec, values.task, values.architecture, members=values.members, words=words
        )
    for name, expected in network.state_dict().items():
        if name not in tensors or tensors[name].shape != expected.shape:
            shape = list(tensors[name].shape) if name in tensors else "missing"
            raise ValueError(f"{name} is {shape}, its architecture has {list(expected.shape)}")
    # Copied rather than assigned: tensors in memory that torch did not align give other last bits.
    network.to_empty(device="cpu").load_state_dict(tensors)
    in_network = ("architecture", "members", "feature_spec")
    fields = {name: value for name, value in vars(values).items() if name not in in_network}
    linear = values.linear and LinearModel.load(values.linear, linear_tensors)
    return EventModel(**{**fields, "network": network.eval(), "caption": caption, "linear": linear})


# --- features of a model ----------------------------------------------------------------------------------------------


def detector_settings(model: EventModel, weights: str = "") -> DetectorSettings:
    """Return the detector settings that produce the features a model reads.

    Args:
        model: The model.
        weights: Path of the detector's weights; empty uses the file name the model was trained with.
    """
    settings = {name: model.feature_settings[name] for name in _detector_fields(model.feature_settings)}
    return DetectorSettings(weights=weights or model.weights, **settings)


def _detector_fields(feature_settings: Mapping[str, Any]) -> set[str]:
    return DetectorSettings.__dataclass_fields__.keys() & feature_settings.keys()


def check_feature_settings(model: EventModel, feature_settings: Mapping[str, Any], subject: str) -> None:
    """Check that features have the settings the model expects.

    Args:
        model: Model that will read the features.
        feature_settings: Settings of the features, as in a cache entry.
        subject: The features, for the message, such as "features of a.mp4".

    Raises:
        SettingsMismatchError: Settings differ; the message has each with both values.
    """
    check_detection_source(model, feature_settings, subject)
    if (span := feature_settings.get("span")) is not None:
        raise SettingsMismatchError(
            f"{subject} cover only {format_span(span)} of the recording",
            "give the recording itself, or vidgru predict --since and --until, which made them",
        )
    theirs, settings = comparable_settings(model.feature_settings), comparable_settings(feature_settings)
    differing = sorted(key for key in theirs.keys() | settings.keys() if theirs.get(key) != settings.get(key))
    if differing:
        values = "; ".join(
            f"{key} is {_format_setting(settings.get(key))}, the model's is {_format_setting(theirs.get(key))}"
            for key in differing
        )
        raise SettingsMismatchError(
            f"{subject} differ from the model's: {values}",
            "pass --weights with the model's own detector to extract them again, or train a model on these features",
        )


def check_detection_source(model: EventModel, feature_settings: Mapping[str, Any], subject: str) -> None:
    """Check that features and model agree on whether detections are imported. As `check_feature_settings`."""
    if uses_imported_detections(model.feature_settings) and not uses_imported_detections(feature_settings):
        raise SettingsMismatchError(
            f"{subject} come from vidgru's own detector, the model expects imported detections",
            "import detections with vidgru extract --detections, and pass their cache",
        )
    if uses_imported_detections(feature_settings) and not uses_imported_detections(model.feature_settings):
        raise SettingsMismatchError(
            f"{subject} come from imported detections, the model expects features of {model.weights}",
            "pass the recordings themselves, or train a model with --detections",
        )


def _format_setting(value: object) -> str:
    """Format a setting for a message; long lists are shortened to their length and first items."""
    return f"{len(value)} ({', '.join(map(str, value[:3]))}, ...)" if isinstance(value, list) else repr(value)
