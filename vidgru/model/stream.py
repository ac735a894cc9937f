"""Frames in, events out: as they arrive (`EventStream`), or of whole recordings in batches (`score_encoded`).

A model with a frame head reads a recording from beginning to end and scores every frame. A model with a clip head only
scores sliding windows as long as the clips it was trained on. A model without either cuts the recording into windows of
this length and captions each. In a stream, memory and time per frame do not grow with the recording. Results do not
depend on how the recording is split into chunks, nor on the batch: scores up to rounding.

Still frames of adaptive extraction repeat the frame before. A stream encodes only those at the beginning of a still
stretch, until their features have settled. In the others, a frame head on a single GRU layer takes ever longer steps
(`fast_gru.repeat_input`), which changes scores slightly and depends on the chunks; other models take every step.
`score_encoded`, and streams that write captions, compute every frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidgru.errors import ModelError, SettingsError
from vidgru.model.captioner import BEAM, RecentFeatures, caption_events
from vidgru.model.checkpoint import EventModel, load_model
from vidgru.model.event_decoder import (
    EventDecoder,
    FixedWindowDecoder,
    decode_candidates,
    decode_events,
    sort_events,
)
from vidgru.model.features import FeatureStream
from vidgru.model.gru_gates import GRUGates
from vidgru.model.scoring import (
    EncodedRecording,
    FrameScorer,
    RecordingEncoder,
    SlidingWindowScorer,
    encode_recording,
    score_frames_and_gates,
)
from vidgru.types import Array, Event, FrameSequence


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamOutput:
    """Results that became known with one chunk of a stream.

    Attributes:
        time_s: float64 [n], times of the frames now settled, in general earlier ones than those pushed.
        scores: float32 [n,C], 0 to 1, scores of each label before smoothing, without the background.
        attention: float32 [m], attention to each pushed object in its frame.
        gates: Gates of the next frames of the stream, if requested and the network has gates.
        opened: Events that are now certain, with the end and the score they have so far.
        closed: Events that are over. Each was opened before or in this output; (label, start_s) identifies it.
    """

    time_s: Array
    scores: Array
    attention: Array
    gates: GRUGates | None
    opened: list[Event]
    closed: list[Event]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRecording:
    """Scores and events of a whole recording.

    Attributes:
        time_s: float64 [T].
        scores: float32 [T,C], 0 to 1, scores of each label before smoothing, without the background.
        attention: float32 [M], attention to each object in its frame, in the order of the frame sequence.
        gates: Gates of its frames, if requested and the network has gates.
        events: Events, sorted by start.
    """

    time_s: Array
    scores: Array
    attention: Array
    gates: GRUGates | None
    events: list[Event]


class EventStream:
    """Detects the events of one recording or live stream, chunk by chunk.

    Args:
        model: Model in eval mode.
        video: Name of the recording in the events.
        gates: Whether to return the gates of the recurrent layer.
        beam: Number of captions followed in parallel when an event closes, if the model writes captions; 0 writes
            none. Frames pushed by `push_encoded` cannot be captioned.

    Attributes:
        lookahead_s: Seconds after a frame at which its score is known at the latest. An event opens when it has then
            lasted `DecodeSettings.min_s`, and closes `DecodeSettings.merge_s` after its end.
    """

    def __init__(self, model: EventModel, *, video: str, gates: bool = False, beam: int = BEAM) -> None:
        self._model, self._beam = model, beam
        self._features = FeatureStream(model.feature_spec)
        self._encoder = RecordingEncoder(model)
        self._scorer: FrameScorer | SlidingWindowScorer | None = None
        self._decoder: EventDecoder | FixedWindowDecoder
        lookahead = 0
        if model.task.frame_head:
            self._scorer = FrameScorer(model, gates=gates)
            lookahead = model.lookahead
        elif model.task.clip_head:
            self._scorer = SlidingWindowScorer(model, gates=gates)
            lookahead = self._scorer.max_lookahead
        step_s = 1 / model.fps
        if self._scorer is None:
            self._decoder = FixedWindowDecoder(model.labels[0], video=video, length_s=model.window_s, step_s=step_s)
        else:
            self._decoder = EventDecoder(model.labels, model.decode, video=video, step_s=step_s)
        self._recent = RecentFeatures(lookahead) if beam and model.caption else None
        self._time_s = np.zeros(0)  # of frames that are not settled
        self._equal = 0  # number of consecutive still frames up to the last one
        self.lookahead_s = lookahead / model.fps + model.decode.smooth_s / 2

    def push(self, part: FrameSequence) -> StreamOutput:
        """Read the next chunk, of any length.

        Raises:
            SettingsMismatchError: The sequence does not have the tensors that the model reads.
        """
        if part.still is None or self._recent is not None:  # captions read the features of every frame
            return self._push_frames(part)
        equal = _count_equal(part.still, self._equal)
        is_settled = equal > self._encoder.settled
        edges = [0, *(np.flatnonzero(np.diff(is_settled)) + 1).tolist(), len(part)]
        outputs = []
        for first, stop in itertools.pairwise(edges):
            frames = part.frames(first, stop)
            if first < stop and is_settled[first]:
                self._features.skip(frames)
                outputs.append(self.push_encoded(self._encoder.repeat(frames.time_s), int(equal[first]) - 1))
            else:
                outputs.append(self._push_frames(frames))
        self._equal = int(equal[-1]) if len(equal) else self._equal
        return _joined(outputs)

    def _push_frames(self, part: FrameSequence) -> StreamOutput:
        features = self._features.push(part)
        if self._recent is not None:
            self._recent.push(features)
        return self.push_encoded(self._encoder.push(features))

    def push_encoded(self, encoded: EncodedRecording, equal: int = 0) -> StreamOutput:
        """Read the next chunk, which is already encoded.

        Args:
            encoded: The chunk.
            equal: Number of frames before that equal these, if these are all equal; 0 if they are not.
        """
        self._time_s = np.concatenate([self._time_s, encoded.time_s])
        if isinstance(self._scorer, FrameScorer):
            linear = None if encoded.linear is None else encoded.linear[None]
            vectors = encoded.vectors.transpose(0, 1)[:, None]
            (scores,), means = self._scorer.push(vectors, linear=linear, equal=equal)
            gates = None if means is None else GRUGates.from_means(means[0])
        elif self._scorer is not None:
            scores, gates = self._scorer.push(encoded)
        else:
            scores, gates = np.ones((len(encoded), len(self._model.labels)), np.float32), None
        settled, self._time_s = self._time_s[: len(scores)], self._time_s[len(scores) :]
        next_s = float(self._time_s[0]) if len(self._time_s) else None
        opened, closed = self._decoder.push(settled, scores, next_s)
        return self._output(settled, scores, encoded.attention, gates, opened, closed)

    def finish(self, end_s: float) -> StreamOutput:
        """Settle the remaining frames and close all open events at the end of the recording.

        Args:
            end_s: End of the recording, at which events end at the latest.
        """
        if isinstance(self._scorer, FrameScorer):
            network = self._model.network
            empty = torch.zeros(network.members, 1, 0, network.architecture.width, device=network.device)
            tail = self._encoder.finish()
            (scores,), means = self._scorer.finish(empty, None if tail is None else tail[None])
            gates = None if means is None else GRUGates.from_means(means[0])
        elif self._scorer is not None:
            scores, gates = self._scorer.finish()
        else:
            scores, gates = np.ones((0, len(self._model.labels)), np.float32), None
        settled = self._time_s
        opened, closed = self._decoder.push(settled, scores[: len(settled)])
        last_opened, last_closed = self._decoder.finish(end_s)
        attention = np.zeros(0, np.float32)
        scores = scores[: len(settled)]
        return self._output(settled, scores, attention, gates, opened + last_opened, closed + last_closed)

    def _output(
        self,
        time_s: Array,
        scores: Array,
        attention: Array,
        gates: GRUGates | None,
        opened: list[Event],
        closed: list[Event],
    ) -> StreamOutput:
        if self._recent is not None and closed:
            closed = self._recent.caption_events(self._model, closed, beam=self._beam)
        scores = scores[:, : len(self._model.labels)]
        return StreamOutput(
            time_s=time_s, scores=scores, attention=attention, gates=gates, opened=opened, closed=closed
        )


def _count_equal(still: Array, before: int) -> Array:
    """Count the consecutive still frames up to each, int64 [T]; `before` of them precede the first."""
    number = np.arange(1, len(still) + 1)
    last_moving = np.maximum.accumulate(np.where(still, 0, number))
    equal: Array = np.where(last_moving, number - last_moving, number + before)
    return equal


def _joined(outputs: Sequence[StreamOutput]) -> StreamOutput:
    if len(outputs) == 1:
        return outputs[0]
    gates = [output.gates for output in outputs if output.gates is not None]
    return StreamOutput(
        time_s=np.concatenate([output.time_s for output in outputs]),
        scores=np.concatenate([output.scores for output in outputs]),
        attention=np.concatenate([output.attention for output in outputs]),
        gates=GRUGates.concatenate(gates) if gates else None,
        opened=[event for output in outputs for event in output.opened],
        closed=[event for output in outputs for event in output.closed],
    )


def score_recording(
    model: EventModel, parts: Iterable[FrameSequence], *, video: str, duration_s: float, gates: bool = False
) -> ScoredRecording:
    """Score a whole recording and decode its events.

    Args:
        model: Model in eval mode.
        parts: Consecutive chunks of the recording, as `SequenceCache.parts` returns them.
        video: Name of the recording in the events.
        duration_s: Length of the recording, at which events end at the latest.
        gates: Whether to return the gates of the recurrent layer.

    Raises:
        SettingsMismatchError: The sequence does not have the tensors that the model reads.
    """
    stream = EventStream(model, video=video, gates=gates, beam=0)
    outputs = [stream.push(part) for part in parts]
    return _concatenate(model, [*outputs, stream.finish(duration_s)])


def score_encoded(
    model: EventModel, recordings: Sequence[tuple[EncodedRecording, str, float]], *, gates: bool = False
) -> list[ScoredRecording]:
    """Score encoded recordings and decode their events, in batches if the model has a frame head.

    Args:
        model: Model in eval mode.
        recordings: Each with its name and its length in seconds, as for `score_recording`.
        gates: Whether to return the gates of the recurrent layer.
    """
    if model.task.frame_head is None:
        return [_score_encoded_stream(model, *recording, gates=gates) for recording in recordings]
    whole = [encoded for encoded, _, _ in recordings]
    result = []
    for (encoded, video, duration_s), (scores, means) in zip(
        recordings, score_frames_and_gates(model, whole, gates=gates), strict=True
    ):
        events = decode_events(
            encoded.time_s, scores, model.labels, model.decode, video=video, step_s=1 / model.fps, end_s=duration_s
        )
        result.append(
            ScoredRecording(
                time_s=encoded.time_s,
                scores=scores[:, : len(model.labels)],
                attention=encoded.attention,
                gates=None if means is None else GRUGates.from_means(means),
                events=events,
            )
        )
    return result


def _score_encoded_stream(
    model: EventModel, encoded: EncodedRecording, video: str, duration_s: float, *, gates: bool
) -> ScoredRecording:
    stream = EventStream(model, video=video, gates=gates, beam=0)
    return _concatenate(model, [stream.push_encoded(encoded), stream.finish(duration_s)])


def rank_events(model: EventModel, scored: ScoredRecording, *, video: str, duration_s: float) -> list[Event]:
    """Return the events of a recording and weaker candidates below the thresholds, for metrics of a ranking."""
    return decode_candidates(
        scored.time_s,
        scored.scores,
        model.labels,
        model.decode,
        video=video,
        step_s=1 / model.fps,
        end_s=duration_s,
    )


def _concatenate(model: EventModel, outputs: list[StreamOutput]) -> ScoredRecording:
    joined = _joined(outputs)
    return ScoredRecording(
        time_s=joined.time_s,
        scores=joined.scores,
        attention=joined.attention,
        gates=joined.gates,
        events=sort_events(joined.closed, model.labels),
    )


def load_predictor(path: str | Path) -> EventModel:
    """Load a model as `load_model` does, score two empty frames and write a word.

    Parts of a model that do not fit together, or numbers that overflow, thus fail here and not in a run.

    Raises:
        ModelError: As `load_model`, or the trial failed.
    """
    model = load_model(path)
    try:
        _try(model)
    except (SettingsError, ValueError, AttributeError, LookupError, TypeError, RuntimeError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} is not a valid vidgru model: {problem}", "train it again") from None
    return model


def _try(model: EventModel) -> None:
    spec, rows = model.feature_spec, min(model.feature_spec.classes, 1) * 2
    widths = {name: getattr(spec, name) for name in ("motion", "appearance", "colour")}
    optional: dict[str, Any] = {name: np.zeros((rows, n), np.float16) for name, n in widths.items() if n}
    sequence = FrameSequence(
        time_s=np.arange(2) / model.fps,
        frame_index=np.arange(2),
        offsets=np.arange(3) * (rows // 2),
        boxes=np.zeros((rows, 4), np.float32),
        scores=np.zeros(rows, np.float16),
        classes=np.zeros(rows, np.int16),
        tracks=np.full(rows, -1, np.int32),
        **optional,
        angle=np.zeros(rows, np.float16) if spec.angle else None,
        keypoints=np.zeros((rows, spec.keypoints, 3), np.float16) if spec.keypoints else None,
        scene=np.zeros((2, spec.scene), np.float16) if spec.scene else None,
        scene_motion=np.zeros((2, spec.scene_motion), np.float16) if spec.scene_motion else None,
        fps=model.fps,
        size_px=(640, 360),
        names=model.names,
    )
    end_s = 2 / model.fps
    (scored,) = score_encoded(model, [(encode_recording(model, [sequence]), "", end_s)])
    if not np.isfinite(scored.scores).all():
        raise ValueError("its scores are not finite")
    if model.caption:
        event = Event(video="", start_s=0, end_s=end_s, label=model.labels[0], score=0)
        caption_events(replace(model, caption=replace(model.caption, longest=1)), [sequence], [event], beam=1)
