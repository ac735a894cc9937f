import re
import subprocess
import sys
from pathlib import Path

import pytest

from vidgru import cli
from vidgru.config import ExtractConfig

VERBS = ("extract", "train", "eval", "predict", "explain", "info", "demo")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What stderr says of a command that must exit with 2, and write nothing to stdout."""
    assert cli.run(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("vidgru: error: ")
    return output.err


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        cli.run(words)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in VERBS)


def test_help_does_not_wait_for_heavy_imports() -> None:
    asked = [["--help"], *([verb, "--help"] for verb in VERBS)]
    code = (
        "import sys\nfrom vidgru import cli\n"
        f"for words in {asked}:\n    try:\n        cli.run(words)\n    except SystemExit:\n        pass\n"
        "    loaded = {'torch', 'cv2', 'ultralytics', 'av', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "    assert not loaded, (words, loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: vidgru ") == len(asked)


def test_flags_have_dashes_and_switches_have_a_no(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "train", "--help")
    assert "--weight-decay" in text
    assert "--augment, --no-augment" in text
    assert "--weight_decay" not in text


def test_flags_come_on_top_of_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("fps: 4\nmax_objects: 7\n")
    text = printed(
        capsys, "extract", "a.mp4", "--config", str(tmp_path / "mine.yaml"), "--max-objects", "9", "--print_config"
    )
    assert "fps: 4.0" in text
    assert "max_objects: 9" in text


@pytest.mark.parametrize(("words", "value"), [(["--no-augment"], "false"), (["--augment"], "true"), ([], "true")])
def test_switches(words: list[str], value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"\naugment: {value}\n" in printed(capsys, "train", "data", *words, "--print_config")


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["--labels", "fall"], "- fall\n"),
        (["--labels=fall,lying down"], "- fall\n- lying down\n"),
        (["--labels", "[fall, walk]"], "- fall\n- walk\n"),
    ],
)
def test_lists_are_written_with_commas(words: list[str], labels: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"\nlabels:\n{labels}" in printed(capsys, "predict", "model", "videos", *words, "--print_config")


@pytest.mark.parametrize("preset", sorted(p.name for p in (Path(__file__).parent.parent / "configs").glob("*.yaml")))
def test_presets_load_by_name(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parent.parent / "configs" / preset).read_text()
    assert text.startswith("# "), "its first line says when to use it"
    verb = text.splitlines()[0].split("vidgru ")[1].split()[0]
    places = {"extract": ["a"], "train": ["a"], "compare": ["a"], "predict": ["m", "a"], "eval": ["m", "a"]}[verb]
    assert printed(capsys, verb, *places, "--config", preset, "--print_config")


@pytest.mark.parametrize(("verb", "words"), [
    ("extract", "Frames per second to sample"), ("train", "Peak learning rate"),
    ("compare", "Recurrent cells to compare"),
    ("eval", "Split of the dataset"), ("predict", "Score below which events are dropped"),
    ("convert", "detected from its content"),
])  # fmt: skip
def test_help_tells_what_settings_mean(verb: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, verb, "--help")
    assert words in " ".join(text.split())
    assert "_" not in "".join(re.findall(r"--[a-z][a-z_-]*", text))
    assert "<class" not in text


def test_an_unknown_key_names_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("fsp: 4\n")
    text = refused(capsys, "extract", "a.mp4", "--config", str(tmp_path / "mine.yaml"))
    assert f"{tmp_path / 'mine.yaml'}: unknown key 'fsp'" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extrat"], "there is no command 'extrat'"),
        (["extract"], "there is nothing to extract"),
        (["predict", "model"], "the following arguments are required: sources"),
        (["extract", "a", "--fsp", "4"], "unrecognized arguments: --fsp 4"),
        (["extract", "a", "--fps", "four"], "fps: Expected a float. Got value: four"),
        (["extract", "a", "--fps", "-4"], "fps is -4.0; it must be above 0"),
        (["extract", "a", "--imgsz", "100"], "imgsz is 100; it must be a multiple of 32"),
        (["extract", "a", "--tracker", "sort"], "tracker: Expected"),
        (["extract", "a", "--config", "nope.yaml"], "config: File does not exist: "),
        (["extract", "nope.mp4"], "no such file or folder: nope.mp4"),
        (["info", "nope.mp4"], "no such file or folder: nope.mp4"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    "address", ["auto", "local", "head-1.lan:6379", "10.0.0.1:6379", "[::1]:6379", "ray://h:10001"]
)
def test_an_address_of_ray_is_told_from_a_source(address: str) -> None:
    assert cli._as_fields(["--ray", address, "a.mp4"], ExtractConfig)[:2] == ["--ray", address]


@pytest.mark.parametrize("source", ["a.mp4", "videos/10:30", ""])
def test_a_source_behind_ray_is_no_address(source: str) -> None:
    assert cli._as_fields(["--ray", source], ExtractConfig)[0] == "--ray=auto"


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._VERBS, "extract", interrupted)
    assert cli.run(["extract"]) == 130
    assert "what was finished stays" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["extract", "train", "predict"])
def test_scripts_are_the_commands(verb: str) -> None:
    script = Path(__file__).parent.parent / "scripts" / f"{verb}.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: vidgru {verb} ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vidgru 0.")
