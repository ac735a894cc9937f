"""Random frame sequences for tests."""

from dataclasses import replace

import numpy as np

from vidgru.types import FrameSequence

NAMES = ("person", "car", "bag")


def make_sequence(
    frames: int,
    objects: int | None = None,
    *,
    seed: int = 0,
    fps: float = 8.0,
    keypoints: int = 0,
    flip_idx: tuple[int, ...] = (),
    optional: bool = True,
) -> FrameSequence:
    """Return a random sequence with `objects` per frame (0 to 4 if None), with or without the `optional` tensors."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, frames) if objects is None else np.full(frames, objects)
    total = int(counts.sum())
    corners = np.sort(rng.random((total, 2, 2)), axis=1).reshape(total, 4)

    def half(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16)

    return FrameSequence(
        time_s=np.arange(frames) / fps,
        frame_index=np.arange(frames, dtype=np.int64) * 3,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=corners.astype(np.float32),
        scores=rng.random(total).astype(np.float16),
        classes=rng.integers(0, len(NAMES), total).astype(np.int16),
        tracks=np.concatenate([np.arange(n) for n in counts] or [[]]).astype(np.int32),
        motion=half(total, 6) if optional else None,
        appearance=half(total, 8) if optional else None,
        keypoints=np.abs(half(total, keypoints, 3)) if keypoints else None,
        scene=half(frames, 5) if optional else None,
        scene_motion=half(frames, 4) if optional else None,
        colour=half(total, 3) if optional else None,
        fps=fps,
        size_px=(320, 192),
        names=NAMES,
        flip_idx=flip_idx,
    )


def with_still_frames(sequence: FrameSequence, still: list[int]) -> FrameSequence:
    """Return a sequence in which these frames repeat the objects of the frame before, without motion."""
    frames = [sequence.frames(t, t + 1) for t in range(len(sequence))]
    for t in range(len(frames)):
        is_still = t in still
        source = frames[t - 1] if is_still else frames[t]
        changes = {"time_s": frames[t].time_s, "frame_index": frames[t].frame_index, "still": np.array([is_still])}
        for name in ("motion", "scene_motion") if is_still else ():
            if (value := getattr(source, name)) is not None:
                changes[name] = np.zeros_like(value)
        frames[t] = replace(source, **changes)
    return FrameSequence.concatenate(frames)


def sequences_equal(first: FrameSequence, second: FrameSequence) -> bool:
    """Whether two sequences have the same tensors, byte for byte, and the same metadata."""
    tensors, others = first.tensors(), second.tensors()
    metadata_equal = all(
        getattr(first, name) == getattr(second, name) for name in ("fps", "size_px", "names", "flip_idx")
    )
    return (
        metadata_equal
        and tensors.keys() == others.keys()
        and all(np.array_equal(tensors[name], others[name]) for name in tensors)
    )
