"""The package as Python users see it: what it exports, and that the examples of its documentation run as they stand."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import vidgru
from tests.detectors import make_weights
from tests.videos import write_video
from vidgru.config import ConvertConfig, ExportConfig, ExtractConfig, PredictConfig, TrainConfig, from_flags
from vidgru.errors import SettingsError

INIT = Path(vidgru.__file__)
DOCS = Path(__file__).parent.parent / "docs"
EVENTS = ((0.2, "run"), (1.6, "walk"))


def test_what_is_exported_is_there_and_told_to_type_checkers() -> None:
    tree = ast.parse(INIT.read_text(encoding="utf-8"))
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    typed -= {"annotations", "import_module", "TYPE_CHECKING"}
    assert typed == set(vidgru.__all__)
    assert len(vidgru.__all__) == len(typed)
    for name in vidgru.__all__:
        assert getattr(vidgru, name).__name__ == name
        assert getattr(vidgru, name).__doc__
    assert {*vidgru.__all__, "__version__"} <= set(dir(vidgru))
    assert (INIT.parent / "py.typed").is_file()


def test_the_verbs_are_functions_whatever_was_imported_before() -> None:
    code = (
        "import vidgru.extraction.pipeline, vidgru.training.run, vidgru.prediction.batch\n"
        "from vidgru import extract, train, evaluate, predict, load_model, FrameSequence, Event, EventStream\n"
        "assert all(map(callable, (extract, train, evaluate, predict, load_model)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, vidgru; assert not {'torch', 'numpy', 'cv2', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_is_no_such_name() -> None:
    with pytest.raises(AttributeError, match=r"module 'vidgru' has no attribute 'detect'"):
        vidgru.detect  # noqa: B018


def test_a_camera_is_not_for_the_function() -> None:
    with pytest.raises(SettingsError, match=r"rtsp://camera/1 is live, and predict is for recordings"):
        vidgru.predict("runs/train", "rtsp://camera/1", PredictConfig())


def test_settings_of_another_verb_and_a_dry_run_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"config is TrainConfig\(...\)\n  give ExtractConfig\(...\)"):
        vidgru.extract("videos", TrainConfig())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="dry_run is set, and extract is for making features"):
        vidgru.extract("videos", ExtractConfig(dry_run=True))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ExtractConfig, {"tracker": "sort"}, "tracker is 'sort'; it must be one of bytetrack, ocsort, none"),
        (PredictConfig, {"precision": "fp8"}, "precision is 'fp8'; it must be one of auto, fp32, bf16, fp16"),
        (PredictConfig, {"labels": "run"}, "labels is 'run'; it must be a tuple"),
        (ExtractConfig, {"ray": "auto", "gpus_per_worker": 1.5}, "1.5; it must be a whole number, or less than 1"),
        (PredictConfig, {"merge_only": True, "shard": "1/2"}, "shard is '1/2'; it must be left out with merge_only"),
        (TrainConfig, {"cell": "qrnn"}, "cell is 'qrnn'; it must be one of gru, lstm, rnn, none"),
        (TrainConfig, {"drop_features": ("looks",)}, "drop_features is 'looks'; it must be one of geometry"),
        (ConvertConfig, {"format": "xml"}, "format is 'xml'; it must be one of native"),
        (ExportConfig, {"format": "coreml"}, "format is 'coreml'; it must be one of onnx"),
    ],
)
def test_settings_are_checked_in_python_too(kind: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_flags(kind, **settings)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples speak of: `dataset/`, with `annotations.csv` and `videos/`, and `detector.pt`."""
    rows = ["video,start,end,label,description,split"]
    for number, name in enumerate(("a.mp4", "b.mp4")):
        write_video(tmp_path / "dataset" / "videos" / name, frames=30 + number)
        rows += [f"{name},{start},{start + 1},{label},,{('train', 'val')[number]}" for start, label in EVENTS]
    make_weights(tmp_path / "detector.pt")
    (tmp_path / "dataset" / "annotations.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **options: None)  # it takes longest
    return tmp_path


@pytest.mark.parametrize("page", ["python.md"])
def test_examples_of_the_pages_run(page: str, folder: Path) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    run_examples(doctest.DocTestParser().get_doctest(text, {}, page, page, 0))


def test_examples_of_the_functions_run(folder: Path) -> None:
    """In the order in which they are used: training wants the features of the first, prediction the model."""
    finder = doctest.DocTestFinder(recurse=False)
    for name in ("extract", "train", "evaluate", "predict"):
        (test,) = finder.find(getattr(vidgru, name), name, globs={})
        run_examples(test)


def run_examples(test: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert test.examples, f"{test.name} has no example"
    assert not said, "".join(said)
