"""Shards: which of n independent processes works on which recordings, without their talking to one another.

Each computes the whole assignment and keeps its own part. So that all come to the same, it depends on nothing but the
contents and lengths of the recordings: not on their order, names, or what a machine knows of them already.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from vidgru.cache import SequenceCache
from vidgru.extraction.spans import spans
from vidgru.types import Recording

Thing = TypeVar("Thing")

SLACK = 0.05  # a shard may be longer than the mean by this share
_PIECES = 4
_PIECE_BYTES = 1 << 16
_BYTES_A_SECOND = 500_000  # of recordings that do not tell how long they are: 4 Mbit/s


class Weighed(NamedTuple):
    """What an assignment goes by: who has one identity is one and the same; `seconds` is how long it lasts."""

    identity: str
    seconds: float


def assign(items: Iterable[Weighed], count: int) -> dict[str, int]:
    """Assign every identity to one of `count` shards.

    Each identity has an order of preference among the shards, by hashes (rendezvous hashing: Thaler and Ravishankar,
    1998), and gets the first with room for it: none is filled above the mean by more than SLACK (consistent hashing
    with bounded loads: Mirrokni, Thorup, Zadimoghaddam, 2018), the longest first. What fits nowhere goes where least
    is: so no shard exceeds the mean by more than the greater of SLACK and the longest item. When an item comes or goes,
    few others move: those that full shards sent on.

    Args:
        items: in any order; of several with one identity the longest counts.
        count: of the shards.

    Returns:
        For each identity the number of its shard, from 0.
    """
    seconds: dict[str, float] = defaultdict(float)
    for identity, length in items:
        seconds[identity] = max(seconds[identity], length)
    loads = [0.0] * count
    room = (1 + SLACK) * sum(sorted(seconds.values())) / count  # sorted, for sums of floats depend on the order
    found = {}
    for identity in sorted(seconds, key=lambda one: (-seconds[one], one)):
        order = _preference(identity, count)
        fitting = [shard for shard in order if loads[shard] + seconds[identity] <= room]
        shard = fitting[0] if fitting else min(order, key=lambda one: loads[one])
        loads[shard] += seconds[identity]
        found[identity] = shard
    return found


def share(recordings: Iterable[Recording], part: tuple[int, int], cache: SequenceCache) -> list[Recording]:
    """The recordings of one shard, in their order.

    Args:
        recordings: all of them; copies of one go together, and share an entry of the cache.
        part: number of the shard, from 1, and how many there are.
        cache: of the run.
    """
    recordings = list(recordings)
    if part == (1, 1):
        return recordings
    weighed = [
        (recording, Weighed(content_identity(recording.path), duration_s or _likely_seconds(recording.path)))
        for recording, (_, duration_s) in spans(recordings, cache, "")
    ]
    return kept(weighed, part)


def kept(weighed: list[tuple[Thing, Weighed]], part: tuple[int, int]) -> list[Thing]:
    """Of things that are weighed, those of one shard, in their order."""
    shards = assign((weight for _, weight in weighed), part[1])
    return [thing for thing, weight in weighed if shards[weight.identity] == part[0] - 1]


def content_identity(path: Path) -> str:
    """What tells a recording from others by its content: its size, and a hash of pieces from its start to its end.

    Not of all its bytes, by which the cache knows it: each of n processes would have to read all that n of them work
    on. Where two recordings differ between the pieces alone they are assigned to one shard, and that is all.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, 2)
            digest.update(str(size).encode())
            for number in range(_PIECES):
                file.seek(max(size - _PIECE_BYTES, 0) * number // (_PIECES - 1))
                digest.update(file.read(_PIECE_BYTES))
    except OSError:  # it fails in whichever shard, which then says why
        digest.update(path.name.encode(errors="surrogatepass"))
    return digest.hexdigest()


def summary_name(part: tuple[int, int]) -> str:
    """Name of the file that tells how the recordings of a run, or of a shard of it, ended."""
    number, count = part
    return "summary.jsonl" if count == 1 else f"summary.{number}-of-{count}.jsonl"


def _likely_seconds(path: Path) -> float:
    """How long a recording may be that does not tell, so that large ones are spread."""
    try:
        return path.stat().st_size / _BYTES_A_SECOND
    except OSError:
        return 0.0


def _preference(identity: str, count: int) -> list[int]:
    """The shards, the one with the least hash first. A hash of any length begins alike, so that a shard more has one
    hash more and the others keep theirs."""
    hashes = hashlib.shake_256(identity.encode()).digest(8 * count)
    return sorted(range(count), key=lambda shard: hashes[8 * shard : 8 * shard + 8])
