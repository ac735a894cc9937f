"""Processes that share a folder while one is killed: nothing is lost, nothing done twice, the files are the same."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.detectors import make_weights
from tests.prediction.fake_project import make_model
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.cache.entry import UNFINISHED
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.extraction.pipeline import extract_recordings, feature_settings_for
from vidgru.types import Recording

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux tells at once that a process died"),
]
ROOT = Path(__file__).parents[2]
HOW = RuntimeSettings(backend="torch", precision="fp32", threads=1)
RECORDINGS = 12

# The command line, which notes what it does, and may kill itself (SIGKILL) where it hurts: the second time that it has
# written a part of an entry, or all of a recording's files but the last.
COMMAND = """
import os, signal, sys, threading
from vidgru.cache import EntryWriter
from vidgru.cli import main
from vidgru.prediction.outputs import OutputFolder

log, where, *argv = sys.argv[1:]
append, finish, merge = EntryWriter.append, OutputFolder.finish, OutputFolder.merge
been, writing = 0, threading.Lock()  # a recording that is scored is noted, also if another thread kills the process

def note(text):
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {text}\\n")

def die(here):
    global been
    been += here == where
    if been == 2:
        with writing:
            os.kill(os.getpid(), signal.SIGKILL)

def noted_append(writer, *rest):
    append(writer, *rest)
    die("extracting")

def noted_finish(out, recording, *rest):
    die("writing")
    with writing:
        finish(out, recording, *rest)
        note(f"scored {recording.name}")

def noted_merge(out, *rest):
    note("merges")
    merge(out, *rest)

EntryWriter.append, OutputFolder.finish, OutputFolder.merge = noted_append, noted_finish, noted_merge
main(argv)
"""


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Site:
    """Recordings and a model, and folders that runs share."""

    root: Path
    model: Path
    videos: Path
    reference: dict[str, bytes] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.root / "shared/events"

    @property
    def log(self) -> Path:
        return self.root / "shared/log"

    def run(self, *runs: tuple[str, ...]) -> list[Ended]:
        """Commands at the same time: where each is to die, and its flags. All are waited for."""
        self.log.parent.mkdir(exist_ok=True)
        sources = ["predict", self.model, self.videos, "--out", self.out, "--features", self.root / "shared/features"]
        weights = ["--weights", self.root / "tiny.pt"]
        run_info = ["--backend", "torch", "--precision", "fp32", "--threads", "1"]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", COMMAND, self.log, where, *sources, *weights, *run_info, *flags],
                cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for where, *flags in runs
        ]  # fmt: skip
        try:
            return [
                Ended(process.returncode, out, err)
                for process in processes
                for out, err in [process.communicate(timeout=300)]
            ]
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def notes(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.log.read_text().splitlines()]

    def content(self) -> dict[str, bytes]:
        """Every file of the output but the summaries, and of the entries."""
        shared = self.root / "shared"
        entries = [path for path in (shared / "features").iterdir() if len(path.name) == 64]
        files = [path for folder in (self.out, *entries) for path in folder.rglob("*") if path.is_file()]
        kept = [path for path in files if not path.name.startswith("summary")]
        return {path.relative_to(shared).as_posix(): path.read_bytes() for path in kept}

    def failed(self) -> set[str]:
        return {path.parent.name for path in self.out.rglob("failure.json")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    weights, videos = make_weights(root / "tiny.pt"), root / "videos"
    for number in range(RECORDINGS - 2):
        write_video(videos / f"cam{number % 2}" / f"{number:02d}.mp4", 30 + 7 * number)
    shutil.copy(videos / "cam1/03.mp4", videos / "cam0/copy.mp4")
    (videos / "torn.mp4").write_bytes((videos / "cam0/08.mp4").read_bytes()[:900])
    detect = DetectorSettings(weights=str(weights), imgsz=64, fps=10)
    cache = SequenceCache(root / "sample")
    sample = Recording(path=videos / "cam0/00.mp4", name="00.mp4")
    (outcome,) = extract_recordings([sample], cache, detect, HOW, progress=False)
    assert outcome.key is not None
    feature_settings = feature_settings_for(detect)
    make_model(
        root / "model.safetensors", feature_settings, weights=str(weights), sequence=cache.read(outcome.key), fall=0.9
    )
    site = Site(root, root / "model.safetensors", videos)
    (ended,) = site.run(("nowhere",))
    assert ended.code == 1, ended.err
    assert site.failed() == {"torn.mp4"}
    site.reference = site.content()
    shutil.rmtree(root / "shared")
    return site


@pytest.fixture(autouse=True)
def _afresh(site: Site) -> Iterator[None]:
    yield
    shutil.rmtree(site.root / "shared", ignore_errors=True)


def check_complete(site: Site) -> None:
    """Check that the files equal those of an undisturbed run, and that nothing was scored twice."""
    content = site.content()
    assert content.keys() == site.reference.keys()
    assert [name for name in content if content[name] != site.reference[name]] == []
    scored = Counter(note for note in site.notes() if note.startswith("scored"))
    assert set(scored.values()) == {1}
    assert len(scored) == RECORDINGS - 1  # one cannot be read
    assert not (site.out / ".locks").exists()
    assert not list((site.root / "shared").rglob("*.tmp"))
    assert not list((site.root / "shared").rglob(f"{UNFINISHED}/*"))


@pytest.mark.parametrize("where", ["extracting", "writing"])
def test_killed_shard_is_resumed(site: Site, where: str) -> None:
    ended = site.run(("nowhere", "--shard", "1/3"), (where, "--shard", "2/3"), ("nowhere", "--shard", "3/3"))
    assert ended[1].code == -9, ended[1].err
    assert {ended[0].code, ended[2].code} <= {0, 1}, ended
    before = site.notes()
    (looked,) = site.run(("nowhere", "--merge-only"))
    assert looked.code == 1
    summary = (site.out / "summary.jsonl").read_text()
    missing = summary.count("not predicted yet; run vidgru predict on it")
    scored = sum(note.startswith("scored") for note in before)
    assert missing > 0
    assert scored + missing in (RECORDINGS, RECORDINGS - 1)  # the unreadable one is missing or has failed
    print(f"\n{where}: shard 2/3 killed; scored {scored}, missing {missing} of {RECORDINGS}")

    (again,) = site.run(("nowhere", "--shard", "2/3"))
    assert again.code in (0, 1), again.err
    check_complete(site)
    summaries = [path.read_text().splitlines() for path in site.out.glob("summary.*-of-3.jsonl")]
    names = [json.loads(line)["video"] for lines in summaries for line in lines]
    assert len(names) == len(set(names)) == RECORDINGS
    print(f"after 2/3 again: {again.out.splitlines()[-2]}")


@pytest.mark.parametrize("where", ["extracting", "writing"])
def test_killed_run_among_equal_runs(site: Site, where: str) -> None:
    ended = site.run(("nowhere",), (where,), ("nowhere",))
    assert [process.code for process in ended] == [1, -9, 1], ended
    check_complete(site)
    for process in (ended[0], ended[2]):
        print(f"\n{where}: {process.out.splitlines()[-2]}")
    print(Counter(site.notes())["merges"], "merged")
