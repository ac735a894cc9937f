"""`vidgru predict` on a live source: print events as they happen, one JSON line when each opens and one when it closes.

    {"kind": "open", "id": 1, "video", "label", "start", "score", "start_time", "latency_s"}
    {"kind": "close", "id": 1, the same, and "end"; with a captioning model "description", its score and source}

The score of `open` is provisional. `close` is final, and equals what prediction over the recorded source finds, unless
the source was unavailable for longer than `ReconnectPolicy.max_gap_s`: open events are then closed, and the model
starts afresh. `latency_s` is the time from the event's start (`open`) or end to the line. Everything else is printed on
stderr.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.cache.entry import LIVE, RESUME, canonical_json, live_source
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import PredictConfig
from vidgru.errors import OutputError, SettingsError
from vidgru.extraction.live import LiveExtractor, LiveSample, ReconnectPolicy
from vidgru.flags import parse_duration, to_settings
from vidgru.locks import Locks
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import WINDOW_DELAY
from vidgru.model.stream import EventStream, StreamOutput, load_predictor
from vidgru.prediction import event_files
from vidgru.prediction.inputs import model_detector
from vidgru.prediction.predictor import requested_labels
from vidgru.types import Event, FrameSequence

_POLL_S = 0.2  # how often a silent source is checked
_STATUS_S = 60.0
_MAX_LATENCIES = 10_000  # most recent frames whose latency is reported
_RECORDINGS_ONLY = ("since", "until", "clips", "save_video", "start_time", "shard", "ray", "merge_only", "adaptive")
_STATE = LIVE  # field of an entry's resume state that holds the facts to finish it


def predict_live(
    model_path: str | Path,
    source: str,
    config: PredictConfig,
    *,
    reconnect: ReconnectPolicy | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Print the events of a live source on stdout as they happen, until it ends, or SIGINT or SIGTERM arrives.

    Args:
        model_path: A model file, or the folder of a training run.
        source: A URL, or the number of a camera of this machine.
        config: Settings.
        reconnect: What to do when the source is unavailable.
        stop: Event that stops it, as SIGTERM does.

    Returns:
        Exit code: 0, or 1 if the source broke off or the cache could not be written.

    Raises:
        KeyboardInterrupt: SIGINT arrived; by then everything is finished and closed.
        SourceError: The source cannot be opened.
        ModelError, SettingsError, WeightsError, SettingsMismatchError, MissingDependencyError: Before the source is
            opened.
    """
    model = load_predictor(model_path).with_thresholds(config.threshold)
    if model.network.architecture.bidirectional:
        raise SettingsError(
            "the model is bidirectional: it also reads backwards, and cannot run live",
            "train one without --bidirectional, or predict over a recording of the source",
        )
    flags = to_settings(config)
    for name in _RECORDINGS_ONLY:
        if flags[name]:
            raise SettingsError(
                f"{name} is {flags[name]!r}, which is for recordings, and not for a live source",
                "leave it out; features kept by --record can be predicted later",
            )
    if config.out != PredictConfig.out:
        raise SettingsError(
            f"out is {config.out!r}, which is for recordings: the events of a live source are printed",
            "leave it out, and append what is printed to a file: vidgru predict MODEL SOURCE >> events.jsonl",
        )
    requested_labels(model, config.labels)
    features = SequenceCache(config.features)
    detector = model_detector(model, features, config.weights)
    cache = features if config.record else None
    for key in finish_killed_recordings(cache) if cache is not None else ():
        _print_line(f"finished the recording of a killed run: {Path(config.features) / key}")
    reconnect = replace(reconnect or ReconnectPolicy(), once=config.once)
    stop = stop or threading.Event()
    seconds = parse_duration("for_", config.for_)
    timer = threading.Timer(seconds or 0.0, stop.set)
    timer.daemon = True
    with (
        LiveExtractor(source, detector, config.runtime, reconnect=reconnect, notify=_print_line) as extractor,
        _stopping_on_signals(stop) as received,
    ):
        if seconds:
            timer.start()
        try:
            exit_code = LivePredictor(model, config, extractor, cache, reconnect.max_gap_s, stop).run()
        finally:
            timer.cancel()  # it would stop whatever the caller's event is used for next
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    return exit_code


class LivePredictor:
    """Read frames of a live source, print events, and record features.

    Args:
        model: The model.
        config: Settings.
        extractor: Extracts the features of the source's frames.
        cache: Cache to record into; None records nothing.
        max_gap_s: Seconds without a frame after which open events are closed.
        stop: Ends `run`.
    """

    def __init__(
        self,
        model: EventModel,
        config: PredictConfig,
        extractor: LiveExtractor,
        cache: SequenceCache | None,
        max_gap_s: float,
        stop: threading.Event,
    ) -> None:
        self._model, self._config, self._extractor, self._cache = model, config, extractor, cache
        self._max_gap_s, self._stop = max_gap_s, stop
        self._labels = requested_labels(model, config.labels)
        self._stream: EventStream | None = None  # None before the first frame and after a long gap
        self._recorder: LiveRecorder | None = None
        self._frame_s = 0.0  # time of the latest frame
        self._open: dict[tuple[str, float], tuple[int, str]] = {}  # id and wall-clock start of open events
        self._events = self._frames = self._exit_code = 0
        self._latencies: deque[float] = deque(maxlen=_MAX_LATENCIES)

    def run(self) -> int:
        """Read until the source ends or `stop` is set. Returns the exit code."""
        started = status_printed = time.monotonic()
        source = self._extractor.source
        _print_line(f"{self._extractor.name}: {self._describe_delays()}")
        try:
            while not self._stop.is_set() and not self._extractor.is_finished:
                sample = self._extractor.read(_POLL_S)
                if sample is not None:
                    self._process(sample)
                elif self._extractor.silence_s() > self._max_gap_s:
                    self._close_events(self._frame_s + 1 / self._model.fps)
                if time.monotonic() - status_printed > _STATUS_S:
                    status_printed = time.monotonic()
                    self._print_status(status_printed - started)
            end_s = source.end_s if self._extractor.is_finished else self._frame_s + 1 / self._model.fps
            self._close_events(end_s)
            self._finish_recording(end_s)
        finally:
            if self._recorder is not None:
                self._recorder.close()
        self._print_status(time.monotonic() - started)
        if not self._frames:
            _print_line(f"{self._extractor.name}: no frame has arrived")
            self._exit_code = 1
        if source.truncation:
            _print_line(f"{self._extractor.name} broke off: {source.truncation}")
            self._exit_code = 1
        return self._exit_code

    # --- frames and events ------------------------------------------------------------------------------------------

    def _process(self, sample: LiveSample) -> None:
        if self._stream is None:
            self._stream = EventStream(self._model, video=self._extractor.name, beam=self._config.beam)
        self._print_events(self._stream.push(sample.sequence))
        self._frame_s = float(sample.sequence.time_s[-1])
        self._latencies.append(time.monotonic() - sample.decoded_s)
        self._frames += 1
        self._record(sample)

    def _close_events(self, end_s: float) -> None:
        """Close open events, because no frame follows, or not for long; the next one starts a new stream."""
        if self._stream is not None:
            self._print_events(self._stream.finish(end_s))
            self._stream = None

    def _print_events(self, step: StreamOutput) -> None:
        for event in self._requested(step.opened):
            self._print("open", event)
        for event in self._requested(step.closed):
            self._print("close", event)

    def _requested(self, events: Iterable[Event]) -> Iterator[Event]:
        return (event for event in events if event.label in self._labels)

    def _print(self, kind: Literal["open", "close"], event: Event) -> None:
        identity, source = _identity(event), self._extractor.source
        if kind == "open":
            self._events += 1
            self._open[identity] = self._events, source.wall_clock(event.start_s)
        number, start_time = self._open[identity] if kind == "open" else self._open.pop(identity)
        record = event_files.as_record(replace(event, start_time=start_time))
        if kind == "open":
            del record["end"]
        age_s = source.age_s(event.start_s if kind == "open" else event.end_s)
        line: dict[str, Any] = {"kind": kind, "id": number, **record, "latency_s": round(age_s, 3)}
        try:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        except BrokenPipeError:  # the reader of stdout has gone, as in `| head -1`
            self._stop.set()
            with suppress(OSError, ValueError):  # otherwise Python complains when it flushes stdout at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # --- recording --------------------------------------------------------------------------------------------------

    def _record(self, sample: LiveSample) -> None:
        if self._cache is None:
            return
        try:
            if self._recorder is None:
                self._recorder = LiveRecorder(
                    self._cache,
                    self._extractor.name,
                    self._extractor.source.recorded_at,
                    self._model.feature_settings,
                    self._extractor.run_info,
                )
            self._recorder.append(sample.sequence)
        except OutputError as error:
            self._stop_recording(error)

    def _finish_recording(self, end_s: float) -> None:
        if self._recorder is None or self._cache is None:
            return
        source = self._extractor.source
        try:
            self._recorder.finish(end_s, source.recorded_at, source.damage.facts())
        except OutputError as error:
            self._stop_recording(error)
        else:
            _print_line(f"recorded: {self._cache.root / self._recorder.key}")

    def _stop_recording(self, error: OutputError) -> None:
        """Go on without recording: a full disk must not end the watching of a camera."""
        _print_line(f"{error.message}; recording has stopped")
        self._cache, self._exit_code = None, 1

    # --- status -----------------------------------------------------------------------------------------------------

    def _describe_delays(self) -> str:
        """How long after it happened something is printed."""
        model = self._model
        if not (model.task.frame_head or model.task.clip_head):
            delay_s = WINDOW_DELAY * model.window_s
            return f"captions cover {model.window_s:.2f} s each, and are printed {delay_s:.2f} s after their end"
        lookahead_s = EventStream(model, video=self._extractor.name).lookahead_s
        return (
            f"scores are final {lookahead_s:.2f} s after their frame; an event opens when it has lasted "
            f"{model.decode.min_s:.2f} s, and closes {model.decode.merge_s:.2f} s after its end"
        )

    def _print_status(self, seconds: float) -> None:
        elapsed = timedelta(seconds=round(seconds))
        dropped = self._extractor.source.dropped_frames
        status = f"{self._extractor.name}: {elapsed}, {self._frames} frames, {dropped} dropped"
        if self._latencies:
            p50, p99 = np.percentile(np.array(self._latencies) * 1000, [50, 99])
            status += f", decoded to scored in {p50:.0f} ms (p50), {p99:.0f} ms (p99)"
        _print_line(f"{status}, {self._events} events")


class LiveRecorder:
    """Write a live source's features to the cache, as an entry like that of a recording.

    Full parts are written as they fill, with everything needed to finish the entry: a later run that records into the
    same cache finishes what a killed run left.

    Args:
        cache: The cache.
        name: Name of the source, without credentials.
        recorded_at: ISO 8601 time of its first frame.
        feature_settings, run_info: Settings, as of any entry.

    Attributes:
        key: Key of the entry.

    Raises:
        OutputError: The cache cannot be written; also from `append` and `finish`.
    """

    def __init__(
        self,
        cache: SequenceCache,
        name: str,
        recorded_at: str,
        feature_settings: Mapping[str, Any],
        run_info: Mapping[str, Any],
    ) -> None:
        # There is no file to hash, so source and time identify the sequence.
        identity = hashlib.sha256(canonical_json({"source": name, "recorded_at": recorded_at})).hexdigest()
        self.key = cache.key(identity, feature_settings)
        self._recorded_at, self._feature_settings = recorded_at, dict(feature_settings)
        with ExitStack() as stack:
            locks = stack.enter_context(Locks(cache.lock_folder))
            locks.acquire(self.key)
            self._writer = stack.enter_context(cache.writer(self.key, {**run_info, LIVE: name}))
            self._stack = stack.pop_all()
        self._samples = 0
        self._last: FrameSequence | None = None

    def append(self, sequence: FrameSequence) -> None:
        """Add the next frame, a sequence of length 1."""
        self._samples += 1
        self._last = sequence
        fills_part = self._samples % PART_SAMPLES == 0
        end_s = float(sequence.time_s[-1]) + 1 / sequence.fps
        self._writer.append(sequence, {_STATE: self._facts(sequence, end_s, {})} if fills_part else None)

    def finish(self, end_s: float, recorded_at: str, damage: Mapping[str, Any]) -> None:
        """Finish the entry.

        Args:
            end_s: End of the source in seconds.
            recorded_at: ISO 8601 time of its first frame, as known by now.
            damage: What was wrong with it, as in `Entry.damage`.
        """
        assert self._last is not None
        self._recorded_at = recorded_at
        self._writer.finish(**self._facts(self._last, end_s, damage))
        self._stack.close()

    def close(self) -> None:
        """Stop writing. Full parts stay for `finish_killed_recordings`."""
        self._stack.close()

    def _facts(self, last: FrameSequence, end_s: float, damage: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "status": "partial" if damage else "done",
            "duration_s": end_s,
            "fps": last.fps,
            "size_px": last.size_px,
            "names": last.names,
            "feature_settings": self._feature_settings,
            "damage": dict(damage),
            "recorded_at": self._recorded_at,
        }


def finish_killed_recordings(cache: SequenceCache) -> list[str]:
    """Finish the entries of live sources that killed runs left, up to the last full part. Returns their keys.

    Raises:
        OutputError: The cache cannot be written.
    """
    finished = []
    with Locks(cache.lock_folder) as locks:
        for key, folder in cache.incomplete_entries():
            if live_source(folder) is None or not locks.acquire(key):  # of a file, or being recorded now
                continue
            run_info = json.loads((folder / RESUME).read_bytes())["run_info"]
            with cache.writer(key, run_info) as writer:
                if writer.state and _STATE in writer.state:
                    writer.finish(**writer.state[_STATE])
                    finished.append(key)
    return finished


def _identity(event: Event) -> tuple[str, float]:
    return event.label, event.start_s


def _print_line(line: str) -> None:
    """Print on stderr in a single write, because the receiving thread prints too, and `print` writes "\\n" apart."""
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _stopping_on_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Set `stop` on SIGINT and SIGTERM; a second SIGINT interrupts at once. Yields the signals received.

    Outside the main thread, which signals belong to, this does nothing.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: object) -> None:
        received.append(number)
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
