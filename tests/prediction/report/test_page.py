"""Data of the report: self-contained, escaped, thinned, and under 20 MB; and its still pictures."""

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import numpy as np
import pytest

from tests.prediction.fake_project import make_model
from tests.prediction.report.pages import FPS, NASTY, data_of, entry, event, make_page, scored, sequence, unpacked
from tests.sequences import make_sequence, with_still_frames
from tests.videos import read_counter, write_video
from vidgru.errors import OutputError
from vidgru.model.attribution import AttendedObject, Explanation, GatePeak, MomentScores
from vidgru.model.gru_gates import GRUGates
from vidgru.prediction.report.page import EVENLY_SPACED, MAX_PICTURES, make_pictures, write_page
from vidgru.types import Event, FrameSequence, Recording

LIMIT = 20_000_000


def why(of: Event) -> Explanation:
    return Explanation(
        event=of,
        score=0.8,
        baseline=0.75,
        score_without={"motion": 0.3, "scene": 0.76},
        objects=(AttendedObject(track=7, label=NASTY, share=0.6), AttendedObject(track=-1, label="cloud", share=0.4)),
        keep_peaks=(GatePeak(time_s=5.1, update=0.9, reset=0.5),),
        forget_peaks=(GatePeak(time_s=5.2, update=0.2, reset=0.1),),
    )


def test_page_marks_still_stretches(tmp_path: Path) -> None:
    whole = with_still_frames(sequence(40), [*range(5, 20), *range(21, 40)])
    parts = [whole.frames(0, 12), whole.frames(12, 40)]
    data = data_of(make_page(tmp_path, [event(0.0, 1.0)], frames=40, parts=parts, video=False))
    assert data["still"] == [[500, 2000], [2100, 4000]]
    (note,) = data["notes"]
    assert note.startswith("85.00% of the frames are still (marked on the time axis): adaptive extraction")


def test_page_data(tmp_path: Path) -> None:
    caption = {"description_score": 0.123456, "description_source": "template"}
    events = [event(5.0, 7.5), event(12.0, 13.0, "walk", 0.123456, description="Two people\nwalk", **caption)]
    page = make_page(
        tmp_path,
        events,
        recorded_at="2024-05-06T07:08:09+02:00",
        damage="3 corrupt frames",
        explanations={events[0]: why(events[0])},
    )
    data = data_of(page)
    assert data["events"] == [[5000, 7500, 0, 0.8], [12000, 13000, 1, 0.1235, "Two people\nwalk", 0.1235, True]]
    assert (data["name"], data["duration"], data["fps"], data["size"]) == ("a.mp4", 20.0, 10.0, [320, 192])
    assert (data["labels"], data["high"], data["low"]) == (["fall", "walk"], [0.5, 0.5], [0.5, 0.5])
    assert (data["video"], data["index"], data["root"]) == (
        "../../videos/a.mp4",
        "../index.html",
        str(tmp_path / "videos"),
    )
    assert data["damage"] == "3 corrupt frames"
    assert data["recorded"] == {"ms": 1714979289000, "zone": "+0200"}
    assert data["explanations"] == {
        "0": {
            "baseline": 0.75,
            "objects": [[7, NASTY, 0.6], [-1, "cloud", 0.4]],
            "without": {"motion": 0.3, "scene": 0.76},
            "kept": [5.1],
            "forgot": [5.2],
        }
    }
    assert len(data["pictures"]) == 25  # the middle of the first event is one of those over the recording
    high = unpacked(data["scores"]["high"], "u1").reshape(2, 200)
    assert high[0, [0, 60]].tolist() == [26, 204]
    assert data["scores"]["low"] is None
    assert unpacked(data["scores"]["time"], "<u4")[:3].tolist() == [0, 100, 200]
    assert unpacked(data["gates"]["high"], "u1").reshape(2, 200)[:, 0].tolist() == [128, 128]
    assert unpacked(data["objects"]["time_ms"], "<u4").tolist() == [100 * frame for frame in range(200)]
    assert (data["notes"], data["missing"]) == ([], [])
    assert data["numbers"] is None
    decode = data["decode"]
    times, scores = unpacked(decode["time"], "<u4") / 1e4, unpacked(decode["scores"], "<u2").reshape(2, 200) / 65535
    assert (times[1], decode["rule"]["end"], decode["rule"]["minimum"]) == (0.1, 20.0, 0.5)
    assert scores[0, [0, 60]] == pytest.approx([0.1, 0.8], abs=1e-5)


def test_page_encodes_moments(tmp_path: Path) -> None:
    scores = np.linspace(0, 1, 12).reshape(2, 3, 2)
    moments = MomentScores(time_s=np.array([1.5, 9.3]), scores=scores, groups=("motion", "scene"))
    data = data_of(make_page(tmp_path, [], moments=moments, video=False))["moments"]
    assert (data["time"], data["groups"], data["labels"]) == ([1.5, 9.3], ["motion", "scene"], [0, 1])
    assert unpacked(data["scores"], "<u2") / 65535 == pytest.approx(scores.ravel(), abs=1e-5)
    assert data_of(make_page(tmp_path, [], video=False))["moments"] is None


def test_page_is_self_contained(tmp_path: Path) -> None:
    text = make_page(tmp_path, [event(5.0, 7.5)]).read_text()
    assert not re.search(r"<(?:link|iframe)|\bsrc=|@import|url\(|https?://", text.replace("file: http: https:", ""))
    assert "default-src 'none'" in text
    assert len(re.findall("</script>", text)) == 2


def test_page_scores_are_smoothed(tmp_path: Path) -> None:
    """Smoothed as in decoding: half of the score at an edge."""
    whole = make_sequence(80, 1, fps=8.0)
    model = make_model(tmp_path / "m", {"fps": 8}, sequence=whole, timed=True, fall=0.5)
    model = replace(model, decode=replace(model.decode, smooth_s=1.0))
    facts = scored(whole.time_s, 80, 1, [event(5.0, 10.0)], gates=False)
    given = {"parts": [whole], "scored": facts, "events": [], "recorded_at": None, "damage": ""}
    recording = Recording(path=tmp_path / "gone.mp4", name="gone.mp4")
    write_page(tmp_path / "p.html", model=model, recording=recording, entry=entry(10.0, fps=8.0), **given)
    data = data_of(tmp_path / "p.html")
    high = unpacked(data["scores"]["high"], "u1") / 255
    assert high[[36, 40, 44]] == pytest.approx([0.178, 0.489, 0.8], abs=0.05)
    assert (data["smooth"], data["video"], data["gates"], data["pictures"]) == (1.0, None, None, [])


def test_page_notes_events_not_requested(tmp_path: Path) -> None:
    events = [event(1.0, 2.0), event(5.0, 6.0), event(8.0, 9.0, score=0.3)]
    whole = scored(np.arange(200) / FPS, 400, 2, events)
    data = data_of(make_page(tmp_path, events[:2], scored=whole, video=False))
    assert data["notes"] == ["The options of this run selected 2 of 3 events."]
    (lacks,) = data["missing"]
    assert lacks.startswith("1 event was left out of this page by --labels or --since; the saved")
    lacks = data_of(make_page(tmp_path, [], scored=whole, video=False))["missing"]
    assert lacks[0].startswith("3 events were left out of this page")


def test_page_notes_events_without_detections(tmp_path: Path) -> None:
    whole = make_sequence(200, 2, fps=FPS)
    empty = make_sequence(200, 0, fps=FPS)
    parts = [whole.frames(0, 60), replace(empty.frames(60, 200), time_s=whole.time_s[60:])]
    facts = {"parts": parts, "scored": scored(whole.time_s, 120, 2, [event(5.0, 7.5)])}
    data = data_of(make_page(tmp_path, [event(5.0, 7.5)], video=False, **facts))
    remedy = "larger weights or a larger --imgsz may detect more"
    assert data["notes"] == [f"Nothing was detected in 60% of the frames of these events: {remedy}."]
    data = data_of(make_page(tmp_path, [event(5.0, 6.1)], video=False, **facts))
    assert data["notes"] == []


@pytest.mark.parametrize("events", [[], [event(5.0, 7.5)]])
def test_page_notes_boxes_left_out(tmp_path: Path, events: list[Event]) -> None:
    crowd, frames = make_sequence(400, 1500, fps=8.0, optional=False), 400
    facts = {"parts": [crowd], "scored": scored(crowd.time_s, frames * 1500, 2, events), "entry": entry(50.0, fps=8.0)}
    data = data_of(make_page(tmp_path, events, frames=30, video=False, **facts))
    kept = unpacked(data["objects"]["time_ms"], "<u4") / 1000
    assert 200 < len(kept) < frames
    assert data["notes"] == [
        f"Boxes are included for {len(kept)} of 400 frames: as many as fit, starting around the best scored events."
    ]
    long = data_of(make_page(tmp_path, events, frames=4001, video=False))
    assert "Boxes are included from 1 s before to 1 s after each event." in long["notes"]


@pytest.mark.parametrize(
    "name",
    ["a b.mp4", 'it\'s #1 100% "c".mp4', "Überwachung/カメラ?.mp4", f"x{NASTY.replace('/', '')}.mp4", "a:b&c;=+.mp4"],
)
def test_page_escapes_names_and_labels(tmp_path: Path, name: str) -> None:
    events = [event(5.0, 7.5, NASTY, description=NASTY)]
    page = make_page(
        tmp_path,
        events,
        name=name,
        labels=[NASTY, "walk"],
        damage=NASTY,
        video=b"x",
        explanations={events[0]: why(events[0])},
    )
    text, data = page.read_text(), data_of(page)
    assert "<b onclick" not in text
    assert len(re.findall("</script>", text)) == 2
    assert (data["name"], data["labels"][0], data["events"][0][4]) == (name, NASTY, NASTY)
    target = os.path.normpath(os.path.join(os.fsencode(page.parent), unquote_to_bytes(data["video"])))
    assert target == os.fsencode(tmp_path / "videos" / name)
    assert re.fullmatch(r"[\w./~%-]+", data["video"], re.ASCII)
    assert data["index"] == "../" * (1 + name.count("/")) + "index.html"


def test_page_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    page = make_page(tmp_path, [event(5.0, 7.5)], name=name, video=b"x")
    data = data_of(page)
    assert data["video"] == "../../videos/caf%E9.mp4"
    assert data["name"] == name


def test_page_is_deterministic(tmp_path: Path) -> None:
    path = make_page(tmp_path, [event(5.0, 7.5)])
    first = path.read_bytes()
    # The same video: libx264 does not encode one twice to the same bytes.
    assert make_page(tmp_path, [event(5.0, 7.5)], video=(tmp_path / "videos/a.mp4").read_bytes()) == path
    assert path.read_bytes() == first


def test_page_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*report\.html"):
        make_page(tmp_path, [], video=False)


# --- eight hours ----------------------------------------------------------------------------------------------------

PART = 4608
PARTS = 50  # 230,400 frames are eight hours at eight a second


def long_parts(objects: int) -> Iterator[FrameSequence]:
    part = make_sequence(PART, objects, optional=False)
    for number in range(PARTS):
        yield replace(part, time_s=part.time_s + number * PART / 8, frame_index=part.frame_index + number * PART)


@pytest.mark.parametrize(
    ("events", "length_s", "letter"),
    [(1, 28_799.0, "é"), (2000, 9.0, "é"), pytest.param(60_000, 0.4, "🚚", marks=pytest.mark.slow)],
)
def test_page_of_eight_hours_is_under_20_mb(tmp_path: Path, events: int, length_s: float, letter: str) -> None:
    frames, objects = PART * PARTS, 20
    labels = [f"label {number}" for number in range(12)]
    rng = np.random.default_rng(0)
    starts = np.linspace(0, 28_800 - length_s, events)
    events = [
        event(float(start), float(start) + length_s, labels[n % 12], float(score), description=letter * 40)
        for n, (start, score) in enumerate(zip(starts, rng.random(events), strict=True))
    ]
    facts = scored(np.arange(frames) / 8, frames * objects, 12, [])
    peak = rng.integers(frames)
    facts.scores[peak, 5] = 1.0
    model = make_model(
        tmp_path / "m", {"fps": 8}, sequence=make_sequence(1, optional=False), timed=True, **dict.fromkeys(labels, 0.5)
    )
    write_page(
        tmp_path / "p.html",
        model=model,
        recording=Recording(path=tmp_path / "gone.mp4", name="gone.mp4"),
        entry=entry(28_800.0, fps=8.0),
        parts=long_parts(objects),
        scored=facts,
        events=events,
        recorded_at=None,
        damage="",
        explanations={event: why(event) for event in events[::50]},
    )
    size = (tmp_path / "p.html").stat().st_size
    assert size < LIMIT
    data = data_of(tmp_path / "p.html")
    high = unpacked(data["scores"]["high"], "u1").reshape(12, -1)
    assert 2 * high.shape[1] <= 4000
    assert high[5].max() == 255
    assert abs(unpacked(data["scores"]["time"], "<u4")[high[5].argmax()] / 1000 - peak / 8) < 60
    assert size > LIMIT * 0.3, "the budget is there to be used"
    notes = " ".join(data["notes"])
    assert "are thinned to 4,000 points per curve" in notes
    assert "too many, to try other thresholds in this page" in notes
    assert data["decode"] is None
    assert "They did not all fit" in notes
    kept = unpacked(data["objects"]["time_ms"], "<u4") / 1000
    if events == 1:
        assert kept[0] == 0
        assert kept[-1] < 28_000
    if events == 60_000:
        assert "This page shows the" in notes
        assert "did not fit into this page; the saved file will say that nothing happens there" in " ".join(
            data["missing"]
        )
        numbers = data["numbers"]
        assert len(numbers) == len(data["events"]) < events
        omitted = set(range(events)) - set(numbers)
        assert max(events[n].score for n in omitted) <= min(events[n].score for n in numbers)


def test_page_limits_curves_of_many_labels(tmp_path: Path) -> None:
    labels = [f"label {number}" for number in range(900)]
    facts = scored(np.arange(5000) / 8, 0, 900, [])
    facts.scores[7, 850] = 0.9
    moments = MomentScores(
        time_s=np.arange(40.0), scores=np.random.default_rng(0).random((40, 12, 900)), groups=tuple("abcdefghijk")
    )
    whole = make_sequence(5000, 0, optional=False)
    model = make_model(tmp_path / "m", {"fps": 8}, sequence=whole, timed=True, **dict.fromkeys(labels, 0.5))
    given = {"parts": [whole], "scored": facts, "events": [], "recorded_at": None, "damage": "", "moments": moments}
    recording = Recording(path=tmp_path / "gone.mp4", name="gone.mp4")
    write_page(tmp_path / "p.html", model=model, recording=recording, entry=entry(625.0, fps=8.0), **given)
    data = data_of(tmp_path / "p.html")
    shown = data["moments"]["labels"]
    assert 850 in shown
    assert 200 < len(shown) < 900
    assert len(data["moments"]["scores"]) <= 300_000
    values = unpacked(data["moments"]["scores"], "<u2").reshape(40, 12, -1) / 65535
    assert values == pytest.approx(moments.scores[:, :, shown], abs=1e-5)
    assert 850 in data["scores"]["labels"]
    assert len(data["scores"]["labels"]) < 900
    assert f"Scores are drawn for {len(data['scores']['labels'])} of 900 labels" in data["notes"][-1]


def test_page_of_empty_recording(tmp_path: Path) -> None:
    empty = GRUGates(update=np.zeros(0, np.float32), reset=np.zeros(0, np.float32))
    facts = replace(scored(np.zeros(0), 0, 2, []), gates=empty)
    data = data_of(make_page(tmp_path, [], scored=facts, parts=[], video=False))
    assert data["events"] == []
    assert unpacked(data["scores"]["time"], "<u4").tolist() == []


# --- still pictures for browsers that cannot play a recording -------------------------------------------------------


def image_of(uri: str) -> np.ndarray:
    head, _, text = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), 1), cv2.COLOR_BGR2RGB)


def test_pictures_are_spread_and_of_events(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 480)
    pictures = make_pictures(path, 48.0, [event(10.0, 10.6)], 10**7)
    evenly = [1000 + 2000 * number for number in range(EVENLY_SPACED)]
    assert [time for time, _ in pictures] == sorted([*evenly, 10_300])
    assert [read_counter(image_of(uri)) for _, uri in pictures] == [time // 100 for time, _ in pictures]


def test_pictures_fit_the_budget(tmp_path: Path) -> None:
    def noise(number: int, width: int, height: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 255, (height, width, 3)).astype(np.uint8)

    path = write_video(tmp_path / "a.mp4", 100, size_px=(240, 136), options={"preset": "ultrafast"}, draw=noise)
    events = [event(i / 20, i / 20 + 0.02, score=i / 200) for i in range(190)]
    many = make_pictures(path, 10.0, events, 10**8)
    assert EVENLY_SPACED < len(many) <= MAX_PICTURES
    for budget in (1_000_000, 200_000):
        pictures = make_pictures(path, 10.0, events, budget)
        assert sum(len(uri) for _, uri in pictures) <= budget
    assert make_pictures(path, 10.0, events, 0) == []


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_pictures_of_unreadable_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert make_pictures(tmp_path / "a.mp4", 10.0, [], 10**6) == []
