"""MSR-VTT's JSON: sentences about clips that are already cut.

    {"info": {...}, "videos": [{"video_id": "video0", "category": 9, "split": "train", "start time": 137.72,
     "end time": 149.44, "url": ..., "id": 0}], "sentences": [{"caption": ..., "video_id": "video0", "sen_id": 0}]}

Source: the README of the dataset (Xu et al., "MSR-VTT: A Large Video Description Dataset", 2016).
"""

from __future__ import annotations

from pathlib import Path

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import InvalidEntryError, ParseResult, home_of


def read_msr_vtt(path: Path, root: Node) -> ParseResult:
    """Parse one described clip per sentence. Start and end refer to the source video and give the clip's duration."""
    result = ParseResult(home=home_of(path))
    splits: dict[str, str] = {}
    with result.entry():
        for entry in root["videos"].each():
            with result.entry():
                video = entry["video_id"].text()
                splits[video] = entry["split"].maybe_text()
                if "start time" in entry and "end time" in entry:
                    length = entry["end time"].number() - entry["start time"].number()
                    result.durations |= {video: length} if length > 0 else {}
        for note in root["sentences"].each():
            with result.entry():
                video, caption = note["video_id"].text(), note["caption"].text()
                if video not in splits:
                    raise InvalidEntryError(
                        note.path, f"video {video} is not in videos", "add it there, with its split"
                    )
                if not caption.strip():
                    raise note["caption"].bad("a sentence")
                result.add(note.path, video, description=caption, split=splits[video])
    return result


def is_msr_vtt(root: object) -> bool:
    """Whether a JSON value looks like MSR-VTT's."""
    return isinstance(root, dict) and {"videos", "sentences"} <= root.keys()
