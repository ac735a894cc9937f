"""From video files to events, through the detector that the demo uses."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.prediction.fake_project import make_model
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, PredictConfig, RuntimeSettings
from vidgru.extraction.pipeline import extract_recordings, feature_settings_for
from vidgru.model.checkpoint import load_model
from vidgru.prediction.batch import predict
from vidgru.storage import bundled_file
from vidgru.types import Recording


def write_video(path: Path, seconds: float) -> Path:
    """A grey square that moves over a dark frame, 10 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.metadata["creation_time"] = "2024-05-01T12:00:00Z"
        for number in range(round(seconds * 10)):
            image = np.full((64, 96, 3), 30, np.uint8)
            image[20:40, 2 * number % 70 :][:, :20] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_predict_from_videos_to_events(tmp_path: Path) -> None:
    detector = bundled_file("demo.pt")
    assert detector is not None
    detect = DetectorSettings(weights=str(detector), imgsz=64, fps=5)
    feature_settings = feature_settings_for(detect)
    videos = tmp_path / "videos"
    first = write_video(videos / "a.mp4", 3)
    cache = SequenceCache(tmp_path / "features")
    (outcome,) = extract_recordings(
        [Recording(path=first, name="a.mp4")], cache, detect, RuntimeSettings(), progress=False
    )
    assert outcome.key is not None
    make_model(
        tmp_path / "model.safetensors",
        feature_settings,
        weights=str(detector),
        sequence=cache.read(outcome.key),
        fall=0.9,
    )

    write_video(videos / "cam/b.mp4", 0.1)
    (videos / "c.mp4").write_bytes(first.read_bytes()[:400])
    config = PredictConfig(out=str(tmp_path / "events"), features=str(cache.root))
    results = predict(tmp_path / "model.safetensors", [videos], config)
    assert [(p.recording.name, p.status) for p in results] == [
        ("a.mp4", "done"),
        ("c.mp4", "failed"),
        ("cam/b.mp4", "done"),
    ]
    a, c, b = results
    assert [(e.start_s, e.end_s, e.label, e.start_time) for e in a.events] == [
        (0.0, 3.0, "fall", "2024-05-01T12:00:00.000+00:00")
    ]
    assert [(e.start_s, e.end_s) for e in b.events] == [(0.0, pytest.approx(0.1))]
    assert c.reason
    assert load_model(tmp_path / "model.safetensors").feature_settings == feature_settings
    again = predict(tmp_path / "model.safetensors", [videos], config)
    assert [p.status for p in again] == ["reused", "failed", "reused"]

    later = predict(tmp_path / "model.safetensors", [videos], replace(config, since="2024-05-01T12:00:02+00:00"))
    assert [(p.recording.name, p.status, len(p.events)) for p in later] == [
        ("a.mp4", "done", 1),
        ("c.mp4", "failed", 0),
    ]
    assert "c.mp4" in (tmp_path / "events/summary.jsonl").read_text()


def test_predict_writes_report_clips_and_video(tmp_path: Path) -> None:
    detector = bundled_file("demo.pt")
    assert detector is not None
    detect = DetectorSettings(weights=str(detector), imgsz=64, fps=5)
    write_video(tmp_path / "videos/a.mp4", 3)
    cache = SequenceCache(tmp_path / "features")
    recording = Recording(path=tmp_path / "videos/a.mp4", name="a.mp4")
    (outcome,) = extract_recordings([recording], cache, detect, RuntimeSettings(), progress=False)
    sequence = cache.read(outcome.key)
    make_model(
        tmp_path / "m.safetensors", feature_settings_for(detect), weights=str(detector), sequence=sequence, fall=0.9
    )
    config = PredictConfig(
        out=str(tmp_path / "events"), features=str(cache.root), clips=True, context=0.5, save_video=True
    )
    (result,) = predict(tmp_path / "m.safetensors", [tmp_path / "videos"], config)
    assert (result.status, result.reason, len(result.events)) == ("done", "", 1)
    folder = tmp_path / "events/a.mp4"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()) == [
        "annotated.mp4", "clips/001_fall_0.00s.mp4", "events.jsonl", "events.srt", "events.vtt", "fingerprint.json",
        "report.html",
    ]  # fmt: skip
    for video in (folder / "annotated.mp4", folder / "clips/001_fall_0.00s.mp4"):
        with av.open(str(video)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert abs(container.duration / av.time_base - 3) < 0.2
    (again,) = predict(tmp_path / "m.safetensors", [tmp_path / "videos"], config)
    assert again.status == "reused"
    (longer,) = predict(tmp_path / "m.safetensors", [tmp_path / "videos"], replace(config, context=2.0))
    assert longer.status == "done"
