"""A trained model as a file: safetensors with one JSON metadata key, so that equal models are equal bytes.

Format: https://github.com/huggingface/safetensors ("Format"). Nothing in it is executed on loading.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vidgru.config import DetectorSettings, uses_imported_detections
from vidgru.errors import ModelError, SettingsMismatchError
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.tokenizer import Tokenizer
from vidgru.storage import write_atomic
from vidgru.types import Array

FORMAT = 3
METADATA = "vidgru"  # the key of a file's metadata that holds all but the weights, as JSON
BEST = "best.safetensors"
_NO_MODEL = "give a model file, or the folder that vidgru train wrote"


NO_EVENT = "(no event)"


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """How labels are told: of clips as a whole, or of every frame.

    Attributes:
        background: one output more, the last: nothing happens. Never with `multi_label`.
        multi_label: labels are independent of each other (sigmoid) rather than exclusive (softmax).
    """

    background: bool
    multi_label: bool

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores from 0 to 1, of the same shape; the last column is the background's where there is one."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class EventTask:
    """What is to be told apart. What the annotations hold decides the heads.

    Attributes:
        labels: names, the background not among them.
        clip_head: how a label of a clip as a whole is told; None where no clip is labelled so.
        frame_head: how it is told when something happens; None where no label has times. With neither, there is one
            label, and descriptions are all that the model is for.
    """

    labels: tuple[str, ...]
    clip_head: HeadSpec | None = None
    frame_head: HeadSpec | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("Task needs labels")
        if self.clip_head is None and self.frame_head is None and len(self.labels) > 1:
            raise ValueError(f"Task needs a head that tells {', '.join(self.labels)} apart")

    def output_names(self, head: HeadSpec) -> tuple[str, ...]:
        """Names of a head's outputs, as tables and plots show them."""
        return (*self.labels, NO_EVENT) if head.background else self.labels

    def num_outputs(self, head: HeadSpec | None) -> int:
        """Number of a head's outputs, 0 where there is none."""
        return 0 if head is None else len(self.labels) + head.background

    def target_vector(self, head: HeadSpec, labels: Iterable[str]) -> Array:
        """What a head should say where these labels hold: float32 [C], 0 and 1."""
        vector = np.zeros(self.num_outputs(head), np.float32)
        vector[[self.labels.index(label) for label in labels]] = 1.0
        if head.background and not vector.any():
            vector[-1] = 1.0
        return vector


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionSettings:
    """How a model writes descriptions.

    Attributes:
        tokenizer: between words of its head and text.
        longest: words of a sentence at most.
        labels: that sentences of training had; a sentence on anything else begins as on something unknown.
        threshold: a sentence scored below is not told; what was found is put together in its place.
    """

    tokenizer: Tokenizer
    longest: int
    labels: tuple[str, ...]
    threshold: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class EventModel:
    """A network and all that is needed to run it.

    Attributes:
        network: on the CPU and in eval mode when loaded; an exported model's runs by ONNX Runtime.
        task: what it tells apart, in the order of the network's outputs.
        feature_settings: the settings the features were made with, as in a cache entry.
        weights: name of the detector's file; empty where it was run elsewhere.
        names: the detector's class names.
        decode: how scores become events.
        window_s: length of the clips it was trained on: where there is no head for frames, a long recording is cut into
            windows of this length.
        lookahead: steps by which the scores of frames lag behind: the step that reads frame t scores frame t - lag,
            so that a
            little of what follows is known.
        caption: how it writes descriptions; None if it writes none.
        metrics: on the validation split, by name.
        versions: of vidgru and torch, when it was trained.
        trained_on: digests of the features it was trained and validated on, sorted; evaluation warns if they recur.
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
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    @property
    def feature_spec(self) -> FeatureSpec:
        """The features it reads."""
        return self.network.feature_spec

    @property
    def fps(self) -> float:
        """Samples a second that it expects."""
        return float(self.feature_settings["fps"])

    @property
    def labels(self) -> tuple[str, ...]:
        """What can happen, in the order of the network's outputs."""
        return self.task.labels

    def metadata(self) -> dict[str, Any]:
        """All but the weights, as a file tells it in its metadata."""
        return {
            "format": FORMAT,
            "architecture": asdict(self.network.architecture),
            "feature_spec": asdict(self.feature_spec),
            "task": asdict(self.task),
            "feature_settings": self.feature_settings,
            "weights": self.weights,
            "names": self.names,
            "decode": asdict(self.decode),
            "window_s": self.window_s,
            "lookahead": self.lookahead,
            "caption": self.caption and {**vars(self.caption), "tokenizer": self.caption.tokenizer.to_json()},
            "metrics": self.metrics,
            "versions": self.versions,
            "trained_on": self.trained_on,
        }

    def to_bytes(self) -> bytes:
        """The file's bytes: a pure function of the model."""
        weights = self.network.state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        text = json.dumps(self.metadata(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return save(tensors, metadata={METADATA: text})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(path, self.to_bytes())


def model_file(path: str | Path) -> Path:
    """The model file that is meant: the file itself, or the best one of a training run's folder.

    Raises:
        ModelError: there is none, or it is an exported model (`.onnx`).
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / BEST).is_file():
            raise ModelError(f"{path} holds no {BEST}", _NO_MODEL)
        return path / BEST
    if not path.exists():
        raise ModelError(f"there is no model {path}", _NO_MODEL)
    if path.suffix.lower() == ".onnx":
        raise ModelError(
            f"{path} is an exported model (ONNX), which vidgru does not run",
            "use the .safetensors model it was exported from; scripts/onnx_events.py runs exported models",
        )
    return path


def load_model(path: str | Path) -> EventModel:
    """Read a model file, or the best model of a training run's folder.

    Returns:
        The model, on the CPU and in eval mode.

    Raises:
        ModelError: there is none, it is not a model of vidgru, or it is of another version.
    """
    path = model_file(path)
    content, metadata = _read_tensors(path)
    if METADATA not in metadata:
        raise ModelError(f"{path} is not a vidgru model: its metadata has no key {METADATA}", _NO_MODEL)
    try:
        facts = json.loads(metadata[METADATA])
        if facts["format"] != FORMAT:
            raise ModelError(
                f"{path} has model format {facts['format']}, this vidgru reads {FORMAT}",
                "train it again, or use the vidgru that made it",
            )
        return _assemble(facts, content)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise ModelError(f"{path} is not a valid vidgru model: {problem}", "train it again") from None


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a vidgru model: {error}", _NO_MODEL) from None


def _assemble(facts: dict[str, Any], content: dict[str, Tensor]) -> EventModel:
    """A model of its facts and of its weights by name."""
    labels = tuple(facts["task"]["labels"])
    clip_head, frame_head = (
        HeadSpec(**head) if (head := facts["task"][name]) else None for name in ("clip_head", "frame_head")
    )
    task = EventTask(labels=labels, clip_head=clip_head, frame_head=frame_head)
    feature_spec = FeatureSpec(**facts["feature_spec"])
    architecture = Architecture(
        **{**facts["architecture"], "drop_features": tuple(facts["architecture"]["drop_features"])}
    )
    decode = dict(facts["decode"])
    decode["high"], decode["low"] = tuple(decode["high"]), tuple(decode["low"])
    caption = None
    if facts["caption"]:
        caption = _caption(facts["caption"])
    network = _loaded(feature_spec, task, architecture, len(caption.tokenizer) if caption else 0, content)
    return EventModel(
        network=network,
        task=task,
        feature_settings=facts["feature_settings"],
        weights=facts["weights"],
        names=tuple(facts["names"]),
        decode=DecodeSettings(**decode),
        window_s=facts["window_s"],
        lookahead=facts["lookahead"],
        caption=caption,
        metrics=facts["metrics"],
        versions=facts["versions"],
        trained_on=tuple(facts["trained_on"]),
    )


def _caption(facts: dict[str, Any]) -> CaptionSettings:
    try:
        tokenizer = Tokenizer.from_json(facts["tokenizer"])
    except ModelError as error:
        raise ValueError(error.message) from None  # the caller says of which file
    return CaptionSettings(**{**facts, "tokenizer": tokenizer, "labels": tuple(facts["labels"])})


def _loaded(
    feature_spec: FeatureSpec, task: EventTask, architecture: Architecture, words: int, tensors: dict[str, Tensor]
) -> EventGRU:
    with torch.device("meta"):  # no time and no random numbers are spent on weights that are replaced at once
        network = build_network(feature_spec, task, architecture, words=words)
    # copied, not assigned: memory aligned otherwise than torch aligns it gives other last bits
    network.to_empty(device="cpu").load_state_dict(tensors)
    return network.eval()


def build_network(
    feature_spec: FeatureSpec, task: EventTask, architecture: Architecture, *, words: int = 0
) -> EventGRU:
    """A network for a task, with random weights; with a vocabulary of `words`, it also writes descriptions."""
    outputs = task.num_outputs(task.clip_head), task.num_outputs(task.frame_head)
    return EventGRU(feature_spec, *outputs, architecture, words=words, labels=len(task.labels))


def entry_digest(key: str) -> str:
    """What a model remembers of a cache entry it was trained on: enough to know it again."""
    return key[:16]


def detector_settings(model: EventModel, weights: str = "") -> DetectorSettings:
    """Settings that make the features a model reads.

    Args:
        model: as loaded.
        weights: where its detector lies; under the name it was trained with where this is empty.
    """
    fields = DetectorSettings.__dataclass_fields__.keys() & model.feature_settings.keys()
    return DetectorSettings(weights=weights or model.weights, **{name: model.feature_settings[name] for name in fields})


def check_feature_settings(model: EventModel, feature_settings: Mapping[str, Any], subject: str) -> None:
    """Refuse features that were made with other settings than the model's.

    Args:
        model: that is to read them.
        feature_settings: settings of the features, as a cache entry has them.
        subject: whose they are, for the message: "features of a.mp4".

    Raises:
        SettingsMismatchError: naming the settings that differ, with both values.
    """
    check_detection_source(model, feature_settings, subject)
    differ = sorted(
        key
        for key in model.feature_settings.keys() | dict(feature_settings).keys()
        if model.feature_settings.get(key) != feature_settings.get(key)
    )
    if differ:
        values = "; ".join(
            f"{key} is {_shown(feature_settings.get(key))}, the model's is {_shown(model.feature_settings.get(key))}"
            for key in differ
        )
        raise SettingsMismatchError(
            f"{subject} are of other settings than the model's: {values}",
            "pass --weights with the model's own detector to make them anew, or train a model on these features",
        )


def check_detection_source(model: EventModel, feature_settings: Mapping[str, Any], subject: str) -> None:
    """Refuse what a detector saw that was run elsewhere where the model reads features of one of vidgru's, and the
    other way round. Arguments and errors are those of `check_feature_settings`.
    """
    if uses_imported_detections(model.feature_settings) and not uses_imported_detections(feature_settings):
        raise SettingsMismatchError(
            f"{subject} are of a detector that vidgru runs, the model reads what one saw that was run elsewhere",
            "make such sequences with vidgru extract --detections, and give their cache",
        )
    if uses_imported_detections(feature_settings) and not uses_imported_detections(model.feature_settings):
        raise SettingsMismatchError(
            f"{subject} are of a detector that was run elsewhere, the model reads features of {model.weights}",
            "give the recordings themselves, or train a model with --detections",
        )


def _shown(value: object) -> str:
    """A setting in a message; of many names how many, and the first."""
    return f"{len(value)} ({', '.join(map(str, value[:3]))}, ...)" if isinstance(value, list) else repr(value)
