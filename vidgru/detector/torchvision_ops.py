"""torchvision's compiled operators without its Python package.

`import torchvision` takes about as long as `import torch` (1.2 s of CPU time, measured on a 2-core machine), because it
imports models, transforms and `torch._dynamo`. Only two operators are needed here; the compiled library registers them
with PyTorch when it is loaded.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou: float) -> torch.Tensor:
    """Run `torchvision.ops.nms`; return the indices of the kept boxes, best first."""
    kept: torch.Tensor = torch.ops.torchvision.nms(boxes, scores, iou)
    return kept


def roi_align(
    features: torch.Tensor,
    regions: torch.Tensor,
    output_size: tuple[int, int],
    scale: float,
    *,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Run `torchvision.ops.roi_align`.

    Args:
        features: Feature maps [B, C, h, w].
        regions: Index in the batch and box xyxy of each region, [M, 5].
        output_size: Height and width of the result.
        scale: Factor from the boxes' coordinates to cells.
        sampling_ratio, aligned: As in torchvision.

    Returns:
        [M, C, *output_size].
    """
    pooled: torch.Tensor = torch.ops.torchvision.roi_align(
        features, regions, scale, *output_size, sampling_ratio, aligned
    )
    return pooled


def _register_operators() -> None:
    """Load the compiled library if it can be found, else import the package."""
    if "torchvision" in sys.modules:
        return
    spec = find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).glob("_C*.so")):  # _C.so, or _C_stable.so from 0.29 on
            try:
                torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
                torch.ops.torchvision.nms, torch.ops.torchvision.roi_align  # noqa: B018  # AttributeError if missing
                return
            except (OSError, RuntimeError, AttributeError):
                continue
    import torchvision  # noqa: F401


_register_operators()
