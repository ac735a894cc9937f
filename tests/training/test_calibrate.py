"""Linear paths, their combination with networks, and thresholds, on features that say the label.

Networks are not trained. Those that give every clip the same score know nothing: what a model knows it has from its
linear paths.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model.checkpoint import EventModel
from vidgru.model.feature_spec import SPEED, FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.training.calibrate import PLACE_GROUPS, CalibratedModel, calibrate, sides_matter
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import Examples, LabelledClip, TimedRecording
from vidgru.training.validation import Validation
from vidgru.types import Features

SEQUENCE = make_sequence(60)
SPEC = FeatureSpec.from_sequence(SEQUENCE)
MEMBERS = 3
EYE = np.eye(2, dtype=np.float32)


def signal(features: Features, group: str, rows: slice, strength: float) -> None:
    """Add a signal to some frames of a recording."""
    objects = slice(features.offsets[rows.start], features.offsets[min(rows.stop, len(features))])
    if group in SPEC.object_groups():
        features.objects[objects, SPEC.object_groups()[group]] += strength
    else:
        features.frame[rows, SPEC.frame_groups()[group]] += strength


def loaded(features: dict[str, Features]) -> LoadedFeatures:
    return LoadedFeatures(features=features, feature_spec=SPEC, names=SEQUENCE.names, keys=dict.fromkeys(features, ""))


def clip_data(strengths: dict[str, float], *, clips: int = 24) -> tuple[list[LabelledClip], LoadedFeatures]:
    """Clips of two labels that groups of features tell apart; with a negative strength contrarily in the last fold."""
    features, examples = {}, []
    for number in range(clips):
        label, fold, name = number % 2, number // 2 % MEMBERS, f"{number}.mp4"
        features[name] = compute_features(make_sequence(12, 2, seed=number))
        for group, strength in strengths.items():
            sign = (2 * label - 1) * (np.sign(strength) if fold == 2 else 1)
            signal(features[name], group, slice(0, 12), sign * abs(strength))
        examples.append(LabelledClip(video=name, frames=12, labels=EYE[label], fold=fold))
    return examples, loaded(features)


def calibrated(
    clips: list[LabelledClip], data: LoadedFeatures, model: EventModel | None = None, *, linear: bool = True
) -> CalibratedModel:
    """Calibrate a model, or one that knows nothing."""
    if model is None:
        model = make_model(SEQUENCE, background=False, members=MEMBERS)
        with torch.no_grad():
            model.network.clip_head[-1].weight.zero_()
    examples = Examples(clips=clips, recordings=[], captions=[])
    validation = Validation(examples, MEMBERS, data)
    return calibrate([model], examples, validation, data, linear=linear, class_weights=np.ones(0, np.float32))[0]


def held_out_scores(result: CalibratedModel, clips: list[LabelledClip], data: LoadedFeatures) -> np.ndarray:
    members = result.members
    encoded = [encode_features(members[clip.fold], [data.features[clip.video]]) for clip in clips]
    pairs = zip(clips, encoded, strict=True)
    return np.concatenate([score_clips(members[clip.fold], [recording]) for clip, recording in pairs])


@pytest.fixture(scope="module")
def moving() -> tuple[list[LabelledClip], LoadedFeatures, CalibratedModel]:
    """Clips whose labels only motion says, and their model."""
    clips, data = clip_data({"motion": 2.0})
    return clips, data, calibrated(clips, data)


def test_calibrate_trusts_what_says_the_label(
    moving: tuple[list[LabelledClip], LoadedFeatures, CalibratedModel],
) -> None:
    clips, data, result = moving
    assert result.model.linear is not None
    mix = result.model.linear.clip_mix
    assert mix.linear > 0.6
    assert mix.network == pytest.approx(0.15, abs=0.01)  # nothing speaks for it or against it
    assert result.model.metrics["accuracy"] > 0.9
    assert all(member.linear.clip_mix == mix for member in result.members)
    assert result.model.linear.frames is None
    # without a linear path nothing is known
    alone = calibrated(clips, data, linear=False).model
    assert alone.linear is None
    assert alone.masked_groups == ()
    assert alone.metrics["accuracy"] == 0.5


def test_calibrate_metrics_are_out_of_fold(
    moving: tuple[list[LabelledClip], LoadedFeatures, CalibratedModel],
) -> None:
    clips, data, result = moving
    scores = held_out_scores(result, clips, data)
    labels = np.array([clip.labels for clip in clips])
    assert (scores.argmax(axis=1) == labels.argmax(axis=1)).mean() == pytest.approx(
        result.model.metrics["accuracy"], abs=1e-6
    )
    together = score_clips(result.model, [encode_features(result.model, [data.features["0.mp4"]])])
    assert np.abs(together - scores[0]).max() > 1e-4  # of all members, on what they have learnt


def test_linear_path_of_member_ignores_its_fold(
    moving: tuple[list[LabelledClip], LoadedFeatures, CalibratedModel],
) -> None:
    clips, data, result = moving
    changed = [replace(clips[0], labels=clips[0].labels[::-1].copy()), *clips[1:]]  # of fold 0
    other = calibrated(changed, data)
    for member, equal in enumerate((True, False, False)):
        ours, theirs = (model.members[member].linear.clips.weight for model in (result, other))
        assert torch.equal(ours, theirs) == equal
    assert not torch.equal(result.model.linear.clips.weight, other.model.linear.clips.weight)


def test_place_groups_that_mislead_elsewhere_are_dropped(
    moving: tuple[list[LabelledClip], LoadedFeatures, CalibratedModel],
) -> None:
    result = moving[2]
    assert result.model.linear.drop_groups == PLACE_GROUPS
    assert result.model.masked_groups == PLACE_GROUPS
    assert all(member.masked_groups == PLACE_GROUPS for member in result.members)
    clips, data = clip_data({"motion": 0.5, "scene": -3.0})  # scenes mean something else in every third fold
    misled = calibrated(clips, data).model
    assert misled.linear.drop_groups == PLACE_GROUPS


def test_place_groups_that_help_everywhere_are_used() -> None:
    clips, data = clip_data({"scene": 4.0}, clips=48)
    result = calibrated(clips, data)
    assert result.model.linear.drop_groups == ()
    assert result.model.metrics["accuracy"] > 0.8
    encoded = encode_features(result.model, [data.features["1.mp4"]])
    assert encoded.summaries.shape[1] == result.model.linear.clips.weight.shape[1] // 4


@pytest.mark.parametrize("masked", [(), PLACE_GROUPS])
def test_networks_are_masked_if_that_is_better(masked: tuple[str, ...]) -> None:
    """Labels are what networks of equal weights say, with the groups that tell places or without."""
    model = make_model(SEQUENCE, background=False, members=MEMBERS)
    single = model.member(0)
    for name, value in model.network.state_dict().items():
        if name.startswith("gru."):
            value.copy_(single.network.state_dict()[f"gru.0.{name.split('.', 2)[2]}"])
        elif not name.startswith("encoder.object_") and not name.startswith("encoder.frame_"):
            value.copy_(single.network.state_dict()[name].expand_as(value))
    with torch.no_grad():
        model.network.clip_head[-1].weight.mul_(30)
    clips, data = clip_data({}, clips=48)
    labeller = replace(model, masked_groups=masked)
    scores = score_clips(labeller, [encode_features(labeller, [data.features[clip.video]]) for clip in clips])
    above = scores[:, 1] > np.median(scores[:, 1])
    clips = [replace(clip, labels=EYE[int(label)]) for clip, label in zip(clips, above, strict=True)]
    result = calibrated(clips, data, model).model
    assert result.masked_groups == masked


def test_calibrate_without_held_out_examples() -> None:
    clips, data = clip_data({"motion": 2.0}, clips=4)
    result = calibrated([replace(clip, fold=-1) for clip in clips], data)
    assert (result.model.linear.clip_mix.network, result.model.linear.clip_mix.linear) == (0.5, 0.5)
    assert "accuracy" not in result.model.metrics
    scores = score_clips(result.model, [encode_features(result.model, [data.features[c.video]]) for c in clips])
    assert scores.argmax(axis=1).tolist() == [0, 1, 0, 1]


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timed() -> tuple[list[TimedRecording], LoadedFeatures, CalibratedModel]:
    """Recordings with an event each, during which objects move."""
    features, recordings = {}, []
    for number in range(9):
        name, first = f"{number}.mp4", 20 + 3 * number
        features[name] = compute_features(make_sequence(80, 2, seed=number))
        signal(features[name], "motion", slice(first, first + 16), 2.0)
        inside = (np.arange(80) >= first) & (np.arange(80) < first + 16)
        targets = np.zeros((80, 3), np.float32)
        targets[inside, 0] = targets[~inside, 2] = 1
        weights = np.ones(80, np.float32)
        weights[:5] = 0
        events = np.array([[first, first + 16, 0]])
        recordings.append(
            TimedRecording(
                video=name,
                targets=targets,
                weights=weights,
                events=events,
                spans_s=events[:, :2] / 8,
                fold=number % MEMBERS,
            )
        )
    data = loaded(features)
    examples = Examples(clips=[], recordings=recordings, captions=[])
    model = make_model(SEQUENCE, clips=False, timed=True, members=MEMBERS, lookahead=4)
    validation = Validation(examples, MEMBERS, data)
    weights = np.array([2.0, 0.0, 0.5], np.float32)
    return recordings, data, calibrate([model], examples, validation, data, linear=True, class_weights=weights)[0]


def test_calibrate_timed_events(timed: tuple[list[TimedRecording], LoadedFeatures, CalibratedModel]) -> None:
    recordings, data, result = timed
    model: EventModel = result.model
    assert model.linear is not None
    assert model.linear.clips is None
    assert model.linear.frame_mix.linear > model.linear.frame_mix.network
    assert model.metrics["frame_map"] > 0.9
    assert model.decode.exclusive
    for recording in recordings[:3]:
        member = result.members[recording.fold]
        scores = score_frames(member, [encode_features(member, [data.features[recording.video]])])[0]
        known = slice(5, 80)
        right = (scores[known, 0] > scores[known, 2]) == (recording.targets[known, 0] > 0)
        assert right.mean() > 0.85
    assert all(member.decode == model.decode for member in result.members)


@pytest.mark.parametrize("sideways", [True, False])
def test_sides_matter_if_mirrored_clips_mislead(sideways: bool) -> None:
    """Two labels differ by their speed: to the left or right, which a mirror reverses, or up and down."""
    spec = FeatureSpec.from_sequence(make_sequence(12, 2, optional=False))
    speed = spec.object_groups()["speed"].start
    column = speed + SPEED.index("-x" if sideways else "y")
    clips, data = clip_data({})
    data = replace(data, feature_spec=spec, features=dict(data.features))
    for clip in clips:
        features = compute_features(make_sequence(12, 2, seed=int(clip.video[:-4]), optional=False))
        features.objects[:, column] += 2 if clip.labels[0] else -2
        data.features[clip.video] = features
    examples = Examples(clips=clips, recordings=[], captions=[])
    model = make_model(make_sequence(12, 2, optional=False), background=False, members=MEMBERS)
    assert sides_matter(model, examples, examples, data, np.ones(0, np.float32)) is sideways


def test_linear_path_ignores_dropped_features(
    moving: tuple[list[LabelledClip], LoadedFeatures, CalibratedModel],
) -> None:
    clips, data, _ = moving
    model = make_model(SEQUENCE, background=False, members=MEMBERS, drop_features=("motion", "scene_motion"))
    linear = calibrated(clips, data, model).model.linear
    assert linear is not None
    assert {"motion", "scene_motion"} <= set(linear.drop_groups)
