"""The demo: what a trained model finds in a new recording, then training one; or the whole pipeline from nothing.

It calls the functions behind the commands, and needs nothing but the installed package.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgru.cache import SequenceCache
from vidgru.config import DemoConfig, DetectorSettings, EvalConfig, PredictConfig, RuntimeSettings, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import described_segments
from vidgru.demo.dataset import write_dataset, write_recordings
from vidgru.demo.renderer import SIZE_PX
from vidgru.demo.scenes import FPS
from vidgru.demo.sentences import CAPTION_ATTRIBUTES, ENGLISH, SceneDescription, attribute_accuracy, check_caption
from vidgru.errors import ModelError, OutputError, WeightsError
from vidgru.extraction.pipeline import extract_recordings
from vidgru.model.captioner import caption_events, caption_intervals
from vidgru.model.checkpoint import load_model
from vidgru.model.stream import score_recording
from vidgru.prediction.batch import predict
from vidgru.prediction.event_files import read_jsonl
from vidgru.prediction.outputs import INDEX
from vidgru.storage import bundled_file, user_path
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train
from vidgru.types import Annotation, Event

DETECTOR, MODEL = "demo.pt", "demo.safetensors"  # bundled files
LOOKAHEAD_S = 2.0  # what a person with a bag, or before a car, is about to do becomes visible late
# Every second frame of the scenes, which are small and slow; the detector is so small that Python's share of a batch
# of 4 frames would be a third.
SAMPLING_FPS = FPS / 2
RUNTIME = RuntimeSettings(detector_batch=16)

_CORRECT = "correct"  # verdict on a caption

EventPair = tuple[Annotation | None, Event | None]


@dataclass(frozen=True, kw_only=True)
class TrainingSize:
    """How much the demo renders and trains.

    Attributes:
        clips_per_kind, eventless_clips, recordings: As for `write_dataset`.
        epochs: Passes over the training data.
        captions: Whether sentences are learnt, which takes hundreds of examples.
    """

    clips_per_kind: int
    eventless_clips: int
    recordings: int
    epochs: int
    captions: bool


SMALL = TrainingSize(clips_per_kind=10, eventless_clips=6, recordings=8, epochs=30, captions=False)
FULL = TrainingSize(clips_per_kind=32, eventless_clips=16, recordings=32, epochs=30, captions=True)


def run(config: DemoConfig) -> None:
    """Run the demo into `config.out` and print what it shows. Extracted features are reused.

    In two acts, a bundled model predicts the events of a new recording, and a model is trained and evaluated on a small
    dataset. With `config.full`, a model is trained on a large dataset, evaluated, and predicts the new recording.

    Raises:
        WeightsError, ModelError: The package lacks the demo's detector or model.
        OutputError: `config.out` cannot be written.
    """
    weights, bundled_model = bundled_file(DETECTOR), bundled_file(MODEL)
    if weights is None:
        raise WeightsError(f"{DETECTOR}, the demo's detector, is missing from this installation", "reinstall vidgru")
    if bundled_model is None and not config.full:
        raise ModelError(
            f"{MODEL}, the demo's model, is missing from this installation",
            "reinstall vidgru, or train a model with vidgru demo --full",
        )
    began, out = time.perf_counter(), user_path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}", "choose another folder with --out") from None
    if config.full:
        metrics = train_and_evaluate(out, str(weights), FULL, config.seed)
        model = str(out / "model")
        captions = _evaluate_captions(model, str(out / "dataset"), str(out / "features"))
        pairs = predict_recording(out, model, str(weights), config.seed)
        lines = [*metric_lines(metrics), *captions, "", *label_table(metrics), "", *match_table(pairs)]
        print("\n".join([*lines, _report_line(out), f"Took {time.perf_counter() - began:.0f} s."]))
        return

    print("Act one: a model that comes with vidgru, and a recording that it has never seen", flush=True)
    pairs = predict_recording(out, str(bundled_model), str(weights), config.seed)
    print("\n".join([*match_table(pairs), _report_line(out)]))
    print(f"Took {time.perf_counter() - began:.0f} s.\n", flush=True)

    began = time.perf_counter()
    print("Act two: a model of your own, from a few examples", flush=True)
    metrics = train_and_evaluate(out, str(weights), SMALL, config.seed)
    print("\n".join([*label_table(metrics), *metric_lines(metrics)]))
    print(f"Took {time.perf_counter() - began:.0f} s. The model is in {out / 'model'}, its plots in {out / 'eval'}.")
    print("To train on a larger set, with captions too: vidgru demo --full")


def predict_recording(out: Path, model: str, weights: str, seed: int) -> list[EventPair]:
    """Render a recording into `out`, predict its events, and return them beside the true ones."""
    recordings = out / "recordings"
    with _step(f"drawing a recording ({SIZE_PX[0]}x{SIZE_PX[1]}, {FPS} frames per second)"):
        write_recordings(recordings, seed=seed)
    with _step("extracting features, predicting events, writing the report"):
        config = PredictConfig(
            features=str(out / "features"), out=str(out / "events"), weights=weights, runtime=RUNTIME
        )
        predict(model, [recordings / "videos"], config)
    truth = load_dataset(recordings).annotations
    return match_events(truth, read_jsonl(out / "events" / "events.jsonl"))


def train_and_evaluate(out: Path, weights: str, size: TrainingSize, seed: int) -> dict[str, Any]:
    """Render a dataset into `out`, train a model on it, and return its metrics on held-out clips and recordings.

    What training and evaluation print goes to `train.txt` and `eval.txt`.
    """
    dataset, features, model = str(out / "dataset"), str(out / "features"), str(out / "model")
    detector = demo_detector(weights)
    with _step("drawing clips and recordings"):
        write_dataset(
            out,
            clips_per_kind=size.clips_per_kind,
            eventless_clips=size.eventless_clips,
            recordings=size.recordings,
            unseen_recordings=0,
            seed=seed,
        )
    with _step("extracting features"):
        recordings = list(load_dataset(dataset).recordings.values())
        extract_recordings(recordings, SequenceCache(features), detector, RUNTIME)
    with _step(f"training for {size.epochs} epochs"), _output_to(out / "train.txt"):
        settings = TrainConfig(
            members=1,  # the scenes have a validation split, and a demo should end soon
            detector=detector,
            runtime=RUNTIME,
            features=features,
            out=model,
            exist_ok=True,
            epochs=size.epochs,
            patience=0,  # few held-out examples say little about when to stop
            lookahead=LOOKAHEAD_S,
            captions=size.captions,
            seed=seed,
        )
        train(dataset, settings)
    with _step("evaluating on held-out clips and recordings"), _output_to(out / "eval.txt"):
        return evaluate(model, dataset, EvalConfig(features=features, out=str(out / "eval"), weights=weights))


def demo_detector(weights: str) -> DetectorSettings:
    """Return the detector settings of the demo and of the model that comes with it."""
    return DetectorSettings(weights=weights, imgsz=max(SIZE_PX), fps=SAMPLING_FPS)


def _evaluate_captions(model_path: str, dataset_path: str, features: str) -> list[str]:
    """Check the captions of held-out clips, and of the events predicted in held-out recordings.

    All of their features are in the cache.
    """
    model, dataset, cache = load_model(model_path), load_dataset(dataset_path), SequenceCache(features)
    if model.caption is None:
        return []
    segments = described_segments(dataset, "test")
    clips = [segment for segment in segments if segment.start_s is None]
    videos = dict.fromkeys(segment.video for segment in segments)
    entries = {video: cache.lookup(dataset.recordings[video].path, model.feature_settings) for video in videos}
    parts = {video: list(cache.parts(entry.key)) for video, entry in entries.items() if entry}
    captions = caption_intervals(model, [(parts[clip.video], None, None) for clip in clips])
    clip_texts = [caption.text if caption.is_confident else None for caption in captions]
    predicted = []
    for video in dict.fromkeys(segment.video for segment in segments if segment.start_s is not None):
        entry = entries[video]
        assert entry is not None
        scored = score_recording(model, parts[video], video=video, duration_s=entry.duration_s)
        predicted += caption_events(model, parts[video], scored.events)
    truth = [row for row in dataset.annotations if row.split == "test" and row.start_s is not None]
    matches = [(event, true) for true, event in match_events(truth, predicted) if event and true and true.description]
    event_texts = [event.description if event.description_source == "model" else None for event, _ in matches]
    return [
        caption_line("held-out clips", clip_texts, [clip.sentences[0] for clip in clips]),
        caption_line("events of held-out recordings", event_texts, [str(true.description) for _, true in matches]),
    ]


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Name a step on stderr, and its time once it is done. Its progress bars appear between."""
    print(f"  {name} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    yield
    print(f"  ... {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Write to a file what is printed: more than a screen."""
    with path.open("w", encoding="utf-8") as file, redirect_stdout(file):
        yield


# --- report -----------------------------------------------------------------------------------------------------------


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Format the metrics of `vidgru.training.evaluate`: a line about clips and one about timed events."""
    events = metrics["events"]
    return [
        f"Accuracy on {metrics['clips']} held-out clips: {metrics['accuracy']:.3f}",
        f"Events of {events['videos']} held-out recordings, at tIoU 0.5: "
        f"F1 {metrics['event_f1']:.3f}, mAP {metrics['map_50']:.3f}",
    ]


def label_table(metrics: Mapping[str, Any]) -> list[str]:
    """Format the metrics of `vidgru.training.evaluate`, one line per label and one for all.

    Columns: clips, and how many of them got the right label; true events of recordings, how many of them were found at
    tIoU 0.5, precision, and average precision (`-` without true events).
    """
    events, clips = metrics["events"], metrics["per_class"]
    width = max(map(len, clips))
    lines = [f"{'':{width}}  clips  right  events  found  precision     AP"]
    for label, row in clips.items():
        line = f"{label:{width}}  {row['support']:5}  {_share(row['recall'], row['support']):5}"
        if label in events["per_class"]:
            of_label = events["per_class"][label]
            line += _event_columns(of_label["support"], of_label["recall"], of_label["precision"], of_label["ap_50"])
        lines.append(line)
    all_events = sum(row["support"] for row in events["per_class"].values())
    line = f"{'all':{width}}  {metrics['clips']:5}  {_share(metrics['accuracy'], metrics['clips']):5}"
    line += _event_columns(all_events, events["event_recall"], events["event_precision"], metrics["map_50"])
    return [*lines, line]


def _event_columns(support: int, recall: float | None, precision: float | None, ap: float | None) -> str:
    texts = (f"{value:.2f}" if value is not None else "-" for value in (precision, ap))
    return "  {:6}  {:5}  {:>9}  {:>5}".format(support, _share(recall, support), *texts)


def _share(value: float | None, count: int) -> int:
    return round((value or 0) * count)


def match_events(truth: Sequence[Annotation], predicted: Sequence[Event]) -> list[EventPair]:
    """Pair true events with predicted ones that have the same label and overlap them, largest overlap first.

    Returns:
        Pairs in order of time. A missed event is paired with None, and so is a false one.
    """
    overlaps = [
        (overlap, i, j)
        for i, true in enumerate(truth)
        for j, event in enumerate(predicted)
        if true.video == event.video and true.label == event.label and (overlap := _temporal_iou(true, event)) > 0
    ]
    matches: dict[int, int] = {}
    for _, i, j in sorted(overlaps, key=lambda candidate: -candidate[0]):
        if i not in matches and j not in matches.values():
            matches[i] = j
    pairs: list[EventPair] = [(true, predicted[matches[i]] if i in matches else None) for i, true in enumerate(truth)]
    pairs += [(None, event) for j, event in enumerate(predicted) if j not in matches.values()]
    return sorted(pairs, key=_video_and_start)


def match_table(pairs: Sequence[EventPair]) -> list[str]:
    """Format pairs of true and predicted events, each followed by its descriptions; the last line counts them."""
    lines = [f"{'true':<31} {'predicted':<36} caption"]
    for true, event in pairs:
        left = f"{true.start_s:6.1f}-{true.end_s:5.1f} s {true.label:<16}" if true else "   no event"
        right = (
            f"{event.start_s:6.1f}-{event.end_s:5.1f} s {event.label:<16} {event.score:.2f}" if event else "   missed"
        )
        lines.append(f"{left:<31} {right:<36} {_caption_verdict(true, event)}".rstrip())
        if true and true.description:
            lines.append(f"      true:      {true.description}")
        if event and event.description:
            lines.append(f"      predicted: {event.description}")
    found = [(true, event) for true, event in pairs if true and event]
    num_true, num_predicted = sum(true is not None for true, _ in pairs), sum(event is not None for _, event in pairs)
    false = num_predicted - len(found)
    counts = f"{len(found)} of {num_true} true events found; {false} of {num_predicted} predictions are false"
    if any(true.description and event.description_source for true, event in found):
        correct = sum(_caption_verdict(true, event).endswith(_CORRECT) for true, event in found)
        counts += f"; {correct} of {len(found)} captions correct"
    return [*lines, f"{counts}."]


def _report_line(out: Path) -> str:
    return f"Report: open {out / 'events' / INDEX} in a browser."


def caption_line(items: str, captions: Sequence[str | None], truths: Sequence[str]) -> str:
    """Format the accuracy of captions.

    Args:
        items: What they describe, such as "held-out clips".
        captions: The model's sentences; None, which counts as wrong, where its confidence is too low.
        truths: True sentences about the same items.
    """
    if not truths:
        return f"Captions of {items}: none"
    accuracy = attribute_accuracy(captions, [_parse_truth(text) for text in truths])
    parts = ", ".join(f"{name} {accuracy[name]:.3f}" for name in CAPTION_ATTRIBUTES)
    templates = sum(text is None for text in captions)
    return f"Captions of {len(truths)} {items}: {accuracy['all']:.3f} correct ({parts}), {templates} by template"


def _caption_verdict(true: Annotation | None, event: Event | None) -> str:
    """Return the confidence in an event's caption, and whether it is correct."""
    if event is None or event.description_source is None:
        return ""
    confidence = f"{event.description_score or 0:.2f}"
    if event.description_source == "template":
        return f"{confidence} template"
    if true is None or true.description is None:
        return confidence
    is_right = check_caption(event.description, _parse_truth(true.description))
    wrong = ", ".join(name for name in CAPTION_ATTRIBUTES if not is_right[name])
    return f"{confidence} wrong: {wrong}" if wrong else f"{confidence} {_CORRECT}"


def _parse_truth(sentence: str) -> SceneDescription:
    description = ENGLISH.parse(sentence)
    assert description is not None, sentence
    return description


def _temporal_iou(true: Annotation, event: Event) -> float:
    assert true.start_s is not None
    assert true.end_s is not None
    intersection = min(true.end_s, event.end_s) - max(true.start_s, event.start_s)
    return max(intersection, 0.0) / (max(true.end_s, event.end_s) - min(true.start_s, event.start_s))


def _video_and_start(pair: EventPair) -> tuple[str, float]:
    event = pair[0] or pair[1]
    assert event is not None
    return event.video, event.start_s or 0.0
