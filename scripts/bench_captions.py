"""Measure how right captions are, against two baselines without a language model.

    python scripts/make_demo_data.py dataset --work /tmp/clips --clips 450 --recordings 40
    python scripts/bench_captions.py --rendered /tmp/clips --seeds 0,1,2
    python scripts/bench_captions.py --dataset yard --weights yolo26n.pt          # any dataset with descriptions

Trains a model per language and seed, or takes those of --model. Each captions the held-out clips as a whole, the true
events of held-out recordings, and the predicted events that match one of these (intersection over union of intervals
at least 0.5, whatever the label). Columns:

- all, objects, event, directions: share of captions that state these attributes as in the scene (rendered datasets
  only); a line below the model's row has colours, counts and directions one by one;
- cider_d: CIDEr-D; in rendered datasets against all wordings of the true description, in others against what people
  wrote;
- chair_i: share of the named objects that the detector did not see nearby (CHAIRi, a hallucination rate);
- template: share of captions whose confidence is too low to be used;
- shown_right, shown_wrong: shares of all captions that are used and right or wrong (rendered datasets only).

Rows:

- model: the model's captions, all of them; "model, confident": only those with enough confidence;
- nearest by features: the sentence of the nearest training segment, by cosine of the standardised means of the model's
  input; nearest by state: by the mean state of the model's recurrent layer;
- most frequent of label: the most frequent training sentence of the label that the model predicts.

With several seeds, figures are means, and +- is their standard deviation. Writes OUT/bench_captions.json.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Set before importing ultralytics, which would check for updates and install packages.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")

import numpy as np
import torch
import yaml
from korean_sentences import LANGUAGES
from torch import Tensor

from vidgru.cache import SequenceCache
from vidgru.config import RuntimeSettings, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, DescribedSegment, described_segments
from vidgru.datasets.splits import assign_splits
from vidgru.demo.renderer import SIZE_PX
from vidgru.demo.sentences import (
    CAPTION_ATTRIBUTES,
    WORDINGS,
    SentenceTemplates,
    attribute_accuracy,
    value_accuracy,
)
from vidgru.flags import from_settings
from vidgru.model.captioner import CaptionSegment, caption_frames, caption_segments
from vidgru.model.checkpoint import EventModel, detector_settings, load_model
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.scoring import EncodedRecording, encode_features, score_clips, score_frames
from vidgru.model.stream import score_encoded
from vidgru.storage import bundled_file, write_json
from vidgru.training.data import LoadedFeatures, extract_missing, load_features
from vidgru.training.metrics.captions import ObjectWords, caption_metrics, detected_near, hallucination_metrics
from vidgru.training.run import train
from vidgru.types import Annotation, Array, Event, Features

LOOKAHEAD_S = 2.0  # as in the demo
# Words of captions for a detector's classes, besides their names. Those for other classes are left out.
OBJECT_WORDS = {
    "someone": "person",
    "runner": "person",
    "man": "person",
    "woman": "person",
    "sofa": "couch",
    "사람": "person",
    "누군가": "person",
    "자동차": "car",
    "가방": "bag",
}
FIGURES = ("all", *CAPTION_ATTRIBUTES, "cider_d", "chair_i", "template", "shown_right", "shown_wrong")


# --- segments ---------------------------------------------------------------------------------------------------------


def labelled_segments(dataset: Dataset, split: str) -> list[DescribedSegment]:
    """Return the described segments of a split, in the order of the file.

    A segment whose rows have no label gets that of the timed event which covers most of it, if there is one.
    """
    segments = []
    for segment in described_segments(dataset, split):
        if segment.label is None:
            rows = (row for row in dataset.annotations if row.video == segment.video and row.start_s is not None)
            events = [row for row in rows if row.label in dataset.labels and _shared_s(row, segment) > 0]
            if events:
                longest = max(events, key=lambda row: _shared_s(row, segment))
                segment = replace(segment, label=dataset.labels.index(str(longest.label)))
        segments.append(segment)
    return segments


def _shared_s(row: Annotation, segment: DescribedSegment) -> float:
    assert row.start_s is not None
    assert row.end_s is not None
    start_s, end_s = interval(segment)
    return min(row.end_s, end_s) - max(row.start_s, start_s)


def interval(segment: DescribedSegment) -> tuple[float, float]:
    """Return a segment's start and end in seconds; 0 and infinity for a whole recording."""
    if segment.start_s is None or segment.end_s is None:
        return 0.0, np.inf
    return segment.start_s, segment.end_s


def segment_frames(segment: DescribedSegment, time_s: Array) -> slice:
    """Return the frames of a segment that the model reads, in a recording with frames at these times."""
    return slice(*caption_frames(time_s, *interval(segment)))


def match_segments(
    predicted: Sequence[Event], truth: Sequence[DescribedSegment], min_iou: float = 0.5
) -> list[tuple[Event, DescribedSegment]]:
    """Pair predicted events with true segments of the same recording, whatever the label, largest overlap first."""
    overlaps = sorted(
        (-overlap, i, j)
        for i, event in enumerate(predicted)
        for j, true in enumerate(truth)
        if event.video == true.video and (overlap := _temporal_iou(event, true)) >= min_iou
    )
    matches: dict[int, int] = {}
    for _, i, j in overlaps:
        if i not in matches and j not in matches.values():
            matches[i] = j
    return [(predicted[i], truth[j]) for i, j in sorted(matches.items())]


def _temporal_iou(event: Event, true: DescribedSegment) -> float:
    start_s, end_s = interval(true)
    intersection = min(event.end_s, end_s) - max(event.start_s, start_s)
    return max(intersection, 0.0) / (max(event.end_s, end_s) - min(event.start_s, start_s))


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInputs:
    """A dataset as a model reads it: features and encoded frames of every recording, by video."""

    model: EventModel
    dataset: Dataset
    loaded: LoadedFeatures
    encoded: Mapping[str, EncodedRecording]

    @classmethod
    def load(cls, model: EventModel, dataset: Dataset, split: str, features: str, weights: str) -> ModelInputs:
        """Load the training split and the evaluated one, extracting missing features."""
        cache = SequenceCache(features)
        videos = [row.annotation.video for row in dataset.rows if row.split in ("train", split)]
        detector = detector_settings(model, weights)
        extracted = extract_missing(dataset, videos, cache, model.feature_settings, detector, RuntimeSettings())
        loaded = load_features(cache, extracted.keys)
        encoded = {video: encode_features(model, [recording]) for video, recording in loaded.features.items()}
        return cls(model=model, dataset=extracted.dataset, loaded=loaded, encoded=encoded)

    def features(self, segment: DescribedSegment) -> Features:
        """Return the features that a caption of the segment is written from."""
        features = self.loaded.features[segment.video]
        frames = segment_frames(segment, features.time_s)
        return features.frames(frames.start, frames.stop)

    def detected_classes(self, segment: DescribedSegment) -> set[str]:
        """Return the names of the classes detected in the segment or nearby."""
        features = self.loaded.features[segment.video]
        return detected_near(features, self.model.feature_spec, self.model.names, *interval(segment))

    def mean_features(self, segments: Sequence[DescribedSegment]) -> Array:
        """Return the mean input of each segment, float64 [N, D]."""
        rows = []
        for segment in segments:
            frames = segment_frames(segment, self.encoded[segment.video].time_s)
            rows.append(mean_features(self.loaded.features[segment.video], frames, self.model.feature_spec))
        return np.stack(rows)

    def mean_states(self, segments: Sequence[DescribedSegment]) -> Array:
        """Return the mean state of the recurrent layer in each segment, float64 [N, members * hidden]."""
        rows = []
        for segment in segments:
            encoded = self.encoded[segment.video]
            rows.append(mean_state(self.model, encoded.vectors[segment_frames(segment, encoded.time_s)]))
        return np.stack(rows)

    def matched_events(self, truth: Sequence[DescribedSegment]) -> list[tuple[Event, DescribedSegment]]:
        """Predict events in the recordings of these segments; return those that match one, with the match."""
        videos = list(dict.fromkeys(segment.video for segment in truth))
        recordings = [(self.encoded[v], v, self.dataset.durations.get(v, np.inf)) for v in videos]
        scored = score_encoded(self.model, recordings)
        return match_segments([event for recording in scored for event in recording.events], truth)


# --- baselines --------------------------------------------------------------------------------------------------------


def mean_features(features: Features, frames: slice, feature_spec: FeatureSpec) -> Array:
    """Return the mean input over frames: of all their objects, and of the frames themselves; float64 [D].

    The class of an object is one-hot.
    """
    rows = features.objects[features.offsets[frames.start] : features.offsets[frames.stop]].astype(np.float64)
    class_column = feature_spec.object_groups()["class"].start
    class_counts = np.bincount(rows[:, class_column].astype(np.int64), minlength=feature_spec.classes)
    objects = np.delete(rows, class_column, axis=1)
    objects = objects.mean(axis=0) if len(rows) else np.zeros(objects.shape[1])
    frame = features.frame[frames].astype(np.float64).mean(axis=0)
    return np.concatenate([objects, class_counts / (frames.stop - frames.start), frame])


@torch.inference_mode()
def mean_state(model: EventModel, vectors: Tensor) -> Array:
    """Return each member's mean recurrent state over a segment, from an empty state; float64 [members * hidden].

    Args:
        model: In eval mode.
        vectors: float32 [L, members, width], the segment of `EncodedRecording.vectors`, L at least 1.
    """
    mask = vectors.new_ones(1, len(vectors), dtype=torch.bool)
    hidden, _ = model.network.run_rnn(vectors.transpose(0, 1)[:, None], mask)
    mean: Array = hidden.double().mean(dim=2).flatten().cpu().numpy()
    return mean


def nearest(train: Array, test: Array) -> Array:
    """Return the index of the nearest training vector of each test vector, by cosine; int64 [n].

    Args:
        train: float64 [N, D]; both are standardised by its means and deviations.
        test: float64 [n, D].
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = ((rows - mean) / np.where(deviation > 0, deviation, 1.0) for rows in (train, test))
    lengths = np.maximum(np.linalg.norm(train, axis=1), 1e-12)  # the length of a test vector changes no order
    indices: Array = (test @ train.T / lengths).argmax(axis=1)
    return indices


def frequent_sentences(train: Sequence[DescribedSegment], labels: Sequence[str]) -> dict[str | None, str]:
    """Return the most frequent training sentence per label, and of all under None; the first of equals."""
    frequent = {}
    for label in (None, *dict.fromkeys(segment.label for segment in train if segment.label is not None)):
        segments = (segment for segment in train if label in (None, segment.label))
        counts = Counter(sentence for segment in segments for sentence in segment.sentences)
        frequent[None if label is None else labels[label]] = counts.most_common(1)[0][0]
    return frequent


def predict_labels(
    model: EventModel, encoded: Mapping[str, EncodedRecording], segments: Sequence[DescribedSegment]
) -> list[str]:
    """Return the label that the model predicts for each segment, never the background, as all are described.

    The clip head decides for whole recordings, and where it is the only head; else the mean of the frames' scores does.
    A model without heads has a single label.
    """
    if not (model.task.clip_head or model.task.frame_head):
        return [model.labels[0]] * len(segments)
    frames = [segment_frames(segment, encoded[segment.video].time_s) for segment in segments]
    clip_scores = None
    if model.task.clip_head:
        clips = [encoded[s.video].frames(span.start, span.stop) for s, span in zip(segments, frames, strict=True)]
        clip_scores = score_clips(model, clips)
    frame_scores: dict[str, Array] = {}
    if model.task.frame_head:
        videos = list(dict.fromkeys(segment.video for segment in segments))
        frame_scores = dict(zip(videos, score_frames(model, [encoded[video] for video in videos]), strict=True))
    scores = [
        clip_scores[number]
        if clip_scores is not None and (segment.start_s is None or not frame_scores)
        else frame_scores[segment.video][span].mean(axis=0)
        for number, (segment, span) in enumerate(zip(segments, frames, strict=True))
    ]
    return [model.labels[int(row[: len(model.labels)].argmax())] for row in scores]


# --- evaluation -------------------------------------------------------------------------------------------------------


def evaluate(inputs: ModelInputs, split: str, language: SentenceTemplates | None) -> list[dict[str, Any]]:
    """Return a row per group (clips, true events, matched events) and method.

    Args:
        inputs: The dataset.
        split: Split to evaluate.
        language: Of a rendered dataset, whose captions can be checked against the scene; None for other datasets.
    """
    model = inputs.model
    train_segments, truth = labelled_segments(inputs.dataset, "train"), labelled_segments(inputs.dataset, split)
    clips = [segment for segment in truth if segment.start_s is None]
    events = [segment for segment in truth if segment.start_s is not None]
    matches = inputs.matched_events(events) if events else []
    matched = [replace(true, start_s=event.start_s, end_s=event.end_s) for event, true in matches]
    groups = [
        ("clips", clips, predict_labels(model, inputs.encoded, clips) if clips else []),
        ("true events", events, predict_labels(model, inputs.encoded, events) if events else []),
        (f"matched events ({len(matched)} of {len(events)})", matched, [event.label for event, _ in matches]),
    ]
    frequent = frequent_sentences(train_segments, inputs.dataset.labels)
    train_sentences = [segment.sentences[0] for segment in train_segments]
    train_features, train_states = inputs.mean_features(train_segments), inputs.mean_states(train_segments)
    objects = ObjectWords(model.names, {word: name for word, name in OBJECT_WORDS.items() if name in model.names})
    rows = []
    for group, segments, labels in groups:
        if not segments:
            continue
        features = [inputs.features(segment) for segment in segments]
        captions = caption_segments(
            model, [CaptionSegment(features=f, label=label) for f, label in zip(features, labels, strict=True)]
        )
        texts = [caption.text for caption in captions]
        confident = [index for index, caption in enumerate(captions) if caption.is_confident]
        by_features = nearest(train_features, inputs.mean_features(segments))
        by_state = nearest(train_states, inputs.mean_states(segments))
        everything = list(range(len(segments)))
        methods: dict[str, tuple[list[str], list[int]]] = {
            "model": (texts, everything),
            "model, confident": (texts, confident),
            "nearest by features": ([train_sentences[k] for k in by_features], everything),
            "nearest by state": ([train_sentences[k] for k in by_state], everything),
            "most frequent of label": ([frequent.get(label, frequent[None]) for label in labels], everything),
        }
        detected = [inputs.detected_classes(segment) for segment in segments]
        for method, (sentences, counted) in methods.items():
            figures = compute_figures(
                [sentences[i] for i in counted],
                [segments[i].sentences for i in counted],
                [detected[i] for i in counted],
                objects,
                language,
            )
            if method == "model":
                shown = len(confident) / len(segments)
                figures["template"] = 1 - shown
                if language is not None and confident:
                    truths = [language.parse(segments[i].sentences[0]) for i in confident]
                    right = attribute_accuracy([texts[i] for i in confident], truths, language)["all"]
                    figures |= {"shown_right": shown * right, "shown_wrong": shown * (1 - right)}
            examples = [
                {"video": segment.video, "start": segment.start_s, "truth": segment.sentences[0], "caption": sentence}
                for segment, sentence in zip(segments, sentences, strict=True)
            ]
            rows.append({"group": group, "method": method, "n": len(counted), **figures, "examples": examples})
    return rows


def compute_figures(
    captions: Sequence[str],
    references: Sequence[tuple[str, ...]],
    detected: Sequence[set[str]],
    objects: ObjectWords,
    language: SentenceTemplates | None,
) -> dict[str, Any]:
    """Return figures of captions by name; empty without captions.

    Args:
        captions: N captions.
        references: True sentences of each.
        detected: Names of the classes detected near each.
        objects: Words for these classes.
        language: Of a rendered dataset; None for others.

    Raises:
        ValueError: A reference of a rendered dataset is not one of its sentences.
    """
    if not captions:
        return {}
    figures: dict[str, Any] = {}
    if language is not None:
        truths = []
        for reference in references:
            truth = language.parse(reference[0])
            if truth is None:
                raise ValueError(f"{reference[0]!r} is not a sentence of a rendered dataset: render it again")
            truths.append(truth)
        figures |= attribute_accuracy(captions, truths, language)
        figures["values"] = value_accuracy(captions, truths, language)
        references = [tuple(language.format(truth, wording) for wording in range(WORDINGS)) for truth in truths]
    hallucinations = hallucination_metrics(captions, detected, objects)
    chair = {name: hallucinations[name] for name in ("chair_i", "chair_s")}
    return figures | caption_metrics(captions, references) | chair


def merge_seeds(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the rows of several runs: mean of `n` and of each figure, and their deviation under "FIGURE +-"."""
    keyed_runs = [{(row["group"].partition(" (")[0], row["method"]): row for row in run} for run in runs]
    merged = []
    for group, method in dict.fromkeys(key for run in keyed_runs for key in run):
        rows = [run[group, method] for run in keyed_runs if (group, method) in run]
        row: dict[str, Any] = {"group": rows[0]["group"] if len(runs) == 1 else group, "method": method}
        for name in ("n", *FIGURES):
            if figures := [r[name] for r in rows if r.get(name) is not None]:
                row[name] = float(np.mean(figures))
                row[f"{name} +-"] = float(np.std(figures)) if len(runs) > 1 else None
        values = [r["values"] for r in rows if "values" in r]  # absent where no caption counted
        if values:
            names = sorted(set().union(*values))
            row["values"] = {name: float(np.mean([v[name][0] for v in values if name in v])) for name in names}
        merged.append(row)
    return merged


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format rows, each group under its name."""
    columns = [name for name in FIGURES if any(name in row for row in rows)]
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        lines.append(f"{group:30} {'n':>5} " + " ".join(f"{name:>13}" for name in columns))
        for row in rows:
            if row["group"] == group:
                cells = " ".join(f"{_cell(row, name):>13}" for name in columns)
                lines.append(f"  {row['method']:28} {row['n']:5.0f} {cells}")
                if row["method"] == "model" and "values" in row:
                    lines.append("    " + ", ".join(f"{name} {value:.3f}" for name, value in row["values"].items()))
    return lines


def _cell(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "-"
    deviation = row.get(f"{name} +-")
    return f"{row[name]:.3f}" + ("" if deviation is None else f" +-{deviation:.3f}")


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse NAME=VALUE pairs, with values in YAML."""
    return {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--rendered", type=Path, help="folder written by make_demo_data.py dataset")
    source.add_argument("--dataset", type=Path, help="any other dataset with descriptions")
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="languages of a rendered dataset")
    parser.add_argument("--split", default="test", help="split to evaluate")
    parser.add_argument("--weights", help="detector; the demo's for a rendered dataset")
    parser.add_argument("--features", default="features", help="folder of the sequence cache")
    parser.add_argument("--seeds", default="0", help="seeds, each of which trains a model")
    parser.add_argument("--epochs", type=int, default=TrainConfig().epochs)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other training settings")
    parser.add_argument("--model", nargs="*", default=[], help="trained models, one per language, in their order")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = args.weights or (str(bundled_file("demo.pt")) if args.rendered else TrainConfig().detector.weights)
    settings: dict[str, Any] = {"imgsz": max(SIZE_PX), "lookahead": LOOKAHEAD_S} if args.rendered else {}
    settings |= {"weights": weights, "features": args.features, "epochs": args.epochs} | parse_settings(args.set)
    languages: list[str | None] = [None]
    if args.rendered:
        languages = [name for name in LANGUAGES if name in args.languages.split(",")]
    report: dict[str, Any] = {"settings": settings, "split": args.split, "seeds": args.seeds}
    for number, language in enumerate(languages):
        path = args.dataset
        if args.rendered:
            name = "annotations.csv" if language == "en" else f"annotations.{language}.csv"
            path = args.rendered / "dataset" / name
        models = args.model[number : number + 1]
        if not models:
            for seed in map(int, args.seeds.split(",")):
                out = str(args.out / f"{language or path.stem}-{seed}")
                models.append(train(path, from_settings(TrainConfig, **settings, seed=seed, out=out)))
        runs = []
        for model in map(load_model, models):
            inputs = ModelInputs.load(model, assign_splits(load_dataset(path)), args.split, args.features, weights)
            runs.append(evaluate(inputs, args.split, LANGUAGES[language] if language else None))
        rows = merge_seeds(runs)
        print(f"\n{language or path}, {len(runs)} model{'s' * (len(runs) > 1)}, split {args.split}")
        print("\n".join(table(rows)))
        report[language or "dataset"] = {"table": rows, "runs": runs}
        write_json(args.out / "bench_captions.json", report)


if __name__ == "__main__":
    main()
