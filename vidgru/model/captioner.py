"""Captions of events: the event's frames are read from an empty state, and the caption head writes.

A caption depends on the event's frames only, never on later ones, so a live stream that keeps the latest frames writes
the same captions as prediction over the whole recording (scores up to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidgru.model.caption_head import CaptionHead
from vidgru.model.checkpoint import CaptionSettings, EventModel
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import cut_parts, stream_features
from vidgru.model.grounding import has_slots
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.model.tokenizer import Tokenizer
from vidgru.types import DESCRIBED, Array, Event, Features, FrameSequence

BEAM = 4
_LEAD_S = 0.5  # events are detected slightly late, so captions read from this long before them
_MAX_FRAMES = 1024  # of a longer segment, captions read the last frames
_WARM_UP_S = 1.5  # frames before a segment that determine the speeds at its beginning
_FRAMES_PER_PASS = 1 << 13
_BEAMS_PER_PASS = 256
_EVENTS_PER_PASS = 64  # whose features are held in memory together
_ROUNDING_S = 1e-3  # times of events may be rounded to milliseconds, times of frames are not
_TEMPLATE_CLASSES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionSegment:
    """Frames to write a caption for.

    Attributes:
        features: Features of the frames, at least one.
        label: Label of the event; "" for none. None takes the label that the model's other heads score highest.
    """

    features: Features
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption written by the model.

    Attributes:
        text: The caption.
        score: 0 to 1. Of a caption with slots the probability that they are filled right, else the geometric mean of
            the probabilities of its words and its end.
        threshold: Least score of a caption that is shown.
        label: Label that it was written for; None if unknown, or without training captions.
        measured: The words in its slots, casefolded; None for a caption without slots.
    """

    text: str
    score: float
    threshold: float = 0.0
    label: str | None = None
    measured: tuple[str, ...] | None = None

    @property
    def is_confident(self) -> bool:
        """Whether it reaches its threshold. The score is rounded as in files: its last digits depend on the batch."""
        return bool(self.text) and round(self.score, 6) >= self.threshold


# --- captions of features ---------------------------------------------------------------------------------------------


def caption_segments(model: EventModel, segments: Sequence[CaptionSegment], *, beam: int = BEAM) -> list[Caption]:
    """Write a caption for each segment, whatever its score.

    Args:
        model: Model in eval mode.
        segments: Segments of at least one frame each.
        beam: Number of captions followed in parallel; 1 is greedy search.

    Raises:
        ValueError: The model writes no captions.
    """
    head, settings = _require_captions(model)
    device = model.network.device
    captions: dict[int, Caption] = {}
    labels = _label_indices(model, segments)
    for batch in _batches([len(segment.features) for segment in segments], beam):
        first = torch.tensor([_first_word(settings, labels[index]) for index in batch])
        with torch.inference_mode():
            inputs = [tensor.to(device) for tensor in _collate([segments[index].features for index in batch])]
            memory = model.network.caption_memory(*inputs)
            words, mean = head.write(memory, first.to(device), beam=beam, most=settings.longest)
        for index, ids, score in zip(batch, words, mean.exp().tolist(), strict=True):
            number = labels[index]
            label = None if number is None else model.labels[number]
            text = settings.tokenizer.decode(ids).strip()
            caption = Caption(text=text, score=min(score, 1.0), threshold=settings.threshold, label=label)
            if settings.grounding and has_slots(text):
                filled = settings.grounding.fill(text, number, segments[index].features, model.feature_spec)
                caption = replace(caption, text=filled.text, score=filled.probability, measured=filled.words)
                caption = replace(caption, threshold=settings.grounding.threshold)
            captions[index] = caption
    return [captions[index] for index in range(len(segments))]


def caption_log_likelihoods(model: EventModel, segments: Sequence[CaptionSegment], texts: Sequence[str]) -> Array:
    """Return the log probability of each text as the caption of each segment, float64 [segments,texts].

    Args:
        model: Model in eval mode that writes captions.
        segments: Segments of at least one frame each.
        texts: Captions to score, at least one.

    Raises:
        ValueError: The model writes no captions.
    """
    head, settings = _require_captions(model)
    device = model.network.device
    ids = [torch.tensor([*settings.tokenizer.encode(text), Tokenizer.END]) for text in texts]
    words = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=Tokenizer.PAD).to(device)
    result = np.zeros((len(segments), len(texts)))
    for row, (segment, label) in enumerate(zip(segments, _label_indices(model, segments), strict=True)):
        first = _first_word(settings, label)
        with torch.inference_mode():
            memory = model.network.caption_memory(*(tensor.to(device) for tensor in _collate([segment.features])))
            inputs = torch.cat([words.new_full((len(words), 1), first), words[:, :-1]], dim=1)
            log_probabilities = head(memory, inputs).log_softmax(dim=2).gather(2, words[..., None])[..., 0]
            result[row] = (log_probabilities * (words != Tokenizer.PAD)).sum(dim=1).double().cpu().numpy()
    return result


def _require_captions(model: EventModel) -> tuple[CaptionHead, CaptionSettings]:
    if model.network.caption_head is None or model.caption is None:
        raise ValueError("the model writes no captions")
    return model.network.caption_head, model.caption


def _label_indices(model: EventModel, segments: Sequence[CaptionSegment]) -> list[int | None]:
    """Return the index of each segment's label, None for labels without training captions."""
    _, settings = _require_captions(model)
    labels = [_best_label(model, segment.features) if segment.label is None else segment.label for segment in segments]
    return [model.labels.index(label) if label in settings.labels else None for label in labels]


def _first_word(settings: CaptionSettings, label: int | None) -> int:
    """Return a caption's first input: its label's word, or START."""
    return Tokenizer.START if label is None else len(settings.tokenizer) + label


def _best_label(model: EventModel, features: Features) -> str:
    """Return the label with the highest score by the clip head, else by the frame head, averaged over the frames."""
    encoded = [encode_features(model, [features])]
    if model.task.clip_head:
        scores = score_clips(model, encoded)[0]
    elif model.task.frame_head:
        scores = score_frames(model, encoded)[0].mean(axis=0)
    else:
        return model.labels[0]
    return model.labels[int(scores[: len(model.labels)].argmax())]


def _batches(lengths: Sequence[int], beam: int) -> Iterator[list[int]]:
    """Yield the indices of segments to process together, grouped by similar length."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        size = len(batch) + 1
        if batch and (lengths[index] * size > _FRAMES_PER_PASS or beam * size > _BEAMS_PER_PASS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _collate(segments: Sequence[Features]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return padded network inputs: objects [M,F], counts [B,T], frame [B,T,G], mask [B,T]."""
    steps = max(len(segment) for segment in segments)
    counts = np.zeros((len(segments), steps), np.int64)
    frame = np.zeros((len(segments), steps, segments[0].frame.shape[1]), np.float32)
    mask = np.zeros((len(segments), steps), np.bool_)
    for row, segment in enumerate(segments):
        counts[row, : len(segment)] = np.diff(segment.offsets)
        frame[row, : len(segment)] = segment.frame
        mask[row, : len(segment)] = True
    objects = np.concatenate([segment.objects for segment in segments])
    return torch.from_numpy(objects), torch.from_numpy(counts), torch.from_numpy(frame), torch.from_numpy(mask)


# --- captions of events -----------------------------------------------------------------------------------------------


def caption_events(
    model: EventModel,
    parts: Iterable[FrameSequence],
    events: Sequence[Event],
    *,
    beam: int = BEAM,
    progress: Callable[[], None] | None = None,
) -> list[Event]:
    """Return the events with their captions, unchanged if the model writes none.

    Args:
        model: Model in eval mode.
        parts: Consecutive chunks of the recording, iterated over twice per `_EVENTS_PER_PASS` events.
        events: Events of this recording.
        beam: Number of captions followed in parallel; 1 is greedy search.
        progress: Called before every batch of events.

    Raises:
        SettingsMismatchError: The sequence does not have the tensors that the model reads.
    """
    if model.caption is None:
        return list(events)
    captioned: list[Event] = []
    for first in range(0, len(events), _EVENTS_PER_PASS):
        if progress:
            progress()
        batch = events[first : first + _EVENTS_PER_PASS]
        intervals = [(event.start_s, event.end_s) for event in batch]
        captioned += _with_captions(model, batch, caption_features(parts, model.feature_spec, intervals), beam)
    return captioned


def caption_events_from_features(
    model: EventModel, features: Features, events: Sequence[Event], *, beam: int = BEAM
) -> list[Event]:
    """Like `caption_events`, from the features of the recording, or of a part of it that holds the events."""
    if model.caption is None or not events:
        return list(events)
    frames = [caption_frames(features.time_s, event.start_s, event.end_s) for event in events]
    return _with_captions(model, events, [features.frames(first, stop) for first, stop in frames], beam)


def caption_intervals(
    model: EventModel,
    intervals: Sequence[tuple[Sequence[FrameSequence], float | None, float | None]],
    *,
    beam: int = BEAM,
) -> list[Caption]:
    """Write a caption for each interval of a recording, whatever its score.

    Args:
        model: Model in eval mode.
        intervals: Consecutive chunks of a recording, start and end in seconds; None and None take the whole recording.
        beam: Number of captions followed in parallel; 1 is greedy search.

    Raises:
        ValueError: The model writes no captions.
        SettingsMismatchError: The sequence does not have the tensors that the model reads.
    """
    segments = []
    for parts, start_s, end_s in intervals:
        interval = (0.0 if start_s is None else start_s, np.inf if end_s is None else end_s)
        segments += [CaptionSegment(features=f) for f in caption_features(parts, model.feature_spec, [interval])]
    return caption_segments(model, segments, beam=beam)


class RecentFeatures:
    """The latest frames of a stream, enough to caption an event when it ends.

    Args:
        lookahead: Frames after which a frame's score is known.
    """

    def __init__(self, lookahead: int) -> None:
        self._parts: list[Features] = []
        self._most = 2 * _MAX_FRAMES + lookahead  # an event may be closed well after its last frame
        self._frames = 0

    def push(self, features: Features) -> None:
        """Add the next frames."""
        self._parts.append(features)
        # The previous part stays: an event that the new frames close may have ended with the frame before them.
        while self._frames - len(self._parts[0]) >= self._most:
            self._frames -= len(self._parts.pop(0))
        self._frames += len(features)

    def caption_events(self, model: EventModel, events: Sequence[Event], *, beam: int = BEAM) -> list[Event]:
        """Like `caption_events`; events that ended before the oldest frame kept stay unchanged."""
        features = Features.concatenate(self._parts)
        recent = [event for event in events if event.end_s > features.time_s[0]]
        captioned = iter(caption_events_from_features(model, features, recent, beam=beam))
        return [next(captioned) if event in recent else event for event in events]


def caption_frames(time_s: Array, start_s: float, end_s: float) -> tuple[int, int]:
    """Return the frames [first,stop) that a caption of the interval [start_s, end_s) reads, at least one.

    Args:
        time_s: float64 [T], T at least 1.
        start_s, end_s: Interval in seconds.
    """
    last = int(np.searchsorted(time_s, end_s - _ROUNDING_S))
    stop = max(last, 1)
    first = int(np.searchsorted(time_s, start_s - _LEAD_S - _ROUNDING_S))
    return max(min(first, stop - 1), stop - _MAX_FRAMES), stop


def caption_features(
    parts: Iterable[FrameSequence], feature_spec: FeatureSpec, intervals: Sequence[tuple[float, float]]
) -> list[Features]:
    """Return the features that a caption of each interval reads, equal to those of the whole recording.

    Args:
        parts: Consecutive chunks of the recording, iterated over twice.
        feature_spec: Features the model expects.
        intervals: Start and end of each interval in seconds.

    Raises:
        SettingsMismatchError: The sequence does not have the tensors of the feature spec.
    """
    times, fps = [], 1.0
    for part in parts:
        times.append(part.time_s)
        fps = part.fps
    time_s = np.concatenate(times)
    segments, ranges = [caption_frames(time_s, start_s, end_s) for start_s, end_s in intervals], []
    for first, stop in segments:
        early = int(np.searchsorted(time_s, time_s[first] - max(_WARM_UP_S, 3 / fps)))
        # the frame before sets the length of the first step, also after a gap
        ranges.append(slice(min(early, max(first - 1, 0)), stop))
    pieces: list[list[FrameSequence]] = [[] for _ in ranges]
    for number, piece, _ in cut_parts(parts, ranges):
        pieces[number].append(piece)
    result = []
    for (first, stop), frames, of_segment in zip(segments, ranges, pieces, strict=True):
        features = Features.concatenate(list(stream_features(of_segment, feature_spec)))
        result.append(features.frames(first - frames.start, stop - frames.start))
    return result


def _with_captions(model: EventModel, events: Sequence[Event], features: Sequence[Features], beam: int) -> list[Event]:
    """Return events with the model's captions, or with template captions where the model is not confident."""
    segments = [CaptionSegment(features=f, label=event.label) for event, f in zip(events, features, strict=True)]
    captioned = []
    for event, segment, caption in zip(events, segments, caption_segments(model, segments, beam=beam), strict=True):
        written = replace(event, description=caption.text, description_score=caption.score, description_source="model")
        if not caption.is_confident:
            template = model.caption.templates.get(event.label) if model.caption else None
            text = template_caption(event, detected_class_names(segment.features, model), template)
            written = replace(written, description=text, description_source="template")
        captioned.append(written)
    return captioned


# --- fallback for captions of low score -------------------------------------------------------------------------------


def template_caption(event: Event, class_names: Sequence[str], template: str | None = None) -> str:
    """Compose a caption of objects, label and time: "Person and bag: left behind (00:12\N{EN DASH}00:15)".

    The label is left out if the model has captions only: "Person (00:12\N{EN DASH}00:15)".

    Args:
        event: Event with label and times.
        class_names: Classes detected in the event, most frequent first; the first few are named.
        template: The user's text for the label, with `TEMPLATE_FIELDS` in braces.
    """
    label = "" if event.label == DESCRIBED else event.label.replace("_", " ").strip()
    with_hours = event.end_s >= 3600
    start, end = _clock(event.start_s, with_hours), _clock(event.end_s, with_hours)
    interval = f"{start}\N{EN DASH}{end}"
    *others, last = class_names[:_TEMPLATE_CLASSES] or [""]
    objects = f"{', '.join(others)} and {last}" if others else last
    if template is not None:
        text = template.format(label=label, objects=objects, start=start, end=end)
        return text[:1].upper() + text[1:]
    subject = ": ".join(filter(None, (objects, label)))
    return f"{subject[:1].upper()}{subject[1:]} ({interval})".strip()


def detected_class_names(features: Features, model: EventModel) -> list[str]:
    """Return the names of the classes detected in these frames, most frequent first."""
    column = model.feature_spec.object_groups()["class"].start
    classes, counts = np.unique(features.objects[:, column].astype(np.int64), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [model.names[index] for index in classes[order].tolist() if 0 <= index < len(model.names)]


def _clock(seconds: float, with_hours: bool) -> str:
    whole = int(seconds)
    text = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{text}" if with_hours else text
