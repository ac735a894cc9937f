"""What a path is, and whether it is sound: a video, a cache or an entry of one, a data set, a model or its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import KEY
from vidgru.errors import AnnotationError, CacheError, OutputError, RecordingError, SettingsError, SourceError
from vidgru.leases import Leases
from vidgru.types import Recording, Sequence

if TYPE_CHECKING:
    from vidgru.model.checkpoint import EventModel

EXPECTED = (
    "a video, a cache or an entry of one, a data set (YAML, annotation file, folder), a model file, "
    "or the folder of a training run"
)
SHOWN_CLASSES = 15
UNKNOWN = "a recording not known here"
UNFINISHED = "unfinished"
_PROBES = 4  # recordings opened at once to see how long they are


@dataclass(frozen=True, kw_only=True)
class Info:
    """What was found.

    Attributes:
        lines: to be printed, one a line.
        sound: False where a cache entry is unsound.
    """

    lines: tuple[str, ...]
    sound: bool = True

    def __str__(self) -> str:
        return "\n".join(self.lines)


def info(path: str | Path, *, verify: bool = False, prune: bool = False) -> Info:
    """Say what `path` is.

    Args:
        path: a video, a cache or the folder of one of its entries, a data set (YAML, annotation file or folder), a
            model file or a training run's folder.
        verify: read every byte of a cache or an entry and hold it against what was written. Unsound entries are marked,
            so that extracting their recordings makes them again.
        prune: delete from a cache what no recording needs: entries of recordings that are gone or have changed, unsound
            entries, and what killed runs left. What another process works on stays.

    Raises:
        SourceError: it is none of these.
        SettingsError: `verify` of something that is neither a cache nor an entry, or `prune` of what is no cache.
        CacheError: `prune` of a cache without an index, which could not tell what is needed.
        VidgruError: it is one of these and cannot be read; the error of its kind.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f"no such file or folder: {path}", f"vidgru info takes {EXPECTED}")
    is_entry = path.is_dir() and (KEY.fullmatch(path.resolve().name) or (path / "entry.json").is_file())
    is_cache = path.is_dir() and not is_entry and _is_cache(path)
    if prune and not is_cache:
        raise SettingsError(f"prune is for a cache, and {path} is not one")
    if is_entry:
        return _cache(path.resolve().parent, path.resolve().name, verify)
    if is_cache:
        found = _cache(path, None, verify) if verify or not prune else Info(lines=())
        return Info(lines=(*found.lines, *_prune(path)), sound=found.sound) if prune else found
    if verify:
        raise SettingsError(f"verify is for a cache or an entry of one, and {path} is neither")
    return Info(lines=tuple(_folder(path) if path.is_dir() else _file(path)))


def _is_cache(path: Path) -> bool:
    return bool(_keys(path) or SequenceCache(path).leftovers() or (path / "index.jsonl").is_file())


def _keys(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.iterdir() if KEY.fullmatch(folder.name) and folder.is_dir())


def _folder(path: Path) -> list[str]:
    from vidgru.datasets.spec import holds_annotations
    from vidgru.model.checkpoint import BEST

    if (path / BEST).is_file():
        return _model(path / BEST)
    if holds_annotations(path):
        return _dataset(path)
    raise SourceError(f"{path} holds no cache entry, no annotations and no {BEST}", f"vidgru info takes {EXPECTED}")


def _file(path: Path) -> list[str]:
    from vidgru.datasets.formats import SUFFIXES

    suffix = path.suffix.lower()
    if suffix == ".safetensors" and path.with_name("entry.json").is_file():
        raise SourceError(f"{path} is a part of a cache entry", f"give its folder: {path.parent}")
    if suffix == ".safetensors":
        return _model(path)
    if suffix in (".yaml", ".yml", *SUFFIXES):
        return _dataset(path)
    return _video(path)


# --- a cache --------------------------------------------------------------------------------------------------------


def _cache(root: Path, only: str | None, verify: bool) -> Info:
    """Totals of the cache at `root`, or of its entry `only`, by settings."""
    cache = SequenceCache(root)
    sources = cache.sources()
    keys = _keys(root) if only is None else [only]
    unfinished = {key for key, _ in cache.leftovers() if only in (None, key)}
    unsound: dict[str, list[str]] = {}
    groups: dict[str, list[tuple[Entry, Counter[str]]]] = {}
    for key in keys:
        try:
            entry = cache.entry(key)
            if entry is None and not cache.is_marked(key):
                unfinished.add(key)
            elif wrong := cache.verify(key) if verify or entry is None else []:
                unsound[key] = wrong
            elif entry is not None:
                groups.setdefault(_settings(entry.what), []).append((entry, _objects(cache, entry)))
        except CacheError as error:
            unsound[key] = [error.message]
    finished = [entry for group in groups.values() for entry, _ in group]
    partial = sum(entry.status == "partial" for entry in finished)
    lines = [f"cache {root}: {_entries(len(finished))}"]
    lines[0] += f", {partial} of damaged recordings" if partial else ""
    if unfinished:
        lines.append(f"{len(unfinished)} unfinished: extracting their recordings again completes them")
    for settings, group in groups.items():
        lines += [f"settings: {settings}", *(f"  {line}" for line in _totals(cache, group))]
    if len(keys) == 1 and finished:
        lines += _facts(finished[0], sources)
    for key, wrong in unsound.items():
        lines += [f"UNSOUND {key}, of {', '.join(sources.get(key, [UNKNOWN]))}", *(f"  {line}" for line in wrong)]
        try:
            if verify:
                cache.mark_unsound(key)
        except OutputError as error:  # a cache to look at may be read-only
            lines.append(f"  {error.message}: {error.remedy}, or it is taken for sound")
    if unsound:
        lines.append(f"{len(unsound)} unsound: extracting their recordings again replaces them")
    elif verify:
        lines.append("every byte of the finished entries is as it was written")
    return Info(lines=tuple(lines), sound=not unsound)


def _prune(root: Path) -> list[str]:
    """Delete what no recording needs from a cache, and say what it was.

    Raises:
        CacheError: nothing tells what is needed.
        OutputError: something cannot be deleted.
    """
    cache = SequenceCache(root)
    if not cache.records():
        raise CacheError(
            f"{root / 'index.jsonl'} holds no recording, so nothing tells which entries are needed",
            "run vidgru extract on the recordings: it reuses their entries and notes them",
        )
    sources, removed, freed = cache.sources(), Counter[str](), 0
    lines: list[str] = []
    with Leases(cache.leases) as leases:
        busy = {name for name in leases.names() if not leases.take(name)}  # dead leases are cleared away with this
        for key in {key for key, _, _ in _doomed(cache)}:
            if key not in busy and not leases.holds(key) and not leases.take(key):
                busy.add(key)
        for key, folder, why in _doomed(cache):  # again, now that nobody can be about to finish and note them
            named = f"{folder.name}, of {', '.join(sources.get(key, [UNKNOWN]))}"
            if not leases.holds(key):
                lines.append(f"kept {named}: another process works on it")
                continue
            size = sum(path.stat().st_size for path in folder.iterdir())
            cache.remove(folder)
            lines.append(f"removed {named}: {why}, {_bytes(size)}")
            removed[why] += 1
            freed += size
        keys = set(_keys(root))
        if not busy:  # else lines may be added at this moment
            cache.compact(lambda record: record["key"] in keys and _is_needed(cache, record))
    unfinished = removed.pop(UNFINISHED, 0)
    total = f"removed {_entries(removed.total())} and {unfinished} unfinished, {_bytes(freed)} freed"
    return [*lines, f"{total}; {_entries(len(keys))} kept"]


def _doomed(cache: SequenceCache) -> list[tuple[str, Path, str]]:
    """Key and folder of what is not needed, and why."""
    needed = {record["key"] for record in cache.records() if _is_needed(cache, record)}
    found = [(key, folder, UNFINISHED) for key, folder in cache.leftovers()]
    for key in _keys(cache.root):
        if key not in needed:
            found.append((key, cache.root / key, "its recording is gone or has changed"))
        elif cache.usable(key) is None:
            found.append((key, cache.root / key, "not sound"))
    return found


def _is_needed(cache: SequenceCache, record: Mapping[str, Any]) -> bool:
    """Whether a record of the index speaks of a recording that is there, or may be on a disk that is not."""
    path = Path(record["path"])
    try:
        stat = path.stat()
        if stat.st_size != record.get("size"):
            return False
        return stat.st_mtime_ns == record.get("mtime_ns") or cache.sha256(path) == record["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        return not path.parent.exists()
    except OSError:  # it is there, and cannot be read now
        return True


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _objects(cache: SequenceCache, entry: Entry) -> Counter[str]:
    """Objects of an entry by class name. Only the classes are read from disk."""
    counts: Counter[str] = Counter()
    for part in cache.parts(entry.key):
        classes, times = np.unique(part.classes, return_counts=True)
        counts.update({_name(part.names, int(c)): int(n) for c, n in zip(classes, times, strict=True)})
    return counts


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _totals(cache: SequenceCache, group: list[tuple[Entry, Counter[str]]]) -> list[str]:
    """Length and size of entries of the same settings, and their objects a frame by class."""
    samples = sum(entry.samples for entry, _ in group)
    files = [cache.root / entry.key / part.name for entry, _ in group for part in entry.parts]
    counts: Counter[str] = sum((counts for _, counts in group), Counter())
    rates = [(name, count / samples) for name, count in counts.most_common()]
    lines = [
        f"{_duration(sum(entry.duration_s for entry, _ in group))}, {samples:,} samples, "
        f"{_bytes(sum(file.stat().st_size for file in files))}",
        f"tensors: {_tensors(next(cache.parts(group[0][0].key)))}",
        f"objects: {_rate(counts.total() / samples)} a frame",
        *(f"  {name} {_rate(rate)} a frame" for name, rate in rates[:SHOWN_CLASSES]),
    ]
    if rest := rates[SHOWN_CLASSES:]:
        lines.append(f"  {len(rest)} more classes {_rate(sum(rate for _, rate in rest))} a frame")
    return lines


def _tensors(sequence: Sequence) -> str:
    """The tensors of a sequence, each with the shape of one object's or one frame's share."""
    shapes = {name: list(t.shape[1:]) for name, t in sequence.tensors().items() if name != "offsets"}
    return ", ".join(f"{name} {shape}" if shape else name for name, shape in shapes.items())


def _facts(entry: Entry, sources: Mapping[str, Iterable[str]]) -> list[str]:
    """What can be said of a single entry only."""
    lines = [f"made from: {path}" for path in sources.get(entry.key, [])]
    lines.append(f"frame: {entry.size_px[0]}x{entry.size_px[1]} px, {entry.fps:g} samples a second asked for")
    lines += [f"recorded at: {entry.recorded_at}"] if entry.recorded_at else []
    lines += [f"damage: {kind} {amount}" for kind, amount in sorted(entry.damage.items())]
    return [*lines, f"run: {_settings(entry.how)}"]


# --- the others -----------------------------------------------------------------------------------------------------


def _dataset(path: Path) -> list[str]:
    from vidgru.datasets.annotations import check_times, load_dataset
    from vidgru.datasets.splits import assign_splits, report

    dataset = load_dataset(path, allow_missing=True)
    durations, unreadable = _durations(dataset.recordings.values())
    concerns = []
    for step in (assign_splits, partial(check_times, durations=durations)):
        try:
            dataset = step(dataset)
        except AnnotationError as error:  # it cannot be trained on, but described
            concerns += ["", *str(error).splitlines()]
    return [f"data set {path}", *str(report(dataset)).splitlines(), *unreadable, *concerns]


def _durations(recordings: Iterable[Recording]) -> tuple[dict[str, float], list[str]]:
    """Seconds by name of the recordings whose container tells, and a warning if some cannot be read."""
    from vidgru.extract.video import probe

    def length(recording: Recording) -> float | str:
        try:
            return probe(recording.path).duration_s or 0.0
        except RecordingError as error:
            return f"{recording.name} {error.message}"

    recordings = list(recordings)
    with ThreadPoolExecutor(_PROBES) as pool:  # opening files is mostly waiting
        found = list(tqdm(pool.map(length, recordings), "recordings", len(recordings), leave=False, disable=None))
    wrong = [said for said in found if isinstance(said, str)]
    known = {r.name: said for r, said in zip(recordings, found, strict=True) if not isinstance(said, str) and said > 0}
    some = f"{len(wrong)} recording{'s' if len(wrong) > 1 else ''}"
    return known, [f"warning: {some} cannot be read (first: {wrong[0]})"] if wrong else []


def _model(path: Path) -> list[str]:
    from vidgru.model.checkpoint import load_model
    from vidgru.model.event_gru import count_parameters

    model = load_model(path)
    decode = model.decode
    thresholds = zip(model.labels, decode.high, decode.low, strict=True)
    return [
        f"model {path}: {len(model.labels)} labels, {count_parameters(model.network):,} parameters, "
        f"{_bytes(path.stat().st_size)}",
        f"architecture: {_settings(asdict(model.network.architecture))}",
        f"labels: {', '.join(model.labels)}",
        *_heads(model),
        f"detector: {model.weights}, {len(model.names)} classes",
        f"settings: {_settings(model.what)}",
        f"features: {_settings(asdict(model.layout))}",
        f"events: scores smoothed over {decode.smooth_s:g} s, at least {decode.min_s:g} s long, merged across "
        f"{decode.merge_s:g} s",
        *(f"  {label}: begins at score {high:.3f}, ends below {low:.3f}" for label, high, low in thresholds),
        "metrics on validation: " + (_settings(model.metrics) or "none"),
        "made with: " + (_settings(model.versions) or "unknown"),
    ]


def _heads(model: EventModel) -> list[str]:
    """A line for each head, and one on how recordings are read."""
    lines = []
    for name, head in (("clips", model.task.clips), ("frames", model.task.timed)):
        if head:
            several = "several labels" if head.multi_label else "one label"
            lines.append(f"head on {name}: {several} at a time{', or nothing' if head.background else ''}")
    if model.task.timed:
        lines.append(
            f"reads recordings at {model.fps:g} samples a second; scores come {model.lag / model.fps:g} s late"
        )
    else:
        lines.append(f"reads windows of {model.window_s:g} s at {model.fps:g} samples a second")
    return lines


def _video(path: Path) -> list[str]:
    from vidgru.extract.video import probe

    try:
        video = probe(path)
    except RecordingError as error:
        raise SourceError(f"{path} {error.message}", f"vidgru info takes {EXPECTED}") from None
    width, height = video.size_px
    known = {
        "length": None if video.duration_s is None else _duration(video.duration_s),
        "frames": None if video.fps is None else f"{video.fps:.3f} a second",
        "frames announced": video.frames,
        "codec": f"{video.codec} in {video.container}",
        "rotation": f"{video.rotation} degrees" if video.rotation else None,
        "recorded at": video.recorded_at,
    }
    return [
        f"video {path}: {width}x{height} px, {_bytes(path.stat().st_size)}",
        *(
            f"{name}: {'not known' if value is None else value}"
            for name, value in known.items()
            if name != "rotation" or value
        ),
    ]


# --- words ----------------------------------------------------------------------------------------------------------


def _settings(values: Mapping[str, Any]) -> str:
    """Names and values in a line; hashes cut to what tells them apart."""
    parts = []
    for name, value in sorted(values.items()):
        if name.endswith("sha256"):
            value = f"{value[:12]}…"
        parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _rate(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} hours"
    return f"{int(seconds // 60)} min {seconds % 60:.1f} s" if seconds >= 60 else f"{seconds:.3f} s"


def _bytes(size: int) -> str:
    power = min(len(f"{size}") - 1, 14) // 3
    return f"{size / 1000**power:.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}" if power else f"{size} bytes"
