"""A live source and a model to events as they happen: a JSON line when one opens, and one when it is over.

    {"kind": "open", "id": 1, "video", "label", "start", "score", "start_time", "latency_s"}
    {"kind": "close", "id": 1, the same, and "end"; of a model that describes, "description" and its score and source}

What `open` tells of the score is provisional; `close` is final, and equal to what prediction over the recorded source
finds, as long as the source is never away for longer than `ReconnectPolicy.max_gap_s`: what is open then is closed, and
what comes
after it is read anew. An event that was opened and ends below `--min-score` is taken back: its last line is of kind
`withdraw`. `latency_s` is the time from the event's begin (`open`) or end to the line. All else is told on stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import PredictConfig, to_flags
from vidgru.errors import OutputError, SettingsError
from vidgru.extraction.live import LiveExtractor, LiveSample, ReconnectPolicy
from vidgru.model.checkpoint import EventModel, load_model
from vidgru.model.event_decoder import WINDOW_DELAY
from vidgru.model.stream import EventStream, StreamOutput
from vidgru.prediction import event_files as writers
from vidgru.prediction.detector import model_detector
from vidgru.prediction.predictor import check_labels
from vidgru.prediction.recorder import Recorder, finish_left
from vidgru.types import Event

_TICK_S = 0.2  # how often a silent source is looked at
_STATUS_S = 60.0
_FRAMES_TIMED = 10_000  # the latest, of which the latency is told
_FILES_ONLY = ("since", "until", "clips", "save_video", "start_time", "shard", "ray", "merge_only")


def predict_live(
    model_path: str | Path,
    source: str,
    config: PredictConfig,
    *,
    patience: ReconnectPolicy | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Tell the events of a live source on stdout as they happen, until it ends, or SIGINT or SIGTERM comes.

    Args:
        model_path: a model file or a training run's folder.
        source: a URL, or the number of a camera of this machine.
        config: which events, and whether to record.
        patience: with a source that is not there.
        stop: set to stop it as SIGTERM does.

    Returns:
        The exit code: 0, or 1 where a served recording broke off or the cache could not be written.

    Raises:
        KeyboardInterrupt: it was stopped by SIGINT; all is finished and closed by then.
        SourceError: the source cannot be opened.
        ModelError, SettingsError, WeightsError, SettingsMismatchError, MissingDependencyError: before the source is
            opened.
    """
    model = load_model(model_path)
    _check(model, config)
    check_labels(model, config.labels)
    detect = model_detector(model, config.weights)
    cache = SequenceCache(Path(config.features).expanduser()) if config.record else None
    for key in finish_left(cache) if cache is not None else ():
        _say(f"what a run that was killed had recorded is finished: {Path(config.features) / key}")
    patience = patience or ReconnectPolicy()
    stop = stop or threading.Event()
    with (
        LiveExtractor(source, detect, config.runtime, reconnect=patience, notify=_say) as camera,
        _stopped_by_signals(stop) as signals,
    ):
        live = _Live(model, config, camera, cache, patience, stop)
        code = live.run()
    if signal.SIGINT in signals:
        raise KeyboardInterrupt
    return code


def _check(model: EventModel, config: PredictConfig) -> None:
    """Refuse what cannot be done live."""
    if model.network.architecture.bidirectional:
        raise SettingsError(
            "the model is bidirectional: it reads backwards too, and cannot run live",
            "train one without --bidirectional, or predict over a recording of the source",
        )
    flags = to_flags(config)
    for name in _FILES_ONLY:
        if flags[name]:
            raise SettingsError(
                f"{name} is {flags[name]!r}, which is for recordings, and not for a live source",
                "leave it out; what --record keeps can be predicted later",
            )


class _Live:
    """One run."""

    def __init__(
        self,
        model: EventModel,
        config: PredictConfig,
        camera: LiveExtractor,
        cache: SequenceCache | None,
        patience: ReconnectPolicy,
        stop: threading.Event,
    ) -> None:
        self._model, self._config, self._camera, self._cache = model, config, camera, cache
        self._gap_s, self._stop = patience.max_gap_s, stop
        self._keep = check_labels(model, config.labels)
        self._stream: EventStream | None = None  # None before the first frame, and after a long gap
        self._recorder: Recorder | None = None
        self._last_s = 0.0  # time of the latest frame
        self._seen_s = time.monotonic()  # when it was worked off
        self._open: dict[tuple[str, float], tuple[int, str]] = {}  # number and wall-clock time of what is not over
        self._events = self._frames = self._code = 0
        self._latencies: deque[float] = deque(maxlen=_FRAMES_TIMED)

    def run(self) -> int:
        """Watch to the end; returns the exit code."""
        began_s = told_s = time.monotonic()
        _say(f"{self._camera.name}: {self._delays()}")
        try:
            while not self._stop.is_set() and not self._camera.is_finished:
                seen = self._camera.read(_TICK_S)
                if seen is not None:
                    self._handle(seen)
                elif time.monotonic() - self._seen_s > self._gap_s:
                    self._settle(self._last_s + 1 / self._model.fps)
                if time.monotonic() - told_s > _STATUS_S:
                    told_s = time.monotonic()
                    self._say_status(told_s - began_s)
            feed = self._camera.source
            end_s = feed.end_s if self._camera.is_finished else self._last_s + 1 / self._model.fps
            self._settle(end_s)
            self._finish_record(end_s)
        finally:
            if self._recorder is not None:
                self._recorder.close()
        self._say_status(time.monotonic() - began_s)
        if feed.truncation:
            _say(f"{self._camera.name} broke off: {feed.truncation}")
            self._code = 1
        return self._code

    # --- frames and events ------------------------------------------------------------------------------------------

    def _handle(self, seen: LiveSample) -> None:
        if self._stream is None:
            self._stream = EventStream(self._model, video=self._camera.name, beam=self._config.beam)
        self._tell(self._stream.push(seen.sequence))
        self._last_s = float(seen.sequence.time_s[-1])
        self._seen_s = time.monotonic()
        self._latencies.append(self._seen_s - seen.decoded_s)
        self._frames += 1
        self._record(seen)

    def _settle(self, end_s: float) -> None:
        """Close what is open: nothing follows, or not for long. What comes then begins anew."""
        if self._stream is not None:
            self._tell(self._stream.finish(end_s))
            self._stream = None

    def _tell(self, step: StreamOutput) -> None:
        """Print what has opened and closed."""
        least = self._config.min_score
        for event in self._wanted(step.opened):
            if event.score >= least:
                self._print("open", event)
        for event in self._wanted(step.closed):
            if event.score >= least:
                if _identity(event) not in self._open:  # its score was below before
                    self._print("open", event)
                self._print("close", event)
            elif _identity(event) in self._open:
                self._print("withdraw", event)

    def _wanted(self, events: Iterable[Event]) -> Iterator[Event]:
        return (event for event in events if event.label in self._keep)

    def _print(self, kind: Literal["open", "close", "withdraw"], event: Event) -> None:
        identity, feed = _identity(event), self._camera.source
        if kind == "open":
            self._events += 1
            self._open[identity] = self._events, feed.wall_clock(event.start_s)
        number, start_time = self._open[identity] if kind == "open" else self._open.pop(identity)
        record = writers.as_record(replace(event, start_time=start_time))
        if kind == "open":
            del record["end"]
        age_s = feed.age_s(event.start_s if kind == "open" else event.end_s)
        line: dict[str, Any] = {"kind": kind, "id": number, **record, "latency_s": round(age_s, 3)}
        try:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        except BrokenPipeError:  # nobody listens any more
            self._stop.set()
            with suppress(OSError, ValueError):  # or Python complains when it flushes at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # --- the record -------------------------------------------------------------------------------------------------

    def _record(self, seen: LiveSample) -> None:
        if self._cache is None:
            return
        try:
            if self._recorder is None:
                began_at, feature_settings = self._camera.source.recorded_at, self._model.feature_settings
                self._recorder = Recorder(
                    self._cache, self._camera.name, began_at, feature_settings, self._camera.run_info
                )
            self._recorder.append(seen.sequence)
        except OutputError as error:
            self._give_up_recording(error)

    def _finish_record(self, end_s: float) -> None:
        if self._recorder is None or self._cache is None:
            return
        feed = self._camera.source
        try:
            self._recorder.finish(end_s, feed.recorded_at, feed.damage.facts())
        except OutputError as error:
            return self._give_up_recording(error)
        _say(f"recorded: {self._cache.root / self._recorder.key}")

    def _give_up_recording(self, error: OutputError) -> None:
        """A camera is watched on when the disk is full."""
        _say(f"{error.message}; nothing more is recorded")
        self._cache, self._code = None, 1

    # --- what is told of the run ------------------------------------------------------------------------------------

    def _delays(self) -> str:
        """How long after it happened something is told."""
        model = self._model
        if not (model.task.frame_head or model.task.clip_head):
            length_s = model.window_s
            return f"stretches of {length_s:.2f} s are described, each {WINDOW_DELAY * length_s:.2f} s after its end"
        lookahead_s = EventStream(model, video=self._camera.name).lookahead_s
        return (
            f"scores are settled {lookahead_s:.2f} s after their frame; an event is told when it has lasted "
            f"{model.decode.min_s:.2f} s, and its end {model.decode.merge_s:.2f} s after it"
        )

    def _say_status(self, seconds: float) -> None:
        """How long, how many, how fast."""
        watched = timedelta(seconds=round(seconds))
        told = (
            f"{self._camera.name}: {watched}, {self._frames} frames, {self._camera.source.dropped_frames} passed over"
        )
        if self._latencies:
            p50, p99 = np.percentile(np.array(self._latencies) * 1000, [50, 99])
            told += f", from decoded to scored {p50:.0f} ms (p50), {p99:.0f} ms (p99)"
        _say(f"{told}, {self._events} events")


def _identity(event: Event) -> tuple[str, float]:
    return event.label, event.start_s


def _say(line: str) -> None:
    """One write a line: the thread that receives speaks too, and print writes the line's end apart."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Meanwhile SIGINT and SIGTERM set `stop`; a second SIGINT interrupts at once. Yields the signals that came.

    Signals are the main thread's: elsewhere nothing is changed.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: object) -> None:
        came.append(number)
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
