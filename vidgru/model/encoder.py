"""Encode the objects and scene of each frame as one vector per member: [M,F] and [B,T,G] to [members,B,T,64]."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgru.errors import SettingsError
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.member_layers import MemberLayerNorm, MemberLinear, SharedInputLinear
from vidgru.types import Array, Features

# Output width of each group's projection. Wide groups (appearance, scene) get no more room than short ones that are as
# informative, so that they cannot dominate on small datasets.
_GROUP_WIDTHS = {
    "geometry": 16,
    "angle": 4,
    "score": 4,
    "class": 8,
    "speed": 16,
    "motion": 16,
    "keypoints": 32,
    "keypoint_speed": 16,
    "keypoint_pairs": 32,
    "relations": 16,
    "appearance": 32,
    "colour": 8,
    "time": 4,
    "scene": 16,
    "scene_motion": 16,
}
# Groups that identify a recording by its looks, with which a network memorises small datasets. They are dropped from
# half of the clips in training, other groups rarely. Measured on 132 synthetic clips that differ only in what happens:
# accuracy 0.86, as without these groups; 0.82 with all groups dropped equally rarely.
_IDENTIFYING_GROUPS = ("appearance", "colour", "scene", "scene_motion")
_OTHER_DROPOUT = 0.2  # dropout of the other groups, as a fraction of `group_dropout`
HEADS = 4
_OBJECT_WIDTH = 64
MIN_SCORE = 1e-2  # lower bound on detector scores in the attention
MAX_DEVIATION = 5.0  # standard deviations; inputs are clipped to it, so that no outlier dominates a recording


class EncodedFrames(NamedTuple):
    """Output of the encoder.

    Attributes:
        vectors: float32 [members,B,T,width], one vector per frame.
        attention: float32 [M], attention to each object, averaged over heads and members; sums to 1 over the objects of
            a frame.
        objects: float32 [members,M,N], concatenated group projections of each object; None if all object groups are
            dropped.
    """

    vectors: Tensor
    attention: Tensor
    objects: Tensor | None


class Encoder(nn.Module):
    """MLP per object, attention over the objects of a frame, and a linear layer on the result and the scene.

    Each feature group has its own narrow projection, and training drops whole groups per clip. Attention pools the
    objects of a frame in any order and number: learned queries, one softmax over the frame's objects per head (after
    pooling by multihead attention in Lee et al. 2019, "Set Transformer"). A frame without objects pools to zeros.
    Frames are encoded independently of each other. Members share the inputs and their normalization; every parameter
    has a leading member dimension.

    Args:
        feature_spec: Groups and widths of the features.
        members: Number of members.
        width: Width of a frame's vector.
        dropout: Dropout before the last layer.
        group_dropout: Probability that a training clip loses appearance, colour, scene or scene motion; every other
            group is lost a fifth as often.
        drop_features: Groups to ignore; groups that the features do not have are allowed.

    Raises:
        SettingsError: No group is left.
    """

    def __init__(
        self,
        feature_spec: FeatureSpec,
        *,
        members: int = 1,
        width: int = 64,
        dropout: float = 0.2,
        group_dropout: float = 0.5,
        drop_features: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.feature_spec = feature_spec
        self.width = width
        self.object_groups = {
            name: at for name, at in feature_spec.object_groups().items() if name not in drop_features
        }
        self.frame_groups = {name: at for name, at in feature_spec.frame_groups().items() if name not in drop_features}
        if not (self.object_groups or self.frame_groups):
            raise SettingsError(f"drop_features is {','.join(drop_features)}: no feature is left", "drop fewer groups")
        self.object_mean: Tensor
        self.object_std: Tensor
        self.frame_mean: Tensor
        self.frame_std: Tensor
        self.register_buffer("object_mean", torch.zeros(feature_spec.object_width))
        self.register_buffer("object_std", torch.ones(feature_spec.object_width))
        self.register_buffer("frame_mean", torch.zeros(feature_spec.frame_width))
        self.register_buffer("frame_std", torch.ones(feature_spec.frame_width))
        if "class" in self.object_groups:
            # zeros: classes absent from training contribute nothing instead of noise
            self.classes = nn.Parameter(torch.zeros(members, max(feature_spec.classes, 1), _GROUP_WIDTHS["class"]))
        self.project = nn.ModuleDict(
            {
                name: SharedInputLinear(members, columns.stop - columns.start, _GROUP_WIDTHS[name])
                for name, columns in {**self.object_groups, **self.frame_groups}.items()
                if name != "class"
            }
        )
        joined_width = sum(_GROUP_WIDTHS[name] for name in self.frame_groups)
        if self.object_groups:
            self.object = nn.Sequential(
                MemberLinear(members, self.object_width, _OBJECT_WIDTH),
                MemberLayerNorm(members, _OBJECT_WIDTH),
                nn.ReLU(inplace=True),
            )
            self.query = MemberLinear(members, _OBJECT_WIDTH, HEADS, bias=False)
            self.trust = nn.Parameter(torch.ones(members))  # weight of the detector's log score in the attention
            joined_width += _OBJECT_WIDTH
        self.join = nn.Sequential(
            MemberLayerNorm(members, joined_width), nn.Dropout(dropout), MemberLinear(members, joined_width, width)
        )
        self.group_dropout = group_dropout

    def fit_normalization(self, features: Iterable[Features]) -> None:
        """Set the input normalization to mean and standard deviation of training features; call before training."""
        objects, frames = (
            _RunningMoments(self.feature_spec.object_width),
            _RunningMoments(self.feature_spec.frame_width),
        )
        for recording in features:
            objects.add(recording.objects)
            frames.add(recording.frame)
        for kind, moments, groups in (("object", objects, self.object_groups), ("frame", frames, self.frame_groups)):
            mean, std = moments.mean(), moments.std()
            for columns in groups.values():
                # Dividing by the spread of a nearly constant column would amplify any later change of it.
                std[columns] = np.maximum(std[columns], 0.1 * std[columns].mean())
            getattr(self, f"{kind}_mean").copy_(torch.from_numpy(mean))
            getattr(self, f"{kind}_std").copy_(torch.from_numpy(np.where(std > 1e-6, std, 1.0)))

    @property
    def object_width(self) -> int:
        """N, the width of an object's concatenated group projections; 0 if all object groups are dropped."""
        return sum(_GROUP_WIDTHS[name] for name in self.object_groups)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the feature groups in use."""
        return (*self.object_groups, *self.frame_groups)

    def forward(
        self,
        objects: Tensor,
        counts: Tensor,
        frame: Tensor,
        masked_groups: tuple[str, ...] = (),
        *,
        dropout_scale: float = 1.0,
    ) -> EncodedFrames:
        """Encode frames.

        Args:
            objects: float32 [M,F], the objects of all frames, clip after clip.
            counts: int64 [B,T], objects per frame; M in total.
            frame: float32 [B,T,G].
            masked_groups: Feature groups whose projections are set to zero, as group dropout does in training.
                Detector scores still weight the attention.
            dropout_scale: Factor on `group_dropout` in training.

        Raises:
            ValueError: A masked group is not in use.
        """
        if unknown := set(masked_groups).difference(self.groups):
            raise ValueError(f"there is no group {min(unknown)!r} to mask; groups are {', '.join(self.groups)}")
        parts = self._project_frame(frame, masked_groups, dropout_scale)
        flat = counts.flatten()
        # index of each object's frame, counted through all clips
        frame_index = torch.arange(len(flat), device=flat.device).repeat_interleave(flat, output_size=len(objects))
        if not self.object_groups:
            vector: Tensor = self.join(torch.cat(parts, dim=2))
            attention = 1 / flat[frame_index].to(vector.dtype)
            return EncodedFrames(vector.view(len(vector), *counts.shape, self.width), attention, None)
        members, clips, steps = len(self.trust), *counts.shape
        # In the sums below, the frames of each member follow those of the member before.
        first_frames = torch.arange(members, device=flat.device)[:, None] * len(flat)
        member_frames = (first_frames + frame_index).flatten()  # [members * M]
        clip_index = member_frames.div(steps, rounding_mode="floor")
        projected = self._project_objects(objects, clip_index, clips, masked_groups, dropout_scale).relu_()
        vectors = self.object(projected)
        logits = self.query(vectors)
        if "score" in self.object_groups:
            score = objects[:, self.object_groups["score"].start, None].clamp(min=MIN_SCORE)
            logits = logits + self.trust[:, None, None] * score.log()
        weights = _segment_softmax(logits.flatten(0, 1), member_frames, members * len(flat))
        weighted = (vectors.flatten(0, 1).unflatten(1, (HEADS, -1)) * weights[..., None]).flatten(1)
        pooled = vectors.new_zeros(members * len(flat), _OBJECT_WIDTH).index_add(0, member_frames, weighted)
        vector = self.join(torch.cat([pooled.view(members, len(flat), _OBJECT_WIDTH), *parts], dim=2))
        attention = weights.view(members, len(objects), HEADS).mean(dim=(0, 2))
        return EncodedFrames(vector.view(members, clips, steps, self.width), attention, projected)

    def _project_objects(
        self, objects: Tensor, clip_index: Tensor, clips: int, masked_groups: tuple[str, ...], dropout_scale: float
    ) -> Tensor:
        """Return the concatenated projections of each object's groups before their ReLU, [members,M,N].

        Args:
            objects, masked_groups, dropout_scale: As for `forward`.
            clip_index: int64 [members * M], clip of each object; clips are counted through all members.
            clips: Number of clips, B.
        """
        normal = (objects - self.object_mean).div_(self.object_std).clamp_(-MAX_DEVIATION, MAX_DEVIATION)
        use_dropout = self.training and self.group_dropout * dropout_scale > 0
        parts, masks = [], []
        for name, columns in self.object_groups.items():
            if name == "class":
                index = objects[:, columns.start].long().clamp(0, self.classes.shape[1] - 1)
                table = self.classes.transpose(0, 1)  # one look-up for all members
                part = F.embedding(index, table.flatten(1)).view(len(objects), *table.shape[1:]).transpose(0, 1)
            else:
                part = self.project[name](normal[:, columns])
            parts.append(torch.zeros_like(part) if name in masked_groups else part)
            if use_dropout:
                masks.append(self._group_mask(name, clips, part, dropout_scale).expand(-1, -1, part.shape[2]))
        joined = torch.cat(parts, dim=2)
        if not use_dropout:
            return joined
        return joined * torch.cat(masks, dim=2).flatten(0, 1).index_select(0, clip_index).view_as(joined)

    def _project_frame(self, frame: Tensor, masked_groups: tuple[str, ...], dropout_scale: float) -> list[Tensor]:
        """Return the projections of the frame groups, [members,B*T,n] each. Arguments as for `forward`."""
        clips, steps, _ = frame.shape
        normal = ((frame.flatten(0, 1) - self.frame_mean) / self.frame_std).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        parts = []
        for name, columns in self.frame_groups.items():
            part = self.project[name](normal[:, columns]).relu()
            if self.training and self.group_dropout * dropout_scale > 0:
                part = part * self._group_mask(name, clips, part, dropout_scale).repeat_interleave(steps, dim=1)
            parts.append(torch.zeros_like(part) if name in masked_groups else part)
        return parts

    def _group_mask(self, name: str, clips: int, like: Tensor, dropout_scale: float) -> Tensor:
        """Return a dropout mask [members,clips,1]: 0 for clips that lose the group, else what keeps the mean.

        Args:
            name: The group.
            clips: Number of clips.
            like: Projection of the group, [members,...].
            dropout_scale: As for `forward`.
        """
        probability = self.group_dropout * dropout_scale * (1.0 if name in _IDENTIFYING_GROUPS else _OTHER_DROPOUT)
        keep = torch.rand(len(like), clips, 1, device=like.device) >= probability
        return keep.to(like.dtype) / (1 - probability)


def _segment_softmax(logits: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Softmax of logits [M,H] over the rows of each segment; `segment` [M] holds the segment of each row."""
    with torch.no_grad():  # the subtracted maximum cancels out
        highest = logits.new_full((segments, logits.shape[1]), torch.finfo(logits.dtype).min)
        highest.scatter_reduce_(0, segment[:, None].expand_as(logits), logits, "amax")
    powers = (logits - highest.index_select(0, segment)).exp()
    sums = powers.new_zeros(segments, powers.shape[1]).index_add(0, segment, powers)
    return powers / sums.index_select(0, segment)


class _RunningMoments:
    """Mean and standard deviation of rows that arrive in batches."""

    def __init__(self, width: int) -> None:
        self.count, self.sum, self.squares = 0, np.zeros(width), np.zeros(width)

    def add(self, rows: Array) -> None:
        rows = rows[np.isfinite(rows).all(axis=1)]  # training reports non-finite features with their window
        self.count += len(rows)
        self.sum += rows.sum(axis=0, dtype=np.float64)
        self.squares += np.square(rows, dtype=np.float64).sum(axis=0)

    def mean(self) -> Array:
        return self.sum / max(self.count, 1)

    def std(self) -> Array:
        deviation: Array = np.sqrt(np.maximum(self.squares / max(self.count, 1) - np.square(self.mean()), 0))
        return deviation
