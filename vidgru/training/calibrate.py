"""From trained networks to a model: linear paths, their combination, and thresholds, all fitted on held-out examples.

Each member of a model is scored on the recordings it did not learn from. These out-of-fold scores decide what the
training data alone cannot: how far network and linear path are trusted, whether features that tell places apart help
anywhere else, and from which score on an event is reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel, HeadSpec
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.feature_spec import mirror_columns
from vidgru.model.linear_path import LinearModel, LinearPath, LogitMix
from vidgru.model.summaries import FrameSummaries, WindowSummaries, summarize_clip
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import Examples, LabelledClip, TimedRecording, short_event_frames
from vidgru.training.linear_fit import CLIP_MIX_PRIOR, FRAME_MIX_PRIOR, fit_linear_path, fit_mix, log_losses
from vidgru.training.thresholds import fit_clips, fit_event_scores, fit_frames
from vidgru.training.validation import Validation, ValidationOutputs
from vidgru.types import Array

# Groups by which places can be told apart. They take part only if scores on held-out recordings say so: a model that
# recognises the places of its training data fails in another one.
PLACE_GROUPS = ("appearance", "colour", "scene")
_CLIP_STRENGTH, _FRAME_STRENGTH = 0.003, 0.01  # of the linear paths, as C in scikit-learn
_MAX_ROWS = 10_000  # frames that the linear path of frames is fitted to
_MIN_GAIN = 1.0  # standard errors by which the loss has to be lower with the groups of `PLACE_GROUPS`
_MIN_MIRROR_LOSS = 2.0  # standard errors by which the loss has to be higher with mirrored examples to learn from
_MAX_MIRROR_ROWS = 400  # frames that this is decided on


# By dropped feature groups and head, what `_Head.fit` returns.
_Paths = dict[tuple[str, ...], dict[str, tuple[list[LinearPath], list[Tensor]]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibratedModel:
    """A model that is ready to use.

    Attributes:
        model: The model.
        members: Models of its members, each with a linear path that has not learnt from the member's fold either. They
            score held-out recordings as the model scores new ones.
    """

    model: EventModel
    members: list[EventModel]


def calibrate(
    models: Sequence[EventModel],
    train: Examples,
    validation: Validation,
    loaded: LoadedFeatures,
    *,
    linear: bool,
    class_weights: Array,
) -> list[CalibratedModel]:
    """Fit linear paths and thresholds of trained models, and compute their metrics on held-out examples.

    Args:
        models: Models of one training, at least one; they share the linear paths.
        train: Training examples, with folds.
        validation: Held-out examples.
        loaded: Features of all recordings.
        linear: Whether to fit linear paths.
        class_weights: float32 [K], weight of each class of frames.
    """
    model = models[0]
    heads = _heads(model, train, validation.examples, loaded, class_weights) if linear else {}
    used = model.network.encoder.groups
    place = tuple(name for name in PLACE_GROUPS if name in used)
    options = [place, ()] if place and len(place) < len(used) else [()]
    paths: _Paths = {option: {name: head.fit(option) for name, head in heads.items()} for option in options}
    return [_calibrate_one(trained, train, validation, loaded, heads, paths) for trained in models]


def _calibrate_one(
    model: EventModel,
    train: Examples,
    validation: Validation,
    loaded: LoadedFeatures,
    heads: dict[str, _Head],
    paths: _Paths,
) -> CalibratedModel:
    threshold = validation.caption_threshold(model)
    if model.caption and threshold is not None:
        model = replace(model, caption=replace(model.caption, threshold=threshold))
    members = [model.member(member) for member in range(model.network.members)]
    held_out = validation.examples
    if heads:
        model, members, outputs = _combine(model, members, heads, paths, validation)
    else:
        outputs = validation.predict(model)
    decode = _fit_decoding(model, outputs, train, held_out, loaded)
    metrics = validation.metrics(model, outputs)
    model = replace(model, decode=decode, metrics={k: round(v, 6) for k, v in metrics.items() if k != "loss"})
    return CalibratedModel(model=model, members=[replace(member, decode=decode) for member in members])


def sides_matter(
    model: EventModel, train: Examples, held_out: Examples, loaded: LoadedFeatures, class_weights: Array
) -> bool:
    """Return whether labels depend on left and right, so that mirrored examples mislead; before training.

    Decided by linear paths of the members: those that learn from mirrored copies as well predict held-out examples
    clearly worse than those that do not. Too few examples decide nothing.

    Args:
        model: The untrained model.
        train, loaded, class_weights: As for `calibrate`.
        held_out: Held-out examples.
    """
    used = model.network.encoder.groups
    place = tuple(name for name in PLACE_GROUPS if name in used)  # groups that mirroring does not change
    losses = [torch.zeros(0)]
    for head in _heads(model, train, held_out, loaded, class_weights).values():
        plain, mirrored = head.mirror_losses(place if len(place) < len(used) else ())
        losses.append(mirrored - plain)
    rise = torch.cat(losses)
    return len(rise) > 1 and bool(rise.sum() > _MIN_MIRROR_LOSS * rise.std() * len(rise) ** 0.5)


# --- linear paths -----------------------------------------------------------------------------------------------------


def _heads(
    model: EventModel, train: Examples, held_out: Examples, loaded: LoadedFeatures, class_weights: Array
) -> dict[str, _Head]:
    """Return the heads of a model that have training examples, by name."""
    heads = {}
    if model.task.clip_head and train.clips:
        even = np.ones(model.task.num_outputs(model.task.clip_head), np.float32)
        heads["clips"] = _Head(model.task.clip_head, train.clips, held_out.clips, model, loaded, even)
    if model.task.frame_head and train.recordings:
        of_frames = train.recordings, held_out.recordings
        heads["frames"] = _Head(model.task.frame_head, *of_frames, model, loaded, class_weights)
    return heads


class _Head:
    """One head of a model, its training examples, and the held-out ones.

    Attributes:
        spec: The head.
        class_weights: float32 [C], weight of each class.
        strength: Inverse penalty of the linear path.
        mix_prior: Weights of network and linear path without evidence.
    """

    def __init__(
        self,
        spec: HeadSpec,
        train: Sequence[LabelledClip] | Sequence[TimedRecording],
        held_out: Sequence[LabelledClip] | Sequence[TimedRecording],
        model: EventModel,
        loaded: LoadedFeatures,
        class_weights: Array,
    ) -> None:
        self.spec, self.class_weights = spec, torch.from_numpy(class_weights)
        self._train, self._held_out, self._model, self._loaded = train, held_out, model, loaded
        self._of_clips = isinstance(train[0], LabelledClip)
        self._ignored = _ignored_groups(model)
        self.strength = _CLIP_STRENGTH if self._of_clips else _FRAME_STRENGTH
        self.mix_prior = CLIP_MIX_PRIOR if self._of_clips else FRAME_MIX_PRIOR

    def fit(self, drop_groups: tuple[str, ...]) -> tuple[list[LinearPath], list[Tensor]]:
        """Fit linear paths of all training examples, and of those that each member learns from.

        Returns:
            The path of all examples followed by that of each member; and the logits [n,C] of each held-out example, by
            the path of its member.
        """
        members = range(self._model.network.members)
        paths = self._fit_paths(*self._rows(drop_groups), without=[-2, *members])  # no example has fold -2
        return paths, self._held_out_logits(paths[1:], drop_groups)

    def mirror_losses(self, drop_groups: tuple[str, ...]) -> list[Tensor]:
        """Return the loss of each held-out example, [n], by paths without and with mirrored copies to learn from."""
        plain = self._rows(drop_groups, most=_MAX_MIRROR_ROWS)
        summaries, targets, weights, folds = plain
        mirrored = self._rows(drop_groups, most=_MAX_MIRROR_ROWS, mirrored=True)[0]
        both = torch.cat([summaries, mirrored]), targets.repeat(2, 1), weights.repeat(2) / 2, folds.repeat(2)
        members = range(self._model.network.members)
        return [
            self.losses(self._held_out_logits(self._fit_paths(*rows, without=members), drop_groups))
            for rows in (plain, both)
        ]

    def _fit_paths(
        self, summaries: Tensor, targets: Tensor, weights: Tensor, folds: Tensor, *, without: Sequence[int]
    ) -> list[LinearPath]:
        """Fit paths of rows, as `_rows` returns them, each without one of the folds `without`."""
        fitted: dict[int, LinearPath] = {}
        keys = [fold if (folds == fold).any() else -2 for fold in without]  # paths of all rows are equal
        for key in dict.fromkeys(keys):
            fitted[key] = fit_linear_path(
                summaries,
                targets,
                weights * (folds != key),
                self.class_weights,
                multi_label=self.spec.multi_label,
                strength=self.strength,
            )
        return [fitted[key] for key in keys]

    def _held_out_logits(self, paths: Sequence[LinearPath], drop_groups: tuple[str, ...]) -> list[Tensor]:
        """Return the logits [n,C] of each held-out example, by the path of its member."""
        return [paths[example.fold](self._summaries(example, drop_groups)) for example in self._held_out]

    def network_logits(self, outputs: ValidationOutputs) -> list[Tensor]:
        """Return the logits [n,C] of each held-out example, up to a constant that does not matter."""
        rows: Sequence[Array] = outputs.frames
        if self._of_clips:
            rows = [] if outputs.clips is None else [scores[None] for scores in outputs.clips]
        clamped = [torch.from_numpy(scores).clamp(1e-6, 1 - 1e-6) for scores in rows]
        return [scores.logit() if self.spec.multi_label else scores.log() for scores in clamped]

    def truth(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return targets [n,C] and weights [n] of the rows of each held-out example.

        The frames of a recording depend on each other. Together they weigh as much as its events, plus one.
        """
        targets, weights = [], []
        for example in self._held_out:
            if isinstance(example, LabelledClip):
                targets.append(torch.from_numpy(example.labels[None]))
                weights.append(torch.ones(1))
            else:
                known = torch.from_numpy(example.weights)
                targets.append(torch.from_numpy(example.targets))
                weights.append(known * (1 + len(example.events)) / known.sum().clamp(min=1))
        return targets, weights

    def losses(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the loss of each held-out example, [n]."""
        targets, weights = self.truth()
        losses = [
            (log_losses(values, y, self.class_weights, self.spec.multi_label) * w).sum()
            for values, y, w in zip(logits, targets, weights, strict=True)
        ]
        return torch.stack(losses) if losses else torch.zeros(0)

    def _rows(
        self, drop_groups: tuple[str, ...], *, most: int = _MAX_ROWS, mirrored: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return summaries [N,P], targets [N,C], weights [N] and folds [N] of the training examples.

        Args:
            drop_groups: Feature groups to leave out.
            most: Frames of recordings, about.
            mirrored: Whether the summaries are those of mirrored examples.
        """
        rows, targets, weights, folds = [], [], [], []
        total = sum(int((e.weights > 0).sum()) for e in self._train if isinstance(e, TimedRecording))
        rng = np.random.default_rng(0)
        for example in self._train:
            summaries = self._summaries(example, drop_groups, mirrored=mirrored)
            if isinstance(example, LabelledClip):
                rows.append(summaries)
                targets.append(torch.from_numpy(example.labels[None]))
                weights.append(torch.ones(1))
            else:
                chosen = example.weights > 0
                if total > most:
                    chosen &= rng.random(len(example)) < most / total
                rows.append(summaries[torch.from_numpy(chosen)])
                targets.append(torch.from_numpy(example.targets[chosen]))
                weights.append(torch.from_numpy(example.weights[chosen]))
            folds.append(torch.full((len(rows[-1]),), example.fold))
        return torch.cat(rows), torch.cat(targets), torch.cat(weights), torch.cat(folds)

    def _summaries(
        self, example: LabelledClip | TimedRecording, drop_groups: tuple[str, ...], *, mirrored: bool = False
    ) -> Tensor:
        """Return the summaries of a clip [1,P], or of the frames of a recording [T,P]."""
        features = self._loaded.features[example.video]
        if mirrored and (swapped := mirror_columns(self._model.feature_spec)):
            order, sign, frame_order, frame_sign = swapped
            objects, frame = features.objects[:, order] * sign, features.frame[:, frame_order] * frame_sign
            features = replace(features, objects=objects, frame=frame)
        frames = FrameSummaries(self._model.feature_spec, (*self._ignored, *drop_groups))
        summaries = frames.push(features)
        if isinstance(example, LabelledClip):
            return summarize_clip(torch.from_numpy(summaries[:, frames.clip_columns]))[None]
        columns = summaries[:, frames.window_columns]
        windows = WindowSummaries(columns.shape[1], self._model.fps, self._model.lookahead)
        return torch.from_numpy(np.concatenate([windows.push(columns), windows.finish()])[self._model.lookahead :])


def _ignored_groups(model: EventModel) -> tuple[str, ...]:
    """Return the feature groups that the networks were built without, which the linear paths do not read either."""
    spec = model.feature_spec
    return tuple(
        name for name in (*spec.object_groups(), *spec.frame_groups()) if name not in model.network.encoder.groups
    )


def _combine(
    model: EventModel, members: list[EventModel], heads: dict[str, _Head], paths: _Paths, validation: Validation
) -> tuple[EventModel, list[EventModel], ValidationOutputs]:
    """Choose the feature groups of networks and linear paths, and fit how their logits are combined.

    Returns:
        The model, its members, and their scores of the held-out examples.
    """
    options = list(paths)
    networks = {}
    for option in options:
        outputs = validation.predict(replace(model, masked_groups=option))
        networks[option] = {name: head.network_logits(outputs) for name, head in heads.items()}
    best, best_losses, best_mixes = None, torch.zeros(0), dict[str, LogitMix]()
    for masked, dropped in itertools.product(options, options):
        mixes, losses = {}, []
        for name, head in heads.items():
            network, linear = networks[masked][name], paths[dropped][name][1]
            mixes[name] = _mix(head, network, linear)
            losses.append(head.losses([mixes[name](a, b) for a, b in zip(network, linear, strict=True)]))
        difference = best_losses - torch.cat(losses) if best else torch.zeros(0)
        error = difference.std() * len(difference) ** 0.5 if len(difference) > 1 else torch.tensor(torch.inf)
        if best is None or difference.sum() > _MIN_GAIN * error:
            best, best_losses, best_mixes = (masked, dropped), torch.cat(losses), mixes
    assert best is not None
    masked, dropped = best
    drop_groups = (*_ignored_groups(model), *dropped)
    fitted = {name: of_head for name, (of_head, _) in paths[dropped].items()}

    def linear_model(number: int) -> LinearModel:
        clips, frames = (fitted[name][number] if name in fitted else None for name in ("clips", "frames"))
        clip_mix, frame_mix = (best_mixes.get(name, LogitMix()) for name in ("clips", "frames"))
        return LinearModel(drop_groups=drop_groups, clips=clips, frames=frames, clip_mix=clip_mix, frame_mix=frame_mix)

    of_members = [
        replace(member, masked_groups=masked, linear=linear_model(1 + number)) for number, member in enumerate(members)
    ]
    rows = {}
    for name, head in heads.items():
        pairs = zip(networks[masked][name], paths[dropped][name][1], strict=True)
        rows[name] = [head.spec.probabilities(best_mixes[name](a, b)).numpy() for a, b in pairs]
    outputs = ValidationOutputs(
        clips=np.concatenate(rows["clips"]) if rows.get("clips") else None, frames=rows.get("frames", [])
    )
    return replace(model, masked_groups=masked, linear=linear_model(0)), of_members, outputs


def _mix(head: _Head, network: Sequence[Tensor], linear: Sequence[Tensor]) -> LogitMix:
    """Fit how the logits of held-out examples are combined; equally without any."""
    if not network:
        return LogitMix()
    targets, weights = head.truth()
    return fit_mix(
        torch.cat(list(network)),
        torch.cat(list(linear)),
        torch.cat(targets),
        torch.cat(weights),
        head.class_weights,
        multi_label=head.spec.multi_label,
        prior=head.mix_prior,
    )


def _fit_decoding(
    model: EventModel, outputs: ValidationOutputs, train: Examples, held_out: Examples, loaded: LoadedFeatures
) -> DecodeSettings:
    """Fit the decoding of scores into events to held-out examples."""
    if model.task.frame_head:
        # predictions where the truth is unknown are neither right nor wrong
        pairs = zip(held_out.recordings, outputs.frames, strict=True)
        known = [(recording.weights > 0)[:, None] * scores for recording, scores in pairs]
        times = [loaded.features[recording.video].time_s for recording in held_out.recordings]
        events = [recording.events for recording in held_out.recordings]
        short_event_s = short_event_frames(train.recordings) / model.fps
        step_s = 1 / model.fps
        decode = fit_frames(times, known, events, model.labels, model.task.frame_head, step_s, short_event_s)
        return fit_event_scores(decode, times, known, events, model.labels, step_s)
    if model.task.clip_head:
        labels = np.array([clip.labels for clip in held_out.clips])
        scores = np.zeros((0, model.task.num_outputs(model.task.clip_head))) if outputs.clips is None else outputs.clips
        return fit_clips(scores, labels.reshape(scores.shape), model.task.clip_head, len(model.labels), model.window_s)
    return model.decode
