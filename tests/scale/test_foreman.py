"""Who works on what, and what happens when workers die, on a stand-in for Ray whose workers do as they are told."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.errors import OutputError, SettingsError
from vidgru.scale import foreman
from vidgru.scale.cluster import Crew
from vidgru.scale.foreman import Foreman, Lost
from vidgru.scale.worker import News, Step, Task
from vidgru.types import Recording

TASK = Task(cache=Path("/features"), detect=DetectorSettings(), run=RuntimeSettings())


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """A worker that answers at once; `work` decides what becomes of a recording."""

    def __init__(self, ray: "Ray", number: int) -> None:
        self.ray, self.number, self.dead = ray, number, False
        self.has: list[int] = []  # recordings that it was given and has not answered for
        self.open, self.work, self.news, self.close = (Method(self, n) for n in ("open", "work", "news", "close"))


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def options(self, **options: str) -> "Method":
        assert options == {"concurrency_group": "control"}
        return self

    def remote(self, *arguments: Any) -> "Ref":
        if self.name == "work":
            self.actor.has.append(arguments[0])
        self.actor.ray.calls.append((self.actor.number, self.name, *arguments[:1]))
        return Ref(self.actor, self.name, arguments)


class Ref:
    def __init__(self, actor: Actor, name: str, arguments: tuple[Any, ...]) -> None:
        self.actor, self.name, self.arguments = actor, name, arguments


class Ray:
    """As much of Ray as is used. One call comes back at a time, and `work` the last: so that workers have several."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, work: Callable[[Actor, int], str], opens: Callable[[Actor], None] = lambda actor: None) -> None:
        self._work, self._opens = work, opens
        self.actors: list[Actor] = []
        self.killed: list[int] = []
        self.calls: list[tuple[Any, ...]] = []
        self.options: dict[str, Any] = {}

    def remote(self, **options: Any) -> Callable[[type], Any]:
        self.options = options

        def make(task: Task) -> Actor:
            assert task is TASK
            self.actors.append(Actor(self, len(self.actors)))
            return self.actors[-1]

        return lambda worker: SimpleNamespace(remote=make)

    def wait(self, refs: list[Ref], *, num_returns: int = 1, timeout: float) -> tuple[list[Ref], list[Ref]]:
        first = sorted(refs, key=lambda ref: (ref.name == "work", -ref.actor.number))[:1]
        return first, [ref for ref in refs if ref not in first]

    def get(self, ref: Ref) -> Any:
        if ref.actor.dead:
            raise RayError("it is dead")
        if ref.name == "open":
            self._opens(ref.actor)
            return f"machine{ref.actor.number}"
        if ref.name == "news":
            return News(steps={number: Step(samples=2) for number in (*ref.actor.has, 99)}, said=["the detector"])
        try:
            return self._work(ref.actor, ref.arguments[0])
        finally:
            ref.actor.has.remove(ref.arguments[0])

    def kill(self, actor: Actor) -> None:
        actor.dead = True
        self.killed.append(actor.number)


def share_out(
    ray: Ray, folder: Path, sizes: list[int], *, workers: int = 2
) -> tuple[dict[int, Any], list[str], list[News]]:
    """What became of recordings of these sizes, what was said, and the news."""
    said: list[str] = []
    news: list[News] = []
    recordings = {}
    for number, size in enumerate(sizes):
        path = folder / f"{number}.mp4"
        path.write_bytes(bytes(size))
        recordings[number] = Recording(path=path, name=path.name)
    crew = Crew(workers=workers, threads=1, gpus=0.5)
    return dict(Foreman(ray, crew, TASK, news.append, said.append).work(recordings)), said, news


def given(ray: Ray) -> dict[int, list[int]]:
    """The recordings that each worker was given, in order."""
    return {actor.number: [c[2] for c in ray.calls if c[:2] == (actor.number, "work")] for actor in ray.actors}


def test_the_largest_first_to_who_has_least(tmp_path: Path) -> None:
    ray = Ray(lambda actor, number: f"{number} by {actor.number}")
    found, said, news = share_out(ray, tmp_path, [50, 10, 90, 40, 20])
    # worker 1 is ready first, and leaves 40 and more for the other
    assert given(ray) == {1: [2, 0, 3], 0: [4, 1]}
    assert found == {2: "2 by 1", 0: "0 by 1", 3: "3 by 1", 4: "4 by 0", 1: "1 by 0"}
    assert sorted(ray.killed) == [0, 1], "workers are ended"
    assert [call for call in ray.calls if call[1] == "close"] == [(0, "close"), (1, "close")], "but told before"
    assert said == ["the detector"], "each says the same"
    assert all(99 not in one.steps for one in news), "what is not under way is not told"
    assert ray.options["num_cpus"] == 1
    assert ray.options["num_gpus"] == 0.5
    assert ray.options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"


def test_no_more_workers_than_recordings(tmp_path: Path) -> None:
    ray = Ray(lambda actor, number: "")
    share_out(ray, tmp_path, [1, 2], workers=9)
    assert len(ray.actors) == 2


def test_a_worker_that_dies_is_replaced_and_others_take_what_it_had(tmp_path: Path) -> None:
    def work(actor: Actor, number: int) -> str:
        if actor.number == 1:
            actor.dead = True
            raise RayError("killed")
        return f"{number}"

    ray = Ray(work)
    found, said, _ = share_out(ray, tmp_path, [5, 4, 3, 2, 1])
    assert found == {number: str(number) for number in range(5)}
    assert said.count("a Ray worker on machine1 died with 3 recordings under way, which go to others") == 1
    assert len(ray.actors) == 3


def test_a_recording_that_workers_die_over_costs_itself_alone(tmp_path: Path) -> None:
    def work(actor: Actor, number: int) -> str:
        if 2 in actor.has:  # whatever is asked of it, the process dies of this one
            alone.append(len(actor.has) == 1)
            actor.dead = True
            raise RayError("killed")
        return "done"

    alone: list[bool] = []
    ray = Ray(work)
    found, _, _ = share_out(ray, tmp_path, [9, 8, 7, 6, 5, 4])
    assert [number for number, ended in found.items() if ended == "done"] != []
    assert {number for number, ended in found.items() if isinstance(ended, Lost)} == {2}
    assert found[2].reason.startswith("3 Ray workers died with it, the last on machine")
    assert alone[-1], "the last time nothing else was risked"
    assert len(alone) == foreman.DEATHS


def test_an_error_that_is_no_recordings_fault_ends_the_run(tmp_path: Path) -> None:
    def work(actor: Actor, number: int) -> str:
        raise RayTaskError(OutputError("the disk is full", "free it"))

    ray = Ray(work)
    with pytest.raises(OutputError, match="the disk is full"):
        share_out(ray, tmp_path, [1, 2, 3])
    assert sorted(ray.killed) == [0, 1]


def test_workers_that_cannot_start_end_the_run(tmp_path: Path) -> None:
    def fail(actor: Actor) -> None:
        raise RayError("No module named\n 'vidgru'")

    ray = Ray(lambda actor, number: "", fail)
    with pytest.raises(SettingsError, match="die before they are ready: No module named 'vidgru'") as error:
        share_out(ray, tmp_path, [1, 2, 3])
    assert "same versions" in error.value.remedy
    assert len(ray.actors) == 4, "three tries, two at a time"


def test_a_bug_in_a_worker_is_not_hidden(tmp_path: Path) -> None:
    def work(actor: Actor, number: int) -> str:
        raise RayTaskError(KeyError("a bug"))

    with pytest.raises(RayTaskError, match="a bug"):
        share_out(Ray(work), tmp_path, [1])
