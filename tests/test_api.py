"""The public Python API: its exports, and the examples of its documentation."""

import ast
import doctest
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vidgru
from tests.detectors import make_weights
from tests.videos import write_video
from vidgru import api, cli
from vidgru.config import ExtractConfig, PredictConfig, TrainConfig
from vidgru.errors import SettingsError

INIT = Path(vidgru.__file__)
DOCS = Path(__file__).parent.parent / "docs"
EVENTS = ((0.2, "run"), (1.6, "walk"))


def test_exports_exist_and_are_typed() -> None:
    tree = ast.parse(INIT.read_text(encoding="utf-8"))
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    typed -= {"annotations", "import_module", "TYPE_CHECKING"}  # of the file itself
    assert typed == set(vidgru.__all__)
    assert len(vidgru.__all__) == len(typed)
    for name in vidgru.__all__:
        assert getattr(vidgru, name).__name__ == name
        assert getattr(vidgru, name).__doc__
    assert {*vidgru.__all__, "__version__"} <= set(dir(vidgru))
    assert (INIT.parent / "py.typed").is_file()


@pytest.mark.slow
def test_commands_are_functions_after_any_import() -> None:
    code = (
        "import vidgru.extraction.pipeline, vidgru.training.compare\n"
        "import vidgru.prediction.explain, vidgru.datasets.convert\n"
        "from vidgru import compare, convert, evaluate, explain, export, extract, predict, train\n"
        "assert all(map(callable, (compare, convert, evaluate, explain, export, extract, predict, train)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_cheap() -> None:
    code = (
        "import sys, vidgru.api; assert not {'torch', 'numpy', 'cv2', 'yaml'} & set(sys.modules)\n"
        "import vidgru.info, vidgru.datasets.annotations, vidgru.datasets.report, vidgru.training.advice\n"
        "assert 'torch' not in sys.modules, 'vidgru info DATASET would wait for it'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"module 'vidgru' has no attribute 'detect'"):
        vidgru.detect  # noqa: B018


def test_predict_refuses_live_sources() -> None:
    with pytest.raises(SettingsError, match=r"rtsp://camera/1 is a live source.*\n  use vidgru.api.predict_live"):
        vidgru.predict("runs/train", "rtsp://camera/1", PredictConfig())


def test_config_of_another_command_is_rejected() -> None:
    with pytest.raises(SettingsError, match=r"config is TrainConfig\(...\)\n  pass ExtractConfig\(...\)"):
        vidgru.extract("videos", TrainConfig())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"dry_run is set.*\n  use vidgru.api.estimate"):
        vidgru.extract("videos", ExtractConfig(dry_run=True))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the examples expect it: `dataset/` with `annotations.csv` and `videos/`, and `detector.pt`."""
    rows = ["video,start,end,label,description,split"]
    for number, name in enumerate(("a.mp4", "b.mp4")):
        write_video(tmp_path / "dataset" / "videos" / name, frames=30 + number)
        rows += [f"{name},{start},{start + 1},{label},,{('train', 'val')[number]}" for start, label in EVENTS]
    make_weights(tmp_path / "detector.pt")
    (tmp_path / "dataset" / "annotations.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **options: None)  # the slowest parts
    monkeypatch.setattr("vidgru.training.batches._MIN_WINDOW_BATCHES", 2)
    return tmp_path


@pytest.mark.slow
def test_examples_of_the_documentation_run(folder: Path) -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    run_examples(doctest.DocTestParser().get_doctest(text, {}, "python.md", "python.md", 0))


def test_every_command_is_a_function() -> None:
    names = {"evaluate" if name == "eval" else name for name in cli._COMMANDS}
    assert all(callable(getattr(api, name)) and getattr(api, name).__doc__ for name in names)


def test_examples_of_the_functions_run(folder: Path) -> None:
    """In order of use: training needs the features of the first, prediction the model."""
    finder = doctest.DocTestFinder(recurse=False)
    for name in ("extract", "train", "evaluate", "predict"):
        (test,) = finder.find(getattr(vidgru, name), name, globs={})
        run_examples(test)


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DOCS / "first_model.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            assert cell["outputs"] == [], "outputs would grow old"
    assert (tmp_path / "first_model" / "scores.png").stat().st_size > 10_000


def run_examples(test: doctest.DocTest) -> None:
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    assert test.examples, f"{test.name} has no example"
    assert not failures, "".join(failures)
