"""The whole way on drawn street scenes: render, extract, train, evaluate, predict, and compare with the truth.

It uses the functions that the commands use, and nothing but what comes with the package.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vidgru.cache import SequenceCache
from vidgru.config import DemoConfig, DetectorSettings, EvalConfig, PredictConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import described_segments
from vidgru.demo.dataset import write_dataset
from vidgru.demo.report import by_label, descriptions_line, headlines, line_up, side_by_side
from vidgru.demo.scene import FPS, SIZE_PX
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

_EPOCHS = 30
_LAG_S = 2.0  # what a person with a bag, or before a car, is about to do shows late


def run(config: DemoConfig) -> str:
    """Run the demo into `config.out`; what is already there is used again.

    Returns:
        Figures on held-out clips and recordings, and a table of true and found events of one more, as text.

    Raises:
        WeightsError: the package lacks the demo's detector.
    """
    weights = bundled_file("demo.pt")
    if weights is None:
        raise WeightsError("the demo's detector, demo.pt, did not come with this package", "install vidgru again")
    began = time.perf_counter()
    out = Path(config.out)
    dataset, new = str(out / "dataset"), str(out / "recordings")
    features, model, events = str(out / "features"), str(out / "model"), str(out / "events")

    _say(f"1/4 drawing street scenes ({SIZE_PX[0]}x{SIZE_PX[1]}, {FPS} frames a second) into {out}")
    write_dataset(out, clips_per_kind=config.clips_per_kind, recordings=config.recordings, seed=config.seed)
    _say("2/4 extracting and training")
    settings = TrainConfig(
        detector=DetectorSettings(weights=str(weights), imgsz=max(SIZE_PX)),
        features=features,
        out=model,
        epochs=_EPOCHS,
        lookahead=_LAG_S,
        seed=config.seed,
    )
    train(dataset, settings)
    _say("3/4 evaluating on held-out clips and recordings")
    metrics = evaluate(model, dataset, EvalConfig(features=features, out=str(out / "eval"), weights=str(weights)))
    _say("4/4 predicting on a recording that was never seen")
    predict(
        model, [str(out / "recordings" / "videos")], PredictConfig(features=features, out=events, weights=str(weights))
    )

    found = line_up(load_dataset(new).annotations, read_jsonl(Path(events) / "events.jsonl"))
    lines = [
        *headlines(metrics),
        *_descriptions(model, dataset, features),
        "",
        *by_label(metrics["events"]["per_class"]),
        "",
        *side_by_side(found),
        "",
        f"Took {time.perf_counter() - began:.0f} s. Open {Path(events) / INDEX} in a browser; "
        f"there are also {model} and {out / 'eval'}.",
    ]
    return "\n".join(lines)


def _descriptions(model_path: str, dataset_path: str, features: str) -> list[str]:
    """How right the descriptions of held-out clips are, and those of the events found in held-out recordings.

    Features of all of them are in the cache.
    """
    model, dataset, cache = load_model(model_path), load_dataset(dataset_path), SequenceCache(features)
    if model.caption is None:
        return []
    held = described_segments(dataset, "test")
    clips = [one for one in held if one.start_s is None]
    entries = {one.video: cache.lookup(dataset.recordings[one.video].path, model.feature_settings) for one in held}
    parts = {video: list(cache.parts(entry.key)) for video, entry in entries.items() if entry}
    told = caption_intervals(model, [(parts[one.video], None, None) for one in clips])
    texts = [one.text if is_confident(model, one) else None for one in told]
    found = []
    for video in dict.fromkeys(one.video for one in held if one.start_s is not None):
        entry = entries[video]
        assert entry is not None
        scored = score_recording(model, parts[video], video=video, duration_s=entry.duration_s)
        found += caption_events(model, parts[video], scored.events)
    truth = [note for note in dataset.annotations if note.split == "test" and note.start_s is not None]
    pairs = [(event, true) for true, event in line_up(truth, found) if event and true and true.description]
    sure = [event.description if event.description_source == "model" else None for event, _ in pairs]
    return [
        descriptions_line("held-out clips", texts, [one.sentences[0] for one in clips]),
        descriptions_line("events found in held-out recordings", sure, [str(true.description) for _, true in pairs]),
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr)
