"""ActivityNet's JSON files: ground truth of detection, results of detection, and captions.

    {"version": ..., "taxonomy": [...], "database": {ID: {"subset": ..., "duration": ..., "url": ...,
     "annotations": [{"segment": [START, END], "label": ...}]}}}
    {"version": ..., "results": {ID: [{"segment": [START, END], "label": ..., "score": ...}]}, "external_data": {...}}
    {ID: {"duration": ..., "timestamps": [[START, END], ...], "sentences": [..., ...]}}

Sources: github.com/activitynet/ActivityNet, Evaluation/eval_detection.py and its data; Krishna et al.,
"Dense-Captioning Events in Videos", 2017. MMAction2 leaves the outer object of the first out; that is read too.
"""

from __future__ import annotations

from pathlib import Path

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import InvalidEntryError, Reading, plural


def read_activitynet(path: Path, root: Node) -> Reading:
    """Segments of videos that are named by id; an annotation without segment speaks of the whole clip.

    A video without annotation is one in which nothing happens, except in the testing part of the published file, whose
    annotations are withheld: that is left out, and said.
    """
    reading = Reading()
    with reading.entry():
        if "results" in root:
            for video, results in root["results"].items():
                _video(reading, video)
                _annotations(reading, video, results, "")
        elif "database" in root:
            withheld = _withheld(root) if "taxonomy" in root else set()
            for video, entry in root["database"].items():
                with reading.entry():
                    if video not in withheld:
                        _entry(reading, video, entry)
            if withheld:
                reading.notes.append(f"{plural(len(withheld), 'testing video')} without annotations left out: withheld")
        else:
            for video, entry in root.items():
                with reading.entry():
                    _entry(reading, video, entry)
    return reading


def _video(reading: Reading, video: str) -> None:
    """Files are called by the id, with any suffix, and with `v_` before it where ActivityNet's crawler fetched them.

    The ids of captions have that `v_`, and files need not.
    """
    reading.spellings[video] = (f"v_{video}", video.removeprefix("v_"))


def _withheld(root: Node) -> set[str]:
    """Videos of the testing subset, if not one of them has an annotation."""
    testing = [(video, entry) for video, entry in root["database"].items() if _is_testing(entry)]
    annotated = any("annotations" in entry and entry["annotations"].value for _, entry in testing)
    return set() if annotated else {video for video, _ in testing}


def _is_testing(entry: Node) -> bool:
    return "subset" in entry and entry["subset"].value == "testing"


def _entry(reading: Reading, video: str, entry: Node) -> None:
    _video(reading, video)
    for key in ("duration", "duration_second"):
        if key in entry:
            reading.durations[video] = entry[key].above_0()
    split = entry["subset"].maybe_text()
    if "timestamps" in entry:
        _captions(reading, video, entry, split)
    else:
        _annotations(reading, video, entry["annotations"], split)


def _annotations(reading: Reading, video: str, annotations: Node, split: str) -> None:
    some = False
    for note in annotations.each():
        some = True
        with reading.entry():
            label, description = note["label"].maybe_text(), note["description"].maybe_text()
            if not label.strip() and not description.strip():
                raise note["label"].bad("text")
            start_s, end_s = note["segment"].pair() if "segment" in note else (None, None)
            extra = {"score": str(note["score"].number())} if "score" in note else {}
            reading.add(
                note.path, video, start_s=start_s, end_s=end_s, label=label, description=description, split=split,
                extra=extra,
            )  # fmt: skip
    if not some:
        reading.add(annotations.path, video, split=split)


def _captions(reading: Reading, video: str, entry: Node, split: str) -> None:
    times, sentences = list(entry["timestamps"].each()), list(entry["sentences"].each())
    if len(times) != len(sentences):
        what = f"{len(times)} timestamps for {len(sentences)} sentences"
        raise InvalidEntryError(entry.path, what, "each sentence has its own [start, end]")
    for time, sentence in zip(times, sentences, strict=True):
        with reading.entry():
            start_s, end_s = time.pair()
            text = sentence.text()
            if not text.strip():
                raise sentence.bad("a sentence")
            reading.add(sentence.path, video, start_s=start_s, end_s=end_s, description=text, split=split)


def is_activitynet(root: object) -> bool:
    """Whether a JSON value has the shape of one of the three."""
    if not isinstance(root, dict):
        return False
    if isinstance(root.get("database"), dict) or isinstance(root.get("results"), dict):
        return True
    first = next(iter(root.values()), None)
    return isinstance(first, dict) and ("timestamps" in first or isinstance(first.get("annotations"), list))
