"""The demo: render street scenes, extract, train, evaluate, predict, and compare predictions with the truth.

It calls the functions behind the commands, and needs nothing but the installed package.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidgru.cache import SequenceCache
from vidgru.config import DemoConfig, DetectorSettings, EvalConfig, PredictConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import described_segments
from vidgru.demo.dataset import write_dataset
from vidgru.demo.renderer import SIZE_PX
from vidgru.demo.scenes import FPS
from vidgru.demo.sentences import CAPTION_ATTRIBUTES, ENGLISH, SceneDescription, attribute_accuracy, check_caption
from vidgru.errors import WeightsError
from vidgru.model.captioner import caption_events, caption_intervals, is_confident
from vidgru.model.checkpoint import load_model
from vidgru.model.stream import score_recording
from vidgru.prediction.batch import predict
from vidgru.prediction.event_files import read_jsonl
from vidgru.prediction.outputs import INDEX
from vidgru.storage import bundled_file
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train
from vidgru.types import Annotation, Event

_EPOCHS = 30
_LOOKAHEAD_S = 2.0  # what a person with a bag, or before a car, is about to do becomes visible late

EventPair = tuple[Annotation | None, Event | None]


def run(config: DemoConfig) -> str:
    """Run the demo into `config.out`, reusing what is already there.

    Returns:
        Metrics on held-out clips and recordings, and a table of true and predicted events of another recording.

    Raises:
        WeightsError: The package lacks the demo's detector.
    """
    weights = bundled_file("demo.pt")
    if weights is None:
        raise WeightsError("demo.pt, the demo's detector, is missing from this installation", "reinstall vidgru")
    began = time.perf_counter()
    out = Path(config.out)
    dataset, unseen = str(out / "dataset"), str(out / "recordings")
    features, model, events = str(out / "features"), str(out / "model"), str(out / "events")

    _print_step(f"1/4 rendering street scenes ({SIZE_PX[0]}x{SIZE_PX[1]}, {FPS} frames per second) into {out}")
    write_dataset(out, clips_per_kind=config.clips_per_kind, recordings=config.recordings, seed=config.seed)
    _print_step("2/4 extracting features and training")
    settings = TrainConfig(
        members=1,  # the scenes have a validation split, and a demo should end soon
        detector=DetectorSettings(weights=str(weights), imgsz=max(SIZE_PX)),
        features=features,
        out=model,
        epochs=_EPOCHS,
        lookahead=_LOOKAHEAD_S,
        seed=config.seed,
    )
    train(dataset, settings)
    _print_step("3/4 evaluating on held-out clips and recordings")
    metrics = evaluate(model, dataset, EvalConfig(features=features, out=str(out / "eval"), weights=str(weights)))
    _print_step("4/4 predicting events of a new recording")
    predict(
        model, [str(out / "recordings" / "videos")], PredictConfig(features=features, out=events, weights=str(weights))
    )

    pairs = match_events(load_dataset(unseen).annotations, read_jsonl(Path(events) / "events.jsonl"))
    lines = [
        *metric_lines(metrics),
        *_evaluate_captions(model, dataset, features),
        "",
        *label_table(metrics["events"]["per_class"]),
        "",
        *match_table(pairs),
        "",
        f"Took {time.perf_counter() - began:.0f} s. Open {Path(events) / INDEX} in a browser; "
        f"the model is in {model}, its evaluation in {out / 'eval'}.",
    ]
    return "\n".join(lines)


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
    clip_texts = [caption.text if is_confident(model, caption) else None for caption in captions]
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


def _print_step(line: str) -> None:
    print(line, file=sys.stderr)


# --- report -----------------------------------------------------------------------------------------------------------


def metric_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Format the metrics of `vidgru.training.evaluate`: a line about clips and one about timed events."""
    events = metrics["events"]
    return [
        f"Accuracy on {metrics['clips']} held-out clips: {metrics['accuracy']:.3f}",
        f"Events of {events['videos']} held-out recordings, at tIoU 0.5: "
        f"F1 {metrics['event_f1']:.3f}, mAP {metrics['map_50']:.3f}",
    ]


def label_table(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Format metrics of timed events, one line per label.

    Args:
        per_class: By label, as in the metrics of `vidgru.training.evaluate`: number of true events (`support`), and
            precision, recall and average precision (`ap_50`, None without true events) at tIoU 0.5.
    """
    width = max(map(len, per_class))
    lines = [f"{'':{width}}  true  found  precision  recall     AP"]
    for label, row in per_class.items():
        recall, ap = (f"{value:.3f}" if (value := row[name]) is not None else "-" for name in ("recall", "ap_50"))
        true_positives = round((row["recall"] or 0) * row["support"])
        lines.append(
            f"{label:{width}}  {row['support']:4}  {true_positives:5}  {row['precision']:9.3f}  {recall:>6}  {ap:>5}"
        )
    return lines


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
    """Format pairs of true and predicted events, each followed by its descriptions, and count them in a last line."""
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
    num_true, num_predicted = sum(true is not None for true, _ in pairs), sum(event is not None for _, event in pairs)
    num_found = sum(true is not None and event is not None for true, event in pairs)
    false = num_predicted - num_found
    return [
        *lines,
        "",
        f"{num_found} of {num_true} true events found; {false} of {num_predicted} predictions are false.",
    ]


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
    return f"{confidence} wrong: {wrong}" if wrong else f"{confidence} correct"


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
