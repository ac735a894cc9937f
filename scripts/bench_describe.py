"""How right descriptions are, against the nearest training clip's sentence and the usual sentence of the label.

    python scripts/make_demo_data.py --work /tmp/clips --clips 450 --recordings 40
    python scripts/bench_describe.py --drawn /tmp/clips --seeds 0,1,2
    python scripts/bench_describe.py --dataset yard --weights yolo26n.pt          # any data set with descriptions

A model is trained for each language and seed, or those of --model are taken. It describes the held-out clips as wholes,
the held-out recordings' true events, and the events that it finds itself and that match one of those (intersection over
union of the intervals at least 0.5, whatever the label). Each table has

- all, who, what, ways: share of the descriptions that tell these attributes as the scene has them (drawn sets alone); a
  line below the model's tells colours, counts and directions one by one;
- cider_d: CIDEr-D, against all wordings of the truth in drawn sets, of which one sentence can only be one, against what
  people wrote in others;
- unseen: hallucination rate, the share of the object words that name what the detector did not see near (CHAIRi);
- template: share of the sentences that would not be told, as the model is not sure enough of them.

The ways to describe are

- model: its own sentences, all of them; "model, sure": only those that it would tell;
- nearest by features: the sentence of the nearest training clip or event, by cosine of the standardised means of what
  the model is given; nearest by state: by the means of the state of the model's recurrent layer;
- usual of label: the most frequent training sentence of the label that the model predicts.

With several seeds figures are means; what follows +- is the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Before ultralytics is imported: it would look for updates and install packages while it runs.
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")

import numpy as np
import torch
import yaml
from describe_baselines import (
    described,
    frames_of,
    match,
    mean_features,
    mean_state,
    nearest,
    predicted_labels,
    span_of,
    usual,
)

from vidgru.cache import SequenceCache
from vidgru.config import RuntimeSettings, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, DescribedSegment
from vidgru.datasets.splits import assign_splits
from vidgru.demo.attributes import ATTRIBUTES, attribute_accuracy, value_accuracy
from vidgru.demo.scene import SIZE_PX
from vidgru.demo.sentences import LANGUAGES, WORDINGS, Language, parse, tell
from vidgru.flags import from_flags
from vidgru.model.captioner import CaptionSegment, caption_segments, is_confident
from vidgru.model.checkpoint import EventModel, detector_settings, load_model
from vidgru.model.scoring import EncodedRecording, encode_features
from vidgru.model.stream import score_encoded
from vidgru.storage import bundled_file, write_json
from vidgru.training.data import LoadedFeatures, extract_missing, load_features
from vidgru.training.metrics.captions import ObjectWords, caption_metrics, detected_near, hallucination_metrics
from vidgru.training.run import train
from vidgru.types import Array, Event, Features

LAG_S = 2.0  # as in the demo: what a person with a bag, or before a car, is about to do shows late
# What sentences call a detector's classes, beside their names. Those of classes that it does not have are left out.
OBJECT_WORDS = {
    "someone": "person", "runner": "person", "man": "person", "woman": "person", "sofa": "couch",
    "사람": "person", "누군가": "person", "자동차": "car", "가방": "bag",
}  # fmt: skip
FIGURES = ("all", *ATTRIBUTES, "cider_d", "unseen", "template")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A data set as a model sees it: features and encoded frames of every recording, by video."""

    model: EventModel
    dataset: Dataset
    loaded: LoadedFeatures
    encoded: Mapping[str, EncodedRecording]

    def features(self, stretch: DescribedSegment) -> Features:
        """Features of a stretch, as its description is read from them."""
        features = self.loaded.features[stretch.video]
        span = frames_of(stretch, features.time_s)
        return features.frames(span.start, span.stop)

    def seen(self, stretch: DescribedSegment) -> set[str]:
        """Names of the classes that were seen in a stretch, or near it."""
        features = self.loaded.features[stretch.video]
        return detected_near(features, self.model.feature_spec, self.model.names, *span_of(stretch))

    def mean_features(self, stretches: Sequence[DescribedSegment]) -> Array:
        """Means of what the model is given, float64 [n, D]."""
        some = [(self.loaded.features[s.video], frames_of(s, self.encoded[s.video].time_s)) for s in stretches]
        return np.stack([mean_features(features, span, self.model.feature_spec) for features, span in some])

    def mean_states(self, stretches: Sequence[DescribedSegment]) -> Array:
        """Means of the recurrent layer's state, float64 [n, hidden]."""
        some = [(self.encoded[s.video], s) for s in stretches]
        return np.stack([mean_state(self.model, one.vectors[frames_of(s, one.time_s)]) for one, s in some])

    def found(self, truth: Sequence[DescribedSegment]) -> list[tuple[Event, DescribedSegment]]:
        """The events found in the recordings of these, each with the true one that it matches."""
        videos = list(dict.fromkeys(stretch.video for stretch in truth))
        recordings = [(self.encoded[v], v, self.dataset.durations.get(v, np.inf)) for v in videos]
        return match([event for one in score_encoded(self.model, recordings) for event in one.events], truth)


def look(model: EventModel, dataset: Dataset, split: str, features: str, weights: str) -> Scene:
    """What is needed of a data set's training split and the one that is judged; makes missing features."""
    cache = SequenceCache(features)
    videos = [note.video for note in dataset.annotations if note.split in ("train", split)]
    extracted = extract_missing(
        dataset, videos, cache, model.feature_settings, detector_settings(model, weights), RuntimeSettings()
    )
    loaded = load_features(cache, extracted.keys)
    encoded = {video: encode_features(model, [some]) for video, some in loaded.features.items()}
    return Scene(model=model, dataset=extracted.dataset, loaded=loaded, encoded=encoded)


def judge(scene: Scene, split: str, language: Language | None) -> list[dict[str, Any]]:
    """A row for each way to describe, of clips, true events and found ones.

    Args:
        scene: the data set.
        split: that is judged.
        language: of a drawn set, whose sentences can be held against the scene; None for other sets.
    """
    model, labels = scene.model, scene.dataset.labels
    known, truth = described(scene.dataset, "train"), described(scene.dataset, split)
    clips = [stretch for stretch in truth if stretch.start_s is None]
    events = [stretch for stretch in truth if stretch.start_s is not None]
    pairs = scene.found(events) if events else []
    found = [replace(true, start_s=event.start_s, end_s=event.end_s) for event, true in pairs]
    groups = [
        ("clips", clips, predicted_labels(model, scene.encoded, clips) if clips else []),
        ("true events", events, predicted_labels(model, scene.encoded, events) if events else []),
        (f"found events ({len(found)} of {len(events)})", found, [event.label for event, _ in pairs]),
    ]
    of_label, sentences = usual(known, labels), [stretch.sentences[0] for stretch in known]
    means, states = scene.mean_features(known), scene.mean_states(known)
    further = {word: name for word, name in OBJECT_WORDS.items() if name in model.names}
    objects = ObjectWords(model.names, further)
    rows = []
    for group, stretches, predicted in groups:
        if not stretches:
            continue
        features = [scene.features(stretch) for stretch in stretches]
        told = caption_segments(
            model, [CaptionSegment(features=f, label=g) for f, g in zip(features, predicted, strict=True)]
        )
        sure = [is_confident(model, one) for one in told]
        ways: dict[str, tuple[list[str], list[bool]]] = {
            "model": ([one.text for one in told], [True] * len(told)),
            "model, sure": ([one.text for one in told], sure),
            "nearest by features": _all([sentences[k] for k in nearest(means, scene.mean_features(stretches))]),
            "nearest by state": _all([sentences[k] for k in nearest(states, scene.mean_states(stretches))]),
            "usual of label": _all([of_label.get(label, of_label[None]) for label in predicted]),
        }
        seen = [scene.seen(stretch) for stretch in stretches]
        for way, (texts, counted) in ways.items():
            some = [index for index, counts in enumerate(counted) if counts]
            figures = figures_of(
                [texts[i] for i in some],
                [stretches[i].sentences for i in some],
                [seen[i] for i in some],
                objects,
                language,
            )
            if way == "model":
                figures["template"] = 1 - sum(sure) / len(sure)
            examples = [
                {"video": s.video, "start": s.start_s, "truth": s.sentences[0], "told": text}
                for s, text in zip(stretches, texts, strict=True)
            ]
            rows.append({"of": group, "way": way, "n": len(some), **figures, "examples": examples})
    return rows


def _all(texts: list[str]) -> tuple[list[str], list[bool]]:
    return texts, [True] * len(texts)


def figures_of(
    texts: Sequence[str],
    references: Sequence[tuple[str, ...]],
    seen: Sequence[set[str]],
    objects: ObjectWords,
    language: Language | None,
) -> dict[str, Any]:
    """Figures of descriptions, by name; none without descriptions.

    Args:
        texts: n of them.
        references: what was written on each.
        seen: names of the classes that were seen near each.
        objects: what sentences call them.
        language: of a drawn set; None for others.

    Raises:
        ValueError: a reference of a drawn set is none of its sentences.
    """
    if not texts:
        return {}
    figures: dict[str, Any] = {}
    if language is not None:
        truths = []
        for reference in references:
            truth = parse(reference[0], language)
            if truth is None:
                raise ValueError(f"{reference[0]!r} is no sentence of a drawn set: draw it anew")
            truths.append(truth)
        figures |= attribute_accuracy(texts, truths, language)
        figures["values"] = value_accuracy(texts, truths, language)
        references = [tuple(tell(truth, wording, language) for wording in range(WORDINGS)) for truth in truths]
    chair = hallucination_metrics(texts, seen, objects)
    return figures | caption_metrics(texts, references) | {"unseen": chair["chair_i"], "chair_s": chair["chair_s"]}


def over_seeds(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of the same ways in several runs as one: `n` and each figure as mean, and the figure's `+-` as spread."""
    keys = list(dict.fromkeys((row["of"].partition(" (")[0], row["way"]) for run in runs for row in run))
    merged = []
    for of, way in keys:
        rows = [row for run in runs for row in run if (row["of"].partition(" (")[0], row["way"]) == (of, way)]
        one: dict[str, Any] = {"of": rows[0]["of"] if len(runs) == 1 else of, "way": way}
        for name in ("n", *FIGURES):
            if values := [row[name] for row in rows if row.get(name) is not None]:
                one[name] = float(np.mean(values))
                one[f"{name} +-"] = float(np.std(values)) if len(runs) > 1 else None
        told = [row["values"] for row in rows if "values" in row]  # not where no sentence counted
        if told:
            names = sorted(set().union(*told))
            one["values"] = {name: float(np.mean([some[name][0] for some in told if name in some])) for name in names}
        merged.append(one)
    return merged


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as text, those of a group under its name."""
    columns = [name for name in FIGURES if any(name in row for row in rows)]
    lines = []
    for group in dict.fromkeys(row["of"] for row in rows):
        lines.append(f"{group:30} {'n':>5} " + " ".join(f"{name:>13}" for name in columns))
        for row in rows:
            if row["of"] == group:
                lines.append(
                    f"  {row['way']:28} {row['n']:5.0f} " + " ".join(f"{_cell(row, name):>13}" for name in columns)
                )
                if row["way"] == "model" and "values" in row:
                    lines.append("    " + ", ".join(f"{name} {value:.3f}" for name, value in row["values"].items()))
    return lines


def _cell(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "-"
    spread = row.get(f"{name} +-")
    return f"{row[name]:.3f}" + ("" if spread is None else f" +-{spread:.3f}")


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, values as YAML writes them."""
    return {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--drawn", type=Path, help="folder that make_demo_data.py --clips wrote")
    which.add_argument("--dataset", type=Path, help="any other data set with descriptions")
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="of a drawn set")
    parser.add_argument("--split", default="test", help="that is judged")
    parser.add_argument("--weights", help="the detector; of a drawn set the demo's")
    parser.add_argument("--features", default="features", help="folder of the sequence cache")
    parser.add_argument("--seeds", default="0", help="a model is trained for each")
    parser.add_argument("--epochs", type=int, default=TrainConfig().epochs)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of training")
    parser.add_argument("--model", nargs="*", default=[], help="trained models, one for each language, in their order")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = args.weights or (str(bundled_file("demo.pt")) if args.drawn else TrainConfig().detector.weights)
    settings: dict[str, Any] = {"imgsz": max(SIZE_PX), "lookahead": LAG_S} if args.drawn else {}
    settings |= {"weights": weights, "features": args.features, "epochs": args.epochs} | _settings(args.set)
    languages: list[Language | None] = [None]
    if args.drawn:
        languages = [language for language in LANGUAGES if language in args.languages.split(",")]
    report: dict[str, Any] = {"settings": settings, "split": args.split, "seeds": args.seeds}
    for number, language in enumerate(languages):
        path = args.dataset
        if args.drawn:
            path = args.drawn / "dataset" / ("annotations.csv" if language == "en" else f"annotations.{language}.csv")
        trained = args.model[number : number + 1]
        if not trained:
            for seed in map(int, args.seeds.split(",")):
                out = str(args.out / f"{language or path.stem}-{seed}")
                trained.append(train(path, from_flags(TrainConfig, **settings, seed=seed, out=out)))
        runs = []
        for model in map(load_model, trained):
            scene = look(model, assign_splits(load_dataset(path)), args.split, args.features, weights)
            runs.append(judge(scene, args.split, language))
        print(f"\n{language or path}, {len(runs)} model{'s' * (len(runs) > 1)}, split {args.split}")
        print("\n".join(table(over_seeds(runs))))
        report[language or "dataset"] = {"table": over_seeds(runs), "runs": runs}
        write_json(args.out / "bench_describe.json", report)


if __name__ == "__main__":
    main()
