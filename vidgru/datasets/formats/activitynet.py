"""ActivityNet's JSON files: ground truth of detection, results of detection, and captions; YouCook2 and COIN.

    {"version": ..., "taxonomy": [...], "database": {ID: {"subset": ..., "duration": ..., "url": ...,
     "annotations": [{"segment": [START, END], "label": ...}]}}}
    {"version": ..., "results": {ID: [{"segment": [START, END], "label": ..., "score": ...}]}, "external_data": {...}}
    {ID: {"duration": ..., "timestamps": [[START, END], ...], "sentences": [..., ...]}}
    {"database": {ID: {..., "recipe_type": ..., "annotations": [{"segment": ..., "id": 0, "sentence": ...}]}}}
    {"database": {ID: {..., "class": TASK, "annotation": [{"segment": ..., "id": "385", "label": ...}]}}}

The last two are YouCook2's and COIN's. MMAction2's variant of the first without the outer object is read too.

Sources: github.com/activitynet/ActivityNet, Evaluation/eval_detection.py and its data; Krishna et al.,
"Dense-Captioning Events in Videos", 2017; youcook2.eecs.umich.edu/download; github.com/coin-dataset/annotations.
"""

from __future__ import annotations

from pathlib import Path

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import InvalidEntryError, ParseResult, home_of, plural


def read_activitynet(path: Path, root: Node) -> ParseResult:
    """Parse segments of videos named by id; an annotation without segment labels the whole clip.

    A video without annotations is an event-free recording, except in the testing subset of the published file, whose
    annotations are withheld; these are skipped with a notice.
    """
    result = ParseResult(home=home_of(path))
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
                result.notes.append(f"{plural(len(withheld), 'testing video')} skipped: annotations withheld")
        else:
            for video, entry in root.items():
                with result.entry():
                    _entry(result, video, entry)
    return result


def _video(result: ParseResult, video: str) -> None:
    """Add spellings with and without `v_`: ActivityNet's crawler adds it to file names, and ids of captions have it."""
    result.spellings[video] = (f"v_{video}", video.removeprefix("v_"))


def _withheld(root: Node) -> set[str]:
    """Return the videos of the testing subset, if none of them has an annotation."""
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
        _annotations(result, video, entry["annotation" if "annotation" in entry else "annotations"], split)


def _annotations(result: ParseResult, video: str, annotations: Node, split: str) -> None:
    is_annotated = False
    for note in annotations.each():
        is_annotated = True
        with result.entry():
            label = note["label"].maybe_text()
            description = note["description"].maybe_text() or note["sentence"].maybe_text()
            if not label.strip() and not description.strip():
                raise note["label"].bad("text")
            start_s, end_s = note["segment"].pair() if "segment" in note else (None, None)
            extra = {"score": str(note["score"].number())} if "score" in note else {}
            result.add(
                note.path, video, start_s=start_s, end_s=end_s, label=label, description=description, split=split,
                extra=extra,
            )  # fmt: skip
    if not is_annotated:
        result.add(annotations.path, video, split=split)


def _captions(result: ParseResult, video: str, entry: Node, split: str) -> None:
    times, sentences = list(entry["timestamps"].each()), list(entry["sentences"].each())
    if len(times) != len(sentences):
        message = f"{len(times)} timestamps for {len(sentences)} sentences"
        raise InvalidEntryError(entry.path, message, "give one [start, end] per sentence")
    for time, sentence in zip(times, sentences, strict=True):
        with result.entry():
            start_s, end_s = time.pair()
            text = sentence.text()
            if not text.strip():
                raise sentence.bad("a sentence")
            result.add(sentence.path, video, start_s=start_s, end_s=end_s, description=text, split=split)


def is_activitynet(root: object) -> bool:
    """Whether a JSON value looks like one of the three."""
    if not isinstance(root, dict):
        return False
    if isinstance(root.get("database"), dict) or isinstance(root.get("results"), dict):
        return True
    first = next(iter(root.values()), None)
    return isinstance(first, dict) and ("timestamps" in first or isinstance(first.get("annotations"), list))
