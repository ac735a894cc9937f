"""Thresholds at which scores become events and captions are trusted, fitted on validation examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidgru.model.checkpoint import HeadSpec
from vidgru.model.event_decoder import (
    MIN_SCORE,
    DecodeSettings,
    decode_candidates,
    decode_events,
    smooth_scores,
)
from vidgru.training.metrics.matching import event_table, match_by_score
from vidgru.types import Annotation, Array, Event

_GRID = np.linspace(0.1, 0.9, 33)
_WIDE_GRID = np.linspace(0.02, 0.98, 49)  # for aims that need many events, or few
_DEFAULT = 0.5
_MIN_SUPPORT = 5  # clips with and without a label, or events of a label, that a threshold of its own needs

_CLIP_LOW = 0.7  # ratio of the lower to the upper threshold
_CLIP_MIN, _CLIP_MERGE = 0.25, 0.25  # of the training clips' length: shorter events are dropped, closer ones merged

_EVENT_MIN, _EVENT_MERGE = 0.5, 0.5  # the same, of the length of a short training event
_EVENT_LOWS = (0.8, 0.5)  # tried ratios of the lower to the upper threshold
_SMOOTH_S = (0.0, 0.5, 1.0)  # tried lengths of smoothing
_MIN_TIOU = 0.3  # of a match
_MIN_TRIMMED = 2  # found events of a label that its trims need
_CORRECT_TIOU = 0.5  # from which an event counts as found
_BLUR = np.array([1.0, 2, 3, 2, 1]) / 9  # of F1 over thresholds: a plateau generalises better than a peak
_PRIOR = 0.02  # F1 that is given up for a threshold near the default

_PLATT_STEPS = 50
_PLATT_PENALTY = 1.0  # in nats per unit of squared deviation from no change
_MIN_PLATT_SCALE = 0.05  # scores must not be reversed

# A model that knows directions and guesses colours is right about three quarters of the time.
_MIN_UNDERSTOOD = 0.9


def fit_clips(scores: Array, labels: Array, head: HeadSpec, number: int, window_s: float) -> DecodeSettings:
    """Fit the decoding of a model of clips to validation clips.

    The threshold of each label is the one with the best F1, the nearest to 0.5 of equals; with too few clips it is
    0.5. If exactly one label always holds and "no event" is none of them, the best label is always predicted.

    Args:
        scores: float32 [n, C], 0 to 1.
        labels: float32 [n, C].
        head: The clip head.
        number: Number of labels.
        window_s: Typical length of the training clips in seconds.
    """
    high = []
    for label in range(number):
        true = labels[:, label] > 0
        if not head.multi_label and not head.background:
            high.append(0.0)
        elif min(true.sum(), (~true).sum()) < _MIN_SUPPORT:
            high.append(_DEFAULT)
        else:
            predicted = scores[:, label, None] >= _GRID
            f1 = 2 * (predicted & true[:, None]).sum(axis=0) / (predicted.sum(axis=0) + true.sum())
            best = _GRID[f1 == f1.max()]
            high.append(float(best[np.abs(best - _DEFAULT).argmin()]))
    return DecodeSettings(
        high=tuple(round(value, 4) for value in high),
        low=tuple(round(value * _CLIP_LOW, 4) for value in high),
        min_s=round(window_s * _CLIP_MIN, 3),
        merge_s=round(window_s * _CLIP_MERGE, 3),
        exclusive=not head.multi_label,
    )


def fit_frames(
    times: Sequence[Array],
    scores: Sequence[Array],
    events: Sequence[Array],
    labels: tuple[str, ...],
    head: HeadSpec,
    step_s: float,
    short_event_s: float,
) -> DecodeSettings:
    """Fit the decoding of a model of timed events to whole validation recordings.

    Smoothing and the ratio of the thresholds are those with the best mean over labels of event F1 (one to one, each hit
    weighted by its tIoU), each label at its own best threshold; labels with few events share one. Without a single
    event thresholds are 0.5.

    Args:
        times: float64 [T] of each recording.
        scores: float32 [T, K] of each.
        events: int64 [E, 3] of each: first frame, frame after the last, label.
        labels: Label names.
        head: The frame head.
        step_s: Seconds between samples.
        short_event_s: Length of a short training event in seconds.
    """
    base = DecodeSettings(
        high=(_DEFAULT,) * len(labels),
        low=(_DEFAULT * _EVENT_LOWS[0],) * len(labels),
        min_s=round(_EVENT_MIN * short_event_s, 3),
        merge_s=round(_EVENT_MERGE * short_event_s, 3),
        exclusive=not head.multi_label,
    )
    if not any(len(rows) for rows in events):
        return base
    truth = [_spans_s(time_s, rows, step_s) for time_s, rows in zip(times, events, strict=True)]
    support = np.bincount(np.concatenate([rows[:, 2] for rows in events]), minlength=len(labels))
    best, settings = -1.0, base
    for smooth_s in _SMOOTH_S:
        smoothed = [smooth_scores(time_s, rows, smooth_s) for time_s, rows in zip(times, scores, strict=True)]
        for ratio in _EVENT_LOWS:
            trial = replace(base, low=(_DEFAULT * ratio,) * len(labels))
            f1 = _smooth_f1(_count_over(_GRID, trial, times, smoothed, truth, labels, step_s), support)
            mean = float(f1.max(axis=0)[support > 0].mean())
            if mean > best + 1e-9:
                best = mean
                high = [round(float(value), 4) for value in _GRID[f1.argmax(axis=0)]]
                settings = replace(trial.with_high(high), smooth_s=smooth_s)
    return settings


def _smooth_f1(counts: Array, support: Array) -> Array:
    """Event F1 over `_GRID`, blurred, with a little added near the default: float64 [G, C]; rare labels share theirs.

    Args:
        counts: float64 [G, C, 4], as `_count_over` returns them.
        support: int64 [C], number of true events.
    """
    rare = support < _MIN_SUPPORT
    counts = counts.copy()
    counts[:, rare] = counts[:, rare].sum(axis=1, keepdims=True)
    total = np.where(rare, support[rare].sum(), support)
    f1 = 2 * counts[..., 0] / np.maximum(counts[..., 1] + total, 1e-9)
    padded = np.pad(f1, ((2, 2), (0, 0)), mode="edge")
    blurred: Array = sum(weight * padded[at : at + len(f1)] for at, weight in enumerate(_BLUR))
    return blurred + _PRIOR * (1 - np.abs(_GRID - _DEFAULT))[:, None]


def refit_thresholds(
    settings: DecodeSettings,
    times: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    labels: tuple[str, ...],
    step_s: float,
    *,
    hours: float,
    min_recall: float | None = None,
    max_false_alarms: float | None = None,
) -> DecodeSettings:
    """Fit the thresholds of a model again, then the trims; smoothing, the ratio of the thresholds and lengths stay.

    Each label gets the threshold with the best F1, as by `fit_frames`; or, with `min_recall`, the highest that finds
    this share of its events (tIoU 0.5); or, with `max_false_alarms`, the one that finds most events with at most so
    many false alarms per hour. Where no threshold fulfils the aim, the nearest to it is taken. Labels without a true
    event keep their threshold. Trims are fitted by `_fit_trims`.

    Args:
        settings: The model's decoding.
        times, scores, labels, step_s: As for `fit_frames`.
        truth: Start and end in seconds, as annotated, and label of the events of each recording: float64 [E, 3]. Frames
            would be up to a step too late, which is too much for the trims of short events.
        hours: Annotated time, for `max_false_alarms`.
        min_recall: 0 to 1.
        max_false_alarms: Predicted events per hour and label that overlap no true event of their label.
    """
    support = np.bincount(np.concatenate(truth)[:, 2].astype(np.int64), minlength=len(labels))
    smoothed = [smooth_scores(time_s, rows, settings.smooth_s) for time_s, rows in zip(times, scores, strict=True)]
    by_f1 = min_recall is None and max_false_alarms is None
    grid = _GRID if by_f1 else _WIDE_GRID
    untrimmed = replace(settings.untrimmed(), smooth_s=0.0)
    counts = _count_over(grid, untrimmed, times, smoothed, truth, labels, step_s)
    hits, false_alarms = counts[..., 2], counts[..., 3]
    rows = np.arange(len(grid))[:, None]
    if by_f1:
        rank = _smooth_f1(counts, support)
    elif min_recall is not None:
        enough = hits >= min_recall * support - 1e-9
        rank = np.where(enough, len(grid) * support.max() + rows, hits * len(grid) + rows)
    else:
        assert max_false_alarms is not None
        few = false_alarms <= max_false_alarms * hours + 1e-9
        rank = np.where(few, (hits + 1) * len(grid) + rows, -false_alarms)
    best = grid[len(grid) - 1 - rank[::-1].argmax(axis=0)]
    high = [round(float(new), 4) if n else old for new, old, n in zip(best, settings.high, support, strict=True)]
    return _fit_trims(settings.with_high(high), times, scores, truth, labels, step_s)


def _fit_trims(
    settings: DecodeSettings,
    times: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    labels: tuple[str, ...],
    step_s: float,
) -> DecodeSettings:
    """Fit how much shorter than predicted the true events of each label are, at the start and at the end.

    What belongs to an event is a matter of convention, which differs between annotators: a fall may end where the
    person reaches the floor or where they lie still. Trims are the medians over the predicted events that overlap a
    true one. They are left at 0 where they do not raise the sum of the tIoU of matches, or cost a match or a false
    alarm; labels with few such events keep theirs.

    Arguments as for `refit_thresholds`.
    """
    untrimmed = settings.untrimmed()
    excess_s: list[list[tuple[float, float]]] = [[] for _ in labels]  # of each overlapping event, at both ends
    for time_s, frame_scores, true in zip(times, scores, truth, strict=True):
        end_s = float(time_s[-1]) + step_s
        for event in decode_events(time_s, frame_scores, labels, untrimmed, video="", step_s=step_s, end_s=end_s):
            index = labels.index(event.label)
            of_label = true[true[:, 2] == index]
            common_s = np.minimum(of_label[:, 1], event.end_s) - np.maximum(of_label[:, 0], event.start_s)
            if common_s.max(initial=0.0) > 0:
                true_start_s, true_end_s, _ = of_label[common_s.argmax()].tolist()
                excess_s[index].append((true_start_s - event.start_s, event.end_s - true_end_s))
    has_enough = np.array([len(rows) >= _MIN_TRIMMED for rows in excess_s])
    fitted = np.zeros((len(labels), 2))
    for label in np.flatnonzero(has_enough):
        fitted[label] = np.median(excess_s[label], axis=0).clip(0)
    fitted[:, 0] = fitted[:, 0].clip(max=max(settings.min_s - step_s, 0.0))  # more is not cut off, see `trim`

    def with_trims(trims: Array) -> DecodeSettings:
        return replace(settings, start_trim_s=tuple(trims[:, 0].tolist()), end_trim_s=tuple(trims[:, 1].tolist()))

    before, after = (_sum_counts(of, times, scores, truth, labels, step_s) for of in (untrimmed, with_trims(fitted)))
    is_better = (after[:, 0] > before[:, 0]) & (after[:, 2] >= before[:, 2]) & (after[:, 3] <= before[:, 3])
    fitted[~is_better] = 0.0
    kept = np.array([settings.start_trim_s, settings.end_trim_s]).T if settings.start_trim_s else np.zeros_like(fitted)
    trims = np.where(has_enough[:, None], fitted, kept)
    return with_trims(trims) if trims.any() else untrimmed


def count_events(
    settings: DecodeSettings,
    times: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    labels: tuple[str, ...],
    step_s: float,
) -> Array:
    """Count predicted events, those that match a true one (tIoU 0.5), and those that overlap none: int64 [C, 3].

    Arguments as for `refit_thresholds`.
    """
    return _sum_counts(settings, times, scores, truth, labels, step_s)[:, 1:].astype(np.int64)


def _count_over(
    grid: Array,
    settings: DecodeSettings,
    times: Sequence[Array],
    smoothed: Sequence[Array],
    truth: Sequence[Array],
    labels: tuple[str, ...],
    step_s: float,
) -> Array:
    """Sum `_count` over recordings at each upper threshold of a grid: float64 [G, C, 4]."""
    trials = (settings.with_high((float(high),) * len(labels)) for high in grid)
    return np.stack([_sum_counts(trial, times, smoothed, truth, labels, step_s) for trial in trials])


def _sum_counts(
    settings: DecodeSettings,
    times: Sequence[Array],
    scores: Sequence[Array],
    truth: Sequence[Array],
    labels: tuple[str, ...],
    step_s: float,
) -> Array:
    """Sum `_count` over recordings: float64 [C, 4]."""
    counts = np.zeros((len(labels), 4))
    for time_s, frame_scores, true in zip(times, scores, truth, strict=True):
        end_s = float(time_s[-1]) + step_s
        predicted = decode_events(time_s, frame_scores, labels, settings, video="", step_s=step_s, end_s=end_s)
        counts += _count(predicted, true, labels)
    return counts


def fit_event_scores(
    settings: DecodeSettings,
    times: Sequence[Array],
    scores: Sequence[Array],
    events: Sequence[Array],
    labels: tuple[str, ...],
    step_s: float,
) -> DecodeSettings:
    """Fit the scores of events, and of weaker candidates, to how often they match a true event (tIoU 0.5).

    The fit has two parameters for all labels, so that it changes no ranking.

    Args:
        settings: Fitted decoding.
        times, scores, events, labels, step_s: As for `fit_frames`.
    """
    truth: list[Annotation] = []
    candidates: list[Event] = []
    for number, (time_s, frame_scores, rows) in enumerate(zip(times, scores, events, strict=True)):
        video, end_s = str(number), float(time_s[-1]) + step_s
        candidates += decode_candidates(time_s, frame_scores, labels, settings, video=video, step_s=step_s, end_s=end_s)
        truth += [
            Annotation(video=video, start_s=first_s, end_s=stop_s, label=labels[int(label)])
            for first_s, stop_s, label in _spans_s(time_s, rows, step_s).tolist()
        ]
    if not truth:
        return settings
    videos = [str(number) for number in range(len(times))]
    true_table, table = (event_table(of, videos, labels) for of in (truth, candidates))
    correct = match_by_score(true_table, table, np.array([0.5]))[0]
    scale, bias = fit_platt(table.scores, correct)
    return replace(settings, event_scale=round(scale, 4), event_bias=round(bias, 4))


def fit_platt(scores: Array, correct: Array) -> tuple[float, float]:
    """Fit scale and bias of the logits of scores to how often they are correct, by Newton's method.

    A penalty keeps them near 1 and 0, as if nothing were to change, unless the examples say otherwise.

    Args:
        scores: float64 [n], 0 to 1.
        correct: bool [n].
    """
    scores = scores.clip(MIN_SCORE, 1 - MIN_SCORE)
    rows = np.column_stack([np.log(scores / (1 - scores)), np.ones(len(scores))])
    prior = np.array([1.0, 0.0])
    weights = prior.copy()
    for _ in range(_PLATT_STEPS):
        p = 1 / (1 + np.exp(-(rows @ weights)))
        gradient = rows.T @ (p - correct) + 2 * _PLATT_PENALTY * (weights - prior)
        hessian = (rows * (p * (1 - p))[:, None]).T @ rows + 2 * _PLATT_PENALTY * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()))
    return max(float(weights[0]), _MIN_PLATT_SCALE), float(weights[1])


def _spans_s(time_s: Array, events: Array, step_s: float) -> Array:
    """Start, end and label of events that are given by frames: float64 [E, 3]."""
    ends = np.append(time_s[1:], time_s[-1] + step_s)
    return np.column_stack([time_s[events[:, 0]], ends[events[:, 1] - 1], events[:, 2]])


def _count(predicted: list[Event], true: Array, labels: tuple[str, ...]) -> Array:
    """Tally predicted events of each label: float64 [C, 4].

    Returns:
        Sum of the tIoU of matches, which rates how well events are delimited, so that few events tell thresholds apart;
        predicted, found and false events.
    """
    counts = np.zeros((len(labels), 4))
    for index, label in enumerate(labels):
        spans = np.array([(event.start_s, event.end_s) for event in predicted if event.label == label]).reshape(-1, 2)
        counts[index, 1] = len(spans)
        of_label = true[true[:, 2] == index]
        common = np.minimum(spans[:, None, 1], of_label[:, 1]) - np.maximum(spans[:, None, 0], of_label[:, 0])
        joint = np.maximum(spans[:, None, 1], of_label[:, 1]) - np.minimum(spans[:, None, 0], of_label[:, 0])
        tiou = common / joint
        counts[index, 3] = (tiou <= 0).all(axis=1).sum()
        while tiou.size and (largest := tiou.max()) >= _MIN_TIOU:  # one to one, the largest overlap first
            counts[index, 0] += largest
            counts[index, 2] += largest >= _CORRECT_TIOU
            row, column = np.unravel_index(tiou.argmax(), tiou.shape)
            tiou[row], tiou[:, column] = -1, -1
    return counts


def caption_understanding(log_likelihoods: Array, texts: Sequence[str], labels: Sequence[int | None]) -> Array:
    """Measure how well a model tells each segment from others of the same label, whatever words it would choose.

    A reference counts by how much more likely it is in a segment than in segments on average, so that neither its
    length nor its wording matters. A model that knows the label and guesses the rest scores a half.

    Args:
        log_likelihoods: float64 [n, n], log probability of reference j in segment i.
        texts: n references; equal ones are not compared with each other.
        labels: Labels of the segments. A segment whose label, or whose wording within it, is unique is compared with
            segments of other labels.

    Returns:
        float64 [n], share of the other references that fit a segment less than its own; 1 if there are no others.
    """
    fits = log_likelihoods - log_likelihoods.mean(axis=0)
    understood = np.ones(len(texts))
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        other_text = np.array([other != text for other in texts])
        same_label = other_text & np.array([other == label for other in labels])
        compared = same_label if same_label.any() else other_text
        if compared.any():
            understood[i] = (fits[i, i] > fits[i, compared]).mean()
    return understood


def fit_caption_threshold(scores: Sequence[float], understood: Array) -> float:
    """Fit the score from which on captions are trusted.

    Each segment counts for or against a threshold by how much its understanding exceeds what is required.

    Args:
        scores: Scores of n captions.
        understood: float64 [n], as returned by `caption_understanding`.

    Returns:
        0 if all captions are worth it, 1 if none is, else halfway between two scores.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    gain = np.concatenate([[0.0], np.cumsum(understood[order] - _MIN_UNDERSTOOD)])
    number = len(gain) - 1 - int(gain[::-1].argmax())  # the lowest of equally good thresholds
    if number == len(order):
        return 0.0
    if number == 0:
        return 1.0
    return round(float(scores[order[number - 1]] + scores[order[number]]) / 2, 6)
