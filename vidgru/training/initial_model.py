"""The model that training starts from: random weights, or those of another model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.metadata import version
from typing import Any

from torch import Tensor

from vidgru.config import TrainConfig
from vidgru.errors import SettingsError
from vidgru.flags import to_settings, with_settings
from vidgru.model.checkpoint import (
    CaptionSettings,
    EventModel,
    EventTask,
    build_network,
    check_feature_settings,
    detector_settings,
    entry_digest,
)
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.event_gru import EventGRU
from vidgru.model.grounding import Grounding
from vidgru.model.tokenizer import Tokenizer
from vidgru.training.batches import typical_steps
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import CaptionedClip, Examples

_MAY_DIFFER = {"dropout", "group_dropout"}  # settings of the network that its weights do not depend on
_CAPTION_ROOM = 1.5  # captions may be longer than the longest training sentence by this factor


def untrained_model(
    train: Examples,
    val: Examples,
    loaded: LoadedFeatures,
    task: EventTask,
    feature_settings: dict[str, Any],
    config: TrainConfig,
    init: EventModel | None = None,
    *,
    members: int = 1,
    grounding: Grounding | None = None,
) -> EventModel:
    """Build the model that training starts from, with default thresholds.

    Args:
        train, val: Examples of both splits.
        loaded: Features of their recordings.
        task: Heads and labels.
        feature_settings: Settings of the features.
        config: Training settings.
        init: Model whose weights are copied; None for random ones.
        members: Number of members.
        grounding: The slots in the sentences of `train`.

    Raises:
        SettingsMismatchError, SettingsError: `init` was trained on other features, or has another architecture.
    """
    caption = None
    if train.captions:
        tokenizer = init.caption.tokenizer if init and init.caption else None
        caption = replace(caption_settings(train.captions, task, tokenizer), grounding=grounding)
    words = len(caption.tokenizer) if caption else 0
    network = build_network(loaded.feature_spec, task, config.network, members=members, words=words)
    if init:
        copy_weights(network, init, task, feature_settings)
    else:
        network.encoder.fit_normalization(loaded.features[video] for video in train.videos)
    # whole sequences need no lookahead: they are read backwards as well, or averaged
    whole = config.network.cell == "none" or config.network.bidirectional or not train.recordings
    default = (0.5,) * len(task.labels)
    return EventModel(
        network=network.eval(),
        task=task,
        feature_settings=feature_settings,
        weights="" if config.imported.detections else config.detector.weights,
        names=loaded.names,
        decode=DecodeSettings(high=default, low=default, min_s=0, merge_s=0, exclusive=False),
        window_s=round(typical_steps(train, task, config) / config.detector.fps, 3),
        lookahead=0 if whole else round(config.lookahead * config.detector.fps),
        caption=caption,
        versions={name: version(name) for name in ("vidgru", "torch")},
        trained_on=tuple(sorted({entry_digest(loaded.keys[video]) for video in (*train.videos, *val.videos)})),
    )


def with_settings_of(init: EventModel, config: TrainConfig) -> TrainConfig:
    """Return the settings to train from a model with: the model's own detector, features and network, except those that
    are not left at their defaults."""
    architecture = vars(init.network.architecture)
    theirs = vars(detector_settings(init)) | {name: architecture[name] for name in architecture.keys() - _MAY_DIFFER}
    ours, defaults = to_settings(config), to_settings(TrainConfig())
    adopted = {name: value for name, value in theirs.items() if ours[name] == defaults[name] != value}
    if not adopted.get("weights", True):  # imported detections, or a start
        del adopted["weights"]
    return with_settings(config, **adopted)


def with_weights(model: EventModel, weights: Mapping[str, Tensor]) -> EventModel:
    """A copy of a model on the CPU with other weights."""
    network = copy.deepcopy(model.network)
    network.load_state_dict(weights)
    return replace(model, network=network.eval())


def caption_settings(
    clips: list[CaptionedClip], task: EventTask, tokenizer: Tokenizer | None = None
) -> CaptionSettings:
    """Settings to write captions like the sentences of training clips.

    Args:
        clips: Training clips, at least one.
        task: Heads and labels.
        tokenizer: Tokenizer to keep using; None trains one on the sentences.
    """
    sentences = [sentence for clip in clips for sentence in clip.sentences]
    tokenizer = tokenizer or Tokenizer.train(sentences)
    longest = max(len(tokenizer.encode(sentence)) for sentence in sentences)
    used = {clip.label for clip in clips}
    labels = tuple(label for index, label in enumerate(task.labels) if index in used)
    return CaptionSettings(tokenizer=tokenizer, longest=round(_CAPTION_ROOM * longest) + 1, labels=labels)


def _weights_of_members(network: EventGRU, members: int) -> dict[str, Tensor]:
    """Return the weights of a network for so many members: those of its own in turn."""
    sources = [member % network.members for member in range(members)]
    stacked = {id(parameter) for parameter in network.stacked_parameters()}
    weights = {}
    for name, value in network.state_dict(keep_vars=True).items():
        if id(value) in stacked:
            weights[name] = value.detach()[sources]
        elif not name.startswith("gru."):
            weights[name] = value.detach()
    for member, source in enumerate(sources if network.gru else ()):
        own = network.member_state(source)
        weights |= {name.replace("gru.0.", f"gru.{member}."): own[name] for name in own if name.startswith("gru.")}
    return weights


def copy_weights(network: EventGRU, model: EventModel, task: EventTask, feature_settings: Mapping[str, Any]) -> None:
    """Copy the weights of another model; of its heads, those of the labels that both have.

    Raises:
        SettingsMismatchError: The model was trained on features with other settings.
        SettingsError: Its network has another architecture.
    """
    check_feature_settings(model, feature_settings, "the features of this dataset")
    ours, theirs = network.architecture, model.network.architecture
    names = [f.name for f in fields(ours) if f.name not in _MAY_DIFFER]
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in names}
    differ = {name: values for name, values in pairs.items() if values[0] != values[1]}
    if differ:
        values = "; ".join(f"{name} is {new!r}, the model's is {old!r}" for name, (new, old) in differ.items())
        raise SettingsError(f"init has another architecture: {values}", "choose the model's own settings")
    weights, source = network.state_dict(), _weights_of_members(model.network, network.members)
    for name, value in source.items():
        if "_head." not in name:
            weights[name] = value
    for head, new, old in (
        ("clip_head", task.clip_head, model.task.clip_head),
        ("frame_head", task.frame_head, model.task.frame_head),
    ):
        if new and old and new.multi_label == old.multi_label:
            outputs, known = task.output_names(new), model.task.output_names(old)
            for name in (name for name in weights if name.startswith(f"{head}.")):
                for row, label in enumerate(outputs):
                    if label in known:
                        weights[name][:, row] = source[name][:, known.index(label)]
    if network.caption_head and model.network.caption_head:  # both have the same words: the tokenizer is the model's
        words = network.caption_head.words
        for name, value in source.items():
            if name == "caption_head.embed.weight":  # rows of the words, then of the labels
                weights[name][:words] = value[:words]
                for row, label in enumerate(task.labels):
                    if label in model.labels:
                        weights[name][words + row] = value[words + model.labels.index(label)]
            elif name.startswith("caption_head."):
                weights[name] = value
    network.load_state_dict(weights)
