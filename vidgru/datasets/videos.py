"""Where the videos are that annotations name.

vidgru's own files name paths. Those of other tools name ids without suffix, paths of another machine, or names that an
upload has changed: such videos are looked for by name among all that are there.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from vidgru.datasets.rows import AnnotationRow
from vidgru.errors import SourceError
from vidgru.sources import find_recordings
from vidgru.types import Recording

_ALL = 10_000  # more folders than a path has


class Videos:
    """Finds recordings by what annotations call them.

    Args:
        roots: folders in which they may be; the first in which a path exists is taken.
        seen: gives the name of a recording that is known by what was seen in it, and need not be there; None if it is
            not.
    """

    def __init__(self, roots: tuple[Path, ...], seen: Callable[[str], str | None] | None = None) -> None:
        self.roots, self._seen = roots, seen
        self._known: dict[tuple[str, Path | None], Recording | None] = {}
        self._all: dict[str, list[tuple[Path, str]]] | None = None

    def find(
        self, spelling: str, others: tuple[str, ...] = (), *, exact: bool = False, home: Path | None = None
    ) -> Recording | None:
        """The recording that a row means; None if there is none, or if several could be meant.

        Args:
            spelling: as the file writes it.
            others: further spellings, tried after it.
            exact: take them as paths only; else files elsewhere under the roots count if their path ends alike, and a
                name without video suffix stands for any file that is so called.
            home: the folder of the file that says so; it comes after the first root, before those of other files.
        """
        key = (spelling, home)
        if key not in self._known:
            roots = self.roots if home is None else tuple(dict.fromkeys((*self.roots[:1], home, *self.roots)))
            texts = _written((spelling, *others))
            paths = (self._at(text, roots) for text in texts)
            found = next((path for path in paths if path is not None), None)
            if found is None and not exact:
                found = next((some[0] for text in texts if len(some := self._alike(text)) == 1), None)
            recording = None if found is None else Recording(path=found, name=self._name(found))
            self._known[key] = recording or self._unseen(texts)
        return self._known[key]

    def _unseen(self, texts: list[str]) -> Recording | None:
        """A recording that is not there, but of which it is known what was seen in it."""
        name = next((name for text in texts if self._seen and (name := self._seen(text))), None)
        return None if name is None else Recording(path=self.roots[0] / name, name=name)

    def several(self, spelling: str, others: tuple[str, ...] = ()) -> list[str]:
        """The names of the recordings among which that of `find` cannot be told, sorted; empty if there are none."""
        some = next((some for text in _written((spelling, *others)) if (some := self._alike(text))), [])
        return sorted(self._name(path) for path in some)

    def _at(self, text: str, roots: tuple[Path, ...]) -> Path | None:
        """The file at a path, as written, else as Windows means it."""
        try:
            return next((path for root in roots if os.path.isfile(path := root / text)), None)
        except (OSError, ValueError):  # what cannot be a path, such as a name of thousands of letters
            return None

    def _alike(self, text: str) -> list[Path]:
        """The files that can be meant by a path from elsewhere: one path ends as the whole of the other does.

        Two equal folders and names at the end do too: `media/cam1/a.mp4` is `2024/cam1/a.mp4`. The name alone does not,
        or annotations of `game2/1.mkv`, which is missing, would be taken for those of `game1/1.mkv`.
        """
        wanted = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        best: list[Path] = []
        most = 0
        for path, name in self._index().get(wanted[-1], ()) if wanted else ():
            folders = zip(reversed(wanted[:-1]), reversed(name.split("/")[:-1]), strict=False)
            alike = 1 + next((n for n, (mine, theirs) in enumerate(folders) if mine != theirs), _ALL)
            alike = min(alike, len(wanted), name.count("/") + 1)
            if alike >= min(2, len(wanted), name.count("/") + 1) and alike >= most:
                best = [*(best if alike == most else ()), path]
                most = alike
        return best

    def _index(self) -> dict[str, list[tuple[Path, str]]]:
        """Videos under the roots and their names, by file name, with and without suffix.

        Where no file has that name, also by what an upload to Label Studio makes of it.
        """
        if self._all is None:
            found: dict[str, list[tuple[Path, str]]] = defaultdict(list)
            uploaded: dict[str, list[tuple[Path, str]]] = defaultdict(list)
            seen: set[str] = set()
            for root in self.roots:
                outer = any(root != other and root.is_relative_to(other) for other in self.roots)
                for recording in () if outer else _below(root):
                    real = os.path.realpath(recording.path)
                    if real not in seen:
                        seen.add(real)
                        one = (recording.path, self._name(recording.path))
                        for key in {recording.path.name, recording.path.stem}:
                            found[key].append(one)
                        for key in {_uploaded(recording.path.name), _uploaded(recording.path.stem)}:
                            uploaded[key].append(one)
            self._all = {**uploaded, **found}
        return self._all

    def _name(self, path: Path) -> str:
        """The path under the first root it is under, else the whole, so that two spellings of a file are one name."""
        for root in self.roots:
            under = os.path.relpath(path, root)
            if under.split(os.sep)[0] != os.pardir:
                return Path(under).as_posix()
        whole = Path(os.path.abspath(path))
        return whole.relative_to(whole.anchor).as_posix()


def _written(spellings: tuple[str, ...]) -> list[str]:
    """Each spelling as it stands, with the slashes of other systems, and with umlauts in one or two code points."""
    texts = (text for spelling in spellings for text in (spelling, spelling.replace("\\", "/")))
    forms = (form for text in texts for form in (text, normalize("NFC", text), normalize("NFD", text)))
    return list(dict.fromkeys(forms))


def _uploaded(name: str) -> str:
    """A file's name as Django, on which Label Studio is built, stores it (django.utils.text.get_valid_filename)."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _below(root: Path) -> list[Recording]:
    try:
        return find_recordings([root])
    except SourceError:
        return []


def locate(
    rows: list[AnnotationRow], videos: Videos, spellings: Mapping[str, tuple[str, ...]], *, exact: bool
) -> tuple[dict[str, Recording], list[AnnotationRow], dict[str, AnnotationRow]]:
    """Recordings by name, rows with that name as their video, and the first row of each missing video.

    A video that is missing because several could be meant is called so.
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
                missing[f"{video}, which may be {' or '.join(several[:2])}" if several else video] = row
        else:
            recordings.setdefault(recording.name, recording)
            present.append(replace(row, annotation=replace(row.annotation, video=recording.name)))
    return recordings, present, missing
