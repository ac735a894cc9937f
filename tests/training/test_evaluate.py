import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.model.networks import make_model
from tests.training.synthetic import MadeData, order_data
from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig
from vidgru.errors import AnnotationError, ModelError
from vidgru.flags import from_flags
from vidgru.model.checkpoint import EventModel, entry_digest, load_model
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.features import compute_features
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.model.stream import score_recording
from vidgru.training.data import LabelledClip, TimedRecording, load_features
from vidgru.training.evaluate import evaluate, table
from vidgru.training.validation import Validation

LABELS = ("car_then_person", "person_then_car")


def made_model(data: MadeData, *, background: bool = False, multi_label: bool = False) -> EventModel:
    """A model nobody trained, for these features."""
    cache = SequenceCache(data.features)
    sequence = cache.read(next(cache.entries()).key)
    model = make_model(sequence, background=background, multi_label=multi_label)
    decode = DecodeSettings(high=(0.5, 0.5), low=(0.3, 0.3), min_s=0.5, merge_s=0.5, exclusive=not multi_label)
    task = replace(model.task, labels=LABELS)
    return replace(
        model,
        task=task,
        feature_settings=data.feature_settings(),
        weights=str(data.weights),
        names=sequence.names,
        decode=decode,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeData:
    data = order_data(tmp_path_factory.mktemp("orders"), train=3, held=5)
    made_model(data).save(data.root / "model.safetensors")
    return data


def config(data: MadeData, out: Path, **changes: object) -> EvalConfig:
    return from_flags(EvalConfig, **data.settings(out=str(out), **changes))


def annotated(data: MadeData, name: str, *rows: str) -> Path:
    (data.root / f"{name}.csv").write_text("\n".join(["video,start,end,label,split", *rows]) + "\n")
    (data.root / f"{name}.yaml").write_text(f"annotations: {name}.csv\nvideos: videos\n")
    return data.root / f"{name}.yaml"


def test_metrics_are_written_printed_and_returned(
    data: MadeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path / "eval"))
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text()) == metrics
    assert (tmp_path / "eval" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert metrics["clips"] == 10
    assert metrics["split"] == "test"
    assert np.sum(metrics["confusion"]) == 10
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
    shown = capsys.readouterr().out
    assert f"accuracy {metrics['accuracy']:.3f}  (95 %: {low:.3f} to {high:.3f})" in shown
    assert all(label in shown for label in LABELS)


def test_another_split(data: MadeData, tmp_path: Path) -> None:
    metrics = evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path, split="train"))
    assert metrics["clips"] == 6


def test_clips_the_model_was_trained_on_are_counted(
    data: MadeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path))
    assert fresh["seen_in_training"] == 0
    assert "flatter" not in capsys.readouterr().err
    seen = tuple(entry_digest(entry.key) for entry in SequenceCache(data.features).entries())
    replace(made_model(data), trained_on=seen).save(tmp_path / "knows.safetensors")
    metrics = evaluate(tmp_path / "knows.safetensors", data.root, config(data, tmp_path))
    assert metrics["seen_in_training"] == metrics["clips"] == 10
    assert "warning: the model was trained on 10 of these 10 recordings; figures flatter it" in capsys.readouterr().err


def test_what_is_evaluated_is_what_runs(data: MadeData, tmp_path: Path) -> None:
    model = load_model(data.root / "model.safetensors")
    cache = SequenceCache(data.features)
    right = 0
    for row in data.rows:
        name, _, _, label, _, split = row.split(",")
        if split == "test":
            entry = cache.lookup(data.root / "videos" / name, data.feature_settings())
            assert entry is not None
            timeline = score_recording(model, cache.parts(entry.key), video=name, duration_s=2.0)
            right += LABELS[int(timeline.scores[0].argmax())] == label
    assert evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path))["accuracy"] == right / 10


def test_the_order_of_videos_does_not_matter(data: MadeData, tmp_path: Path) -> None:
    rows = [",".join((name, start, end, label, split)) for name, start, end, label, _, split in map(_cells, data.rows)]
    one, two = annotated(data, "one", *rows), annotated(data, "two", *reversed(rows))
    results = [evaluate(data.root / "model.safetensors", path, config(data, tmp_path)) for path in (one, two)]
    for metrics in results:
        del metrics["dataset"], metrics["intervals"]  # the bootstrap draws by position
    assert results[0] == results[1]


def _cells(row: str) -> list[str]:
    return row.split(",")


def test_several_labels(data: MadeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_model(data, multi_label=True).save(tmp_path / "multi.safetensors")
    metrics = evaluate(tmp_path / "multi.safetensors", data.root, config(data, tmp_path / "eval"))
    assert 0 <= metrics["map"] <= 1
    assert not (tmp_path / "eval" / "confusion.png").exists()
    assert f"map {metrics['map']:.3f}" in capsys.readouterr().out


def test_no_clips_in_the_split(data: MadeData, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no clips in split 'holdout'\n  it has train, val, test; choose one"):
        evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path, split="holdout"))


@pytest.mark.parametrize(("rows", "message"), [
    (["001.mp4,,,fall,test"], r"does not know the label 'fall' of 001\.mp4; it knows car_then_person, pers"),
    (["001.mp4,,,,test"], r"nothing happens in 001\.mp4; the model never saw a clip without an event"),
    ([f"001.mp4,,,{label},test" for label in LABELS], r"001\.mp4 has the labels .* at once, the model tells one"),
])  # fmt: skip
def test_annotations_of_another_task(data: MadeData, tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        evaluate(data.root / "model.safetensors", annotated(data, "other", *rows), config(data, tmp_path))


def test_no_model(data: MadeData, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        evaluate(tmp_path / "no.safetensors", data.root, config(data, tmp_path))


def test_clips_behind_one_another_score_as_each_alone(data: MadeData) -> None:
    cache = SequenceCache(data.features)
    loaded = load_features(cache, {f"{n}.mp4": entry.key for n, entry in enumerate(cache.entries())})
    labels = np.eye(2, dtype=np.float32)
    clips = [LabelledClip(video=f"{n}.mp4", frames=16, labels=labels[n % 2]) for n in range(8)]
    recordings = [
        TimedRecording(
            video=f"{n}.mp4",
            targets=labels[np.arange(16) % 2],
            weights=np.ones(16, np.float32),
            events=np.zeros((0, 3)),
        )
        for n in (3, 9, 5)
    ]
    plain = made_model(data)
    both = make_model(cache.read(loaded.keys["0.mp4"]), timed=True, lookahead=3)
    model = replace(plain, network=both.network, task=both.task, lookahead=3)
    look = Validation(loaded, clips, recordings).look(model)
    assert look.clips is not None
    for row, clip in enumerate(clips):
        vectors = encode_features(model, [loaded.features[clip.video]]).vectors
        np.testing.assert_allclose(score_clips(model, [vectors])[0], look.clips[row], atol=1e-6)
    for recording, scores in zip(recordings, look.frames, strict=True):
        vectors = encode_features(model, [loaded.features[recording.video]]).vectors
        np.testing.assert_allclose(score_frames(model, [vectors])[0], scores, atol=1e-6)
    assert compute_features(cache.read(next(cache.entries()).key)).objects.shape[1] == loaded.feature_spec.object_width


def test_a_class_without_clips_has_no_recall_in_the_table() -> None:
    values = {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    text = table({"per_class": {"a": values}, "clips": 0, "accuracy": None, "failed": {"x.mp4": "damaged"}})
    assert "-" in text.splitlines()[1]
    assert text.splitlines()[-1] == "left out, cannot be read: x.mp4"
