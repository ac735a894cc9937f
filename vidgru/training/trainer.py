"""The training loop: labelled clips and timed recordings in, a model out."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vidgru.config import TrainConfig
from vidgru.datasets.dataset import Dataset
from vidgru.errors import SettingsError
from vidgru.flags import to_flags
from vidgru.model.checkpoint import (
    EventModel,
    EventTask,
    build_network,
    check_feature_settings,
    entry_digest,
    load_model,
)
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.training.batches import Batches, ClipBatches, WindowBatches
from vidgru.training.captions_data import DescribedClip, DescribedValidation, caption_of
from vidgru.training.data import Loaded
from vidgru.training.distributed import ProcessGroup
from vidgru.training.examples import Examples, batches_of, brief, check_train, check_val, warn_of_val
from vidgru.training.reproducibility import choose_device, reproducible
from vidgru.training.state import FREE, SEEN, STATE, Progress, read_state, write_state
from vidgru.training.step import Stepper, learning_rate
from vidgru.training.tensorboard import board
from vidgru.training.thresholds import fit_clips, fit_frames
from vidgru.training.validation import Validation, selection_metric


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What training came to.

    Attributes:
        best: the model of the best epoch.
        last: that of the last one.
        best_epoch: from 1.
        epochs: a row of figures each.
        interrupted: whether Ctrl-C ended it.
    """

    best: EventModel
    last: EventModel
    best_epoch: int
    epochs: list[dict[str, float]]
    interrupted: bool


def fit(
    dataset: Dataset,
    loaded: Loaded,
    task: EventTask,
    feature_settings: dict[str, Any],
    config: TrainConfig,
    *,
    folder: Path | None = None,
    process_group: ProcessGroup | None = None,
) -> Result:
    """Train on split `train`, select on split `val`.

    Equal inputs and seeds give equal bytes on one machine's CPU with one number of threads, resumed or not.

    Args:
        dataset: with both splits.
        loaded: features of the recordings of both.
        task: what is to be told apart.
        feature_settings: settings of the features.
        config: how.
        folder: where the state of the run is kept after every epoch; None keeps none.
        process_group: processes that train together.

    Raises:
        AnnotationError: one of the splits has nothing, or what is to be trained on does not differ.
        SettingsError, ModelError: the run cannot be resumed, or not begin with the model `config.init`.
        VidgruError: the loss is no longer a number; names the window that it came from.
        KeyboardInterrupt: before the first epoch was finished, or without a folder. Otherwise Ctrl-C ends training, and
            what the epochs before it came to is returned.
    """
    process_group = process_group or ProcessGroup()
    train, val = (Examples.of(dataset, split, loaded, task, captions=config.captions) for split in ("train", "val"))
    check_train(dataset, task, train)
    if not train.described:
        val = replace(val, described=[])
    check_val(dataset, task, val)
    warn_of_val(task, val, captions=bool(train.described))
    init = load_model(config.init) if config.init else None
    caption = None
    if train.described:
        caption = caption_of(train.described, task, init.caption.tokenizer if init and init.caption else None)
    sentences = DescribedValidation(val.described, loaded, caption.tokenizer) if caption and val.described else None
    held = Validation(loaded, val.clips, val.recordings, sentences)
    lookahead = (
        0
        if config.network.cell == "none" or config.network.bidirectional or not train.recordings
        else round(config.lookahead * config.detector.fps)
    )
    clips, windows, described = batches_of(
        train, loaded, task, config, lookahead, caption.tokenizer if caption else None
    )
    parts = [part for part in (clips, windows, described) if part]
    batches = Batches(parts, config.seed, (process_group.rank, process_group.size))
    steps = _typical_steps(clips, windows, train.described)
    with reproducible(config.seed, config.runtime.threads or 1):
        device = choose_device(config.runtime.device)
        network = build_network(
            loaded.feature_spec, task, architecture_of(config), words=len(caption.tokenizer) if caption else 0
        )
        if init:
            _begin_with(network, init, task, feature_settings)
        else:
            network.encoder.fit_normalization(loaded.features[video] for video in train.videos)
        network.to(device)
        class_weights = torch.from_numpy(windows.class_weights()) if windows else torch.ones(0)
        stepper = Stepper(
            network, task, config, lookahead=lookahead, class_weights=class_weights, process_group=process_group
        )
        usual = (0.5,) * len(task.labels)
        model = EventModel(
            network=stepper.kept,
            task=task,
            feature_settings=feature_settings,
            weights="" if config.imported.detections else config.detector.weights,
            names=loaded.names,
            # fitted when all is done
            decode=DecodeSettings(high=usual, low=usual, min_s=0, merge_s=0, exclusive=False),
            window_s=round(steps / config.detector.fps, 3),
            lookahead=lookahead,
            caption=caption,
            versions={name: version(name) for name in ("vidgru", "torch")},
            trained_on=tuple(sorted({entry_digest(loaded.keys[video]) for video in (*train.videos, *val.videos)})),
        )
        identity = _identity(config, train, val, loaded)
        progress = Progress(epochs=[], best_epoch=0, best=(-math.inf, -math.inf), best_state={}, step=0)
        if config.resume and folder:
            progress = read_state(folder / STATE, network, stepper.kept, stepper.optimizer, identity)
        last_state = _copied(stepper.kept)
        interrupted = False
        bar = tqdm(
            total=config.epochs,
            initial=len(progress.epochs),
            unit="epoch",
            leave=False,
            disable=process_group.rank > 0 or not sys.stderr.isatty(),
        )
        first = len(progress.epochs) + 1
        with bar, board(folder if process_group.rank == 0 else None, first) as draw:
            try:
                while not _over(progress, config):
                    epoch, step = len(progress.epochs) + 1, progress.step
                    started, total, count = time.monotonic(), torch.zeros((), device=device), 0
                    torch.manual_seed(
                        int(np.random.SeedSequence((config.seed, epoch, process_group.rank)).generate_state(1)[0])
                    )
                    network.train()
                    for batch, size in batches(epoch):
                        step += 1
                        total += stepper.take(batch, size, step)
                        count += 0 if batch is None else len(batch)
                    train_loss = process_group.total(torch.tensor([float(total), count], device=device))
                    figures = held.figures(model, held.look(model))
                    row = {
                        "epoch": epoch,
                        "seconds": time.monotonic() - started,
                        "lr": config.lr * learning_rate(step),
                        "train_loss": float(train_loss[0] / train_loss[1]),
                        **{f"val_{name}": value for name, value in figures.items()},
                    }
                    main, val_loss = process_group.agree([selection_metric(figures), figures["loss"]], device)
                    last_state = _copied(stepper.kept)
                    progress = progress.after_epoch(row, (main, -val_loss), last_state, step)
                    if folder and process_group.rank == 0:
                        write_state(folder / STATE, network, stepper.kept, stepper.optimizer, progress, identity)
                    draw(row)
                    bar.update()
            except KeyboardInterrupt:
                if folder is None or not progress.epochs:
                    raise
                interrupted = True
        brief_s = brief(train.recordings) / config.detector.fps
        last = _finished(model, last_state, held, brief_s)
        chosen_last = progress.best_epoch == len(progress.epochs)
        best = last if chosen_last else _finished(model, progress.best_state, held, brief_s)
    return Result(
        best=best,
        last=last,
        best_epoch=progress.best_epoch,
        epochs=progress.epochs,
        interrupted=interrupted,
    )


def _begin_with(network: EventGRU, model: EventModel, task: EventTask, feature_settings: Mapping[str, Any]) -> None:
    """Take over the weights of another model; of its heads, those of the labels that both have.

    Raises:
        SettingsMismatchError: it was trained on features of other settings.
        SettingsError: its network has another shape.
    """
    check_feature_settings(model, feature_settings, "the features of this data set")
    other = model.network
    ours, theirs = network.architecture, model.network.architecture
    free = {"dropout", "group_dropout"}
    differ = [f.name for f in fields(ours) if f.name not in free and getattr(ours, f.name) != getattr(theirs, f.name)]
    if differ:
        values = "; ".join(
            f"{name} is {getattr(ours, name)!r}, the model's is {getattr(theirs, name)!r}" for name in differ
        )
        raise SettingsError(f"init is a model of another shape: {values}", "choose the model's own settings")
    own, given = network.state_dict(), other.state_dict()
    for name, value in given.items():
        if "_head." not in name:
            own[name] = value
    for head, new, old in (
        ("clip_head", task.clip_head, model.task.clip_head),
        ("frame_head", task.frame_head, model.task.frame_head),
    ):
        if new and old and new.multi_label == old.multi_label:
            names, known = task.output_names(new), model.task.output_names(old)
            for name in (name for name in own if name.startswith(f"{head}.")):
                for row, label in enumerate(names):
                    if label in known:
                        own[name][row] = given[name][known.index(label)]
    if network.caption_head and other.caption_head:  # of one vocabulary: the tokenizer is the model's
        words = network.caption_head.words
        for name, value in given.items():
            if name == "caption_head.embed.weight":
                own[name][:words] = value[:words]
                for row, label in enumerate(task.labels):
                    if label in model.labels:
                        own[name][words + row] = value[words + model.labels.index(label)]
            elif name.startswith("caption_head."):
                own[name] = value
    network.load_state_dict(own)


def _typical_steps(clips: ClipBatches | None, windows: WindowBatches | None, described: list[DescribedClip]) -> int:
    """Frames of a clip, of a window, or of a described stretch, whichever there is first."""
    if clips:
        return max(clips.steps, 2)
    return windows.length if windows else max(int(np.median([len(clip) for clip in described])), 2)


def _over(progress: Progress, config: TrainConfig) -> bool:
    done = len(progress.epochs)
    return done >= config.epochs or bool(config.patience and done - progress.best_epoch >= config.patience)


def _identity(config: TrainConfig, train: Examples, val: Examples, loaded: Loaded) -> dict[str, Any]:
    """What a resumed run must have in common with the one that it goes on with."""
    seen = hashlib.sha256()
    for part in (train, val):
        for clip in part.clips:
            seen.update(f"{loaded.keys[clip.video]} {clip.labels.tolist()}\n".encode())
        for recording in part.recordings:
            seen.update(f"{loaded.keys[recording.video]}\n".encode())
            seen.update(recording.targets.tobytes() + recording.weights.tobytes() + recording.events.tobytes())
        for one in part.described:
            seen.update(f"{loaded.keys[one.video]} {one.first} {one.stop} {one.label} {one.sentences}\n".encode())
        seen.update(b"--\n")
    settings = {name: value for name, value in to_flags(config).items() if name not in FREE}
    return {**settings, SEEN: seen.hexdigest()[:16]}


def _finished(model: EventModel, state: dict[str, Tensor], val: Validation, brief_s: float) -> EventModel:
    """A model of its own, on the CPU, with the weights `state` and thresholds that fit them."""
    words = len(model.caption.tokenizer) if model.caption else 0
    network = build_network(model.feature_spec, model.task, model.network.architecture, words=words)
    network.load_state_dict(state)
    model = replace(model, network=network.eval())
    look = val.look(model)
    if model.caption and val.described:
        model = replace(model, caption=replace(model.caption, threshold=val.described.threshold(model)))
    if model.task.frame_head:
        events = [recording.events for recording in val.recordings]
        # what is found where nothing is known is neither right nor wrong
        known = [(r.weights > 0)[:, None] * scores for r, scores in zip(val.recordings, look.frames, strict=True)]
        decode = fit_frames(val.times, known, events, model.labels, model.task.frame_head, 1 / model.fps, brief_s)
    elif model.task.clip_head is None:
        decode = model.decode
    else:
        assert look.clips is not None
        decode = fit_clips(look.clips, val.labels, model.task.clip_head, len(model.labels), model.window_s)
    model = replace(model, decode=decode)
    figures = {name: round(value, 6) for name, value in val.figures(model, look).items() if name != "loss"}
    return replace(model, metrics=figures)


def _copied(network: EventGRU) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def architecture_of(config: TrainConfig) -> Architecture:
    """The network that the settings ask for."""
    return Architecture(**vars(config.network))
