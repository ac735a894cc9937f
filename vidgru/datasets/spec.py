"""Find the files that make up a dataset: a YAML, annotation files, or a folder."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any, get_args
from unicodedata import normalize

import yaml

from vidgru.config import AnnotationFormat, ConvertConfig
from vidgru.datasets.formats import SUBTITLE_SUFFIXES, SUFFIXES, recognise
from vidgru.datasets.formats.file_lists import has_class_folders
from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import BACKGROUND, Options, did_you_mean
from vidgru.errors import AnnotationError, SettingsError
from vidgru.storage import user_path
from vidgru.types import TEMPLATE_FIELDS

_KEYS = (
    "path", "videos", "annotations", "format", "fps", "half_width", "tiers", "names", "labels", "background", "split",
    "templates",
)  # fmt: skip
IGNORE = "ignore"  # what `labels` may turn a label into, besides BACKGROUND and other labels
_UCF_LIST = re.compile(r"(?:train|val|test)list(\d+)")
_SOCCERNET = ("Labels-v2.json", "Labels-ball.json", "Labels.json")  # one of them a game, in the game's folder


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How to make splits that the annotation file lacks.

    Attributes:
        val, test: Fractions of the clips, 0 to 1.
        by: What must stay in one split: "folder" (of the video), "video", or a column of the annotation file; None
            chooses between the first two.
        seed: Random seed.
    """

    val: float = 0.2
    test: float = 0.0
    by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise SettingsError(f"split: {name} is {value!r}; it must be a share from 0 to below 1")
        if self.val + self.test >= 1:
            raise SettingsError(f"split: val {self.val} and test {self.test} leave nothing to train on")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingsError(f"split: seed is {self.seed!r}; it must be a whole number, 0 or more")
        if self.by is not None and not isinstance(self.by, str):
            raise SettingsError(f"split: by is {self.by!r}; it must be folder, video, or a column's name")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """The files and settings of a dataset.

    Attributes:
        file: The file a user would edit: the YAML, or the annotation file or folder.
        annotations: The annotation files, or the one folder that holds one folder per class.
        roots: Folders in which videos are looked up, in order.
        format: Format of the annotation files; None to recognise it.
        options: Facts that the format does not contain.
        names: Labels in the requested order; None to take them from the rows.
        relabel: Label, or IGNORE, that takes the place of a label.
        background: Label that counts as "no event".
        split: How to make missing splits.
        templates: By label, what a caption of low confidence says instead.
        notes: Automatic choices, in sentences.
    """

    file: Path
    annotations: tuple[Path, ...]
    roots: tuple[Path, ...]
    format: AnnotationFormat | None = None
    options: Options = field(default_factory=Options)
    names: tuple[str, ...] | None = None
    relabel: Mapping[str, str] = field(default_factory=dict)
    background: str | None = None
    split: SplitSettings = field(default_factory=SplitSettings)
    templates: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        """Path that error messages name: the annotation file, or `file` if there are several."""
        return self.annotations[0] if len(self.annotations) == 1 else self.file

    def with_overrides(self, config: ConvertConfig) -> DatasetSpec:
        """Return the spec with the settings of a command line applied."""
        options = replace(
            self.options,
            fps=config.fps or self.options.fps,
            half_width_s=config.half_width or self.options.half_width_s,
            tiers=config.tiers or self.options.tiers,
        )
        return replace(self, format=config.format or self.format, options=options)


def find_dataset(path: Path, videos: str = "") -> DatasetSpec:
    """Find the files of the dataset at `path` (a YAML, an annotation file, a folder).

    Args:
        path: The dataset.
        videos: Folder in which videos are looked up first; empty for the dataset's own.

    Raises:
        AnnotationError: There is no dataset, or its YAML is invalid.
        SettingsError: There is no folder `videos`.
    """
    if videos:
        root = user_path(videos)
        if not root.is_dir():
            raise SettingsError(f"videos is {videos!r}, which is no folder", "pass the folder of the videos")
        spec = find_dataset(path)
        return replace(spec, roots=tuple(dict.fromkeys((root, *spec.roots))))
    if path.is_dir():
        annotations, notes = _annotations_in(path)
        file = annotations[0] if len(annotations) == 1 else path
        return DatasetSpec(file=file, annotations=annotations, roots=_roots(path, annotations), notes=notes)
    if not path.is_file():
        raise AnnotationError(
            f"no such dataset: {path}", "pass a dataset YAML, an annotation file or a folder (docs/annotations.md)"
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read_yaml(path)
    return DatasetSpec(file=path, annotations=(path,), roots=_roots(path.parent))


def contains_annotations(folder: Path) -> bool:
    """Whether a folder is a dataset: it holds annotation files, or one folder per class."""
    try:
        return bool(_native_in(folder) or _files_in(folder)[0] or has_class_folders(folder))
    except AnnotationError:
        return True  # it has annotations, but they are broken


def _roots(folder: Path, annotations: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    videos = folder / "videos"
    if videos.is_dir() and annotations != (folder,):
        return (videos, folder)
    return (folder,)


def _annotations_in(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the annotation files of a folder, or the folder itself if its folders are classes; and notes."""
    native = _native_in(folder)
    if len(native) > 1:
        raise AnnotationError(
            f"both annotations.csv and annotations.jsonl in {folder}",
            "pass the file instead of the folder",
        )
    if native:
        return native, ()
    files, notes = _files_in(folder)
    if files:
        return files, notes
    if has_class_folders(folder):
        return (folder,), ()
    for suffix in SUBTITLE_SUFFIXES:  # only one kind: `vidgru predict` writes both
        if subtitles := sorted(folder.rglob(f"*{suffix}")):
            return tuple(subtitles), ()
    raise AnnotationError(
        f"no annotations in {folder}",
        "pass the annotation file itself, or write a dataset YAML with `annotations: FILE`; a dataset folder holds "
        "annotations.csv or .jsonl, the export of a tool, or one folder of clips per class",
    )


def _native_in(folder: Path) -> tuple[Path, ...]:
    return tuple(file for file in (folder / "annotations.csv", folder / "annotations.jsonl") if file.is_file())


def _files_in(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the annotation files of a folder, which must have one format; SoccerNet's may lie below it.

    Raises:
        AnnotationError: There are files of several formats, or only broken ones.
    """
    formats: dict[Path, AnnotationFormat] = {}
    broken: AnnotationError | None = None
    for file in sorted(folder.iterdir()):
        suffix = file.suffix.lower()
        if suffix in SUFFIXES and suffix not in SUBTITLE_SUFFIXES and file.is_file() and not file.name.startswith("."):
            try:
                kind = recognise(file)
            except AnnotationError as error:
                broken = broken or error
                continue
            if kind is not None and (kind != "native" or _looks_native(file)):
                formats[file] = kind
    if len(set(formats.values())) > 1:
        listed = ", ".join(f"{file.name} ({kind})" for file, kind in formats.items())
        raise AnnotationError(
            f"annotation files of several formats in {folder}: {listed}", "pass one of them instead of the folder"
        )
    if not formats and broken is not None:
        raise broken
    if not formats:
        below = sorted(folder.rglob("Labels*.json"))
        return next((files for name in _SOCCERNET if (files := tuple(f for f in below if f.name == name))), ()), ()
    return _one_ucf_split(tuple(formats))


def _looks_native(file: Path) -> bool:
    """Whether a table or JSONL with another name looks like annotations; folders hold other tables too."""
    with open(file, encoding="utf-8-sig", errors="replace") as text:
        first = text.readline(10_000).lower()
    return "video" in first and ("label" in first or "description" in first)


def _one_ucf_split(files: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Keep the first of UCF101's three splits, which divide the same clips in different ways."""
    number = {file: match[1] for file in files if (match := _UCF_LIST.fullmatch(file.stem))}
    versions = sorted(set(number.values()))
    if len(versions) < 2:
        return files, ()
    kept = tuple(file for file in files if number.get(file) == versions[0])
    others = f"lists {versions[0]} of {', '.join(versions)}: {', '.join(file.name for file in kept)}"
    return kept, (f"{others}; choose others with `annotations` in a dataset YAML",)


# --- YAML -----------------------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> DatasetSpec:
    try:
        values = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date raises a bare ValueError
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise AnnotationError(
            f"{path}{where}: not a YAML file: {getattr(error, 'problem', error)}", "quote text that contains : or #"
        ) from error
    if not isinstance(values, dict):
        raise AnnotationError(f"{path}: a dataset YAML holds keys and values", f"its keys are {', '.join(_KEYS)}")
    _check_keys(path, values, _KEYS, "")
    for key in ("path", "videos", "background", "format"):
        if values.get(key) is not None and not isinstance(values[key], str):
            raise AnnotationError(f"{path}: {key} is {values[key]!r}; it must be text", "put it in quotes")
    folder = path.parent / user_path(values.get("path") or ".")
    if not folder.is_dir():
        raise AnnotationError(f"{path}: no such folder: {folder}", "`path` is relative to the YAML")
    kind = _format(path, values.get("format"))
    annotations, notes = _annotation_files(path, folder, values.get("annotations"), kind)
    roots = _roots(folder, annotations)
    if values.get("videos"):
        roots = (folder / user_path(values["videos"]),)
        if not os.path.isdir(roots[0]):  # also where its name is too long
            raise AnnotationError(f"{path}: no such folder of videos: {roots[0]}", "`videos` is under `path`")
    names = _names(path, values.get("names"))
    background = normalize("NFC", values["background"]) if values.get("background") else None
    relabel = _relabel(path, values.get("labels"))
    background = background or next((label for label, new in relabel.items() if new == BACKGROUND), None)
    relabel = {label: background if new == BACKGROUND and background else new for label, new in relabel.items()}
    new_names = tuple(new for name in names or () if (new := relabel.get(name, name)) != IGNORE)
    return DatasetSpec(
        file=path,
        annotations=annotations,
        roots=tuple(dict.fromkeys((*roots, *(file if file.is_dir() else file.parent for file in annotations)))),
        format=kind,
        options=Options(
            fps=_positive(path, "fps", values.get("fps")) or Options.fps,
            half_width_s=_positive(path, "half_width", values.get("half_width")) or Options.half_width_s,
            tiers=_texts(path, "tiers", values.get("tiers")),
            names=names or (),
            has_watched=not values.get("background") and BACKGROUND not in (*relabel, *(names or ())),
        ),
        names=names and tuple(dict.fromkeys(new_names)),
        relabel=relabel,
        background=background,
        split=_split_settings(path, values.get("split")),
        templates=_templates(path, values.get("templates")),
        notes=notes,
    )


def _annotation_files(
    path: Path, folder: Path, value: object, kind: AnnotationFormat | None
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the annotation files that a YAML names, or those in `folder` if it names none."""
    if value is None:
        return ((folder,), ()) if kind == "folders" else _annotations_in(folder)
    files: list[Path] = []
    notes: list[str] = []
    for text in _texts(path, "annotations", value):
        file = folder / user_path(text)
        if not os.path.exists(file):  # also where its name is too long
            raise AnnotationError(f"{path}: no such annotation file: {file}", "`annotations` is under `path`")
        inner, inner_notes = _annotations_in(file) if file.is_dir() and kind != "folders" else ((file,), ())
        files += inner
        notes += inner_notes
    if not files:
        raise AnnotationError(f"{path}: annotations is empty", "give a file, a folder, or a list of them")
    return tuple(dict.fromkeys(files)), tuple(notes)


def _check_keys(path: Path, values: Mapping[Any, Any], known: Iterable[str], under: str) -> None:
    known = tuple(known)
    for key in values:
        if key not in known:
            raise AnnotationError(
                f"{path}: unknown key {under}{key}{did_you_mean(key, known)}", f"keys are {', '.join(known)}"
            )


def _format(path: Path, value: str | None) -> AnnotationFormat | None:
    for kind in get_args(AnnotationFormat):
        if kind == value:
            annotation_format: AnnotationFormat = kind
            return annotation_format
    if value is not None:
        known = ", ".join(get_args(AnnotationFormat))
        raise AnnotationError(f"{path}: format is {value!r}; it must be one of {known}", "or omit the key")
    return None


def _positive(path: Path, name: str, value: object) -> float:
    """Return a number above 0, or 0 if none is given."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise AnnotationError(f"{path}: {name} is {value!r}; it must be a number above 0", "or omit the key")
    return float(value)


def _texts(path: Path, name: str, value: object) -> tuple[str, ...]:
    """Return text or a list of texts as a tuple."""
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise AnnotationError(f"{path}: {name} is {value!r}; it must be text, or a list of texts", "put them in quotes")
    return tuple(normalize("NFC", text) for text in texts)


def _names(path: Path, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = list(value.values()) if isinstance(value, dict) else value  # a mapping of index to name, as detectors have
    if not isinstance(names, list) or any(isinstance(n, bool) or not isinstance(n, str | int) for n in names):
        raise AnnotationError(f"{path}: names is {value!r}; it must be a list of labels", "quote words like yes and no")
    texts = tuple(normalize("NFC", str(name).strip()) for name in names)
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice or not all(texts):
        raise AnnotationError(
            f"{path}: names holds {twice[0] if twice else ''!r} twice or empty", "list each label once"
        )
    return texts


def _relabel(path: Path, value: object) -> dict[str, str]:
    """Return what takes the place of labels, by label."""
    pairs = {} if value is None else value
    texts = [*pairs, *pairs.values()] if isinstance(pairs, dict) else [None]
    if not isinstance(pairs, dict) or any(isinstance(t, bool) or not isinstance(t, str | int) for t in texts):
        raise AnnotationError(
            f"{path}: labels is {value!r}; it must map labels to labels, {IGNORE} or {BACKGROUND}",
            "write labels: {jogs: runs, unsure: ignore}; quote words like yes and no",
        )
    return {
        normalize("NFC", str(label).strip()): normalize("NFC", " ".join(str(new).split()))
        for label, new in pairs.items()
    }


def _templates(path: Path, value: object) -> dict[str, str]:
    """Return the templates of captions by label; those of unknown labels are refused when the labels are known."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) and text.strip() for text in value.values()):
        raise AnnotationError(
            f"{path}: templates is {value!r}; it must hold a text for each label", 'write LABEL: "Someone comes in"'
        )
    fields = ", ".join(f"{{{name}}}" for name in TEMPLATE_FIELDS)
    for label, text in value.items():
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:  # a single brace
            raise AnnotationError(f"{path}: templates.{label}: {error}", "write {{ and }} for braces") from None
        for _, name, form, conversion in parts:
            if name is not None and (name not in TEMPLATE_FIELDS or form or conversion):
                raise AnnotationError(
                    f"{path}: templates.{label}: unknown placeholder {{{name}}}{did_you_mean(name, TEMPLATE_FIELDS)}",
                    f"placeholders are {fields}",
                )
    return {normalize("NFC", str(label)): normalize("NFC", text.strip()) for label, text in value.items()}


def _split_settings(path: Path, value: object) -> SplitSettings:
    if value is None:
        return SplitSettings()
    fields = tuple(SplitSettings.__dataclass_fields__)
    if not isinstance(value, dict):
        raise AnnotationError(f"{path}: split is {value!r}; it must hold keys", f"keys are {', '.join(fields)}")
    _check_keys(path, value, fields, "split.")
    try:
        return SplitSettings(**value)
    except SettingsError as error:
        raise AnnotationError(f"{path}: {error.message}") from error
