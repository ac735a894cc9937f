"""Sentences on events: a stretch of a recording is read again from its beginning, and the head for descriptions writes.

What is read depends on the event's frames alone, and on none that come after it: a live stream, which keeps the latest
frames, describes its events as prediction over the whole recording does (scores to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import FeatureStream
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.model.tokenizer import Tokenizer
from vidgru.types import DESCRIBED, Array, Event, Features, FrameSequence

BEAM = 4
_BEFORE_S = 0.5  # events are found a little late: what is read begins so much before them
_LONGEST = 1024  # frames; of a longer stretch the last are read
_RUN_IN_S = 1.5  # what is read before a stretch, so that speeds at its beginning are known
_AT_ONCE = 1 << 13  # frames that are read together
_SENTENCES_AT_ONCE = 256  # that are written together
_EVENTS_AT_ONCE = 64  # whose features are held together
_SLIP_S = 1e-3  # an event's times may be cut to milliseconds, and its frames' times are not


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionSegment:
    """What is to be described.

    Attributes:
        features: of its frames.
        label: what happens in it, "" if that has no label; None leaves it to the model's other heads.
    """

    features: Features
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence.

    Attributes:
        text: the model's.
        score: 0 to 1, geometric mean of the probabilities of its words and of its end.
    """

    text: str
    score: float


def caption_frames(time_s: Array, start_s: float, end_s: float) -> tuple[int, int]:
    """Frames [first, stop) that are read for a description of the interval [start_s, end_s): one at least.

    Args:
        time_s: float64 [T], T at least 1.
        start_s, end_s: seconds.
    """
    last = int(np.searchsorted(time_s, end_s - _SLIP_S))
    stop = max(last, 1)
    first = int(np.searchsorted(time_s, start_s - _BEFORE_S - _SLIP_S))
    return max(min(first, stop - 1), stop - _LONGEST), stop


def caption_segments(model: EventModel, stretches: Sequence[CaptionSegment], *, beam: int = BEAM) -> list[Caption]:
    """Write a sentence on each stretch, as sure as the model may be of it.

    Args:
        model: in eval mode.
        stretches: of one frame at least each.
        beam: sentences that are followed at once; 1 is greedy.

    Raises:
        ValueError: the model writes no descriptions.
    """
    network, facts = model.network, model.caption
    head = network.caption_head
    if head is None or facts is None:
        raise ValueError("the model writes no descriptions")
    found: dict[int, Caption] = {}
    for some in _batches([len(stretch.features) for stretch in stretches], beam):
        first = torch.tensor(_first_words(model, [stretches[index] for index in some]))
        with torch.inference_mode():
            device = network.device
            inputs = [tensor.to(device) for tensor in _side_by_side([stretches[index].features for index in some])]
            memory = network.caption_memory(*inputs)
            sentences, mean = head.write(memory, first.to(device), beam=beam, most=facts.longest)
        for index, words, score in zip(some, sentences, mean.exp().tolist(), strict=True):
            found[index] = Caption(text=facts.tokenizer.decode(words).strip(), score=min(score, 1.0))
    return [found[index] for index in range(len(stretches))]


def caption_log_likelihoods(model: EventModel, stretches: Sequence[CaptionSegment], sentences: Sequence[str]) -> Array:
    """How likely the model finds each sentence on each stretch: log probability, float64 [stretches, sentences].

    Args:
        model: that writes descriptions, in eval mode.
        stretches: of one frame at least each.
        sentences: at least one.
    """
    network, facts = model.network, model.caption
    head = network.caption_head
    assert head is not None
    assert facts is not None
    device = network.device
    ids = [torch.tensor([*facts.tokenizer.encode(sentence), Tokenizer.END]) for sentence in sentences]
    words = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=Tokenizer.PAD).to(device)
    firsts = _first_words(model, stretches)
    found = np.zeros((len(stretches), len(sentences)))
    for row, (stretch, first) in enumerate(zip(stretches, firsts, strict=True)):
        with torch.inference_mode():
            memory = network.caption_memory(*(tensor.to(device) for tensor in _side_by_side([stretch.features])))
            read = torch.cat([words.new_full((len(words), 1), first), words[:, :-1]], dim=1)
            logs = head(memory, read).log_softmax(dim=2)
            each = logs.gather(2, words[..., None])[..., 0]
            found[row] = (each * (words != Tokenizer.PAD)).sum(dim=1).double().cpu().numpy()
    return found


def caption_events(
    model: EventModel,
    parts: Sequence[FrameSequence],
    events: Sequence[Event],
    *,
    beam: int = BEAM,
    progress: Callable[[], None] | None = None,
) -> list[Event]:
    """The same events with their sentences; as they are where the model writes none.

    Args:
        model: in eval mode.
        parts: the recording's stretches in order, as `SequenceCache.parts` gives them.
        events: of this recording.
        beam: sentences that are followed at once; 1 is greedy.
        progress: called before every some of them.

    Raises:
        SettingsMismatchError: the sequence does not have the tensors that the model reads.
    """
    if model.caption is None:
        return list(events)
    told: list[Event] = []
    for first in range(0, len(events), _EVENTS_AT_ONCE):
        if progress:
            progress()
        some = events[first : first + _EVENTS_AT_ONCE]
        spans = [(event.start_s, event.end_s) for event in some]
        told += _told(model, some, caption_features(parts, model.feature_spec, spans), beam)
    return told


def caption_events_from_features(
    model: EventModel, features: Features, events: Sequence[Event], *, beam: int = BEAM
) -> list[Event]:
    """As `caption_events`, from the features of the recording, or of what of it holds the events."""
    if model.caption is None or not events:
        return list(events)
    spans = [caption_frames(features.time_s, event.start_s, event.end_s) for event in events]
    return _told(model, events, [features.frames(*span) for span in spans], beam)


def caption_intervals(
    model: EventModel,
    stretches: Sequence[tuple[Sequence[FrameSequence], float | None, float | None]],
    *,
    beam: int = BEAM,
) -> list[Caption]:
    """Write a sentence on each stretch of a recording, whatever its score.

    Args:
        model: in eval mode.
        stretches: the recording's stretches in order, and start and end in seconds; None and None: the whole recording.
        beam: sentences that are followed at once; 1 is greedy.

    Raises:
        ValueError: the model writes no descriptions.
        SettingsMismatchError: the sequence does not have the tensors that the model reads.
    """
    found = []
    for parts, start_s, end_s in stretches:
        span = (0.0 if start_s is None else start_s, np.inf if end_s is None else end_s)
        found += [CaptionSegment(features=some) for some in caption_features(parts, model.feature_spec, [span])]
    return caption_segments(model, found, beam=beam)


class RecentFeatures:
    """The latest frames of a stream, enough of them to describe an event that ends.

    Args:
        lookahead: frames after which a frame's score is known.
    """

    def __init__(self, lookahead: int) -> None:
        self._parts: list[Features] = []
        self._most = 2 * _LONGEST + lookahead  # whether an event is over may be known late
        self._frames = 0

    def push(self, features: Features) -> None:
        """Take the next frames."""
        self._parts.append(features)
        # what came before stays: an event that these frames show to be over may have ended with the frame before them
        while self._frames - len(self._parts[0]) >= self._most:
            self._frames -= len(self._parts.pop(0))
        self._frames += len(features)

    def caption_events(self, model: EventModel, events: Sequence[Event], *, beam: int = BEAM) -> list[Event]:
        """As `caption_events`; an event that ended too long ago stays as it is."""
        whole = Features.concatenate(self._parts)
        near = [event for event in events if event.end_s > whole.time_s[0]]
        told = iter(caption_events_from_features(model, whole, near, beam=beam))
        return [next(told) if event in near else event for event in events]


def caption_features(
    parts: Sequence[FrameSequence], feature_spec: FeatureSpec, spans: Sequence[tuple[float, float]]
) -> list[Features]:
    """Features of what is read for a description of each span (start and end in seconds), as of the whole recording.

    Raises:
        SettingsMismatchError: the sequence does not have the tensors of the layout.
    """
    edges = np.cumsum([0] + [len(part) for part in parts])
    time_s = np.concatenate([part.time_s for part in parts])
    fps = parts[0].fps
    found = []
    for start_s, end_s in spans:
        first, stop = caption_frames(time_s, start_s, end_s)
        early = int(np.searchsorted(time_s, time_s[first] - max(_RUN_IN_S, 3 / fps)))
        early = min(early, max(first - 1, 0))  # how long the first step is, also behind a gap
        stream = FeatureStream(feature_spec)
        pieces = [
            stream.push(part.frames(max(early - int(edge), 0), stop - int(edge)))
            for part, edge in zip(parts, edges, strict=False)
            if edge < stop and edge + len(part) > early
        ]
        found.append(Features.concatenate(pieces).frames(first - early, stop - early))
    return found


def _told(model: EventModel, events: Sequence[Event], features: Sequence[Features], beam: int) -> list[Event]:
    """Events with their sentences, or, where the model is not sure enough of one, with what was found put together."""
    assert model.caption is not None
    stretches = [CaptionSegment(features=some, label=event.label) for event, some in zip(events, features, strict=True)]
    told = []
    for event, stretch, one in zip(events, stretches, caption_segments(model, stretches, beam=beam), strict=True):
        if is_confident(model, one):
            told.append(replace(event, description=one.text, description_score=one.score, description_source="model"))
            continue
        text = template(event, detected_class_names(stretch.features, model))
        told.append(replace(event, description=text, description_score=one.score, description_source="template"))
    return told


def is_confident(model: EventModel, one: Caption) -> bool:
    """Whether a sentence is told. Its score is taken as files tell it: its last digits depend on what is beside it."""
    return model.caption is not None and bool(one.text) and round(one.score, 6) >= model.caption.threshold


def detected_class_names(features: Features, model: EventModel) -> list[str]:
    """Names of the classes of which an object was seen in these frames, the most seen first."""
    column = model.feature_spec.object_groups()["class"].start
    classes, counts = np.unique(features.objects[:, column].astype(np.int64), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [model.names[kind] for kind in classes[order].tolist() if 0 <= kind < len(model.names)]


def _first_words(model: EventModel, stretches: Sequence[CaptionSegment]) -> list[int]:
    """What each sentence begins with: its label, or that none is known."""
    facts = model.caption
    assert facts is not None
    labels = [_own_label(model, one.features) if one.label is None else one.label for one in stretches]
    words = len(facts.tokenizer)
    return [words + model.labels.index(label) if label in facts.labels else Tokenizer.START for label in labels]


def _own_label(model: EventModel, features: Features) -> str:
    """What the model's other heads say of a stretch: that for clips, else that for frames, over all of them."""
    vectors = [encode_features(model, [features]).vectors]
    if model.task.clip_head:
        scores = score_clips(model, vectors)[0]
    elif model.task.frame_head:
        scores = score_frames(model, vectors)[0].mean(axis=0)
    else:
        return model.labels[0]
    return model.labels[int(scores[: len(model.labels)].argmax())]


def _batches(lengths: Sequence[int], beam: int) -> Iterator[list[int]]:
    """Indices of stretches that are read together, of like lengths; so many sentences are followed on each."""
    some: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        many = len(some) + 1
        if some and (lengths[index] * many > _AT_ONCE or beam * many > _SENTENCES_AT_ONCE):
            yield some
            some = []
        some.append(index)
    if some:
        yield some


def _side_by_side(parts: Sequence[Features]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stretches as the network reads them: objects [M,F], counts [B,T], frame [B,T,G], mask [B,T]."""
    steps = max(len(part) for part in parts)
    counts = np.zeros((len(parts), steps), np.int64)
    frame = np.zeros((len(parts), steps, parts[0].frame.shape[1]), np.float32)
    mask = np.zeros((len(parts), steps), np.bool_)
    for row, part in enumerate(parts):
        counts[row, : len(part)] = np.diff(part.offsets)
        frame[row, : len(part)] = part.frame
        mask[row, : len(part)] = True
    objects = np.concatenate([part.objects for part in parts])
    return torch.from_numpy(objects), torch.from_numpy(counts), torch.from_numpy(frame), torch.from_numpy(mask)


_MOST = 3  # classes that are named


def template(event: Event, names: Sequence[str]) -> str:
    """Objects, label and time: "person, bag: left behind, 00:12\N{EN DASH}00:15".

    Without the label where it says no more than that there is something to describe: "person, 00:12\N{EN DASH}00:15".

    Args:
        event: its label and times are told.
        names: of the classes that were seen, the most seen first; the first few are named.
    """
    label = "" if event.label == DESCRIBED else event.label.replace("_", " ").strip()
    hours = event.end_s >= 3600
    when = f"{_clock(event.start_s, hours)}\N{EN DASH}{_clock(event.end_s, hours)}"
    objects = ", ".join(names[:_MOST])
    what = ": ".join(filter(None, (objects, label)))
    return ", ".join(filter(None, (what, when)))


def _clock(seconds: float, hours: bool) -> str:
    whole = int(seconds)
    text = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{text}" if hours else text
