"""Live prediction over loopback: a stream has the same events as prediction over the same file."""

import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.detectors import make_weights
from tests.model.networks import make_network, with_captions
from tests.streams import as_file, as_stream, serving
from tests.videos import write_video
from vidgru import cli
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, PredictConfig
from vidgru.errors import OutputError, SettingsError, SettingsMismatchError, SourceError
from vidgru.extraction.live import LiveExtractor, ReconnectPolicy
from vidgru.extraction.pipeline import extract_recordings, feature_settings_for
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.stream import score_recording
from vidgru.prediction.batch import predict
from vidgru.prediction.live import LiveRecorder, predict_live
from vidgru.types import DESCRIBED, FrameSequence, Recording
from vidgru.video.live_connection import SourceLostError

SOON = ReconnectPolicy(initial_delay_s=0.01, max_delay_s=0.04, max_attempts=3, max_gap_s=60)
ENOUGH_S = 120.0
HOW: dict[str, Any] = {"backend": "torch", "precision": "fp32", "detector_batch": 1, "threads": 1, "report": False}
LABELS = ("fall", "walk")


@dataclass
class Stage:
    """A detector, a model that finds several events, and videos of 12 and 6 seconds with 60 and 30 samples."""

    weights: Path
    model: EventModel
    long: Path
    short: Path

    def config(self, folder: Path, **settings: Any) -> PredictConfig:
        paths = {"features": folder / "features", "weights": self.weights}
        return from_settings(PredictConfig, **{**HOW, **{name: str(path) for name, path in paths.items()}, **settings})

    def save(self, folder: Path, **changes: Any) -> Path:
        return saved(replace(self.model, **changes), folder)


def saved(model: EventModel, folder: Path) -> Path:
    model.save(folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    root = tmp_path_factory.mktemp("live")
    weights = make_weights(root / "tiny.pt")
    long = write_video(root / "long.mp4", 120, metadata={"creation_time": "2024-05-01T12:00:00Z"})
    short = write_video(root / "short.ts", 60, tick=Fraction(1, 90000), options={"bf": "0"})
    detect = DetectorSettings(weights=str(weights), imgsz=64, fps=5)
    cache = SequenceCache(root / "features")
    (outcome,) = extract_recordings(
        [Recording(path=long, name="long.mp4")],
        cache,
        detect,
        from_settings(PredictConfig, **HOW).runtime,
        progress=False,
    )
    assert outcome.key is not None
    return Stage(weights, model_of(cache.read(outcome.key), weights, feature_settings_for(detect)), long, short)


def model_of(sequence: FrameSequence, weights: Path, feature_settings: dict[str, Any]) -> EventModel:
    """A model with random weights and its median scores as thresholds, so that there are events."""
    head = HeadSpec(background=False, multi_label=True)
    model = EventModel(
        network=make_network(sequence, 0, frame_outputs=2, hidden=16, width=16),
        task=EventTask(labels=LABELS, clip_head=None, frame_head=head),
        feature_settings=feature_settings,
        weights=str(weights),
        names=sequence.names,
        decode=DecodeSettings(high=(0.0, 0.0), low=(0.0, 0.0), min_s=0.3, merge_s=0.3, exclusive=False, smooth_s=0.4),
        window_s=2.0,
        lookahead=2,
    )
    scores = score_recording(model, [sequence], video="", duration_s=12.0).scores
    middle = tuple(float(value) for value in np.median(scores, axis=0))
    return replace(model, decode=replace(model.decode, high=middle, low=middle))


@pytest.fixture(autouse=True)
def _nothing_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.live_source._MAX_BACKLOG_S", 10)


@pytest.fixture
def counts_silence(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Silence counts only while this is set: on a busy machine, frames may be read later than `max_gap_s`."""
    is_set, silence_s = threading.Event(), LiveExtractor.silence_s
    monkeypatch.setattr(LiveExtractor, "silence_s", lambda self: silence_s(self) if is_set.is_set() else 0.0)
    return is_set


class Lines(io.StringIO):
    """A text stream that can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self._news = threading.Condition()

    def write(self, text: str) -> int:
        with self._news:
            self._news.notify_all()
            return super().write(text)

    def wait(self, pattern: str, times: int = 1) -> bool:
        """Wait until a pattern occurs so often; False on timeout."""
        with self._news:
            return self._news.wait_for(lambda: len(re.findall(pattern, self.getvalue())) >= times, ENOUGH_S)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@contextmanager
def listening() -> Iterator[tuple[Lines, Lines]]:
    """Capture standard output and error."""
    out, err = Lines(), Lines()
    with redirect_stdout(out), redirect_stderr(err):
        yield out, err


class Recorded:
    """Times of recorded frames, which can be waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times: list[float] = []
        self._news = threading.Condition()
        append = LiveRecorder.append

        def watched(recorder: LiveRecorder, sequence: FrameSequence) -> None:
            append(recorder, sequence)
            with self._news:
                self.times += list(sequence.time_s)
                self._news.notify_all()

        monkeypatch.setattr(LiveRecorder, "append", watched)

    def wait(self, true: Callable[[list[float]], bool]) -> bool:
        """Wait until a condition on them is true; False on timeout."""
        with self._news:
            return self._news.wait_for(lambda: true(self.times), ENOUGH_S)


def of_kind(kind: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


def plain(events: list[dict[str, Any]]) -> list[tuple[str, float, float, float]]:
    return sorted((e["label"], e["start"], e["end"], round(e["score"], 4)) for e in events)


def in_files(stage: Stage, model: Path, source: Path, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """Events of batch prediction."""
    config = stage.config(folder, out=str(folder / "events"), **settings)
    (prediction,) = predict(model, [source], config, progress=False)
    assert prediction.status in ("done", "partial"), prediction.reason
    return [
        {
            "label": e.label,
            "start": e.start_s,
            "end": e.end_s,
            "score": e.score,
            "start_time": e.start_time,
            "description": e.description,
            "description_source": e.description_source,
            "description_score": e.description_score,
        }
        for e in prediction.events
    ]


def described(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((e["label"], e["start"], e["description"], e["description_source"]) for e in events)


# --- events ---------------------------------------------------------------------------------------------------------


def test_live_captions_events_on_close(stage: Stage, tmp_path: Path) -> None:
    """As in prediction over the file; an event that opens has no caption yet."""
    cache = SequenceCache(stage.weights.parent / "features")
    (key,) = (entry.key for entry in cache.entries())
    captioning = with_captions(stage.model, cache.read(key), ("A man falls.", "남 왼", "He walks left."))
    settings = {"beam": 2, "features": str(cache.root)}
    events = in_files(stage, saved(captioning, tmp_path), stage.long, tmp_path / "all", **settings)
    caption_scores = [event["description_score"] for event in events]
    assert captioning.caption is not None
    model = saved(
        replace(captioning, caption=replace(captioning.caption, threshold=float(np.median(caption_scores)))), tmp_path
    )
    with serving(as_file(stage.long)) as url, listening() as (out, _):
        assert predict_live(model, url, stage.config(tmp_path, beam=2), reconnect=SOON) == 0
    expected = in_files(stage, model, stage.long, tmp_path, **settings)
    closed = of_kind("close", out.events())
    assert described(closed) == described(expected)
    assert {event["description_source"] for event in closed} == {"model", "template"}
    assert sorted(e["description_score"] for e in closed) == pytest.approx(
        sorted(e["description_score"] for e in expected), abs=1e-4
    )
    assert all("description" not in line for line in of_kind("open", out.events()))


def test_live_events_equal_batch_events(stage: Stage, tmp_path: Path) -> None:
    model = stage.save(tmp_path)
    with serving(as_file(stage.long)) as url, listening() as (out, err):
        assert predict_live(model, url, stage.config(tmp_path), reconnect=SOON) == 0
    expected = in_files(stage, model, stage.long, tmp_path)
    lines = out.events()
    closed = of_kind("close", lines)
    assert len(closed) >= 3
    assert {line["label"] for line in closed} == set(LABELS)
    assert plain(closed) == plain(expected)
    assert sorted(line["start_time"] for line in closed) == sorted(event["start_time"] for event in expected)
    opened = {line["id"]: line for line in of_kind("open", lines)}
    assert list(opened) == list(range(1, len(closed) + 1))
    for number, line in enumerate(lines):
        assert line["video"] == url
        assert line["latency_s"] >= 0
        if line["kind"] == "close":
            first = opened[line["id"]]
            assert lines.index(first) < number
            assert (first["label"], first["start"]) == (line["label"], line["start"])
            assert "end" not in first
    status = err.getvalue().splitlines()
    # The receiving thread prints about the first frame while the run prints its delays: either may come first.
    opened_line, delays_line = sorted(status[1:3], key=lambda line: "final" in line)
    assert opened_line.endswith("/live is open: 160x96")
    assert "scores are final 0.60 s after their frame" in delays_line
    assert re.search(
        r": 0:00:\d\d, 60 frames, 0 dropped, decoded to scored in \d+ ms \(p50\), \d+ ms \(p99\), ", status[-1]
    )
    assert status[-1].endswith(f", {len(closed)} events")


def test_live_reconnects_and_records(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    model, stop = stage.save(tmp_path), threading.Event()
    config = stage.config(tmp_path, record=True)
    first = as_stream(
        stage.short, lambda: recorded.wait(lambda times: len(times) >= 29)
    )  # the last sample comes with the end
    second = as_stream(
        stage.short, lambda: recorded.wait(lambda times: len(times) >= 57)
    )  # the first of its frames may not be a sample
    with serving(first, second, then=stop.set) as url, listening() as (out, err):
        url = url.replace("http://", "http://user:hunter2@")
        assert predict_live(model, url, config, reconnect=SOON, stop=stop) == 0
    output = err.getvalue()
    assert output.count("was lost (") == 2
    assert output.count("is back after ") == 1
    assert "hunter2" not in output + out.getvalue()
    cache = SequenceCache(tmp_path / "features")
    (entry,) = cache.entries()
    assert f"recorded: {cache.root / entry.key}" in output
    assert entry.samples >= 57
    assert entry.damage["gaps"] == 1
    assert "hunter2" not in (cache.root / entry.key / "entry.json").read_text()
    cache.read(entry.key)  # checks that times rise
    expected = in_files(stage, model, cache.root / entry.key, tmp_path)
    assert plain(of_kind("close", out.events())) == plain(expected)
    assert expected


def test_live_closes_events_after_long_gap(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts_silence: threading.Event
) -> None:
    recorded = Recorded(monkeypatch)
    always = replace(stage.model.decode, high=(0.0, 1.0), low=(0.0, 1.0))
    model, stop = stage.save(tmp_path, decode=always), threading.Event()
    closed: list[bool] = []

    def hold() -> None:
        recorded.wait(lambda times: len(times) >= 29)  # the last sample comes with the end
        counts_silence.set()
        closed.append(out.wait('"close"'))

    config = stage.config(tmp_path, record=True)
    with listening() as (out, _), serving(as_stream(stage.short, hold), then=stop.set) as url:
        predict_live(model, url, config, reconnect=replace(SOON, max_gap_s=0.3), stop=stop)
    assert closed == [True]  # while the connection was held, and nothing came
    event = of_kind("close", out.events())[0]
    assert (event["id"], event["start"], event["end"]) == (1, 0.0, 5.8)


def test_live_filters_labels_and_sets_thresholds(stage: Stage, tmp_path: Path) -> None:
    model = stage.save(tmp_path)
    settings = {"labels": ("fall",), "threshold": {"fall": stage.model.decode.high[0] * 0.9}}
    expected = in_files(stage, model, stage.long, tmp_path, **settings)
    with serving(as_file(stage.long)) as url, listening() as (out, _):
        predict_live(model, url, stage.config(tmp_path, **settings), reconnect=SOON)
    lines = out.events()
    assert plain(of_kind("close", lines)) == plain(expected) != plain(in_files(stage, model, stage.long, tmp_path))
    assert expected
    assert {line["label"] for line in lines} == {"fall"}


@pytest.fixture(scope="module")
def describing(stage: Stage) -> EventModel:
    """A model that only writes captions, for windows of two seconds."""
    cache = SequenceCache(stage.weights.parent / "features")
    (key,) = (entry.key for entry in cache.entries())
    sequence = cache.read(key)
    bare = replace(
        stage.model,
        network=make_network(sequence, 0, hidden=16, width=16, labels=1),
        task=EventTask(labels=(DESCRIBED,)),
        decode=DecodeSettings(high=(0.5,), low=(0.5,), min_s=0.0, merge_s=0.0, exclusive=False),
        lookahead=0,
    )
    return with_captions(bare, sequence, ("A man falls.", "He walks left."))


@pytest.mark.slow
def test_live_with_caption_only_model(stage: Stage, describing: EventModel, tmp_path: Path) -> None:
    model = saved(describing, tmp_path)
    with serving(as_file(stage.long)) as url, listening() as (out, err):
        assert predict_live(model, url, stage.config(tmp_path), reconnect=SOON) == 0
    output = err.getvalue()
    assert "captions cover 2.00 s each, and are printed 1.00 s after their end" in output
    assert "scores are final" not in output
    closed = of_kind("close", out.events())
    assert [(event["start"], event["end"]) for event in closed] == [(a, a + 2) for a in range(0, 12, 2)]
    assert described(closed) == described(in_files(stage, model, stage.long, tmp_path))


def test_live_caption_windows_restart_after_gap(
    stage: Stage,
    describing: EventModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counts_silence: threading.Event,
) -> None:
    recorded = Recorded(monkeypatch)
    model, stop = saved(describing, tmp_path), threading.Event()

    def hold(samples: int, closed: int) -> None:
        """Keep the connection open and silent from so many samples until so many windows are closed."""
        recorded.wait(lambda times: len(times) >= samples)
        counts_silence.set()
        out.wait('"close"', closed)
        counts_silence.clear()

    held = [as_stream(stage.short, partial(hold, *most)) for most in ((29, 3), (57, 6))]
    config = stage.config(tmp_path, record=True)
    with listening() as (out, err), serving(*held, then=stop.set) as url:
        predict_live(model, url, config, reconnect=replace(SOON, max_gap_s=0.5), stop=stop)
    assert err.getvalue().count("is back after ") == 1
    times = [(event["start"], event["end"]) for event in of_kind("close", out.events())]
    assert times[:3] == [(0, 2), (2, 4), (4, 5.8)]
    assert len(times) >= 6
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
    # The last window before a silence lasts less than 3 s up to its last sample, and a sample lasts 0.2 s.
    assert max(end_s - start_s for start_s, end_s in times) < 3.21, times


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live_stops_cleanly_on_signal(number: signal.Signals, stage: Stage, tmp_path: Path) -> None:
    always = replace(stage.model.decode, high=(0.0, 1.0), low=(0.0, 1.0))
    model = stage.save(tmp_path, decode=always)
    before = signal.getsignal(number)

    def interrupt() -> None:
        out.wait('"open"')
        os.kill(os.getpid(), number)

    with listening() as (out, err), serving(as_stream(stage.short, interrupt)) as url:
        config = stage.config(tmp_path, record=True)
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                predict_live(model, url, config, reconnect=SOON)
        else:
            assert predict_live(model, url, config, reconnect=SOON) == 0
    assert [line["kind"] for line in out.events()] == ["open", "close"]
    assert signal.getsignal(number) == before
    (entry,) = SequenceCache(tmp_path / "features").entries()
    assert f"recorded: {tmp_path / 'features' / entry.key}" in err.getvalue()
    assert err.getvalue().splitlines()[-1].endswith(" 1 events")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru-detector")]


def test_live_without_a_frame_fails(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: object) -> None:
        raise SourceLostError("Connection refused")

    monkeypatch.setattr("vidgru.video.live_source.connect", refuse)
    config, patient = stage.config(tmp_path, for_="0.3s"), replace(SOON, max_attempts=10_000)
    with listening() as (_, err):
        assert predict_live(stage.save(tmp_path), "rtsp://camera/1", config, reconnect=patient) == 1
    assert err.getvalue().splitlines()[-1] == "rtsp://camera/1: no frame has arrived"


def test_live_ends_after_a_time(stage: Stage, tmp_path: Path) -> None:
    released = threading.Event()
    try:
        with listening() as (_, err), serving(as_stream(stage.short, released.wait)) as url:
            config = stage.config(tmp_path, for_="0.5s", once=True)
            assert predict_live(stage.save(tmp_path), url, config, reconnect=SOON) == 0
            assert err.getvalue().splitlines()[-1].endswith(" events")
            released.set()
    finally:
        released.set()


@pytest.mark.slow
def test_live_ends_when_stdout_closes(stage: Stage, tmp_path: Path) -> None:
    """As in `vidgru predict ... | head -1`."""
    model = stage.save(tmp_path)
    how = {**HOW, "weights": stage.weights}
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in how.items() if name != "report"]
    with serving(as_file(stage.long)) as url:
        command = [sys.executable, "-m", "vidgru", "predict", str(model), url, *settings]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            output = process.stderr.read()
        assert process.returncode == 0, output
    assert "BrokenPipe" not in output
    assert "Traceback" not in output
    assert output.splitlines()[-1].endswith(" events")


def test_live_source_never_opens(stage: Stage, tmp_path: Path) -> None:
    config = stage.config(tmp_path, record=True)
    with (
        listening() as (out, _),
        pytest.raises(SourceError, match=r"tcp://127\.0\.0\.1:1 cannot be opened, tried 3 times: Connection refused"),
    ):
        predict_live(stage.save(tmp_path), "tcp://me:hunter2@127.0.0.1:1", config, reconnect=SOON)
    assert out.getvalue() == ""
    assert not (tmp_path / "features").exists()


def test_live_camera_missing(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known at once, before waiting for a frame."""

    def absent(address: object) -> None:
        raise SourceLostError("there is no such camera, or it is in use", "check the camera's number", is_final=True)

    monkeypatch.setattr("vidgru.video.live_source.connect", absent)
    message = r"camera 7 cannot be opened, tried once: there is no such camera, or it is in use\n  check the camera"
    for _ in range(3):
        with listening(), pytest.raises(SourceError, match=message):
            predict_live(stage.save(tmp_path), "7", stage.config(tmp_path), reconnect=SOON)


def test_live_continues_on_full_disk(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OutputError("cannot write features: No space left on device")

    monkeypatch.setattr("vidgru.prediction.live.LiveRecorder.append", full)
    model = stage.save(tmp_path)
    with serving(as_file(stage.long)) as url, listening() as (out, err):
        assert predict_live(model, url, stage.config(tmp_path, record=True), reconnect=SOON) == 1
    assert err.getvalue().count("No space left on device; recording has stopped") == 1
    assert of_kind("close", out.events())


# --- rejected settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"since": "2024-05-01T12:00:00"}, "since is '2024-05-01T12:00:00', which is for recordings"),
        ({"until": "2024-05-01T12:00:00"}, "until is '2024-05-01T12:00:00', which is for recordings"),
        ({"clips": True}, "clips is True, which is for recordings"),
        ({"save_video": True}, "save_video is True, which is for recordings"),
        ({"start_time": "%Y"}, "start_time is '%Y', which is for recordings"),
        ({"out": "yard"}, "out is 'yard', which is for recordings: the events of a live source are printed"),
        ({"labels": ("jump",)}, "labels holds 'jump', which the model does not have"),
    ],
)
def test_live_rejects_settings_for_recordings(
    settings: dict[str, Any], message: str, stage: Stage, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        predict_live(stage.save(tmp_path), "tcp://127.0.0.1:1", stage.config(tmp_path, **settings), reconnect=SOON)


def test_live_rejects_bidirectional_model(stage: Stage, tmp_path: Path) -> None:
    with serving(as_file(stage.long)) as url:
        cache = SequenceCache(tmp_path / "features")
        detect = DetectorSettings(weights=str(stage.weights), imgsz=64, fps=5)
        (outcome,) = extract_recordings(
            [Recording(path=stage.long, name="a")],
            cache,
            detect,
            from_settings(PredictConfig, **HOW).runtime,
            progress=False,
            limit=5,
        )
        assert outcome.key is not None
        network = make_network(cache.read(outcome.key), 0, frame_outputs=2, bidirectional=True)
        model = stage.save(tmp_path, network=network, lookahead=0)
        with pytest.raises(SettingsError, match=r"the model is bidirectional: .* cannot run live"):
            predict_live(model, url, stage.config(tmp_path), reconnect=SOON)


def test_live_rejects_wrong_detector(stage: Stage, tmp_path: Path) -> None:
    other = make_weights(tmp_path / "other.pt", seed=1)
    with pytest.raises(SettingsMismatchError, match=r"other\.pt is not the detector that the model was trained on"):
        predict_live(stage.save(tmp_path), "tcp://127.0.0.1:1", stage.config(tmp_path, weights=str(other)))


def test_live_command_line(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(stage.save(tmp_path))
    how = {**HOW, "weights": stage.weights}
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in how.items() if name != "report"]
    with serving(as_file(stage.long)) as url:
        assert cli.run(["predict", model, url, *settings]) == 0
    assert [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()].count("close") >= 3
    assert cli.run(["predict", model, "rtsp://me:hunter2@cam", str(stage.long)]) == 2
    output = capsys.readouterr().err
    assert "a live source must be the only source" in output
    assert "hunter2" not in output


# --- a real server --------------------------------------------------------------------------------------------------


@contextmanager
def ffmpeg(video: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a video in real time to the first client."""
    command = ["ffmpeg", "-v", "error", "-re", "-i", str(video), "-c", "copy", "-f", "mpegts"]
    process = subprocess.Popen([*command, f"tcp://127.0.0.1:{port}?listen=1"], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_live_survives_server_restart(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop, done = threading.Event(), []

    def handle_server() -> None:
        try:
            with ffmpeg(stage.long, port) as server:
                done.append(out.wait('"close"'))
                server.send_signal(signal.SIGKILL)
                done.append(err.wait("was lost"))
                done.append(err.wait("cannot be opened", 2))
            last = recorded.times[-1]
            before = len(of_kind("close", out.events()))
            with ffmpeg(stage.long, port):
                done.append(err.wait("is back after"))
                done.append(recorded.wait(lambda times: times[-1] > last + 8))
                done.append(out.wait('"close"', before + 2))
        finally:
            stop.set()

    patience = ReconnectPolicy(initial_delay_s=0.2, max_delay_s=0.5, max_attempts=100)
    model, config = stage.save(tmp_path), stage.config(tmp_path, record=True)
    thread = threading.Thread(target=handle_server)
    with listening() as (out, err):
        thread.start()
        assert predict_live(model, f"tcp://127.0.0.1:{port}", config, reconnect=patience, stop=stop) == 0
        thread.join()
    assert done == [True] * 6
    cache = SequenceCache(tmp_path / "features")
    (entry,) = cache.entries()
    sequence = cache.read(entry.key)  # checks that times rise
    assert entry.damage["gaps"] == 1
    gap = int(np.argmax(np.diff(sequence.time_s)))
    assert np.diff(sequence.time_s)[gap] == pytest.approx(entry.damage["gap_s"], abs=1)
    closed = of_kind("close", out.events())
    back_s = sequence.time_s[gap + 1]
    assert min(line["end"] for line in closed) <= sequence.time_s[gap] + 0.2
    assert max(line["start"] for line in closed) > back_s - 0.001  # they are captioning in whole milliseconds
    assert plain(closed) == plain(in_files(stage, model, cache.root / entry.key, tmp_path))
    start_times = [line["start_time"] for line in sorted(closed, key=lambda line: line["start"])]
    assert start_times == sorted(start_times)
