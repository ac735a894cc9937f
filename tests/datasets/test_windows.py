import numpy as np
import pytest
import torch

from vidgru.datasets.windows import Window, balanced_weights, collate, epoch_batches, slice_window
from vidgru.types import Features


def truth(frames: int, *, wide: int = 3) -> Features:
    """feature[t] = t: frame t holds t + 1, and so do its t % 4 objects."""
    counts = np.arange(frames) % 4
    value = np.arange(1, frames + 1, dtype=np.float32)
    return Features(
        objects=np.repeat(np.repeat(value, counts)[:, None], wide, axis=1),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        frame=np.repeat(value[:, None], 2, axis=1),
        time_s=np.arange(frames) / 8,
    )


@pytest.mark.parametrize("frames", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("start", [-12, -3, -1, 0, 1, 4, 8, 9, 12])
@pytest.mark.parametrize("length", [1, 2, 5, 20])
def test_slice_window_step_is_start_plus_t(frames: int, start: int, length: int) -> None:
    features = truth(frames)
    window = slice_window(features, start, length, features.frame * 10, features.frame[:, 0] * 100)
    assert len(window) == length
    assert window.targets is not None
    assert window.weights is not None
    batch = collate([window])
    for t in range(length):
        frame = start + t
        inside = 0 <= frame < frames
        value = frame + 1 if inside else 0
        assert window.mask[t] == inside
        assert window.frame[t].tolist() == [value] * 2
        assert window.targets[t].tolist() == [value * 10] * 2
        assert window.weights[t] == value * 100
        own = window.objects[window.offsets[t] : window.offsets[t + 1]]
        assert own.tolist() == [[value] * 3] * (frame % 4 if inside else 0)
        assert batch.mask[0, t] == inside
        assert batch.frame[0, t].tolist() == [value] * 2
        assert batch.targets is not None
        assert batch.targets[0, t].tolist() == [value * 10] * 2
        assert batch.weights is not None
        assert batch.weights[0, t] == value * 100
        assert batch.counts[0, t] == len(own)
        before = int(batch.counts[0, :t].sum())
        assert batch.objects[before : before + len(own)].tolist() == own.tolist()
    assert len(batch.objects) == batch.counts.sum()


def test_slice_window_inside_is_a_view() -> None:
    features = truth(9)
    window = slice_window(features, 2, 4)
    assert np.shares_memory(window.objects, features.objects)
    assert np.shares_memory(window.frame, features.frame)


def test_slice_window_rejects_bad_arguments() -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        slice_window(truth(3), 0, 0)
    with pytest.raises(ValueError, match=r"targets must have a row for each of the 3 frames, got \[2, 1\]"):
        slice_window(truth(3), 0, 2, np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"weights must have a row for each of the 3 frames, got \[4\]"):
        slice_window(truth(3), 0, 2, np.zeros((3, 1)), np.zeros(4))


def test_collate_pads_at_the_end() -> None:
    features = truth(9)
    labels = np.eye(3, dtype=np.float32)
    windows = [slice_window(features, s, n, labels=labels[i]) for i, (s, n) in enumerate([(0, 2), (3, 5), (8, 1)])]
    batch = collate(windows)
    assert len(batch) == 3
    assert batch.counts.tolist() == [[0, 1, 0, 0, 0], [3, 0, 1, 2, 3], [0, 0, 0, 0, 0]]
    assert batch.objects[:, 0].tolist() == [2, 4, 4, 4, 6, 7, 7, 8, 8, 8]
    assert batch.frame.shape == (3, 5, 2)
    assert batch.mask.sum(dim=1).tolist() == [2, 5, 1]
    assert batch.frame[:, :, 0].tolist() == [[1, 2, 0, 0, 0], [4, 5, 6, 7, 8], [9, 0, 0, 0, 0]]
    assert batch.targets is None
    assert batch.labels is not None
    assert torch.equal(batch.labels, torch.eye(3))
    assert [t.dtype for t in (batch.objects, batch.frame, batch.labels)] == [torch.float32] * 3
    assert batch.mask.dtype == torch.bool
    assert batch.counts.dtype == torch.int64
    assert repr(batch) == (
        "Batch(objects=[10, 3], counts=[3, 5], frame=[3, 5, 2], mask=[3, 5], labels=[3, 3], folds=[3], cpu)"
    )
    moved = batch.to("meta")
    assert moved.labels is not None
    assert {moved.objects.device.type, moved.mask.device.type, moved.labels.device.type} == {"meta"}


def test_collate_gives_padded_targets_no_weight() -> None:
    features = truth(5)
    ones = np.ones(5, np.float32)
    windows = [slice_window(features, 0, n, features.frame, ones, source=f"a.mp4, {n}") for n in (2, 4)]
    windows.append(slice_window(features, 3, 4, features.frame, ones, source="a.mp4, last"))
    batch = collate(windows)
    assert batch.targets is not None
    assert batch.weights is not None
    assert batch.targets[:, :, 0].tolist() == [[1, 2, 0, 0], [1, 2, 3, 4], [4, 5, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert torch.equal(batch.weights > 0, batch.mask)
    assert batch.weights.dtype == torch.float32
    assert batch.sources == ("a.mp4, 2", "a.mp4, 4", "a.mp4, last")
    assert batch.to("cpu").sources == batch.sources


def test_collate_is_independent_of_batch_mates() -> None:
    features = truth(40)
    windows = [slice_window(features, s, n) for s, n in [(0, 7), (13, 4), (30, 20)]]
    together = collate(windows)
    for row, window in enumerate(windows):
        alone = collate([window])
        steps = len(window)
        before = int(together.counts[:row].sum())
        assert torch.equal(together.objects[before : before + len(alone.objects)], alone.objects)
        assert torch.equal(together.counts[row, :steps], alone.counts[0])
        assert torch.equal(together.mask[row, :steps], alone.mask[0])
        assert not together.mask[row, steps:].any()
        assert not together.counts[row, steps:].any()


def test_collate_keeps_captions_with_their_windows() -> None:
    features = truth(9)
    said = [np.array(words, np.int64) for words in ([0, 5, 1], [7, 1], [0, 3, 3, 4, 1])]
    windows = [slice_window(features, 2 * n, 3, words=words, source=f"{n}") for n, words in enumerate(said)]
    assert all(window.words is words for window, words in zip(windows, said, strict=True))
    batch = collate(windows)
    assert batch.words is not None
    assert batch.words.dtype == torch.int64
    assert batch.words.tolist() == [[0, 5, 1, -1, -1], [7, 1, -1, -1, -1], [0, 3, 3, 4, 1]]
    assert (batch.targets, batch.labels, batch.weights) == (None, None, None)
    assert "words=[3, 5]" in repr(batch)
    moved = batch.to("meta")
    assert moved.words is not None
    assert moved.words.device.type == "meta"
    assert collate([slice_window(features, 0, 3)]).words is None
    with pytest.raises(ValueError, match="either all windows of a batch have words or none"):
        collate([*windows, slice_window(features, 0, 3)])


def test_collate_without_objects() -> None:
    batch = collate([slice_window(truth(1), 0, 3)])
    assert batch.objects.shape == (0, 3)
    assert batch.counts.tolist() == [[0, 0, 0]]


def test_collate_rejects_mixed_windows() -> None:
    with pytest.raises(ValueError, match="collate needs at least one window"):
        collate([])
    features = truth(3)
    mixed: list[Window] = [slice_window(features, 0, 2), slice_window(features, 0, 2, labels=np.zeros(2))]
    with pytest.raises(ValueError, match="either all windows of a batch have labels or none"):
        collate(mixed)
    halves = [slice_window(features, 0, 2, features.frame, weights) for weights in (None, np.ones(3))]
    with pytest.raises(ValueError, match="either all windows of a batch have weights or none"):
        collate(halves)


def test_epoch_batches_cover_every_clip_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 1000)
    batches = epoch_batches(lengths, 16, seed=1, epoch=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    assert max(map(len, batches)) == 16
    again = epoch_batches(lengths, 16, seed=1, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    for seed, epoch in ((1, 3), (2, 2)):
        other = epoch_batches(lengths, 16, seed=seed, epoch=epoch)
        assert not np.array_equal(np.concatenate(batches), np.concatenate(other))
    padded = sum(lengths[b].max() * len(b) for b in batches)
    assert padded < 1.15 * lengths.sum()
    assert epoch_batches([], 4, seed=0, epoch=0) == []
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        epoch_batches([1], 0, seed=0, epoch=0)


def test_epoch_batches_balanced() -> None:
    labels = np.zeros((100, 2))
    labels[:80, 0] = 1
    labels[80:90, 1] = 1  # and ten in which nothing happens
    weights = balanced_weights(labels)
    assert weights.mean() == pytest.approx(1)
    for epoch in range(5):
        drawn = np.concatenate(epoch_batches(np.ones(100), 8, seed=0, epoch=epoch, weights=weights))
        assert len(drawn) == 100
        kinds = np.bincount(np.digitize(drawn, [80, 90]), minlength=3)
        assert np.abs(kinds - 100 / 3).max() <= 8  # the frequent class is drawn from at 1 in 2.4, at random
        counts = np.bincount(drawn, minlength=100)
        assert counts[:80].max() <= 1
        assert (np.abs(counts[80:] - 3.33) < 1).all()


def test_balanced_weights_use_the_rarest_label() -> None:
    weights = balanced_weights(np.array([[1, 0], [1, 0], [1, 0], [1, 1]]))
    assert weights[3] / weights[0] == pytest.approx(4)
