"""Find the videos that annotations refer to.

vidgru's own files name paths. Files of other tools name ids without suffix, paths of another machine, or names changed
by an upload; such videos are looked up by name among all videos below the roots.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from unicodedata import normalize

from vidgru.datasets.rows import AnnotationRow
from vidgru.errors import SourceError
from vidgru.sources import VIDEO_SUFFIXES, find_recordings
from vidgru.types import Recording

_CLOSE = 0.75  # similarity of names, from 0 to 1
_MAX_HINTS = 10  # missing videos for which similar names are looked up
_MAX_DEPTH = 10_000  # more folders than a path has


class Videos:
    """Finds recordings by the names annotations give them.

    Args:
        roots: Folders to search; the first in which a path exists is used.
        find_imported: Returns the name of a recording that has imported detections and need not exist, or None.

    Attributes:
        guessed: Names of recordings that were found by a path of another machine, by the end of their path, or under a
            name with another suffix or other letter case, by spelling.
    """

    def __init__(self, roots: tuple[Path, ...], find_imported: Callable[[str], str | None] | None = None) -> None:
        self.roots, self._find_imported = roots, find_imported
        self.guessed: dict[str, str] = {}
        self._known: dict[tuple[str, Path | None], Recording | None] = {}
        self._all: dict[str, list[tuple[Path, str]]] | None = None

    def find(
        self, spelling: str, others: tuple[str, ...] = (), *, exact: bool = False, home: Path | None = None
    ) -> Recording | None:
        """Return the recording that a row refers to; None if there is none or the name is ambiguous.

        Args:
            spelling: Name as written in the file.
            others: Alternative spellings, tried in order.
            exact: Match paths, the end of a single path, and absolute paths as those of another machine. Otherwise
                files elsewhere below the roots match if their path ends alike, a name without video suffix matches any
                file of that name, and a name with another suffix or in other letter case the only one.
            home: Folder of the annotation file; searched after the first root.
        """
        key = (spelling, home)
        if key not in self._known:
            roots = self.roots if home is None else tuple(dict.fromkeys((*self.roots[:1], home, *self.roots)))
            texts = _path_variants((spelling, *others))
            match = next((path for text in texts if (path := self._at(text, roots)) is not None), None)
            if match is None and (not exact or _is_absolute(spelling)):
                match = next((paths[0] for text in texts if len(paths := self._similar(text)) == 1), None)
                is_guess = match is not None and exact
                if match is None and not exact:
                    near = [path for path in self.near(spelling, others) if self._has_folder(path, spelling)]
                    match, is_guess = (near[0], True) if len(near) == 1 else (None, False)
                if match is not None and is_guess:
                    self.guessed[spelling] = self._name(match)
            elif match is None:  # predictions in a part of the dataset name shorter paths
                text = spelling.replace("\\", "/")
                longer = [path for path in self._similar(text) if self._name(path).endswith(f"/{text}")]
                if len(longer) == 1:
                    match, self.guessed[spelling] = longer[0], self._name(longer[0])
            recording = None if match is None else Recording(path=match, name=self._name(match))
            self._known[key] = recording or self._with_detections(texts)
        return self._known[key]

    def _with_detections(self, texts: list[str]) -> Recording | None:
        """Return a recording that does not exist but has imported detections."""
        name = next((name for text in texts if self._find_imported and (name := self._find_imported(text))), None)
        return None if name is None else Recording(path=self.roots[0] / name, name=name)

    def several(self, spelling: str, others: tuple[str, ...] = ()) -> list[str]:
        """Return the sorted names of the recordings that an ambiguous spelling matches; empty if there are none."""
        candidates = next((paths for text in _path_variants((spelling, *others)) if (paths := self._similar(text))), [])
        return sorted(self._name(path) for path in candidates)

    def near(self, spelling: str, others: tuple[str, ...] = ()) -> list[Path]:
        """Return the files whose names differ from a spelling in suffix or letter case only."""
        names = {_name_without_suffix(text) for text in _path_variants((spelling, *others))}
        keys = (key for key in self._index() if _name_without_suffix(key) in names)
        return list(dict.fromkeys(path for key in keys for path, _ in self._index()[key]))

    def _has_folder(self, path: Path, spelling: str) -> bool:
        """Whether a file is in the folder that a spelling names last, or one of the two names none."""
        theirs, mine = (text.replace("\\", "/").split("/")[-2:-1] for text in (spelling, self._name(path)))
        return not theirs or not mine or theirs[0].casefold() == mine[0].casefold()

    def like(self, spelling: str) -> str:
        """Return a hint in brackets at the file that a missing video may be; empty if there is none."""
        near = [self._name(path) for path in self.near(spelling)]
        if near:
            return f" (did you mean {' or '.join(sorted(near)[:2])}?)"
        names = {_name_without_suffix(name): name for videos in self._index().values() for _, name in videos}
        close = difflib.get_close_matches(_name_without_suffix(spelling), names, n=1, cutoff=_CLOSE)
        return f" (did you mean {names[close[0]]}?)" if close else ""

    def _at(self, text: str, roots: tuple[Path, ...]) -> Path | None:
        """Return the file at a path below one of the roots."""
        try:
            return next((path for root in roots if os.path.isfile(path := root / text)), None)
        except (OSError, ValueError):  # not a possible path, such as a name of thousands of letters
            return None

    def _similar(self, text: str) -> list[Path]:
        """Return the files that a path from another machine may refer to: one path is a suffix of the other.

        Equal file name and last folder suffice: `media/cam1/a.mp4` matches `2024/cam1/a.mp4`. The file name alone does
        not, or annotations of a missing `game2/1.mkv` would be used for `game1/1.mkv`.
        """
        wanted = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        best: list[Path] = []
        best_length = 0
        for path, name in self._index().get(wanted[-1], ()) if wanted else ():
            folders = zip(reversed(wanted[:-1]), reversed(name.split("/")[:-1]), strict=False)
            common = 1 + next((n for n, (mine, theirs) in enumerate(folders) if mine != theirs), _MAX_DEPTH)
            common = min(common, len(wanted), name.count("/") + 1)
            if common >= min(2, len(wanted), name.count("/") + 1) and common >= best_length:
                best = [*(best if common == best_length else ()), path]
                best_length = common
        return best

    def _index(self) -> dict[str, list[tuple[Path, str]]]:
        """Index the videos below the roots by file name, with and without suffix.

        If no file has a name, files that an upload to Label Studio would rename to it are listed under it.
        """
        if self._all is None:
            by_name: dict[str, list[tuple[Path, str]]] = defaultdict(list)
            uploaded: dict[str, list[tuple[Path, str]]] = defaultdict(list)
            real_paths: set[str] = set()
            for root in self.roots:
                is_nested = any(root != other and root.is_relative_to(other) for other in self.roots)
                for recording in () if is_nested else _recordings_below(root):
                    real = os.path.realpath(recording.path)
                    if real not in real_paths:
                        real_paths.add(real)
                        video = (recording.path, self._name(recording.path))
                        for key in {recording.path.name, recording.path.stem}:
                            by_name[key].append(video)
                        for key in {_uploaded(recording.path.name), _uploaded(recording.path.stem)}:
                            uploaded[key].append(video)
            self._all = {**uploaded, **by_name}
        return self._all

    def _name(self, path: Path) -> str:
        """Return the path relative to the first root above it, else the whole path: one name per file."""
        for root in self.roots:
            under = os.path.relpath(path, root)
            if under.split(os.sep)[0] != os.pardir:
                return Path(under).as_posix()
        whole = Path(os.path.abspath(path))
        return whole.relative_to(whole.anchor).as_posix()


def _path_variants(spellings: tuple[str, ...]) -> list[str]:
    """Return each spelling as written, with Windows slashes converted, and in both Unicode normal forms."""
    texts = (text for spelling in spellings for text in (spelling, spelling.replace("\\", "/")))
    forms = (form for text in texts for form in (text, normalize("NFC", text), normalize("NFD", text)))
    return list(dict.fromkeys(forms))


def _is_absolute(spelling: str) -> bool:
    return PureWindowsPath(spelling).is_absolute() or spelling.startswith("/")


def _name_without_suffix(spelling: str) -> str:
    name = spelling.replace("\\", "/").rpartition("/")[2].casefold()
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix}" in VIDEO_SUFFIXES else name


def _uploaded(name: str) -> str:
    """Return a file name as Label Studio stores it (django.utils.text.get_valid_filename)."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _recordings_below(root: Path) -> list[Recording]:
    try:
        return find_recordings([root])
    except SourceError:
        return []


def locate(
    rows: list[AnnotationRow], videos: Videos, spellings: Mapping[str, tuple[str, ...]], *, exact: bool
) -> tuple[dict[str, Recording], list[AnnotationRow], dict[str, AnnotationRow]]:
    """Match rows with recordings.

    Returns:
        Recordings by name, the rows with that name as their video, and the first row of each missing video. The name of
        an ambiguous video lists its candidates.
    """
    recordings: dict[str, Recording] = {}
    present: list[AnnotationRow] = []
    missing: dict[str, AnnotationRow] = {}
    known: set[str] = set()
    for row in rows:
        video = row.annotation.video
        recording = videos.find(video, spellings.get(video, ()), exact=exact, home=row.home)
        if recording is None:
            if video not in known:
                known.add(video)
                several = [] if exact else videos.several(video, spellings.get(video, ()))
                hint = videos.like(video) if not several and len(missing) < _MAX_HINTS else ""
                missing[f"{video}, which may be {' or '.join(several[:2])}" if several else f"{video}{hint}"] = row
        else:
            recordings.setdefault(recording.name, recording)
            if video != recording.name:
                row = replace(row, annotation=replace(row.annotation, video=recording.name))
            present.append(row)
    return recordings, present, missing
