import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datasets.formats.files import FILES, write
from tests.datasets.formats.mutations import mutate
from vidgru.config import ConvertConfig
from vidgru.datasets import formats
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.convert import convert
from vidgru.datasets.formats import recognise
from vidgru.errors import AnnotationError, VidgruError


@pytest.mark.parametrize("kind", FILES)
def test_recognise_by_content(tmp_path: Path, kind: str) -> None:
    name, content = FILES[kind]
    expected = kind.partition(":")[0]
    assert recognise(write(tmp_path, name, content)) == expected
    suffix = ".txt" if expected in ("kinetics", "native", "list") else ".data"
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


@pytest.mark.parametrize("kind", FILES)
def test_corrupted_files_raise_errors_with_their_name(tmp_path: Path, kind: str) -> None:
    rng = random.Random(20240506)
    name, content = FILES[kind]
    path = write(tmp_path, name, content)
    refused: list[VidgruError] = []
    for turn in range(60):
        path.write_bytes(mutate(kind, content, rng))
        settings = ConvertConfig(format=kind.partition(":")[0] if turn % 2 else None, fps=25.0)  # type: ignore[arg-type]
        try:
            convert(path, tmp_path / "out.jsonl", settings)
        except VidgruError as error:
            refused.append(error)
    assert len(refused) > 5
    assert all(type(error) is AnnotationError and name in error.message and error.remedy for error in refused)


@pytest.mark.slow
def test_check_formats_script() -> None:
    script = Path(__file__).parents[3] / "scripts/check_formats.py"
    done = subprocess.run([sys.executable, script, "--inputs", "10000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 wrong\n")


@pytest.mark.parametrize(
    "head",
    [
        b"PK\x03\x04\x14\x00\x06\x00[Content_Types].xml ... xl/workbook.xml",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
        b"PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
    ],
)
def test_spreadsheets_are_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "labels.xlsx").write_bytes(head)
    with pytest.raises(AnnotationError, match=r'labels.xlsx is an Office file.*\n  save the sheet as "CSV UTF-8"'):
        load_dataset(tmp_path / "labels.xlsx")
