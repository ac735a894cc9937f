"""Small networks and batches for tests."""

import torch
from torch import Tensor

from tests.sequences import NAMES, make_sequence
from vidgru.model.checkpoint import EventModel
from vidgru.model.decode import DecodeSettings
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.model.features import compute_features
from vidgru.model.layout import FeatureLayout
from vidgru.model.task import Head, Task
from vidgru.types import Sequence

WHAT = {"fps": 8.0, "imgsz": 640, "conf": 0.1, "iou": 0.7, "max_objects": 32, "tracker": "bytetrack", "mask": ""}
WHAT |= {"weights_sha256": "0" * 64, "schema": 1}


def make_network(
    sequence: Sequence, outputs: int = 3, *, frame_outputs: int = 0, seed: int = 0, **shape: object
) -> EventGRU:
    """In eval mode, normalised to the sequence, with a class embedding that says something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = EventGRU(FeatureLayout.of(sequence), outputs, frame_outputs, Architecture(**shape))
        if "class" in network.encoder.object_groups:
            torch.nn.init.normal_(network.encoder.classes.weight)
    network.encoder.fit([compute_features(sequence)])
    return network.eval()


def make_model(
    sequence: Sequence | None = None,
    *,
    background: bool = True,
    multi_label: bool = False,
    clips: bool = True,
    timed: bool = False,
    lag: int = 0,
    seed: int = 0,
    **shape: object,
) -> EventModel:
    labels = ("fall", "walk")
    sequence = make_sequence(50) if sequence is None else sequence
    high = (0.5,) * len(labels)
    head = Head(background=background, multi_label=multi_label)
    task = Task(labels=labels, clips=head if clips else None, timed=head if timed else None)
    decode = DecodeSettings(high=high, low=(0.3,) * len(labels), min_s=0.5, merge_s=0.5, exclusive=not multi_label)
    return EventModel(
        network=make_network(
            sequence, task.outputs(task.clips), frame_outputs=task.outputs(task.timed), seed=seed, **shape
        ),
        task=task,
        what=WHAT,
        weights="detector.pt",
        names=NAMES,
        decode=decode,
        window_s=2.0,
        lag=lag,
        metrics={"accuracy": 0.5},
        versions={"vidgru": "0"},
    )


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # objects, counts, frame, mask, as a network takes them


def random_batch(layout: FeatureLayout, clips: int = 4, steps: int = 9, most: int = 3, seed: int = 0) -> Inputs:
    """Clips of different lengths, up to so many objects a frame."""
    made = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (clips,), generator=made)
    lengths[0] = steps
    mask = torch.arange(steps) < lengths[:, None]
    counts = torch.randint(0, most + 1, (clips, steps), generator=made) * mask
    objects = torch.randn(int(counts.sum()), layout.object_width, generator=made)
    columns = layout.object_groups()
    objects[:, columns["class"]] = objects[:, columns["class"]].abs().long().clamp(max=layout.classes - 1).float()
    frame = torch.randn(clips, steps, layout.frame_width, generator=made) * mask[..., None]
    return objects, counts, frame, mask


def frames_of(batch: Inputs) -> list[list[Tensor]]:
    """The objects of each frame of each clip."""
    objects, counts, *_ = batch
    some = objects.split(counts.flatten().tolist())
    return [list(some[row * counts.shape[1] : (row + 1) * counts.shape[1]]) for row in range(len(counts))]


def stretch(batch: Inputs, row: int, steps: int) -> Inputs:
    """The first steps of a clip, alone."""
    _, counts, frame, mask = batch
    own = torch.cat(frames_of(batch)[row][:steps])
    return own, counts[row : row + 1, :steps], frame[row : row + 1, :steps], mask[row : row + 1, :steps]
