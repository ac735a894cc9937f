"""The linear path of a model: logistic regression on summaries, and how its logits are combined with the network's.

After Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems". The two are trained one after the other, and
combined by weights that are fitted on examples that neither was trained on (stacking, Wolpert 1992).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vidgru.config import FeatureGroup
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.summaries import FrameSummaries
from vidgru.types import Array

MAX_SUMMARY_DEVIATION = 3.0  # standard deviations; measured on 300 clips: 0.836 correct, 0.831 without clipping


class LinearPath(nn.Module):
    """Linear layer on standardized, clipped summaries.

    Args:
        width: P, the length of a summary.
        outputs: C, number of logits.

    Attributes:
        mean, std: [P], of the training summaries.
        weight: [C,P].
        bias: [C].
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("weight", torch.zeros(outputs, width))
        self.register_buffer("bias", torch.zeros(outputs))

    def normalize(self, summaries: Tensor) -> Tensor:
        """Return the inputs of the linear layer, [...,P]."""
        return ((summaries - self.mean) / self.std).clamp(-MAX_SUMMARY_DEVIATION, MAX_SUMMARY_DEVIATION)

    def forward(self, summaries: Tensor) -> Tensor:
        """Return logits [...,C] of summaries [...,P]."""
        return nn.functional.linear(self.normalize(summaries), self.weight, self.bias)


@dataclass(frozen=True, kw_only=True)
class LogitMix:
    """Combination of the logits of network and linear path, which also calibrates them.

    Attributes:
        network, linear: Weights of the two.
        bias: Added to the logits of each output.
    """

    network: float = 0.5
    linear: float = 0.5
    bias: tuple[float, ...] = ()

    def __call__(self, network: Tensor, linear: Tensor) -> Tensor:
        """Return combined logits [...,C]."""
        mixed = self.network * network + self.linear * linear
        return mixed + network.new_tensor(self.bias) if self.bias else mixed


@dataclass(frozen=True, kw_only=True)
class LinearMetadata:
    """Linear paths in a model file, without their tensors.

    Attributes:
        drop_groups, clip_mix, frame_mix: As in `LinearModel`.
        shapes: Outputs and length of a summary by path, `clips` or `frames`.
    """

    drop_groups: tuple[FeatureGroup, ...]
    shapes: dict[Literal["clips", "frames"], tuple[int, int]]
    clip_mix: LogitMix
    frame_mix: LogitMix


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearModel:
    """The linear paths of a model.

    Attributes:
        drop_groups: Feature groups that they do not read.
        clips: Path of clips; None without a clip head.
        frames: Path of frames; None without a frame head.
        clip_mix, frame_mix: How their logits are combined with those of the network.
    """

    drop_groups: tuple[str, ...]
    clips: LinearPath | None
    frames: LinearPath | None
    clip_mix: LogitMix
    frame_mix: LogitMix

    def metadata(self) -> dict[str, Any]:
        """Return everything but the tensors."""
        shapes = {name: list(path.weight.shape) for name, path in self._paths()}
        return {
            "drop_groups": self.drop_groups,
            "shapes": shapes,
            "clip_mix": asdict(self.clip_mix),
            "frame_mix": asdict(self.frame_mix),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the paths by name."""
        return {f"{name}.{key}": value for name, path in self._paths() for key, value in path.state_dict().items()}

    @staticmethod
    def load(metadata: LinearMetadata, tensors: dict[str, Tensor]) -> LinearModel:
        """Return the model with this metadata and these tensors.

        Raises:
            KeyError, RuntimeError, ValueError: They do not fit.
        """
        paths = {}
        for name, (outputs, width) in metadata.shapes.items():
            if tensors[f"{name}.weight"].shape != (outputs, width):
                raise ValueError(f"linear.{name}.weight is not {outputs} by {width}")
            paths[name] = LinearPath(width, outputs)
            start = f"{name}."
            paths[name].load_state_dict({key[len(start) :]: t for key, t in tensors.items() if key.startswith(start)})
        return LinearModel(
            drop_groups=metadata.drop_groups,
            clips=paths.get("clips"),
            frames=paths.get("frames"),
            clip_mix=metadata.clip_mix,
            frame_mix=metadata.frame_mix,
        )

    def _paths(self) -> list[tuple[str, LinearPath]]:
        return [(name, path) for name, path in (("clips", self.clips), ("frames", self.frames)) if path is not None]

    def without(self, feature_spec: FeatureSpec, group: str) -> LinearModel:
        """Return the model without the influence of a feature group, as if it had its average in every frame."""
        summaries = FrameSummaries(feature_spec, self.drop_groups)
        columns = summaries.group_columns(group)

        def masked(path: LinearPath | None, used: Array) -> LinearPath | None:
            if path is None:
                return None
            kept = torch.from_numpy(~np.isin(used, columns)).to(path.weight)
            copied = LinearPath(len(path.mean), len(path.bias))
            copied.mean, copied.std, copied.bias = path.mean, path.std, path.bias
            copied.weight = path.weight * kept.repeat(path.weight.shape[1] // len(kept))
            return copied

        return replace(
            self,
            clips=masked(self.clips, summaries.clip_columns),
            frames=masked(self.frames, summaries.window_columns),
        )
