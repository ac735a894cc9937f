"""Frames in, events out, as they come: what `vidgru eval`, `vidgru predict` and a live camera all run.

A model of timed events reads a recording from its beginning to its end and scores every frame; a model of clips reads
windows as long as the clips it was trained on, slid over the recording; one that only describes takes one stretch as
long as these clips after the other. Either way memory and time a frame do not grow
with the recording, and what comes out does not depend on how it was cut up: scores to rounding, events exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidgru.model.captioner import RecentFeatures
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import EventDecoder, FixedWindowDecoder, decode_candidates, decode_events, sort_events
from vidgru.model.features import FeatureStream
from vidgru.model.gru_gates import GRUGates
from vidgru.model.scoring import (
    EncodedRecording,
    FrameScorer,
    SlidingWindowScorer,
    encode_features,
    score_frames_and_gates,
)
from vidgru.types import Array, Event, FrameSequence


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamOutput:
    """What a stretch of a stream has settled.

    Attributes:
        time_s: float64 [n], of the frames settled, in general not those that were pushed.
        scores: float32 [n, C], 0 to 1, of each label, without the background, before they are smoothed.
        attention: float32 [m], how much each object that was pushed counted in its frame.
        gates: of the next frames of the stream, if they are wanted and there are any such.
        opened: events that are certain now, with the end and the score that they have so far.
        closed: events that are over. Each was opened before, or in this step; (label, start_s) tells which.
    """

    time_s: Array
    scores: Array
    attention: Array
    gates: GRUGates | None
    opened: list[Event]
    closed: list[Event]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRecording:
    """Scores of a whole recording.

    Attributes:
        time_s: float64 [T].
        scores: float32 [T, C], 0 to 1, of each label, without the background, before they are smoothed.
        attention: float32 [M], how much each object counted in its frame, rows as in the sequence.
        gates: of its frames, if they are wanted and there are any such.
        events: what the scores amount to, by start.
    """

    time_s: Array
    scores: Array
    attention: Array
    gates: GRUGates | None
    events: list[Event]


class EventStream:
    """One recording or live stream: frames in, events out.

    Args:
        model: in eval mode.
        video: what its events are to call it.
        gates: recompute the gates of the recurrent layer as well.
        beam: sentences that are followed at once for the description of an event that closes; 0 describes none. What is
            pushed encoded is not described.

    Attributes:
        lookahead_s: a frame's score is known so many seconds after the frame, at its latest. An event is then opened
            when it
            has lasted `DecodeSettings.min_s`, and closed `DecodeSettings.merge_s` after its end.
    """

    def __init__(self, model: EventModel, *, video: str, gates: bool = False, beam: int = 0) -> None:
        self._model, self._video, self._labels, self._beam = model, video, len(model.labels), beam
        self._features = FeatureStream(model.feature_spec)
        self._scorer: FrameScorer | SlidingWindowScorer | None = None
        self._decoder: EventDecoder | FixedWindowDecoder
        lookahead = 0
        if model.task.frame_head:
            self._scorer = FrameScorer(model, gates=gates)
            lookahead = model.lookahead
        elif model.task.clip_head:
            self._scorer = SlidingWindowScorer(model, gates=gates)
            lookahead = self._scorer.most_lag
        if self._scorer is None:
            self._decoder = FixedWindowDecoder(
                model.labels[0], video=video, length_s=model.window_s, step_s=1 / model.fps
            )
        else:
            self._decoder = EventDecoder(model.labels, model.decode, video=video, step_s=1 / model.fps)
        self._recent = RecentFeatures(lookahead) if beam and model.caption else None
        self._time_s = np.zeros(0)  # of frames that are not settled
        self.lookahead_s = lookahead / model.fps + model.decode.smooth_s / 2

    def push(self, part: FrameSequence) -> StreamOutput:
        """Read the next stretch, of any length.

        Raises:
            SettingsMismatchError: the sequence does not have the tensors that the model reads.
        """
        features = self._features.push(part)
        if self._recent is not None:
            self._recent.push(features)
        return self.push_encoded(encode_features(self._model, [features]))

    def push_encoded(self, encoded: EncodedRecording) -> StreamOutput:
        """Read the next stretch, encoded already."""
        self._time_s = np.concatenate([self._time_s, encoded.time_s])
        if isinstance(self._scorer, FrameScorer):
            (scores,), means = self._scorer.push(encoded.vectors[None])
            gates = None if means is None else GRUGates.from_means(means[0])
        elif self._scorer is not None:
            scores, gates = self._scorer.push(encoded.vectors)
        else:
            scores, gates = np.ones((len(encoded), self._labels), np.float32), None
        settled, self._time_s = self._time_s[: len(scores)], self._time_s[len(scores) :]
        next_s = float(self._time_s[0]) if len(self._time_s) else None
        opened, closed = self._decoder.push(settled, scores, next_s)
        return self._step(settled, scores, encoded.attention, gates, opened, closed)

    def finish(self, end_s: float) -> StreamOutput:
        """Settle and close what is open: nothing follows.

        Args:
            end_s: the recording's end: events end there at the latest.
        """
        if isinstance(self._scorer, FrameScorer):
            network = self._model.network
            nothing = torch.zeros(1, 0, network.architecture.width, device=network.device)
            (scores,), means = self._scorer.finish(nothing)
            gates = None if means is None else GRUGates.from_means(means[0])
        elif self._scorer is not None:
            scores, gates = self._scorer.finish()
        else:
            scores, gates = np.ones((0, self._labels), np.float32), None
        settled = self._time_s
        certain, over = self._decoder.push(settled, scores[: len(settled)])
        opened, closed = self._decoder.finish(end_s)
        no_object = np.zeros(0, np.float32)
        return self._step(settled, scores[: len(settled)], no_object, gates, certain + opened, over + closed)

    def _step(
        self,
        time_s: Array,
        scores: Array,
        attention: Array,
        gates: GRUGates | None,
        opened: list[Event],
        closed: list[Event],
    ) -> StreamOutput:
        scores = scores[:, : self._labels]
        if self._recent is not None and closed:
            closed = self._recent.caption_events(self._model, closed, beam=self._beam)
        return StreamOutput(
            time_s=time_s, scores=scores, attention=attention, gates=gates, opened=opened, closed=closed
        )


def score_recording(
    model: EventModel, parts: Iterable[FrameSequence], *, video: str, duration_s: float, gates: bool = False
) -> ScoredRecording:
    """Scores and events of a whole recording.

    Args:
        model: as loaded.
        parts: its stretches in order, as `SequenceCache.parts` gives them.
        video: what its events are to call it.
        duration_s: its length; events end there at the latest.
        gates: recompute the gates of the recurrent layer as well.

    Raises:
        SettingsMismatchError: the sequence does not have the tensors that the model reads.
    """
    stream = EventStream(model, video=video, gates=gates)
    steps = [stream.push(part) for part in parts]
    return _whole(model, [*steps, stream.finish(duration_s)])


def score_encoded(
    model: EventModel, recordings: Sequence[tuple[EncodedRecording, str, float]], *, gates: bool = False
) -> list[ScoredRecording]:
    """Scores and events of whole recordings that are encoded, side by side where the model is one of timed events.

    Args:
        model: in eval mode.
        recordings: each with what its events are to call it, and its length in seconds; as for `score_recording`.
        gates: recompute the gates of the recurrent layer as well.
    """
    if model.task.frame_head is None:
        return [_score_alone(model, *recording, gates) for recording in recordings]
    vectors = [encoded.vectors for encoded, _, _ in recordings]
    return [
        ScoredRecording(
            time_s=encoded.time_s,
            scores=scores[:, : len(model.labels)],
            attention=encoded.attention,
            gates=None if means is None else GRUGates.from_means(means),
            events=decode_events(
                encoded.time_s, scores, model.labels, model.decode, video=video, step_s=1 / model.fps, end_s=duration_s
            ),
        )
        for (encoded, video, duration_s), (scores, means) in zip(
            recordings, score_frames_and_gates(model, vectors, gates=gates), strict=True
        )
    ]


def _score_alone(
    model: EventModel, encoded: EncodedRecording, video: str, duration_s: float, gates: bool
) -> ScoredRecording:
    stream = EventStream(model, video=video, gates=gates)
    steps = [stream.push_encoded(encoded), stream.finish(duration_s)]
    return _whole(model, steps)


def rank_events(model: EventModel, scored: ScoredRecording, *, video: str, duration_s: float) -> list[Event]:
    """The events of a recording, and weaker ones below the thresholds: what a ranking is judged by."""
    where = {"step_s": 1 / model.fps, "end_s": duration_s}
    return decode_candidates(scored.time_s, scored.scores, model.labels, model.decode, video=video, **where)


def _whole(model: EventModel, steps: list[StreamOutput]) -> ScoredRecording:
    gates = [step.gates for step in steps]
    return ScoredRecording(
        time_s=np.concatenate([step.time_s for step in steps]),
        scores=np.concatenate([step.scores for step in steps]),
        attention=np.concatenate([step.attention for step in steps]),
        gates=GRUGates.concatenate([some for some in gates if some is not None]) if None not in gates else None,
        events=sort_events([event for step in steps for event in step.closed], model.labels),
    )
