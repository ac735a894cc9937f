import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.prediction.fake_project import FakeProject
from vidgru import cli
from vidgru.cache import Entry
from vidgru.cli import _COMMANDS, _YOLO_FLAGS, parse
from vidgru.config import ExtractConfig
from vidgru.errors import SettingsError
from vidgru.flags import list_flags

ROOT = Path(__file__).parent.parent
PRESETS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))


def usage_error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must exit with 2 and print nothing to stdout; return its message."""
    assert cli.run(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("vidgru: error: ")
    return output.err


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        code = cli.run(words)
    except SystemExit as end:  # of --help
        code = end.code
    assert code == 0
    return capsys.readouterr().out


def config_of(*words: str) -> object:
    return parse(words[0], words[1:])[1]


# --- help -----------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in _COMMANDS)


def test_no_arguments_print_help_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert capsys.readouterr().out.startswith("usage: vidgru COMMAND")


def test_help_imports_nothing_heavy() -> None:
    calls = [["--help"], *([name, "--help"] for name in _COMMANDS)]
    code = (
        "import sys\nfrom vidgru import cli\n"
        f"for words in {calls}:\n    try:\n        cli.run(words)\n    except SystemExit:\n        pass\n"
        "    loaded = {'torch', 'cv2', 'ultralytics', 'av', 'numpy', 'matplotlib', 'yaml'} & set(sys.modules)\n"
        "    assert not loaded, (words, loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: vidgru ") == len(calls)


def test_help_groups_flags(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, "train", "--help")
    titles = [line for line in text.splitlines() if re.fullmatch(r"\w.*:", line)]
    assert [title.split()[0].strip(",:") for title in titles] == [
        "arguments", "options", "Settings", "Detector", "Runtime", "Imported", "Network",
    ]  # fmt: skip
    assert "--weight-decay X" in text
    assert "--augment, --no-augment" in text
    assert "--tracker {bytetrack,ocsort,none}" in text
    assert "(default: bytetrack)" in text
    assert "Choices: {geometry, angle, score," in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_explains_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, name, "--help")
    assert "_" not in "".join(re.findall(r"--[a-z][a-z_-]*", text))
    assert "Literal" not in text
    for flag in parse_defaults(name):
        assert re.search(rf"  --{flag.rstrip('_').replace('_', '-')}\b[^\n]*\s+[A-Z]", text), flag


def parse_defaults(name: str) -> Sequence[str]:
    return list(cli.to_settings(_COMMANDS[name].config()))


def test_compare_help_shows_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(printed(capsys, "compare", "--help").split())
    assert "(default: runs/compare)" in text
    assert "--captions, --no-captions Learn to write descriptions, if the annotations have any. --plots" in text


# --- flags and YAML -------------------------------------------------------------------------------------------------


def test_flags_override_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("fps: 4\nmax_objects: 7\n")
    flags = ("--config", str(tmp_path / "mine.yaml"), "--max-objects", "9", "--print-config")
    text = printed(capsys, "extract", "a.mp4", *flags)
    assert "fps: 4.0\n" in text
    assert "max_objects: 9\n" in text


def test_print_config_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = (
        "--labels",
        "fall,lying down",
        "--no-report",
        "--since",
        "2024-05-01T12:00:00",
        "--threshold",
        "sit, down=0.5,fall=1",
    )
    (tmp_path / "mine.yaml").write_text(printed(capsys, "predict", "m", "a", *flags, "--print-config"))
    assert config_of("predict", "m", "a", "--config", str(tmp_path / "mine.yaml")) == config_of(
        "predict", "m", "a", *flags
    )


@pytest.mark.parametrize(("words", "value"), [(["--no-augment"], False), (["--augment"], True), ([], True)])
def test_boolean_flags(words: list[str], value: bool) -> None:
    assert config_of("train", "data", *words).augment is value


@pytest.mark.parametrize(
    ("words", "members", "linear"),
    [([], 0, True), (["--members", "1", "--no-linear"], 1, False), (["--members=3", "--linear"], 3, True)],
)
def test_flags_of_ensembles(words: list[str], members: int, linear: bool) -> None:
    config = config_of("train", "data", *words)
    assert (config.members, config.linear) == (members, linear)


@pytest.mark.parametrize(("words", "value"), [(["--no-mirror"], False), (["--mirror"], True), ([], None)])
def test_mirror_flag_has_three_states(words: list[str], value: bool | None) -> None:
    assert config_of("train", "data", *words).mirror is value


def test_mirror_requires_augmentation() -> None:
    with pytest.raises(SettingsError, match="mirror is True; it must be left out with --no-augment"):
        config_of("train", "data", "--no-augment", "--mirror")


@pytest.mark.parametrize(("words", "labels"), [
    (["--labels", "fall"], ("fall",)),
    (["--labels=fall,lying down"], ("fall", "lying down")),
    (["--labels", "[fall, walk]"], ("fall", "walk")),
])  # fmt: skip
def test_lists_are_separated_by_commas(words: list[str], labels: tuple[str, ...]) -> None:
    assert config_of("predict", "model", "videos", *words).labels == labels


def test_sources_may_surround_flags() -> None:
    (sources,), config, _ = parse("extract", ["a.mp4", "--fps", "5", "b.mp4"])
    assert sources == ["a.mp4", "b.mp4"]
    assert config.detector.fps == 5.0


@pytest.mark.parametrize("words", [["--fps", "5", "--", "a.mp4", "-b.mp4"], ["a.mp4", "--fps", "5", "--", "-b.mp4"]])
def test_sources_after_a_double_dash(words: list[str]) -> None:
    (sources,), config, _ = parse("extract", words)
    assert (sources, config.detector.fps) == (["a.mp4", "./-b.mp4"], 5.0)


def test_yaml_holds_masks_and_lists(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mask: [[[0, 0], [1, 0], [1, 0.5]]]\nverbose: yes\nstart_time: 2024\n")
    config = config_of("extract", "a", "--config", str(tmp_path / "mine.yaml"))
    assert config.detector.mask == "[[[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]]]"
    assert config.verbose is True
    assert config.runtime.start_time == "2024"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load_by_name(preset: str) -> None:
    text = (ROOT / "configs" / preset).read_text()
    assert text.startswith("# "), "its first line says when to use it"
    name = text.splitlines()[0].split("vidgru ")[1].split()[0]
    assert config_of(name, *("a" for _ in _COMMANDS[name].arguments), "--config", preset)


@pytest.mark.parametrize(
    "address", ["auto", "local", "head-1.lan:6379", "10.0.0.1:6379", "[::1]:6379", "ray://h:10001"]
)
def test_ray_takes_an_address(address: str) -> None:
    (sources,), config, _ = parse("extract", ["--ray", address, "a.mp4"])
    assert (sources, config.scale.ray) == (["a.mp4"], address)


@pytest.mark.parametrize("source", ["a.mp4", "videos/10:30"])
def test_ray_does_not_take_a_source(source: str) -> None:
    (sources,), config, _ = parse("extract", ["--ray", source])
    assert (sources, config.scale.ray) == ([source], "auto")


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), [
    ("fsp: 4\n", "unknown key 'fsp'\n  did you mean fps?"),
    ("zzz: 4\n", "unknown key 'zzz'\n  vidgru extract --help lists the settings"),
    ("fps: four\n", "fps is 'four'; it must be a number"),
    ("fps: [4, 5]\n", "fps is ['4', '5']; it must be a single value"),
    ("- fps\n", "is not a mapping of settings"),
    ("fps: {", "cannot be read: while parsing"),
])  # fmt: skip
def test_yaml_errors_name_the_file(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    error = usage_error(capsys, "extract", "a.mp4", "--config", str(tmp_path / "mine.yaml"))
    assert str(tmp_path / "mine.yaml") in error
    assert message in error


@pytest.mark.parametrize(("words", "message"), [
    (["extrat"], "unknown command 'extrat'\n  did you mean extract?"),
    (["zzz"], "unknown command 'zzz'\n  the commands are: extract, train"),
    (["extract"], "no recordings to extract\n  pass files, folders"),
    (["predict", "model"], "the following arguments are required: sources\n  vidgru predict --help lists"),
    (["train", "data", "more"], "unexpected argument 'more'\n  vidgru train --help lists"),
    (["extract", "a", "--features", "f"], "unknown flag --features\n  the cache is what extract writes: use --out"),
    (["extract", "a", "--fsp", "4"], "unknown flag --fsp\n  did you mean --fps?"),
    (["extract", "a", "--verb"], "unknown flag --verb\n  did you mean --verbose?"),
    (["extract", "a", "--zzz=4"], "unknown flag --zzz\n  vidgru extract --help lists"),
    (["extract", "a", "--fps"], "--fps: expected one argument"),
    (["extract", "a", "--fps", "four"], "fps is 'four'; it must be a number"),
    (["extract", "a", "--fps", "-4"], "fps is -4.0; it must be above 0"),
    (["extract", "a", "--imgsz", "100"], "imgsz is 100; it must be a multiple of 32"),
    (["extract", "a", "--tracker", "sort"], "tracker is 'sort'; it must be one of bytetrack, ocsort, none"),
    (["extract", "a", "--config", "nope.yaml"], "no config file or preset nope.yaml\n  the presets are: ablation.yaml"),
    (["predict", "m", "a", "--conf", "0.3"], "--conf is a flag of extract and train, and --threshold is the score of"),
    (["predict", "--source", "a.mp4"], "unknown flag --source\n  recordings need no flag: vidgru predict MODEL"),
    (["predict", "model=m", "source=a.mp4"], "'model=m' is neither a flag nor a file\n  a model needs no flag"),
    (["extract", "a.mp4", "fps=5"], "'fps=5' is neither a flag nor a file\n  write --fps 5"),
    (["extract", "a.mp4", "--classes", "0"], "left out without detections; --only keeps some classes of objects"),
    (["predict", "m", "a.mp4", "--save_txt"], "unknown flag --save_txt\n  events are always written"),
    (["predict", "m", "a.mp4", "--line-width=2"], "unknown flag --line-width\n  --save-video chooses line widths"),
    (["explain", "m", "a.mp4", "--only", "person"], "unknown flag --only\n  a model brings the settings of its det"),
    (["extract", "nope.mp4"], "no such file or folder: nope.mp4"),
    (["predict", "model", "rtsp://a", "b.mp4"], "a live source must be the only source\n  run one command per live"),
    (["extract", "rtsp://me:hunt/er@2@cam/1"], "rtsp://***@cam/1"),
    (["info", "http://me:hunter2@cam/1"], "/***@cam/1"),
    (["extract", "~no-such-user/a.mp4"], "no such file or folder: ~no-such-user/a.mp4"),
    (["info", "x" * 300], f"File name too long: {'x' * 300}\n  give a shorter path"),
    (["predict", "model", "9" * 5000], "File name too long: 9"),
    (["info", "nope.mp4"], "no such file or folder: nope.mp4"),
])  # fmt: skip
def test_usage_errors(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in usage_error(capsys, *words)


def test_yolo_hints_name_existing_flags() -> None:
    known = {name for command in _COMMANDS.values() for name in list_flags(command.config())}
    named = {flag.replace("-", "_") for hint in _YOLO_FLAGS.values() for flag in re.findall(r"--([\w-]+)", hint)}
    assert named <= known


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "extract", cli._COMMANDS["extract"]._replace(run=interrupt))
    assert cli.run(["extract"]) == 130
    assert "finished work is kept" in capsys.readouterr().err


def test_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, "-m", "vidgru", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


def test_extract_warns_if_nothing_is_detected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = FakeProject(tmp_path)
    project.record("a.mp4")
    (entry,) = project.cache.entries()
    config = ExtractConfig(out=str(project.cache.root))
    cli._warn_of_no_objects({entry.key}, config)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Entry, "objects", 0)
    cli._warn_of_no_objects({entry.key}, config)
    warning = "vidgru: warning: yolo26n.pt detected no objects in any recording; try a lower --conf"
    assert capsys.readouterr().err.startswith(warning)


@pytest.mark.parametrize("name", ["extract", "train", "predict"])
def test_scripts_run_the_commands(name: str) -> None:
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: vidgru {name} ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vidgru 0.")
