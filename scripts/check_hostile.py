"""Change models, caches and annotations at random, read them, and count how that ends. Names and special files too.

    python scripts/check_hostile.py --inputs 2000
    python scripts/check_hostile.py --kinds model --only 17      # repeat an input, with its traceback

Every input has to be read, or refused by an error of vidgru that names the file: a traceback, a hang, a recording that
is in no result, and numbers that are not finite in a result are problems. All inputs are read in this process, so that
100,000 take minutes. Needs a checkout. Exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors import safe_open
from safetensors.torch import save

from tests.prediction.fake_project import FakeProject
from vidgru.cache import SequenceCache
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.report import report
from vidgru.errors import VidgruError
from vidgru.info import inspect_path
from vidgru.model.checkpoint import METADATA
from vidgru.model.stream import load_predictor
from vidgru.prediction.batch import predict
from vidgru.sources import find_recordings
from vidgru.storage import bundled_file

KINDS = ("model", "cache", "annotations", "names")
HANG_S = 20
OUTCOMES = ("ok", "clear error", "traceback", "hang", "silent loss")
# fmt: off
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 10**9, 10**30, -(2**63), 0.5, 1e308, -1e-300, math.nan, math.inf, "", "a", "../../x", "/",
    "~x", "\x00", "\ud800", "=1+1", "9" * 5000, "x" * 300, [], [0], [[]], [None, 1], {}, {"a": 1}, {"": {"": [1]}},
)
# fmt: on
ANNOTATIONS = (
    ("a.csv", b"video,start,end,label,description,split\nv0.mp4,0,1,fall,He falls.,train\nv1.mp4,1.5,2,run,,val\n"),
    ("a.jsonl", b'{"video": "v0.mp4", "start": 0, "end": 1, "label": "fall"}\n{"video": "v1.mp4", "label": "run"}\n'),
    ("a.json", b'{"database": {"v0": {"annotations": [{"segment": [0, 1], "label": "fall"}], "subset": "train"}}}'),
    ("a.yaml", b"annotations: b.csv\nvideos: videos\nsplit: {by: folder}\nlabels: {fall: down}\n"),
    ("a.vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nfall\n"),
)


class SilentLossError(Exception):
    """A recording is in no result and no notice, or a result holds what cannot be."""


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Change, remove or repeat one value at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        changed = dict(value)
        if rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = mutate_json(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        index, changed_list = rng.randrange(len(value)), list(value)
        changed_list[index : index + 1] = rng.choice(([], [value[index]] * 2, [mutate_json(value[index], rng)]))
        return changed_list
    return rng.choice(VALUES)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    changed, at = bytearray(data), rng.randrange(len(data) + 1)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice((1, 4, 30))):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            del changed[at : at + rng.choice((1, 5, 100))]
        case 3:
            changed[at:at] = rng.randbytes(rng.choice((1, 5, 100)))
        case 4:
            changed[at:at] = rng.choice(
                (b"\x00", b"\xff", b"9" * 5000, b"[" * 3000, b"nan", b"-1e999", b'"', b"\n", b"=cmd")
            )
    return bytes(changed)


def mutate_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """Change one tensor's values, shape, type or presence."""
    changed, name = dict(tensors), rng.choice(sorted(tensors))
    tensor = changed[name].clone()
    match rng.randrange(5):
        case 0:
            tensor.view(-1)[rng.randrange(max(tensor.numel(), 1))] = rng.choice((math.nan, math.inf, -math.inf))
        case 1:
            tensor = tensor * rng.choice((0.0, 1e30, -1e30))
        case 2:
            tensor = rng.choice((tensor.flatten(), tensor[None], tensor[:0], torch.cat([tensor, tensor]).contiguous()))
        case 3:
            tensor = tensor.to(rng.choice((torch.float16, torch.float64, torch.int8, torch.bool)))
    changed[name] = tensor
    if rng.random() < 0.1:
        del changed[name]
    return changed


class Inputs:
    """A small project, of which each input is a changed copy.

    Args:
        root: Folder to work in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = FakeProject(root)
        for number in range(3):
            self.project.record(f"v{number}.mp4", frames=12 + number)
        self.models = [self.project.model.read_bytes()]
        if bundled := bundled_file("demo.safetensors"):
            self.models.append(bundled.read_bytes())
        self.features = root / "changed"
        shutil.copytree(self.project.cache.root, self.features)
        self.files = {path: path.read_bytes() for path in self.features.rglob("*") if path.is_file()}

    def run(self, kind: str, rng: random.Random) -> None:
        """Make an input of a kind and read it; raises what reading raises."""
        getattr(self, f"_{kind}")(rng)

    def _model(self, rng: random.Random) -> None:
        path, number = self.root / "m.safetensors", rng.randrange(len(self.models))
        data = self.models[number]
        if rng.random() < 0.2:
            path.write_bytes(mutate_bytes(data, rng))
        else:
            path.write_bytes(data)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = json.loads(file.metadata()[METADATA])
            if rng.random() < 0.3:
                tensors = mutate_tensors(tensors, rng)
            else:
                metadata = mutate_json(metadata, rng)
            path.write_bytes(save(tensors, {METADATA: json.dumps(metadata)}))
        load_predictor(path)
        if not number and rng.random() < 0.2:  # the demo's model reads other features
            self._predict(self.project.cache.root, path)
            inspect_path(path)

    def _cache(self, rng: random.Random) -> None:
        path = rng.choice(sorted(self.files))
        original = self.files[path]
        if path.suffix == ".json" and rng.random() < 0.7:
            changed = json.dumps(mutate_json(json.loads(original), rng)).encode()
        elif path.suffix == ".jsonl" and rng.random() < 0.7:
            lines = original.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(mutate_json(json.loads(lines[at]), rng)).encode()
            changed = b"\n".join(lines)
        else:
            changed = mutate_bytes(original, rng)
        path.write_bytes(changed)
        try:
            choice = rng.random()
            if choice < 0.4:
                self._predict(self.features, self.project.model)
            elif choice < 0.9:
                inspect_path(self.features, verify=choice < 0.7)
            else:
                inspect_path(self.features, prune=True)
        finally:
            for file, data in self.files.items():
                if not file.exists() or file.read_bytes() != data:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data)
            for marked in self.features.glob("*/corrupt.json"):
                marked.unlink()

    def _predict(self, features: Path, model: Path) -> None:
        """Predict a cache: each of its entries has to be in a result."""
        shutil.rmtree(self.project.out, ignore_errors=True)
        with contextlib.redirect_stderr(io.StringIO()) as notices:
            results = predict(model, [features], self.project.config(features=str(features)), progress=False)
        folders = {path.parent for path in self.files if path.name == "entry.json"}
        if len(results) < len(folders) and "skipped" not in notices.getvalue():
            raise SilentLossError(f"{len(results)} results of {len(folders)} entries")
        if any(not math.isfinite(event.score) for result in results for event in result.events):
            raise SilentLossError("a score is not finite")

    def _annotations(self, rng: random.Random) -> None:
        name, data = rng.choice(ANNOTATIONS)
        folder = self.root / "annotations"
        folder.mkdir(exist_ok=True)
        (folder / "b.csv").write_bytes(ANNOTATIONS[0][1])
        (folder / name).write_bytes(mutate_bytes(data, rng))
        str(report(load_dataset(folder / name, videos=self.project.videos, allow_missing=True)))

    def _names(self, rng: random.Random) -> None:
        folder = self.root / "names"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        letters = "ab =+-@'\"<>&;|$`\t\n\r\\\u202e\U0001f600é"
        name = "".join(rng.choice(letters) for _ in range(rng.randrange(1, 12))) + rng.choice(("\udcff", "")) + ".mp4"
        path = folder / name
        match rng.randrange(6):
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to(name)
            case 2:
                path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "nowhere")))
            case 3:
                path.mkdir()
            case 4:
                with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(folder):
                    unix.bind(os.fsencode(name))
            case 5:
                path.write_bytes(b"no video")
        recordings = find_recordings([rng.choice((folder, path))])
        if [recording.path for recording in recordings] != [path]:
            raise SilentLossError(f"{name!r} is in no result")
        for recording in recordings:
            with contextlib.suppress(OSError):
                SequenceCache(self.root / "unused").sha256(recording.path)


def outcome_of(read: Callable[[], None]) -> tuple[str, str]:
    """Return the outcome of reading an input, and its traceback if it is a problem."""

    def hang(number: int, frame: object) -> None:
        raise TimeoutError("hang")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG_S)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            read()
        return "ok", ""
    except VidgruError as error:
        return ("clear error", "") if error.message else ("traceback", traceback.format_exc())
    except SilentLossError:
        return "silent loss", traceback.format_exc()
    except BaseException as error:
        return "hang" if "hang" in str(error) else "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)


def check(
    kinds: list[str], count: int, seed: int, only: int | None = None
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Read `count` inputs, of these kinds in turn; return counts by kind and outcome, and the problems."""
    table, problems = Counter[tuple[str, str]](), []
    with tempfile.TemporaryDirectory(prefix="vidgru-hostile-") as folder:
        inputs = Inputs(Path(folder))
        for number in range(count) if only is None else [only]:
            kind = kinds[number % len(kinds)]
            rng = random.Random(f"{seed}/{number}")
            outcome, details = outcome_of(lambda kind=kind, rng=rng: inputs.run(kind, rng))  # type: ignore[misc]
            table[kind, outcome] += 1
            if details:
                problems.append(f"{number}, {kind}: {outcome}\n{details if only is not None else details[-700:]}")
    return table, problems


def main() -> int:
    """Parse the command line and check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of a single input to read")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, problems = check(arguments.kinds, arguments.inputs, arguments.seed, arguments.only)
    print("\n".join(problems[:20]))
    print(f"{'':12}" + "".join(f"{outcome:>13}" for outcome in OUTCOMES))
    for kind in arguments.kinds:
        print(f"{kind:12}" + "".join(f"{table[kind, outcome]:13}" for outcome in OUTCOMES))
    print(f"{table.total()} inputs, seed {arguments.seed}; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
