"""Inspection of a path: a video, cache, cache entry, dataset, model or detector.

Whatever needs PyTorch or a decoder is imported when it is needed: inspecting a cache is frequent and must be fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import KEY, open_part, read_part
from vidgru.cache.prune import UNKNOWN_SOURCE, prune_cache
from vidgru.errors import AnnotationError, CacheError, OutputError, RecordingError, SettingsError, SourceError
from vidgru.storage import format_bytes, user_path
from vidgru.types import FrameSequence, Recording, covered_seconds, format_span

if TYPE_CHECKING:
    from vidgru.datasets.dataset import Dataset
    from vidgru.model.checkpoint import EventModel

SHOWN_CLASSES = 15
_SHOWN_ITEMS = 3  # of a list
_PROBE_THREADS = 4
_MAX_MEASURED = 1 << 30  # bytes of a transport stream that are read to measure its duration
_BROKEN_S = 1.0  # a track this short is mostly one that the tracker lost
_EXPECTED = (
    "vidgru info takes a video, a cache or a cache entry, a dataset (YAML, annotation file, folder), a model file, "
    "the folder of a training run, or weights of a detector (.pt)"
)


@dataclass(frozen=True, kw_only=True)
class InfoReport:
    """Result of an inspection.

    Attributes:
        lines: Lines of text to print.
        is_valid: False if a cache entry is corrupt.
    """

    lines: tuple[str, ...]
    is_valid: bool = True

    def __str__(self) -> str:
        return "\n".join(self.lines)


def inspect_path(
    path: str | Path, *, verify: bool = False, prune: bool = False, detections: str = "", videos: str = ""
) -> InfoReport:
    """Inspect a video, cache, cache entry, dataset, model or detector.

    Args:
        path: A video, a cache or the folder of one of its entries, a dataset (YAML, annotation file or folder), a model
            file or the folder of a training run, or weights of a detector.
        verify: Read every byte of a cache or an entry and compare checksums. Marks corrupt entries, so that the next
            extraction replaces them.
        prune: Delete from a cache what no recording needs: entries of recordings that are gone or have changed, corrupt
            entries, and incomplete entries of killed runs. Keeps what another process has locked.
        detections: Imported detections, in place of the videos of a dataset.
        videos: Folder of the videos of a dataset.

    Raises:
        SourceError: It is none of these.
        SettingsError: `verify` of something other than a cache or an entry, or `prune` of something other than a cache.
        CacheError: `prune` of a cache without an index, so that needed entries are unknown.
        VidgruError: It is one of these but cannot be read; the error of its kind.
    """
    path = user_path(path)
    if not path.exists():
        raise SourceError(f"no such file or folder: {path}", _EXPECTED)
    is_entry = path.is_dir() and (KEY.fullmatch(path.resolve().name) or (path / "entry.json").is_file())
    is_cache = path.is_dir() and not is_entry and _is_cache(path)
    if prune and not is_cache:
        raise SettingsError(f"prune applies to caches, and {path} is not a cache", "pass the folder of a cache")
    if is_entry:
        return _inspect_cache(path.resolve().parent, path.resolve().name, verify)
    if is_cache:
        report = _inspect_cache(path, None, verify) if verify or not prune else InfoReport(lines=())
        return InfoReport(lines=(*report.lines, *prune_cache(path)), is_valid=report.is_valid) if prune else report
    if verify:
        raise SettingsError(
            f"verify applies to caches and cache entries, and {path} is neither", "pass the folder of a cache"
        )
    lines = _inspect_folder(path, detections, videos) if path.is_dir() else _inspect_file(path, detections, videos)
    return InfoReport(lines=tuple(lines))


def _inspect_folder(path: Path, detections: str, videos: str) -> list[str]:
    from vidgru.datasets.spec import contains_annotations
    from vidgru.model.checkpoint import BEST

    if (path / BEST).is_file():
        return _inspect_model(path / BEST)
    if contains_annotations(path):
        return _inspect_dataset(path, detections, videos)
    raise SourceError(f"{path} holds no cache entry, no annotations and no {BEST}", _EXPECTED)


def _inspect_file(path: Path, detections: str, videos: str) -> list[str]:
    from vidgru.datasets.formats import SPREADSHEET_SUFFIXES, SUFFIXES, is_unsupported

    suffix = path.suffix.lower()
    if suffix == ".safetensors" and path.with_name("entry.json").is_file():
        raise SourceError(f"{path} is a part of a cache entry", f"pass its folder: {path.parent}")
    if suffix in (".safetensors", ".onnx"):
        return _inspect_model(path)
    if suffix == ".pt":
        return _inspect_weights(path)
    if suffix in (".yaml", ".yml", *SUFFIXES, *SPREADSHEET_SUFFIXES) or is_unsupported(path):
        return _inspect_dataset(path, detections, videos)  # whose error says what an unsupported file is
    return _inspect_video(path)


# --- video, dataset, model ------------------------------------------------------------------------------------------


def _inspect_video(path: Path) -> list[str]:
    """Return duration, size and codec of a video. Raises SourceError if it is not a video."""
    from vidgru.video.container import JOINABLE
    from vidgru.video.frame_times import packet_times
    from vidgru.video.reader import probe

    try:
        video = probe(path)
    except RecordingError as error:
        raise SourceError(f"{path} {error.message}", _EXPECTED) from None
    duration_s = video.duration_s
    if video.container in JOINABLE and path.stat().st_size <= _MAX_MEASURED:
        with suppress(RecordingError):  # joined streams declare the duration of one part
            duration_s = max(duration_s or 0.0, packet_times(path)[2])
    lines = [
        f"video {path}: {video.size_px[0]}x{video.size_px[1]} px, {format_bytes(path.stat().st_size)}",
        f"duration: {'unknown' if duration_s is None else format_duration(duration_s)}",
        f"frame rate: {'unknown' if video.fps is None else f'{video.fps:.3f} per second'}",
        f"frames, from the header: {'unknown' if video.frames is None else video.frames}",
        f"codec: {video.codec} in {video.container}",
    ]
    lines += [f"rotation: {video.rotation} degrees"] if video.rotation else []
    lines += [f"other video streams, not read: {', '.join(video.others)}"] if video.others else []
    return [*lines, f"recorded at: {video.recorded_at or 'unknown'}"]


def _inspect_dataset(path: Path, detections: str, videos: str) -> list[str]:
    """Return what the annotations hold, and what prevents training on them.

    Raises:
        AnnotationError: They cannot be read.
    """
    from vidgru.config import DetectorSettings, ImportedDetectionSettings, TrainConfig
    from vidgru.datasets.annotations import load_dataset
    from vidgru.datasets.recording_checks import check_recordings
    from vidgru.datasets.report import report
    from vidgru.datasets.splits import assign_splits
    from vidgru.training.advice import dataset_advice, format_advice
    from vidgru.training.members import split_notes

    find_imported = None
    if detections:
        from vidgru.extraction.import_detections import open_detections

        find_imported = open_detections(ImportedDetectionSettings(detections=detections), DetectorSettings()).find
    dataset = load_dataset(path, allow_missing=True, find_imported=find_imported, videos=videos)
    recordings = [r for r in dataset.recordings.values() if not detections or r.path.is_file()]
    durations, warnings = _probe_durations(recordings)
    durations |= _measure_late(dataset, durations)
    problems: list[str] = []
    checks = (assign_splits, partial(check_recordings, durations=durations, fps=DetectorSettings.fps))
    for check in checks:
        try:
            dataset = check(dataset)
        except AnnotationError as error:  # describe it nevertheless
            problems += ["", *str(error).splitlines()]
    if not problems:
        dataset = replace(dataset, notes=split_notes(dataset, TrainConfig(), durations))
    advice = format_advice(dataset_advice(dataset, DetectorSettings.fps))
    return [f"dataset {path}", *str(report(dataset)).splitlines(), *warnings, *problems, *advice]


def _probe_durations(recordings: Iterable[Recording]) -> tuple[dict[str, float], list[str]]:
    """Return seconds by name of the recordings with a known duration, and a warning if some cannot be read."""
    from vidgru.video.reader import probe

    def duration(recording: Recording) -> float | str:
        try:
            return probe(recording.path).duration_s or 0.0
        except RecordingError as error:
            return f"{recording.name} {error.message}"

    recordings = list(recordings)
    with ThreadPoolExecutor(_PROBE_THREADS) as pool:  # opening files is mostly waiting
        results = list(tqdm(pool.map(duration, recordings), "recordings", len(recordings), leave=False, disable=None))
    errors = [result for result in results if isinstance(result, str)]
    pairs = zip(recordings, results, strict=True)
    known = {recording.name: result for recording, result in pairs if not isinstance(result, str) and result > 0}
    noun = f"{len(errors)} recording{'s' if len(errors) > 1 else ''}"
    return known, [f"warning: {noun} cannot be read (first: {errors[0]})"] if errors else []


def _measure_late(dataset: Dataset, durations: Mapping[str, float]) -> dict[str, float]:
    """Return the durations of recordings with events after their declared end, by the times of all their frames.

    Headers may be wrong; joined transport streams declare the duration of their last part.
    """
    from vidgru.video.frame_times import packet_times

    ends: dict[str, float] = {}
    for note in dataset.annotations:
        ends[note.video] = max(ends.get(note.video, 0.0), note.end_s or 0.0)
    late = {}
    for name, declared in durations.items():
        if ends.get(name, 0.0) > declared:
            with suppress(RecordingError):
                late[name] = max(declared, packet_times(dataset.recordings[name].path)[2])
    return late


def _inspect_model(path: Path) -> list[str]:
    """Return the labels, network, features and metrics of a model. Raises ModelError if it is not a model."""
    from vidgru.model.checkpoint import load_model
    from vidgru.model.event_gru import count_parameters

    model = load_model(path, start=True)
    decode, network = model.decode, model.network
    parameters = f"{count_parameters(network):,} parameters"
    thresholds = zip(model.labels, decode.high, decode.low, strict=True)
    trims = zip(model.labels, decode.start_trim_s, decode.end_trim_s, strict=False)  # there may be none
    return [
        f"model {path}: {len(model.labels)} labels, {parameters}, {format_bytes(path.stat().st_size)}",
        f"architecture: {format_settings({'members': network.members, **asdict(network.architecture)})}",
        f"labels: {', '.join(model.labels)}",
        *_model_heads(model),
        f"detector: {model.weights or 'imported detections'}, {len(model.names)} classes",
        f"settings: {format_settings(model.feature_settings)}",
        f"features: {format_settings(asdict(model.feature_spec))}",
        f"events: scores smoothed over {decode.smooth_s:g} s, minimum length {decode.min_s:g} s, merged across gaps of "
        f"up to {decode.merge_s:g} s",
        *(f"  {label}: starts at score {high:.3f}, ends below {low:.3f}" for label, high, low in thresholds),
        *(
            f"  {label}: shortened by {start_s:.2f} s at the start and {end_s:.2f} s at the end"
            for label, start_s, end_s in trims
        ),
        "validation metrics: " + (format_settings(model.metrics) or "none"),
        "versions: " + (format_settings(model.versions) or "unknown"),
    ]


def _inspect_weights(path: Path) -> list[str]:
    """Return task, input and classes of a detector. Raises WeightsError if it is not one that vidgru can run."""
    from vidgru.detector.yolo_head import load_network

    network, spec = load_network(path)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    size_px = getattr(network, "args", {}).get("imgsz")
    lines = [
        f"detector {path}: {spec.task}, {len(spec.names)} class{'es' if len(spec.names) > 1 else ''}, "
        f"{parameters:,} parameters, {format_bytes(path.stat().st_size)}",
        f"input: trained at {size_px or 'an unknown number of'} px; --imgsz takes multiples of {max(spec.strides)}",
        f"boxes: {'overlapping ones are removed (--iou)' if spec.needs_nms else 'one per object, without NMS'}",
    ]
    lines += [f"keypoints: {spec.keypoints[0]} per object"] if spec.keypoints else []
    return [*lines, f"classes, for --only: {', '.join(spec.names)}"]


def _model_heads(model: EventModel) -> list[str]:
    """Return a line per head, and one on how the model reads recordings."""
    lines = []
    for name, head in (("clip", model.task.clip_head), ("frame", model.task.frame_head)):
        if head:
            labels = "several labels" if head.multi_label else "one label"
            lines.append(f"{name} head: {labels} at a time{', or none' if head.background else ''}")
    rate = f"{model.fps:g} samples per second"
    if model.task.frame_head:
        lines.append(f"reads recordings at {rate}, with a lookahead of {model.lookahead / model.fps:g} s")
    elif model.task.clip_head:
        lines.append(f"reads windows of {model.window_s:g} s at {rate}")
    else:
        lines.append(f"describes windows of {model.window_s:g} s at {rate}")
    if model.caption:
        words, threshold = len(model.caption.tokenizer), model.caption.threshold
        lines.append(f"captions: vocabulary of {words}, used from score {threshold:.2f}")
        if grounding := model.caption.grounding:
            lines.append(f"  with words that attributes tell, used from score {grounding.threshold:.2f}:")
            lines += [f"  {choice.group}: {', '.join(choice.words)}" for choice in grounding.choices]
    return lines


# --- cache ----------------------------------------------------------------------------------------------------------


def _is_cache(path: Path) -> bool:
    cache = SequenceCache(path)
    return bool(cache.entry_keys() or cache.incomplete_entries() or (path / "index.jsonl").is_file())


def _inspect_cache(root: Path, only_key: str | None, verify: bool) -> InfoReport:
    """Return the totals by settings of the cache at `root`, or of one of its entries."""
    cache = SequenceCache(root)
    sources = cache.sources()
    keys = cache.entry_keys() if only_key is None else [only_key]
    incomplete = {key for key, _ in cache.incomplete_entries() if only_key in (None, key)}
    corrupt: dict[str, list[str]] = {}
    groups: dict[str, list[tuple[Entry, _ObjectCounts]]] = {}
    for key in keys:
        try:
            entry = cache.entry(key)
            if entry is None and not cache.is_marked_corrupt(key):
                incomplete.add(key)
            elif faults := cache.verify(key) if verify or entry is None else []:
                corrupt[key] = faults
            elif entry is not None:
                shared = {name: value for name, value in entry.feature_settings.items() if name != "span"}
                group = groups.setdefault(format_settings(shared), [])
                group.append((entry, _count_objects(cache, entry)))
        except CacheError as error:
            corrupt[key] = [error.message]
    finished = [entry for group in groups.values() for entry, _ in group]
    partial_count = sum(entry.status == "partial" for entry in finished)
    lines = [f"cache {root}: {len(finished)} {'entry' if len(finished) == 1 else 'entries'}"]
    lines[0] += f", {partial_count} of damaged recordings" if partial_count else ""
    if incomplete:
        lines.append(f"{len(incomplete)} incomplete: extracting their recordings again completes them")
    for settings, group in groups.items():
        lines += [f"settings: {settings}", *(f"  {line}" for line in _totals(cache, group))]
    if len(keys) == 1 and finished:
        lines += _entry_details(finished[0], sources)
    for key, faults in corrupt.items():
        names = ", ".join(sources.get(key, [UNKNOWN_SOURCE]))
        lines += [f"CORRUPT {key}, of {names}", *(f"  {fault}" for fault in faults)]
        try:
            if verify:
                cache.mark_corrupt(key)
        except OutputError as error:  # the cache may be read-only
            lines.append(f"  {error.message}: {error.remedy}, else the next run uses it")
    if corrupt:
        lines.append(f"{len(corrupt)} corrupt: extracting their recordings again replaces them")
    elif verify:
        lines.append("all checksums match")
    return InfoReport(lines=tuple(lines), is_valid=not corrupt)


def _totals(cache: SequenceCache, group: list[tuple[Entry, _ObjectCounts]]) -> list[str]:
    """Return duration and size of entries with the same settings, and their objects per frame by class."""
    samples = sum(entry.samples for entry, _ in group)
    covered_s = sum(covered_seconds(entry.span, entry.duration_s) for entry, _ in group)
    files = [cache.root / entry.key / part.name for entry, _ in group for part in entry.parts]
    counts: Counter[str] = sum((found.classes for _, found in group), Counter())
    empty = sum(found.empty_frames for _, found in group)
    lengths_s = np.array([samples / entry.fps for entry, found in group for samples in found.tracks.values()])
    rates = [(name, count / samples) for name, count in counts.most_common()]
    lines = [
        f"{format_duration(covered_s)}, {samples:,} samples, "
        f"{format_bytes(sum(file.stat().st_size for file in files))}",
        f"tensors: {_format_tensors(read_part(files[0]))}",
        f"objects: {_format_rate(counts.total() / samples)} per frame",
        *(f"  {name} {_format_rate(rate)} per frame" for name, rate in rates[:SHOWN_CLASSES]),
    ]
    if rest := rates[SHOWN_CLASSES:]:
        lines.append(f"  {len(rest)} more classes {_format_rate(sum(rate for _, rate in rest))} per frame")
    if spans := sum(entry.span is not None for entry, _ in group):
        lines.append(f"parts of recordings, made with predict --since or --until: {spans}")
    if still := sum(entry.still for entry, _ in group):
        lines.append(f"still: {still / samples:.1%} of the samples, not decoded")
    if samples:
        lines.append(f"frames without an object: {empty / samples:.1%}")
    if len(lengths_s):
        median, broken = float(np.median(lengths_s)), float((lengths_s < _BROKEN_S).mean())
        lines.append(f"tracks: {len(lengths_s):,}, median {median:.1f} s, {broken:.0%} shorter than {_BROKEN_S:g} s")
    return lines


def _entry_details(entry: Entry, sources: Mapping[str, Iterable[str]]) -> list[str]:
    lines = [f"source: {path}" for path in sources.get(entry.key, [])]
    lines.append(f"frame: {entry.size_px[0]}x{entry.size_px[1]} px, sampled at {entry.fps:g} per second")
    lines += [f"recorded at: {entry.recorded_at}"] if entry.recorded_at else []
    lines += [f"covers: {format_span(entry.span)} of {format_duration(entry.duration_s)}"] if entry.span else []
    lines += [f"still: {entry.still:,} of {entry.samples:,} samples, not decoded"] if entry.still else []
    lines += [f"adaptive: {entry.adaptive_note}"] if entry.adaptive_note else []
    lines += [f"damage: {kind} {amount}" for kind, amount in sorted(entry.damage.items())]
    return [*lines, f"run: {format_settings(entry.run_info)}"]


class _ObjectCounts(NamedTuple):
    """Objects of an entry by class name, its frames without any, and the samples of each track."""

    classes: Counter[str]
    empty_frames: int
    tracks: Counter[int]


def _count_objects(cache: SequenceCache, entry: Entry) -> _ObjectCounts:
    """Count the objects of an entry; reads only classes and tracks from disk."""
    classes, tracks, empty = Counter[str](), Counter[int](), 0
    for part in (open_part(cache.root / entry.key, part) for part in entry.parts):
        for index, count in zip(*np.unique(part.classes, return_counts=True), strict=True):
            name = part.names[index] if 0 <= index < len(part.names) else f"class {index}"
            classes[name] += int(count)
        tracks.update(part.tracks[part.tracks >= 0].tolist())
        empty += int((np.diff(part.offsets) == 0).sum())
    return _ObjectCounts(classes, empty, tracks)


# --- formatting -----------------------------------------------------------------------------------------------------


def format_settings(values: Mapping[str, Any]) -> str:
    """Format names and values as a line; abbreviates hashes and lists, omits empty values."""
    items = []
    for name, value in sorted(values.items()):
        if value in ("", [], ()):
            continue
        if name.endswith("sha256"):
            value = f"{str(value)[:12]}…"
        if isinstance(value, list) and len(value) > _SHOWN_ITEMS:
            value = f"{', '.join(map(str, value[:_SHOWN_ITEMS]))} and {len(value) - _SHOWN_ITEMS} more"
        items.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(items)


def format_duration(seconds: float) -> str:
    """Format a duration in hours, minutes or seconds."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} hours"
    return f"{int(seconds // 60)} min {seconds % 60:.1f} s" if seconds >= 60 else f"{seconds:.3f} s"


def _format_rate(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _format_tensors(sequence: FrameSequence) -> str:
    """List the tensors of a sequence with their shapes per object or per frame."""
    shapes = {name: list(tensor.shape[1:]) for name, tensor in sequence.tensors().items() if name != "offsets"}
    return ", ".join(f"{name} {shape}" if shape else name for name, shape in shapes.items())
