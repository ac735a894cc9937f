"""What the demo tells of its model: figures on held-out recordings, and true events beside those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidgru.demo.attributes import attribute_accuracy, right
from vidgru.demo.sentences import Told, parse
from vidgru.types import Annotation, Event

Pair = tuple[Annotation | None, Event | None]


def headlines(metrics: Mapping[str, Any]) -> list[str]:
    """A line on the clips and one on the timed events of an evaluation, as `vidgru.training.evaluate` gives it."""
    events = metrics["events"]
    return [
        f"Accuracy on {metrics['clips']} held-out clips: {metrics['accuracy']:.3f}",
        f"Events of {events['videos']} held-out recordings, at tIoU 0.5: "
        f"F1 {metrics['event_f1']:.3f}, mAP {metrics['map_50']:.3f}",
    ]


def by_label(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of timed events, a line a label.

    Args:
        per_class: of the events, as `event_metrics` gives it: by label, its true events (`support`), and precision,
            recall and average precision (`ap_50`, None without true events) at tIoU 0.5.
    """
    wide = max(map(len, per_class))
    lines = [f"{'':{wide}}  true  found  precision  recall     AP"]
    for label, row in per_class.items():
        recall, ap = (f"{value:.3f}" if (value := row[name]) is not None else "-" for name in ("recall", "ap_50"))
        found = round((row["recall"] or 0) * row["support"])
        lines.append(f"{label:{wide}}  {row['support']:4}  {found:5}  {row['precision']:9.3f}  {recall:>6}  {ap:>5}")
    return lines


def line_up(truth: Sequence[Annotation], found: Sequence[Event]) -> list[Pair]:
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
    lined: list[Pair] = [(true, found[pairs[i]] if i in pairs else None) for i, true in enumerate(truth)]
    lined += [(None, event) for j, event in enumerate(found) if j not in pairs.values()]
    return sorted(lined, key=lambda pair: _place(pair[0] or pair[1]))


def side_by_side(pairs: Sequence[Pair]) -> list[str]:
    """A table of pairs, the sentences that people and model say of them below each, and a line that counts them."""
    lines = [f"{'true':<31} {'found':<36} description"]
    for true, event in pairs:
        one = f"{true.start_s:6.1f}-{true.end_s:5.1f} s {true.label:<16}" if true else "   nothing"
        two = f"{event.start_s:6.1f}-{event.end_s:5.1f} s {event.label:<16} {event.score:.2f}" if event else "   missed"
        lines.append(f"{one:<31} {two:<36} {_verdict(true, event)}".rstrip())
        if true and true.description:
            lines.append(f"      true:  {true.description}")
        if event and event.description:
            lines.append(f"      found: {event.description}")
    hits = sum(true is not None and event is not None for true, event in pairs)
    events, findings = sum(true is not None for true, _ in pairs), sum(event is not None for _, event in pairs)
    return [*lines, "", f"{hits} of {events} true events found; {findings - hits} of {findings} findings are false."]


def descriptions_line(what: str, descriptions: Sequence[str | None], truths: Sequence[str]) -> str:
    """How many descriptions are right by the scene.

    Args:
        what: they are of: "held-out clips".
        descriptions: the model's; None where it is not sure enough of its own sentence, which is not right.
        truths: sentences that are true of the same.
    """
    if not truths:
        return f"Descriptions of {what}: none"
    told = [_truth(text) for text in truths]
    found = attribute_accuracy(descriptions, told, "en")
    parts = f"who {found['who']:.3f}, what {found['what']:.3f}, which way {found['ways']:.3f}"
    templates = sum(text is None for text in descriptions)
    return f"Descriptions of {len(truths)} {what}: right {found['all']:.3f} ({parts}), {templates} by template"


def _verdict(true: Annotation | None, event: Event | None) -> str:
    """What is to be said of an event's description: how sure the model is of it, and whether it is right."""
    if event is None or event.description_source is None:
        return ""
    sure = f"{event.description_score or 0:.2f}"
    if event.description_source == "template":
        return f"{sure} template"
    if true is None or true.description is None:
        return sure
    found = right(event.description, _truth(true.description), "en")
    words = {"who": "who", "what": "what", "ways": "which way"}
    wrong = ", ".join(word for name, word in words.items() if not found[name])
    return f"{sure} wrong: {wrong}" if wrong else f"{sure} right"


def _truth(sentence: str) -> Told:
    """What one of the demo's own sentences says."""
    told = parse(sentence, "en")
    assert told is not None, sentence
    return told


def _overlap(true: Annotation, event: Event) -> float:
    """Intersection over union of two intervals."""
    assert true.start_s is not None
    assert true.end_s is not None
    common = min(true.end_s, event.end_s) - max(true.start_s, event.start_s)
    return max(common, 0.0) / (max(true.end_s, event.end_s) - min(true.start_s, event.start_s))


def _place(item: Any) -> tuple[str, float]:
    return item.video, item.start_s
