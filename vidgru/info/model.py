"""What a model tells apart, what it reads, and how good it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from vidgru.info.formatting import bytes_text, settings_text
from vidgru.model.checkpoint import EventModel, load_model
from vidgru.model.event_gru import count_parameters


def about_model(path: Path) -> list[str]:
    """What is in a model file.

    Raises:
        ModelError: it is not one.
    """
    model = load_model(path)
    decode, network = model.decode, model.network
    size = f"{count_parameters(network):,} parameters"
    thresholds = zip(model.labels, decode.high, decode.low, strict=True)
    return [
        f"model {path}: {len(model.labels)} labels, {size}, {bytes_text(path.stat().st_size)}",
        f"architecture: {settings_text(asdict(network.architecture))}",
        f"labels: {', '.join(model.labels)}",
        *_heads(model),
        f"detector: {model.weights or 'one that was run elsewhere'}, {len(model.names)} classes",
        f"settings: {settings_text(model.feature_settings)}",
        f"features: {settings_text(asdict(model.feature_spec))}",
        f"events: scores smoothed over {decode.smooth_s:g} s, at least {decode.min_s:g} s long, merged across "
        f"{decode.merge_s:g} s",
        *(f"  {label}: begins at score {high:.3f}, ends below {low:.3f}" for label, high, low in thresholds),
        "metrics on validation: " + (settings_text(model.metrics) or "none"),
        "made with: " + (settings_text(model.versions) or "unknown"),
    ]


def _heads(model: EventModel) -> list[str]:
    """A line for each head, and one on how recordings are read."""
    lines = []
    for name, head in (("clips", model.task.clip_head), ("frames", model.task.frame_head)):
        if head:
            several = "several labels" if head.multi_label else "one label"
            lines.append(f"head on {name}: {several} at a time{', or nothing' if head.background else ''}")
    if model.task.frame_head:
        lines.append(
            f"reads recordings at {model.fps:g} samples a second; scores come {model.lookahead / model.fps:g} s late"
        )
    elif model.task.clip_head:
        lines.append(f"reads windows of {model.window_s:g} s at {model.fps:g} samples a second")
    else:
        lines.append(f"takes stretches of {model.window_s:g} s at {model.fps:g} samples a second")
    if model.caption:
        lines.append(
            f"descriptions: vocabulary of {len(model.caption.tokenizer)}, "
            f"sentences scored {model.caption.threshold:.2f} or more are told"
        )
    return lines
