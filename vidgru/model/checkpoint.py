"""A trained model as a file: safetensors with one JSON metadata key, so that equal models are equal bytes.

Format: https://github.com/huggingface/safetensors ("Format"). Nothing in it is executed on loading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vidgru.config import DetectorSettings
from vidgru.errors import ModelError, SettingsMismatch
from vidgru.files import write_atomic
from vidgru.model.decode import DecodeSettings
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.model.layout import FeatureLayout
from vidgru.model.task import Head, Task
from vidgru.model.text import Tokenizer

FORMAT = 3
BEST = "best.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Caption:
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
        network: on the CPU and in eval mode when loaded.
        task: what it tells apart, in the order of the network's outputs.
        what: the settings the features were made with, as in a cache entry.
        weights: name of the detector's file.
        names: the detector's class names.
        decode: how scores become events.
        window_s: length of the clips it was trained on: where there is no head for frames, a long recording is cut into
            windows of this length.
        lag: steps by which the scores of frames lag behind: the step that reads frame t scores frame t - lag, so that a
            little of what follows is known.
        caption: how it writes descriptions; None if it writes none.
        metrics: on the validation split, by name.
        versions: of vidgru and torch, when it was trained.
        seen: digests of the features it was trained and validated on, sorted; evaluation says if it meets them again.
    """

    network: EventGRU
    task: Task
    what: dict[str, Any]
    weights: str
    names: tuple[str, ...]
    decode: DecodeSettings
    window_s: float
    lag: int = 0
    caption: Caption | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seen: tuple[str, ...] = ()

    @property
    def layout(self) -> FeatureLayout:
        """The features it reads."""
        return self.network.encoder.layout

    @property
    def fps(self) -> float:
        """Samples a second that it expects."""
        return float(self.what["fps"])

    @property
    def labels(self) -> tuple[str, ...]:
        """What can happen, in the order of the network's outputs."""
        return self.task.labels

    def to_bytes(self) -> bytes:
        """The file's bytes: a pure function of the model."""
        facts = {
            "format": FORMAT,
            "architecture": asdict(self.network.architecture),
            "layout": asdict(self.layout),
            "task": asdict(self.task),
            "what": self.what,
            "weights": self.weights,
            "names": self.names,
            "decode": asdict(self.decode),
            "window_s": self.window_s,
            "lag": self.lag,
            "caption": self.caption and {**vars(self.caption), "tokenizer": self.caption.tokenizer.to_json()},
            "metrics": self.metrics,
            "versions": self.versions,
            "seen": self.seen,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return save(tensors, metadata={"vidgru": text})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        write_atomic(path, self.to_bytes())


def model_file(path: str | Path) -> Path:
    """The model file that is meant: the file itself, or the best one of a training run's folder.

    Raises:
        ModelError: there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / BEST).is_file():
            raise ModelError(f"{path} holds no {BEST}", "give a model file, or the folder that vidgru train wrote")
        return path / BEST
    if not path.exists():
        raise ModelError(f"there is no model {path}", "give a model file, or the folder that vidgru train wrote")
    return path


def load_model(path: str | Path) -> EventModel:
    """Read a model file, or the best model of a training run's folder; on the CPU, in eval mode.

    Raises:
        ModelError: there is none, it is not a model of vidgru, or it is of another version.
    """
    path = model_file(path)
    remedy = "give a model file, or the folder that vidgru train wrote"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a vidgru model: {error}", remedy) from None
    if "vidgru" not in metadata:
        raise ModelError(f"{path} is not a vidgru model: its metadata has no key vidgru", remedy)
    try:
        facts = json.loads(metadata["vidgru"])
        if facts["format"] != FORMAT:
            raise ModelError(
                f"{path} has model format {facts['format']}, this vidgru reads {FORMAT}",
                "train it again, or use the vidgru that made it",
            )
        return _assemble(facts, tensors)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise ModelError(f"{path} is not a sound vidgru model: {problem}", "train it again") from None


def _assemble(facts: dict[str, Any], tensors: dict[str, Tensor]) -> EventModel:
    labels = tuple(facts["task"]["labels"])
    clips, timed = (Head(**head) if (head := facts["task"][name]) else None for name in ("clips", "timed"))
    task = Task(labels=labels, clips=clips, timed=timed)
    layout = FeatureLayout(**facts["layout"])
    shape = {**facts["architecture"], "without": tuple(facts["architecture"]["without"])}
    decode = dict(facts["decode"])
    decode["high"], decode["low"] = tuple(decode["high"]), tuple(decode["low"])
    caption = None
    if told := facts["caption"]:
        try:
            tokenizer = Tokenizer.from_json(told["tokenizer"])
        except ModelError as error:
            raise ValueError(error.message) from None  # the caller says of which file
        caption = Caption(**{**told, "tokenizer": tokenizer, "labels": tuple(told["labels"])})
    words = len(caption.tokenizer) if caption else 0
    with torch.device("meta"):  # no time and no random numbers are spent on weights that are replaced at once
        network = build(layout, task, Architecture(**shape), words=words)
    # copied, not assigned: memory aligned otherwise than torch aligns it gives other last bits
    network.to_empty(device="cpu").load_state_dict(tensors)
    network.eval()
    return EventModel(
        network=network,
        task=task,
        what=facts["what"],
        weights=facts["weights"],
        names=tuple(facts["names"]),
        decode=DecodeSettings(**decode),
        window_s=facts["window_s"],
        lag=facts["lag"],
        caption=caption,
        metrics=facts["metrics"],
        versions=facts["versions"],
        seen=tuple(facts["seen"]),
    )


def build(layout: FeatureLayout, task: Task, architecture: Architecture, *, words: int = 0) -> EventGRU:
    """A network for a task, with random weights; with a vocabulary of `words`, it also writes descriptions."""
    outputs = task.outputs(task.clips), task.outputs(task.timed)
    return EventGRU(layout, *outputs, architecture, words=words, labels=len(task.labels))


def digest(key: str) -> str:
    """What a model remembers of a cache entry it was trained on: enough to know it again."""
    return key[:16]


def detector_settings(model: EventModel, weights: str = "") -> DetectorSettings:
    """Settings that make the features a model reads.

    Args:
        model: as loaded.
        weights: where its detector lies; under the name it was trained with where this is empty.
    """
    fields = DetectorSettings.__dataclass_fields__.keys() & model.what.keys()
    return DetectorSettings(weights=weights or model.weights, **{name: model.what[name] for name in fields})


def check_what(model: EventModel, what: Mapping[str, Any], subject: str) -> None:
    """Refuse features that were made with other settings than the model's.

    Args:
        model: that is to read them.
        what: settings of the features, as a cache entry has them.
        subject: whose they are, for the message: "features of a.mp4".

    Raises:
        SettingsMismatch: naming the settings that differ, with both values.
    """
    differ = sorted(key for key in model.what.keys() | dict(what).keys() if model.what.get(key) != what.get(key))
    if differ:
        values = "; ".join(f"{key} is {what.get(key)!r}, the model's is {model.what.get(key)!r}" for key in differ)
        raise SettingsMismatch(
            f"{subject} are of other settings than the model's: {values}",
            "pass --weights with the model's own detector to make them anew, or train a model on these features",
        )
