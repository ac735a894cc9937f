"""torchvision's operators, loaded without its package."""

import subprocess
import sys

import torch

from vidgru.detector import torchvision_ops


def test_operators_equal_torchvision() -> None:
    from torchvision import ops

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, 2, generator=generator).sort(1).values.flatten(1) * 64
    scores = torch.rand(50, generator=generator)
    assert torch.equal(torchvision_ops.nms(corners, scores, 0.3), ops.nms(corners, scores, 0.3))
    features = torch.rand(2, 3, 8, 8, generator=generator)
    regions = torch.cat([torch.arange(50)[:, None] % 2, corners], 1)
    options = {"sampling_ratio": 4, "aligned": True}
    pooled = torchvision_ops.roi_align(features, regions, (1, 1), 1 / 8, **options)
    assert torch.equal(pooled, ops.roi_align(features, regions, (1, 1), 1 / 8, **options))


def test_detector_imports_neither_torchvision_nor_ultralytics() -> None:
    program = "import sys, vidgru.detector.yolo; print(sorted({'torchvision', 'ultralytics'} & set(sys.modules)))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert completed.stdout == "[]\n"
