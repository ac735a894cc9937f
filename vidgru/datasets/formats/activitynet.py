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
from vidgru.datasets.rows import InvalidEntryError, ParseResult, plural


def read_activitynet(path: Path, root: Node) -> ParseResult:
    """Segments of videos that are named by id; an annotation without segment speaks of the whole clip.

    A video without annotation is one in which nothing happens, except in the testing part of the published file, whose
    annotations are withheld: that is left out, and said.
    """
    result = ParseResult()
    with result.entry():
        if "results" in root:
            for video, results in root["results"].items():
                _video(result, video)
                _annotations(result, video, results, "")
        elif "database" in root:
            withheld = _withheld(root) if "taxonomy" in root else set()
            for video, entry in root["database"].items():
                with result.entry():
                    if video not in withheld:
                        _entry(result, video, entry)
            if withheld:
                result.notes.append(f"{plural(len(withheld), 'testing video')} without annotations left out: withheld")
        else:
            for video, entry in root.items():
                with result.entry():
                    _entry(result, video, entry)
    return result


def _video(result: ParseResult, video: str) -> None:
    """Files are called by the id, with any suffix, and with `v_` before it where ActivityNet's crawler fetched them.

    The ids of captions have that `v_`, and files need not.
    """
    result.spellings[video] = (f"v_{video}", video.removeprefix("v_"))


def _withheld(root: Node) -> set[str]:
    """Videos of the testing subset, if not one of them has an annotation."""
    testing = [(video, entry) for video, entry in root["database"].items() if _is_testing(entry)]
    annotated = any("annotations" in entry and entry["annotations"].value for _, entry in testing)
    return set() if annotated else {video for video, _ in testing}


def _is_testing(entry: Node) -> bool:
    return "subset" in entry and entry["subset"].value == "testing"


def _entry(result: ParseResult, video: str, entry: Node) -> None:
    _video(result, video)
    for key in ("duration", "duration_second"):
        if key in entry:
            result.durations[video] = entry[key].above_0()
    split = entry["subset"].maybe_text()
    if "timestamps" in entry:
        _captions(result, video, entry, split)
    else:
        _annotations(result, video, entry["annotations"], split)


def _annotations(result: ParseResult, video: str, annotations: Node, split: str) -> None:
    some = False
    for note in annotations.each():
        some = True
        with result.entry():
            label, description = note["label"].maybe_text(), note["description"].maybe_text()
            if not label.strip() and not description.strip():
                raise note["label"].bad("text")
            start_s, end_s = note["segment"].pair() if "segment" in note else (None, None)
            extra = {"score": str(note["score"].number())} if "score" in note else {}
            result.add(
                note.path, video, start_s=start_s, end_s=end_s, label=label, description=description, split=split,
                extra=extra,
            )  # fmt: skip
    if not some:
        result.add(annotations.path, video, split=split)


def _captions(result: ParseResult, video: str, entry: Node, split: str) -> None:
    times, sentences = list(entry["timestamps"].each()), list(entry["sentences"].each())
    if len(times) != len(sentences):
        what = f"{len(times)} timestamps for {len(sentences)} sentences"
        raise InvalidEntryError(entry.path, what, "each sentence has its own [start, end]")
    for time, sentence in zip(times, sentences, strict=True):
        with result.entry():
            start_s, end_s = time.pair()
            text = sentence.text()
            if not text.strip():
                raise sentence.bad("a sentence")
            result.add(sentence.path, video, start_s=start_s, end_s=end_s, description=text, split=split)


def is_activitynet(root: object) -> bool:
    """Whether a JSON value has the shape of one of the three."""
    if not isinstance(root, dict):
        return False
    if isinstance(root.get("database"), dict) or isinstance(root.get("results"), dict):
        return True
    first = next(iter(root.values()), None)
    return isinstance(first, dict) and ("timestamps" in first or isinstance(first.get("annotations"), list))
