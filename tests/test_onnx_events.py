"""The example: events of an exported model without vidgru."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.config import ExportConfig
from vidgru.model.features import compute_features
from vidgru.model.onnx_export import export_model, summary_inputs
from vidgru.model.stream import score_recording

SCRIPT = Path(__file__).parents[1] / "scripts" / "onnx_events.py"
SEQUENCE = make_sequence(301, seed=2)


@pytest.mark.parametrize(
    "shape",
    [
        {"lookahead": 3, "members": 3},
        {"cell": "lstm", "layers": 2},
        {"background": False, "multi_label": True, "lookahead": 5},
        {"lookahead": 3, "members": 2, "linear": True, "masked_groups": ("scene",)},
    ],
)
def test_it_finds_the_events_that_vidgru_finds(shape: dict[str, object], tmp_path: Path) -> None:
    model = make_model(SEQUENCE, timed=True, seed=7, **shape)
    with torch.no_grad():
        model.network.frame_head[-1].weight.mul_(40)
    scores = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=40.0).scores
    high, low = (tuple(map(float, np.quantile(scores, q, axis=0))) for q in (0.8, 0.6))
    decode = replace(model.decode, high=high, low=low, min_s=0.2, merge_s=0.3, smooth_s=0.5)
    if "linear" in shape:
        decode = replace(decode, start_trim_s=(0.06, 0.5), end_trim_s=(9.0, 0.3))
    model = replace(model, decode=decode)
    late = replace(SEQUENCE, time_s=SEQUENCE.time_s + np.where(np.arange(301) < 150, 0.0, 3.0))  # with a gap
    model.save(tmp_path / "m.safetensors")
    exported = export_model(tmp_path / "m.safetensors", ExportConfig())
    f = compute_features(late)
    arrays = {"objects": f.objects, "counts": np.diff(f.offsets), "frame": f.frame, "time_s": f.time_s}
    np.savez(tmp_path / "f.npz", **arrays, **summary_inputs(model, f))
    command = [sys.executable, str(SCRIPT), str(exported), str(tmp_path / "f.npz")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [line.split(",") for line in ran.stdout.splitlines()]
    wanted = score_recording(model, [late], video="a.mp4", duration_s=60.0).events
    assert len(wanted) > 3
    said = sorted((label, float(start), float(end)) for label, start, end, _ in found)
    assert said == sorted((e.label, round(e.start_s, 3), round(e.end_s, 3)) for e in wanted)
    assert sorted(float(score) for *_, score in found) == pytest.approx(sorted(e.score for e in wanted), abs=1e-4)


def test_a_model_that_reads_backwards_is_refused(tmp_path: Path) -> None:
    make_model(SEQUENCE, timed=True, bidirectional=True).save(tmp_path / "m.safetensors")
    exported = export_model(tmp_path / "m.safetensors", ExportConfig())
    command = [sys.executable, str(SCRIPT), str(exported), str(tmp_path / "f.npz")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.endswith("m.onnx is bidirectional and cannot read a stream\n")


def test_features_without_summaries_are_refused(tmp_path: Path) -> None:
    make_model(SEQUENCE, timed=True, linear=True).save(tmp_path / "m.safetensors")
    exported = export_model(tmp_path / "m.safetensors", ExportConfig())
    f = compute_features(SEQUENCE)
    np.savez(tmp_path / "f.npz", objects=f.objects, counts=np.diff(f.offsets), frame=f.frame, time_s=f.time_s)
    command = [sys.executable, str(SCRIPT), str(exported), str(tmp_path / "f.npz")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.endswith("f.npz has none; write both as this script's help says\n")


def test_it_needs_neither_vidgru_nor_pytorch() -> None:
    imported = {line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith(("import", "from"))}
    assert imported == {"json", "sys", "numpy", "onnxruntime"}
