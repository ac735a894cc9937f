"""From a dataset on disk to features in memory: extract what is missing, read and compute the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.recording_checks import check_recordings
from vidgru.errors import AnnotationError, SettingsError
from vidgru.extraction.import_detections import DetectionSource, extract_detections
from vidgru.extraction.pipeline import extract_recordings, summary_table
from vidgru.keypoints import check_flip_idx
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.types import Array, Features


@dataclass(frozen=True, kw_only=True)
class ExtractedDataset:
    """A dataset whose recordings are in the cache.

    Attributes:
        dataset: Rows checked against the durations of the recordings, without those of recordings that failed.
        keys: Cache entry of each video.
        failed: Reason by video, for recordings that could not be read.
    """

    dataset: Dataset
    keys: dict[str, str]
    failed: dict[str, str]


def extract_missing(
    dataset: Dataset,
    videos: Iterable[str],
    cache: SequenceCache,
    feature_settings: Mapping[str, Any],
    detector: DetectorSettings,
    runtime: RuntimeSettings,
    detection_source: DetectionSource | None = None,
) -> ExtractedDataset:
    """Extract recordings that the cache lacks, and check the annotations against their durations.

    If nothing is missing, neither the detector nor its weights are needed. Problems are printed to stderr.

    Args:
        dataset: Dataset as loaded.
        videos: Recordings to extract, keys into `dataset.recordings`.
        cache: Cache to read and extend.
        feature_settings: Feature settings, as in cache entries.
        detector: The same settings, with the path of the weights.
        runtime: How the detector runs.
        detection_source: Imported detections, used instead of running a detector.

    Raises:
        AnnotationError: An interval starts after the end of its recording, or no recording can be read.
        WeightsError, OutputError: As raised by `extract_recordings`.
    """
    names = list(dict.fromkeys(videos))
    keys: dict[str, str] = {}
    durations: dict[str, float] = {}
    failed: dict[str, str] = {}
    missing = []
    for name in names:
        entry = None if detection_source else cache.lookup(dataset.recordings[name].path, feature_settings)
        if entry is None:
            missing.append(name)
        else:
            keys[name], durations[name] = entry.key, entry.duration_s
    if missing:
        recordings = [dataset.recordings[name] for name in missing]
        if detection_source:
            results = extract_detections(detection_source, recordings, cache)
        else:
            results = extract_recordings(recordings, cache, detector, runtime)
        if any(result.status != "reused" for result in results):
            print(summary_table(results), file=sys.stderr)
        for name, result in zip(missing, results, strict=True):
            if result.key is None:
                failed[name] = result.reason
            else:
                keys[name] = result.key
                durations[name] = result.duration_s or np.inf
    if not keys:
        raise AnnotationError(
            f"{dataset.source}: none of its {len(names)} recordings can be read",
            "vidgru info VIDEO says what is wrong with a file",
        )
    rows = tuple(row for row in dataset.rows if row.annotation.video not in failed)
    checked = check_recordings(replace(dataset, rows=rows), durations, feature_settings["fps"])
    return ExtractedDataset(dataset=checked, keys=keys, failed=failed)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedFeatures:
    """Features of recordings in memory.

    Attributes:
        features: Features by video.
        feature_spec: Spec that all of them share.
        names: The detector's class names.
        keys: Cache entry of each video.
    """

    features: dict[str, Features]
    feature_spec: FeatureSpec
    names: tuple[str, ...]
    keys: dict[str, str]

    @property
    def times(self) -> dict[str, Array]:
        """Frame times of each video, float64 [T]."""
        return {video: features.time_s for video, features in self.features.items()}

    def durations(self, fps: float) -> dict[str, float]:
        """Return the seconds of each video at the frame rate of the features."""
        return {video: len(features.time_s) / fps for video, features in self.features.items()}


def load_features(cache: SequenceCache, keys: Mapping[str, str], flip_idx: tuple[int, ...] = ()) -> LoadedFeatures:
    """Read sequences and compute their features, one at a time.

    Args:
        cache: Cache to read.
        keys: Entry of each video, at least one.
        flip_idx: Left-right partner of each keypoint; empty for that of the sequences.

    Raises:
        CacheError: An entry is corrupt.
        SettingsError: `flip_idx` does not fit the keypoints.
    """
    by_key: dict[str, Features] = {}  # identical recordings share an entry
    feature_spec, names = FeatureSpec(classes=0), tuple[str, ...]()
    for key in dict.fromkeys(keys.values()):
        sequence = cache.read(key)
        feature_spec, names = FeatureSpec.from_sequence(sequence), sequence.names
        by_key[key] = compute_features(sequence)
    if flip_idx:
        try:
            feature_spec = replace(feature_spec, flip_idx=check_flip_idx(flip_idx, feature_spec.keypoints))
        except ValueError as error:
            remedy = "copy flip_idx from the data.yaml that the detector was trained on"
            raise SettingsError(str(error), remedy) from None
    features = {video: by_key[key] for video, key in keys.items()}
    return LoadedFeatures(features=features, feature_spec=feature_spec, names=names, keys=dict(keys))
