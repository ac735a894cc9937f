"""The dataset report: counts per label and split, and warnings, printed before training."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidgru.datasets.dataset import Clip, Dataset, EventTimeline, clips, described_segments, event_timelines
from vidgru.datasets.rows import plural
from vidgru.datasets.splits import groups, in_split

RARE = 5  # a label with fewer training clips or events can hardly be learnt
_CUT_CLIP = re.compile(r"(.*?[^\W\d_].*?)(?:[-_ .](?:clip|part|seg|segment|t|s)?[-_ ]?\d+)+\.\w+", re.IGNORECASE)
_MIN_CUT = 3  # recordings with several clips, from which their names are more than one numbering
MAX_ROWS = 20  # labels listed in the printed table; all are in `Report.counts`


@dataclass(frozen=True, kw_only=True)
class Report:
    """Contents of a dataset.

    Attributes:
        lines: A table of labels and splits, and notes about automatic choices.
        warnings: What the user should check.
        counts: The same figures as plain values: `recordings`, `rows`, `text_only`, `groups`, `clips` per split,
            `labels` by name with clips or events per split and `seconds` (None if a duration is unknown), `no_event`
            likewise for event-free clips, and `splits` with clips, events, recordings, event-free recordings and
            seconds of each. With descriptions also `described`: described clips and events per split. With timed
            events also `events`, `overlap` (whether events of different labels overlap), `busy_s` of `recorded_s`, over
            the recordings whose duration is known, and `in_part` (number of recordings of which only parts were
            watched), whose `unwatched_s` (None if a duration is unknown) are not in `recorded_s`.
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: Mapping[str, Any]

    def __str__(self) -> str:
        return "\n".join((*self.lines, *(f"warning: {warning}" for warning in self.warnings)))


def report(dataset: Dataset, *, max_labels: int = MAX_ROWS) -> Report:
    """Summarise a dataset and what to check in it.

    Args:
        dataset: The dataset. Splits are counted as they are: call `assign_splits` before.
        max_labels: Most labels to list in the table, the most frequent.
    """
    all_clips = clips(dataset)
    events = [clip for clip in all_clips if clip.start_s is not None and clip.labels]
    timed = event_timelines(dataset)
    noun = "event" if timed and all(clip.start_s is not None for clip in all_clips if clip.labels) else "clip"
    group, group_kind = groups(dataset)
    splits = dataset.splits
    clips_of: dict[int | None, list[Clip]] = {}
    for clip in all_clips:
        for index in clip.labels or (None,):
            clips_of.setdefault(index, []).append(clip)
    table = {
        label: _tally(clips_of.get(index, []), splits, dataset.durations) for index, label in enumerate(dataset.labels)
    }
    no_event = _tally(clips_of.get(None, []), splits, dataset.durations)
    text_only = sum(row.annotation.label is None and row.annotation.description is not None for row in dataset.rows)
    counts: dict[str, Any] = {
        "recordings": len(dataset.recordings),
        "rows": len(dataset.rows),
        "text_only": text_only,
        "groups": {"by": group_kind, "number": len(set(group.values()))},
        "clips": {split: sum(clip.split == split for clip in all_clips) for split in splits},
        "labels": table,
        "no_event": no_event,
        "splits": _sizes(dataset, splits, timed),
    }
    facts = []
    if timed:
        overlap = any(line.overlaps for line in timed)
        counts |= {"events": sum(len(clip.labels) for clip in events), "overlap": overlap, **_times(timed, dataset)}
        facts.append("events of different labels overlap" if overlap else "one label at a time")
    else:
        several = any(len(clip.labels) > 1 for clip in all_clips)
        facts.append("several labels per clip" if several else "one label per clip")
    facts += [f"{plural(text_only, 'row')} with a description only"] if text_only else []
    whole = [clip for clip in all_clips if clip.start_s is None and clip.labels]
    things = [plural(len(all_clips), "clip")]
    if timed:
        things = [plural(counts["events"], "event"), *([plural(len(whole), "whole clip")] if whole else [])]
    lines = [
        f"{dataset.source}: {' and '.join(things)} of {plural(len(dataset.labels), 'label')} in "
        f"{plural(len(dataset.recordings), 'recording')} ({'; '.join(facts)})"
    ]
    named = dict(table)
    if noun == "clip" and any(no_event[split] for split in splits):
        named["(no event)"] = no_event
    lines += _table(named, counts["splits"], splits, noun, max_labels)
    if timed and counts["recorded_s"]:
        busy_s, recorded_s = counts["busy_s"], counts["recorded_s"]
        share = f"{busy_s / recorded_s:.1%} of the time ({busy_s:.1f} of {recorded_s:.1f} s)"
        lines.append(f"events cover {share}")
    if timed and counts["in_part"]:
        unwatched_s = counts["unwatched_s"]
        rest = "the rest is" if unwatched_s is None else f"{unwatched_s / 60:.1f} min are"
        lines.append(f"{plural(counts['in_part'], 'recording')} watched in part: {rest} left out")
    if described := described_segments(dataset):
        counts["described"] = {split: sum(segment.split == split for segment in described) for split in splits}
        shares = ", ".join(f"{number} in {split}" for split, number in counts["described"].items())
        sentences = sum(len(segment.sentences) for segment in described)
        lines.append(f"{plural(sentences, 'sentence')} on {len(described)} clips and events: {shares}")
    if dataset.half_width_s is not None:
        lines.append(f"the file marks moments: events cover {dataset.half_width_s:g} s before and after them")
    if group_kind != "video":
        lines.append(f"{plural(len(set(group.values())), 'group')} by {group_kind}")
    lines += dataset.notes
    warnings = (*dataset.warnings, *_split_warnings(dataset, table, no_event, group, group_kind, noun))
    return Report(lines=tuple(lines), warnings=warnings, counts=counts)


def _tally(counted: list[Clip], splits: tuple[str, ...], durations: Mapping[str, float]) -> dict[str, Any]:
    number = Counter(clip.split for clip in counted)
    lengths = [
        clip.end_s - clip.start_s
        if clip.end_s is not None and clip.start_s is not None
        else _length(durations, clip.video)
        for clip in counted
    ]
    known = [length for length in lengths if length is not None]
    seconds = round(sum(known), 3) if len(known) == len(lengths) else None
    return {**{split: number[split] for split in splits}, "seconds": seconds}


def _sizes(dataset: Dataset, splits: tuple[str, ...], timed: list[EventTimeline]) -> dict[str, dict[str, Any]]:
    """Count clips, events, recordings and their seconds (None if a duration is unknown) per split."""
    all_clips = clips(dataset)
    with_events = {line.video for line in timed if line.events}
    sizes: dict[str, dict[str, Any]] = {}
    for split in splits:
        split_clips = [clip for clip in all_clips if clip.split == split]
        videos = {row.annotation.video for row in dataset.rows if row.split == split}
        lengths = [_length(dataset.durations, video) for video in sorted(videos)]
        known = [length for length in lengths if length is not None]
        sizes[split] = {
            "clips": len(split_clips),
            "events": sum(len(clip.labels) for clip in split_clips if clip.start_s is not None),
            "recordings": len(videos),
            "without events": len({line.video for line in timed if line.split == split} - with_events),
            "seconds": round(sum(known), 3) if len(known) == len(lengths) else None,
        }
    return sizes


def _length(durations: Mapping[str, float], video: str) -> float | None:
    length = durations.get(video)
    return length if length is not None and math.isfinite(length) else None


def _times(timed: list[EventTimeline], dataset: Dataset) -> dict[str, Any]:
    """Count seconds with events, recorded and unwatched, over all splits together."""
    if len({line.video for line in timed}) < len(timed):  # recordings in several splits count once
        timed = event_timelines(in_split(dataset, dataset.recordings, "train", *dataset.splits))
    busy_s = recorded_s = unwatched_s = 0.0
    in_part = 0
    is_known = True
    for line in timed:
        length = _length(dataset.durations, line.video)
        in_part += bool(line.unwatched)
        if length is None:
            is_known &= not line.unwatched
            continue
        left_out_s = line.unwatched_s(length)
        in_part -= bool(line.unwatched) and not left_out_s  # watched to its end
        unwatched_s += left_out_s
        recorded_s += length - left_out_s
        reached = 0.0
        for start_s, end_s, _ in line.events:
            busy_s += max(0.0, min(end_s, length) - max(start_s, reached))
            reached = max(reached, end_s)
    return {
        "busy_s": round(busy_s, 3),
        "recorded_s": round(recorded_s, 3),
        "in_part": in_part,
        "unwatched_s": round(unwatched_s, 3) if is_known else None,
    }


def _table(
    named: dict[str, dict[str, Any]],
    sizes: dict[str, dict[str, Any]],
    splits: tuple[str, ...],
    noun: str,
    max_labels: int,
) -> list[str]:
    def seconds(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    rows = [("", splits, "seconds")]
    listed = sorted(named, key=lambda name: -sum(named[name][split] for split in splits))[:max_labels]
    for name in (name for name in named if name in listed):
        tally = named[name]
        rows.append((name, tuple(str(tally[split]) for split in splits), seconds(tally["seconds"])))
    for name in (f"{noun}s", "recordings", *(["without events"] if noun == "event" else [])):
        title = name if name == "without events" else f"all {name}"
        rows.append((title, tuple(str(sizes[split][name]) for split in splits), ""))
    if all(sizes[split]["seconds"] is not None for split in splits):
        total = seconds(sum(sizes[split]["seconds"] for split in splits))
        rows.append(("all seconds", tuple(seconds(sizes[split]["seconds"]) for split in splits), total))
    if len(named) > max_labels:
        rows.insert(len(listed) + 1, (f"... and {len(named) - max_labels} more labels", ("",) * len(splits), ""))
    wide = max(len(name) for name, _, _ in rows)
    columns = [max(6, *(len(cells[index]) for _, cells, _ in rows)) for index in range(len(splits))]
    lines = []
    for name, cells, last in rows:
        middle = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, columns, strict=True))
        lines.append(f"  {name:<{wide}}  {middle}  {last:>9}".rstrip())
    return lines


def _split_warnings(
    dataset: Dataset,
    table: Mapping[str, Mapping[str, Any]],
    no_event: Mapping[str, Any],
    group: Mapping[str, str],
    group_kind: str,
    noun: str,
) -> list[str]:
    """Return warnings about labels that are rare or absent, and groups divided, in the splits."""
    warnings = []
    if "train" in dataset.splits:
        # Timed recordings contain time without events; clips without events have to be given.
        named = {**table, "(no event)": no_event} if noun == "clip" else table
        rare = [f"{label} ({tally['train']})" for label, tally in named.items() if 0 < tally["train"] < RARE]
        if rare:
            warnings.append(f"fewer than {RARE} train {noun}s of {_listed(rare)}")
    for split in dataset.splits:
        absent = [label for label, tally in table.items() if not tally[split]]
        if absent:
            effect = "; cannot be learnt" if split == "train" else "; not in that split's macro averages"
            warnings.append(f"no {noun}s in {split} of {_listed(absent)}{effect}")
    splits_of: dict[str, set[str]] = {}
    for row in dataset.rows:
        splits_of.setdefault(group[row.annotation.video], set()).add(row.split)
    shared = [name for name, splits in splits_of.items() if len(splits) > 1]
    if shared:
        number, where = plural(len(shared), f"{group_kind} group"), " and ".join(sorted(splits_of[shared[0]]))
        warnings.append(
            f"{number} in two splits (first: {shared[0]} in {where}); results will look better than they are"
        )
    return warnings + (_cut_clips(dataset) if group_kind == "video" else [])


def _cut_clips(dataset: Dataset) -> list[str]:
    """Warn if clips that their names say are cut from one recording (yard_003.mp4, yard_004.mp4) are in two splits."""
    split_of = {row.annotation.video: row.split for row in dataset.rows}
    clips_of: dict[str, dict[str, str]] = {}  # split by clip, by what their names have in common
    for video, split in split_of.items():
        match = _CUT_CLIP.fullmatch(video)
        if match:
            clips_of.setdefault(match[1].lower(), {})[video] = split
    labels = {re.sub(r"[\W_]+", "", label.casefold()) for label in dataset.labels}
    is_label = any(re.sub(r"[\W_]+", "", name.rpartition("/")[2]) in labels for name in clips_of)
    several = [clips for clips in clips_of.values() if len(clips) > 1]
    divided = [clips for clips in several if len(set(clips.values())) > 1]
    if is_label or len(several) < _MIN_CUT or len(several) < len(clips_of) / 2 or not divided:
        return []
    first, split = next(iter(divided[0].items()))
    other, other_split = next((video, name) for video, name in divided[0].items() if name != split)
    return [
        f"names look as if {plural(len(divided), 'recording')} were cut into clips of two splits (first: {first} in "
        f"{split}, {other} in {other_split}); name the recording of each clip in a column group"
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_ROWS} more" if len(names) > MAX_ROWS else ""
    return ", ".join(names[:MAX_ROWS]) + more
