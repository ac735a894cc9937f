"""Sharding: which of n independent processes extracts which recordings, without any communication between them.

Every process computes the whole assignment and keeps its own shard. For all to agree, the assignment depends only on
the contents and lengths of the recordings: not on their order, their names, or what a machine already knows about them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

from vidgru.cache import SequenceCache
from vidgru.errors import RecordingError
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess, watch_for_hangs
from vidgru.types import Recording
from vidgru.video.timestamps import StartTimes

T = TypeVar("T")

SLACK = 0.05  # how much longer than the mean a shard may be, as a fraction
_PIECES = 4
_PIECE_BYTES = 1 << 16
_BYTES_PER_SECOND = 500_000  # of recordings of unknown length: 4 Mbit/s


class ShardItem(NamedTuple):
    """What the assignment depends on: items of one `identity` stay together; `seconds` is the length."""

    identity: str
    seconds: float


class RecordingSpan(NamedTuple):
    """When a recording starts (ISO 8601) and its length in seconds; None where unknown."""

    recorded_at: str | None
    duration_s: float | None


def assign(items: Iterable[ShardItem], count: int) -> dict[str, int]:
    """Assign every identity to one of `count` shards.

    Each identity has an order of preference among the shards, by hash (rendezvous hashing: Thaler and Ravishankar,
    1998). The longest items first, each goes to the first shard that it does not fill above the mean by more than SLACK
    (consistent hashing with bounded loads: Mirrokni, Thorup, Zadimoghaddam, 2018), or to the emptiest if there is none.
    No shard then exceeds the mean by more than the larger of SLACK and the longest item, and adding or removing an item
    moves few others.

    Args:
        items: Items in any order; of several with one identity the longest counts.
        count: Number of shards.

    Returns:
        The shard of each identity, from 0.
    """
    seconds: dict[str, float] = defaultdict(float)
    for identity, length in items:
        seconds[identity] = max(seconds[identity], length)
    loads = [0.0] * count
    limit = (1 + SLACK) * sum(sorted(seconds.values())) / count  # sorted: a sum of floats depends on their order
    shards = {}
    for identity in sorted(seconds, key=lambda name: (-seconds[name], name)):
        preferred = _preference(identity, count)
        fitting = [shard for shard in preferred if loads[shard] + seconds[identity] <= limit]
        shard = fitting[0] if fitting else min(preferred, key=lambda number: loads[number])
        loads[shard] += seconds[identity]
        shards[identity] = shard
    return shards


def shard_recordings(recordings: Iterable[Recording], shard: tuple[int, int], cache: SequenceCache) -> list[Recording]:
    """Select the recordings of one shard, in their order. Copies of one recording stay together.

    Args:
        recordings: All recordings.
        shard: Number of the shard, from 1, and the number of shards.
        cache: The run's cache.
    """
    recordings = list(recordings)
    if shard == (1, 1):
        return recordings
    weighted = [
        (recording, ShardItem(content_identity(recording.path), duration_s or _guess_seconds(recording.path)))
        for recording, (_, duration_s) in read_spans(recordings, cache, "")
    ]
    return select_shard(weighted, shard)


def select_shard(items: list[tuple[T, ShardItem]], shard: tuple[int, int]) -> list[T]:
    """Select the values of one shard, in their order; `shard` as in `shard_recordings`."""
    shards = assign((item for _, item in items), shard[1])
    return [value for value, item in items if shards[item.identity] == shard[0] - 1]


def content_identity(path: Path) -> str:
    """Identify a recording by its size and a hash of a few pieces of it, in hex.

    Not by all its bytes, as in the cache: each of n processes would have to read everything. Recordings that differ
    only between the pieces merely end up in the same shard.
    """
    digest = hashlib.sha256()
    try:
        if not path.is_file():  # opening a named pipe would wait
            raise OSError
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, 2)
            digest.update(str(size).encode())
            for number in range(_PIECES):
                file.seek(max(size - _PIECE_BYTES, 0) * number // (_PIECES - 1))
                digest.update(file.read(_PIECE_BYTES))
    except OSError:  # it fails in whichever shard it is in, which reports why
        digest.update(path.name.encode(errors="surrogatepass"))
    return digest.hexdigest()


def summary_name(shard: tuple[int, int]) -> str:
    """Return the name of the file with the results of a run, or of one shard of it."""
    number, count = shard
    return "summary.jsonl" if count == 1 else f"summary.{number}-of-{count}.jsonl"


def read_spans(
    recordings: Iterable[Recording], cache: SequenceCache, start_time: str
) -> Iterator[tuple[Recording, RecordingSpan]]:
    """Read from the containers when recordings start and how long they are. Unreadable ones have no span.

    Args:
        recordings: The recordings.
        cache: A cache that may know when they start.
        start_time: See `RuntimeSettings`.
    """
    start_times = StartTimes(start_time)
    decoder = DecoderProcess()
    with watch_for_hangs([decoder]), ExitStack() as stack:
        stack.callback(decoder.stop)
        for recording in recordings:
            recorded_at, duration_s = start_times.of(recording.path) or cache.recorded_at(recording.path), None
            try:
                info = decoder.probe(recording.path)
                recorded_at, duration_s = recorded_at or info.recorded_at, info.duration_s
            except (RecordingError, DecoderDiedError):
                pass
            yield recording, RecordingSpan(recorded_at, duration_s)


def _guess_seconds(path: Path) -> float:
    """Guess the length of a recording from its size, so that large files are spread."""
    try:
        return path.stat().st_size / _BYTES_PER_SECOND
    except OSError:
        return 0.0


def _preference(identity: str, count: int) -> list[int]:
    """Order the shards by hash. SHAKE's output of any length starts the same, so adding a shard keeps the others'."""
    hashes = hashlib.shake_256(identity.encode()).digest(8 * count)
    return sorted(range(count), key=lambda shard: hashes[8 * shard : 8 * shard + 8])
