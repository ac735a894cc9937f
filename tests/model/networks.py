"""Small networks and batches for tests."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tests.sequences import NAMES, make_sequence
from vidgru.config import NetworkSettings
from vidgru.datasets.windows import collate, slice_window
from vidgru.model.checkpoint import CaptionSettings, EventModel, EventTask, HeadSpec, build_network
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.event_gru import EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.linear_path import LinearModel, LinearPath, LogitMix
from vidgru.model.summaries import FrameSummaries, WindowSummaries, summarize_clip
from vidgru.model.tokenizer import Tokenizer
from vidgru.types import DESCRIBED, FrameSequence

FEATURE_SETTINGS = {
    "fps": 8.0,
    "imgsz": 640,
    "conf": 0.1,
    "iou": 0.7,
    "max_objects": 32,
    "tracker": "bytetrack",
    "mask": "",
}
FEATURE_SETTINGS |= {"weights_sha256": "0" * 64, "schema": 2}


def make_network(
    sequence: FrameSequence,
    outputs: int = 3,
    *,
    frame_outputs: int = 0,
    members: int = 1,
    words: int = 0,
    labels: int = 2,
    seed: int = 0,
    **shape: object,
) -> EventGRU:
    """In eval mode, normalised to the sequence, with a class embedding that says something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        architecture = NetworkSettings(**shape)
        feature_spec = FeatureSpec.from_sequence(sequence)
        network = EventGRU(
            feature_spec, outputs, frame_outputs, architecture, members=members, words=words, labels=labels
        )
        if "class" in network.encoder.object_groups:
            torch.nn.init.normal_(network.encoder.classes)
    network.encoder.fit_normalization([compute_features(sequence)])
    return network.eval()


def single_member(model: EventModel, member: int) -> EventModel:
    """A model of one member of a model, with the same weights; captions only of the first."""
    caption = None if member else model.caption
    words = len(caption.tokenizer) if caption else 0
    network = build_network(model.feature_spec, model.task, model.network.architecture, words=words)
    stacked = {name for name, _ in network.named_parameters() if not name.startswith(("gru.", "caption_head."))}
    weights = model.network.state_dict()
    network.load_state_dict({
        name: weights[name][member, None] if name in stacked else weights[name.replace("gru.0.", f"gru.{member}.")]
        for name in network.state_dict()
    })  # fmt: skip
    return replace(model, network=network.eval(), caption=caption)


def make_model(
    sequence: FrameSequence | None = None,
    *,
    background: bool = True,
    multi_label: bool = False,
    clips: bool = True,
    timed: bool = False,
    lookahead: int = 0,
    members: int = 1,
    sentences: Sequence[str] = (),
    linear: bool = False,
    masked_groups: tuple[str, ...] = (),
    seed: int = 0,
    **shape: object,
) -> EventModel:
    """One that tells falls from walks; with `sentences`, one that writes with their words; or one that only does so.

    With `linear`, its heads have linear paths as well, which do without appearance.
    """
    labels = ("fall", "walk") if clips or timed else (DESCRIBED,)
    sequence = make_sequence(50) if sequence is None else sequence
    caption = None
    if sentences:
        caption = CaptionSettings(tokenizer=Tokenizer.train(sentences), longest=12, labels=labels[:1])
    high = (0.5,) * len(labels)
    head = HeadSpec(background=background, multi_label=multi_label)
    task = EventTask(labels=labels, clip_head=head if clips else None, frame_head=head if timed else None)
    network = make_network(
        sequence,
        task.num_outputs(task.clip_head),
        frame_outputs=task.num_outputs(task.frame_head),
        members=members,
        words=len(caption.tokenizer) if caption else 0,
        labels=len(labels),
        seed=seed,
        **shape,
    )
    if caption:
        used = sorted({word for sentence in sentences for word in caption.tokenizer.encode(sentence)})
        diversify_captions(network, sequence, [Tokenizer.END, *used])
    decode = DecodeSettings(high=high, low=(0.3,) * len(labels), min_s=0.5, merge_s=0.5, exclusive=not multi_label)
    return EventModel(
        network=network,
        task=task,
        feature_settings=FEATURE_SETTINGS,
        weights="detector.pt",
        names=NAMES,
        decode=decode,
        window_s=2.0,
        lookahead=lookahead,
        caption=caption,
        linear=random_linear(task, sequence, seed=seed) if linear else None,
        masked_groups=masked_groups,
        metrics={"accuracy": 0.5},
        versions={"vidgru": "0"},
    )


def random_linear(task: EventTask, sequence: FrameSequence, *, seed: int = 0) -> LinearModel:
    """Linear paths with random weights for the heads of a task, normalised to the sequence."""
    frames = FrameSummaries(FeatureSpec.from_sequence(sequence), ("appearance",))
    summaries = torch.from_numpy(frames.push(compute_features(sequence)))
    of_windows, of_clips = summaries[:, frames.window_columns], summaries[:, frames.clip_columns]
    windows = torch.from_numpy(WindowSummaries(of_windows.shape[1], 8.0, 0).push(of_windows.numpy()))
    clips = torch.stack([summarize_clip(of_clips[first : first + 16]) for first in range(0, len(sequence) - 16, 8)])
    rng = torch.Generator().manual_seed(seed)

    def random_path(rows: Tensor, head: HeadSpec | None) -> LinearPath | None:
        if head is None:
            return None
        path = LinearPath(rows.shape[1], task.num_outputs(head))
        path.mean.copy_(rows.mean(dim=0))
        path.std.copy_(rows.std(dim=0).clamp(min=0.1))
        path.weight.copy_(torch.randn(path.weight.shape, generator=rng) * (4 / len(path.mean)) ** 0.5)
        path.bias.copy_(torch.randn(path.bias.shape, generator=rng))
        return path

    def mix(head: HeadSpec | None) -> LogitMix:
        return LogitMix(network=0.75, linear=0.5, bias=(0.25, -0.25, 0.125)[: task.num_outputs(head)])

    return LinearModel(
        drop_groups=("appearance",),
        clips=random_path(clips, task.clip_head),
        frames=random_path(windows, task.frame_head),
        clip_mix=mix(task.clip_head),
        frame_mix=mix(task.frame_head),
    )


def with_captions(model: EventModel, sequence: FrameSequence, sentences: Sequence[str]) -> EventModel:
    """A model that also describes its events, as `make_model` makes them."""
    tokenizer = Tokenizer.train(sentences)
    network = build_network(model.feature_spec, model.task, model.network.architecture, words=len(tokenizer)).eval()
    network.load_state_dict(model.network.state_dict(), strict=False)
    used = sorted({word for sentence in sentences for word in tokenizer.encode(sentence)})
    diversify_captions(network, sequence, [Tokenizer.END, *used])
    return replace(
        model, network=network, caption=CaptionSettings(tokenizer=tokenizer, longest=12, labels=model.labels[:1])
    )


def diversify_captions(network: EventGRU, sequence: FrameSequence, used: list[int]) -> None:
    """Have a network with random weights say something else of each event, in these words."""
    head = network.caption_head
    assert head is not None
    window = collate([slice_window(compute_features(sequence), first, 20) for first in range(0, len(sequence), 10)])
    inputs = window.objects, window.counts, window.frame, window.mask
    rng = torch.Generator().manual_seed(0)
    words = torch.tensor(used)[torch.randint(0, len(used), (len(window), 12), generator=rng)]
    with torch.no_grad():
        logits = network.caption_logits(*inputs, words)[..., used].flatten(0, 1)
        scale = 3 / logits.std(dim=0).mean()
        head.join[0].weight.mul_(scale)
        head.join[0].bias.mul_(scale)
        head.bias.fill_(-30.0)
        head.bias[used] = -scale * logits.mean(dim=0)  # what is said most of all is said of all alike


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # objects, counts, frame, mask, as a network takes them


def random_batch(feature_spec: FeatureSpec, clips: int = 4, steps: int = 9, most: int = 3, seed: int = 0) -> Inputs:
    """Clips of different lengths, up to so many objects a frame."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (clips,), generator=rng)
    lengths[0] = steps
    mask = torch.arange(steps) < lengths[:, None]
    counts = torch.randint(0, most + 1, (clips, steps), generator=rng) * mask
    objects = torch.randn(int(counts.sum()), feature_spec.object_width, generator=rng)
    columns = feature_spec.object_groups()
    objects[:, columns["class"]] = objects[:, columns["class"]].abs().long().clamp(max=feature_spec.classes - 1).float()
    frame = torch.randn(clips, steps, feature_spec.frame_width, generator=rng) * mask[..., None]
    return objects, counts, frame, mask


def frames_of(batch: Inputs) -> list[list[Tensor]]:
    """The objects of each frame of each clip."""
    objects, counts, *_ = batch
    per_frame = objects.split(counts.flatten().tolist())
    return [list(per_frame[row * counts.shape[1] : (row + 1) * counts.shape[1]]) for row in range(len(counts))]


def segment(batch: Inputs, row: int, steps: int) -> Inputs:
    """The first steps of a clip, alone."""
    _, counts, frame, mask = batch
    clip_objects = torch.cat(frames_of(batch)[row][:steps])
    return clip_objects, counts[row : row + 1, :steps], frame[row : row + 1, :steps], mask[row : row + 1, :steps]
