import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.formats.files import FILES, write
from vidgru.config import ConvertConfig
from vidgru.datasets import formats
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.convert import convert
from vidgru.datasets.formats import recognise
from vidgru.errors import AnnotationError, VidgruError

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "\ud800",
    "a\0b",
    [],
    {},
    [[]],
]


@pytest.mark.parametrize("kind", FILES)
def test_recognise_by_content(tmp_path: Path, kind: str) -> None:
    name, content = FILES[kind]
    expected = kind.partition(":")[0]
    assert recognise(write(tmp_path, name, content)) == expected
    suffix = ".txt" if kind in ("kinetics", "native", "list") else ".data"
    assert recognise(write(tmp_path, f"other{suffix}", content)) == expected
    assert recognise(write(tmp_path, name, "\ufeff\n" + content)) == expected


def test_format_given_by_name(tmp_path: Path) -> None:
    write(tmp_path, "x.json", '{"events": []}')
    with pytest.raises(AnnotationError, match=r"x.json, the file: .* is not a list\n"):
        load_dataset(write(tmp_path, "set.yaml", "annotations: x.json\nformat: e2e-spot\n"))


def test_recognise_does_not_read_large_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "images.json", {"images": [{"file_name": "a" * 100}] * 12_000})
    monkeypatch.setattr(formats, "read_json", lambda path: pytest.fail("read whole"))
    assert recognise(path) is None


def test_folder_with_several_formats_is_an_error(tmp_path: Path) -> None:
    for kind in ("e2e-spot", "elan"):
        write(tmp_path, *FILES[kind])
    with pytest.raises(
        AnnotationError, match=r"several formats in .*: rec.eaf \(elan\), train.json \(e2e-spot\)\n  pass"
    ):
        load_dataset(tmp_path)


def test_folder_ignores_other_tables_and_texts(tmp_path: Path) -> None:
    write(tmp_path, *FILES["activitynet"])
    for name, text in (("readme.txt", "hello"), ("sizes.csv", "name,bytes\na,3\n"), ("conf.json", '{"a": 1}')):
        write(tmp_path, name, text)
    with pytest.raises(AnnotationError, match=r"gt.json: 2 videos missing: abc_-012345"):
        load_dataset(tmp_path)


def test_folder_names_broken_export(tmp_path: Path) -> None:
    write(tmp_path, "gt.json", FILES["activitynet"][1][:-30])
    with pytest.raises(AnnotationError, match=r"gt.json, line 1: not JSON"):
        load_dataset(tmp_path)


# --- fuzz -----------------------------------------------------------------------------------------------------------


def changed(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value in which one node is something else."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key: Any = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    if rng.random() < 0.15:
        del copy[key]
    else:
        copy[key] = changed(copy[key], rng)
    return copy


def spoilt(kind: str, content: str, rng: random.Random) -> bytes:
    """A file with one thing wrong in it."""
    data = content.encode()
    how = rng.randrange(4)
    if how == 0:
        return data[: rng.randrange(len(data))]
    if how == 1:
        at = rng.randrange(len(data))
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 4))) + data[at + 1 :]
    if content[:1] in "[{" and kind != "native":
        return json.dumps(changed(json.loads(content), rng)).encode()
    at = rng.choice([i for i, letter in enumerate(content) if letter in '",>= \n'] or [0])
    odd = rng.choice(["nan", "-5", "", "1e999", '"', "<", "&x;", "\0", "9" * 30, " ", "\n", ","])
    return (content[:at] + odd + content[at + rng.randrange(2) :]).encode()


@pytest.mark.parametrize("kind", FILES)
def test_corrupted_files_raise_errors_with_their_name(tmp_path: Path, kind: str) -> None:
    rng = random.Random(20240506)
    name, content = FILES[kind]
    path = write(tmp_path, name, content)
    refused: list[VidgruError] = []
    for turn in range(250):
        path.write_bytes(spoilt(kind, content, rng))
        settings = ConvertConfig(format=kind.partition(":")[0] if turn % 2 else None, fps=25.0)  # type: ignore[arg-type]
        try:
            convert(path, tmp_path / "out.jsonl", settings)
        except VidgruError as error:
            refused.append(error)
    assert len(refused) > 40
    assert all(type(error) is AnnotationError and name in error.message and error.remedy for error in refused)
