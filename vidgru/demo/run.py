"""The whole way on drawn street scenes: render, extract, train, evaluate, predict, and compare with the truth.

It uses the functions that the commands use, and nothing but what comes with the package.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidgru.config import DemoConfig, EvalConfig, PredictConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.demo.scene import FPS, SIZE_PX, write_dataset
from vidgru.errors import WeightsError
from vidgru.files import bundled
from vidgru.predict.batch import predict
from vidgru.predict.writers import read_jsonl
from vidgru.train.evaluate import evaluate
from vidgru.train.loop import train
from vidgru.types import Annotation, Event


def run(config: DemoConfig) -> str:
    """Run the demo into `config.out`; what is already there is used again.

    Returns:
        The accuracy on held-out clips and a table of true and found events, as text.

    Raises:
        WeightsError: the package lacks the demo's detector.
    """
    weights = bundled("demo.pt")
    if weights is None:
        raise WeightsError("the demo's detector, demo.pt, did not come with this package", "install vidgru again")
    began = time.perf_counter()
    out = Path(config.out)
    clips, long = out / "clips", out / "recordings"
    features, model, events = str(out / "features"), str(out / "model"), str(out / "events")

    _say(f"1/4 drawing street scenes ({SIZE_PX[0]}x{SIZE_PX[1]}, {FPS} frames a second) into {out}")
    # Nothing happens in many ways: twice as many clips of that as of each kind of event.
    write_dataset(out, clips_per_kind=config.clips_per_kind, eventless=2 * config.clips_per_kind, seed=config.seed)
    _say("2/4 extracting and training")
    train(
        str(clips),
        TrainConfig(weights=str(weights), imgsz=max(SIZE_PX), features=features, out=model, seed=config.seed),
    )
    _say("3/4 evaluating on held-out clips")
    metrics = evaluate(model, str(clips), EvalConfig(features=features, out=str(out / "eval"), weights=str(weights)))
    _say("4/4 predicting on a recording that was never seen")
    predict(model, [str(long / "videos")], PredictConfig(features=features, out=events, weights=str(weights)))

    truth = load_dataset(str(long)).annotations
    found = read_jsonl(Path(events) / "events.jsonl")
    lines = [
        f"Accuracy on {metrics['clips']} held-out clips: {metrics['accuracy']:.3f}",
        "",
        *_table(line_up(truth, found)),
        "",
        f"Took {time.perf_counter() - began:.0f} s. Look at {events}, {model}, {out / 'eval'}.",
    ]
    return "\n".join(lines)


def line_up(truth: Sequence[Annotation], found: Sequence[Event]) -> list[tuple[Annotation | None, Event | None]]:
    """Pair true events with found ones of the same label that overlap them, the largest overlap first.

    Returns:
        Pairs by time; None stands opposite what was missed, or found where nothing was.
    """
    options = [
        (overlap, i, j)
        for i, true in enumerate(truth)
        for j, event in enumerate(found)
        if true.video == event.video and true.label == event.label and (overlap := _overlap(true, event)) > 0
    ]
    pairs: dict[int, int] = {}
    for _, i, j in sorted(options, key=lambda option: -option[0]):
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    lined: list[tuple[Annotation | None, Event | None]] = [
        (true, found[pairs[i]] if i in pairs else None) for i, true in enumerate(truth)
    ]
    lined += [(None, event) for j, event in enumerate(found) if j not in pairs.values()]
    return sorted(lined, key=lambda pair: _place(pair[0] or pair[1]))


def _overlap(true: Annotation, event: Event) -> float:
    """Intersection over union of two intervals."""
    assert true.start_s is not None
    assert true.end_s is not None
    common = min(true.end_s, event.end_s) - max(true.start_s, event.start_s)
    return max(common, 0.0) / (max(true.end_s, event.end_s) - min(true.start_s, event.start_s))


def _place(item: Any) -> tuple[str, float]:
    return item.video, item.start_s


def _table(pairs: Sequence[tuple[Annotation | None, Event | None]]) -> list[str]:
    lines = [f"{'true':<31} {'found':<36} what happens"]
    for true, event in pairs:
        one = f"{true.start_s:6.1f}-{true.end_s:5.1f} s {true.label:<16}" if true else "   nothing"
        two = f"{event.start_s:6.1f}-{event.end_s:5.1f} s {event.label:<16} {event.score:.2f}" if event else "   missed"
        lines.append(f"{one:<31} {two:<36} {(true.description or '') if true else ''}".rstrip())
    hits = sum(true is not None and event is not None for true, event in pairs)
    events, findings = sum(true is not None for true, _ in pairs), sum(event is not None for _, event in pairs)
    return [*lines, "", f"{hits} of {events} true events found; {findings - hits} of {findings} findings are false."]


def _say(line: str) -> None:
    print(line, file=sys.stderr)
