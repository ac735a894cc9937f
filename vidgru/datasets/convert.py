"""Convert annotations from any known format into the native ones and those of other tools, and into subtitles.

Nothing is dropped without a message.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vidgru.config import ConvertConfig, OutputFormat
from vidgru.datasets import tool_writers, writers
from vidgru.datasets.annotations import read_annotations
from vidgru.datasets.recording_checks import compare_durations, use_frame_times, use_video_rates, warn_of_shares
from vidgru.datasets.rows import BACKGROUND, AnnotationRow, plural
from vidgru.datasets.spec import find_dataset
from vidgru.datasets.videos import Videos
from vidgru.datasets.writers import Annotations
from vidgru.errors import AnnotationError, RecordingError, SettingsError
from vidgru.storage import user_path, write_atomic
from vidgru.types import Recording
from vidgru.video.reader import probe

_BY_SUFFIX: dict[str, OutputFormat] = {
    ".csv": "csv", ".jsonl": "jsonl", ".json": "activitynet", ".vtt": "vtt", ".xml": "cvat", ".boris": "boris",
    "": "vtt",
}  # fmt: skip
_WITH_DURATIONS = ("vtt", "boris", "cvat", "fiftyone")  # formats in which the label of a whole video needs its end
_PER_VIDEO = {"vtt": ".vtt", "cvat": ".xml"}  # formats whose files hold one video, with their suffix


def convert(source: str | Path, out: str | Path | None, config: ConvertConfig) -> list[str]:
    """Convert annotations to the format given by `config.to` or the suffix of `out`.

    Videos need not exist. An existing one is named by its path below the dataset folder, as in training, or by its
    absolute path if it lies elsewhere; others keep the name in the file.

    Args:
        source: A dataset: a YAML, an annotation file of any known format, or a folder.
        out: A file, or for WebVTT and CVAT a folder for one file per video. Without `config.to`, the suffix decides:
            .csv or .jsonl (native), .json (ActivityNet), .vtt, .xml (CVAT), .boris. None names it for the source and
            `config.to`, and writes beside the source.
        config: Format settings of the command line.

    Returns:
        What was written, and notes for the user, in sentences.

    Raises:
        AnnotationError: The annotations cannot be read, or contain nothing that the format can hold.
        SettingsError: The output format is unknown, or neither output nor format is given.
        OutputError: The output cannot be written.
    """
    source = user_path(source)
    out = _default_output(source, config.to) if out is None else user_path(out)
    kind = _output_format(out, config)
    spec = find_dataset(source, config.videos).with_overrides(config)
    result = read_annotations(spec)
    ignored = sum(row.ignored for row in result.rows)
    videos = Videos(spec.roots)
    lengths: dict[str, float] = {}
    counts: dict[str, int] = {}
    paths: dict[str, Path] = {}
    rows: list[AnnotationRow] = []
    for row in (row for row in result.rows if not row.ignored):
        spelling = row.annotation.video
        recording = videos.find(spelling, result.spellings.get(spelling, ()), exact=result.exact, home=row.home)
        name = spelling if recording is None else _name(recording, spec.roots)
        label = BACKGROUND if row.watched else row.annotation.label
        rows.append(replace(row, annotation=replace(row.annotation, video=name, label=label)))
        if spelling in result.durations:
            lengths[name] = result.durations[spelling]
        if spelling in result.frame_counts:
            counts[name] = result.frame_counts[spelling]
        if recording is not None:
            paths[name] = recording.path
    if not rows:
        raise AnnotationError(f"{spec.source}: no usable row", "there is nothing to convert")
    rows, warnings = use_frame_times(use_video_rates(spec.source, rows, paths), paths, counts)
    warnings += compare_durations(lengths, _durations({name: paths[name] for name in lengths if name in paths}))
    left_out = [f"{plural(ignored, 'ignored row')} left out"] if ignored else []
    messages = [*spec.notes, *result.notes, *left_out, *result.warnings, *warnings, *warn_of_shares(rows)]
    messages += _background_messages(rows, is_native=kind in ("csv", "jsonl"))
    if kind in _WITH_DURATIONS:
        lengths |= _durations({name: path for name, path in paths.items() if name not in lengths})
    annotations = Annotations(source=spec.source, rows=rows, durations=lengths, paths=paths, messages=messages)
    texts = _format(annotations, kind, config)
    if isinstance(texts, str):
        write_atomic(out, texts.encode())
    else:
        _write_per_video(annotations, out, texts, _PER_VIDEO[kind])
    number = len(annotations.videos)
    summary = f"{out}: {plural(len(rows), 'row')} of {plural(number, 'video')} from {spec.source}"
    return [summary, *annotations.messages]


def _background_messages(rows: list[AnnotationRow], *, is_native: bool) -> list[str]:
    """Return a message if rows with the label BACKGROUND mean something else in the output than here."""
    number = sum(row.annotation.label == BACKGROUND and row.watched != is_native for row in rows)
    if not number:
        return []
    meaning = "marks time in which nothing happens" if is_native else "is a label like any other"
    where = "vidgru's own format" if is_native else "that format"
    return [f"{plural(number, 'row')} of label {BACKGROUND!r}, which in {where} {meaning}"]


def _durations(paths: dict[str, Path]) -> dict[str, float]:
    """Return the durations in seconds of the videos that can be read."""
    durations = {}
    for name, path in paths.items():
        with suppress(RecordingError):
            if duration_s := probe(path).duration_s:
                durations[name] = duration_s
    return durations


def _default_output(source: Path, kind: OutputFormat | None) -> Path:
    """Return the output beside a source: `events.label-studio.json`, `events.boris`, or the folder `events-vtt`."""
    if kind is None:
        raise SettingsError("no output is given", "name a file or folder, or the format with --to")
    stem = source.stem if source.suffix else source.resolve().name
    if kind in _PER_VIDEO:
        return source.with_name(f"{stem}-{kind}")
    suffix = next((suffix for suffix, name in _BY_SUFFIX.items() if name == kind and suffix), ".json")
    out = source.with_name(f"{stem}{'' if suffix == f'.{kind}' else f'.{kind}'}{suffix}")
    if out == source:
        raise SettingsError(f"the output would be {out} itself", "name another file")
    return out


def _output_format(out: Path, config: ConvertConfig) -> OutputFormat:
    """Return the format of the output: the one that was asked for, else that of its suffix."""
    suffix = "" if out.is_dir() else out.suffix.lower()
    kind = config.to or _BY_SUFFIX.get(suffix)
    if kind is None:
        raise SettingsError(
            f"cannot write {out}: unknown format {suffix}",
            "use .csv or .jsonl (vidgru's own), .json (ActivityNet), .vtt, .xml (CVAT), .boris, a folder (one .vtt per "
            "video), or name the format with --to",
        )
    if suffix == "" and kind not in _PER_VIDEO:
        raise SettingsError(f"cannot write {out}: {kind} is a file", "name it, with a suffix")
    return kind


def _format(annotations: Annotations, kind: OutputFormat, config: ConvertConfig) -> str | dict[str, str]:
    """Return the text of the output, or the texts of its files by video."""
    if kind == "csv":
        return writers.to_csv(annotations.rows)
    if kind == "jsonl":
        return writers.to_jsonl(annotations.rows)
    if kind == "activitynet":
        return writers.to_activitynet(annotations)
    if kind == "vtt":
        return writers.to_vtt(annotations)
    if kind == "boris":
        return tool_writers.to_boris(annotations)
    if kind == "fiftyone":
        return tool_writers.to_fiftyone(annotations)
    if kind == "label-studio":
        return tool_writers.to_label_studio(annotations, config.fps)
    return tool_writers.to_cvat(annotations, config.fps)


def _write_per_video(annotations: Annotations, out: Path, texts: dict[str, str], suffix: str) -> None:
    """Write one file per video into the folder `out`, or the only one to the file `out`."""
    is_file = not out.is_dir() and out.suffix.lower() == suffix
    if is_file and len(annotations.videos) > 1:
        raise AnnotationError(
            f"{annotations.source} annotates {len(annotations.videos)} videos",
            f"a {suffix} holds one: give a folder as the output",
        )
    for video, text in texts.items():
        write_atomic(out if is_file else out / f"{_relative_path(video)}{suffix}", text.encode())


def _relative_path(video: str) -> str:
    """Return the name of a video as a path that cannot leave the output folder."""
    parts = video.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _name(recording: Recording, roots: tuple[Path, ...]) -> str:
    """Return the name of a video in the output, by which it is found again from the same folders."""
    inside = any((root / recording.name).is_file() for root in roots)
    return recording.name if inside else Path(os.path.abspath(recording.path)).as_posix()
