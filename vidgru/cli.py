"""The command line: `vidgru COMMAND ...`.

Flags and YAML keys are the fields of each command's config; their help is the config's docstrings. Only the requested
command is set up, and its code imported after its flags are parsed, so that `--help` and usage errors are instant.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import getdoc
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin

import vidgru
from vidgru import config as configs
from vidgru.errors import SettingsError, VidgruError
from vidgru.storage import bundled_file

_MAX_METAVAR_CHOICES = 5  # more are listed in the text of the flag, which wraps
_INTERRUPTED = 130  # as shells report a process ended by Ctrl-C
_RAY_ADDRESS = re.compile(r"auto|local|(ray://)?([\w.-]+|\[[\da-fA-F:]+\]):\d+")


class Command(NamedTuple):
    """A command.

    Attributes:
        run: Runs it on the parsed arguments and returns the exit code. Its docstring is the help text.
        config: Class of its settings.
        arguments: Names of its positional arguments, keys of `_ARGUMENTS`.
    """

    run: Callable[..., int]
    config: type[Any]
    arguments: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 all done or reused, 1 something partial, failed or corrupt, 2 bad usage or input."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"vidgru {vidgru.__version__}")
        return 0
    name = argv[0]
    try:
        if name not in _COMMANDS:
            near = get_close_matches(name, _COMMANDS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"the commands are: {', '.join(_COMMANDS)}"
            raise SettingsError(f"unknown command {name!r}", remedy)
        arguments, config = parse(name, argv[1:])
        return _COMMANDS[name].run(*arguments, config)
    except VidgruError as error:
        print(f"vidgru: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("vidgru: interrupted; finished work is kept", file=sys.stderr)
        return _INTERRUPTED


# --- commands -------------------------------------------------------------------------------------------------------


def _extract(sources: list[str], config: configs.ExtractConfig) -> int:
    """Run the detector and cache per-frame features."""
    from vidgru import api

    if config.dry_run:
        print(api.estimate(sources, config))
        return 0
    from vidgru.extraction.results import print_result, summary_table

    results = api.extract(sources, config, on_result=print_result if config.verbose else None)
    print(summary_table(results))
    _warn_of_no_objects({result.key for result in results if result.key}, config)
    return _exit_code(results)


def _train(dataset: str, config: configs.TrainConfig) -> int:
    """Train a model on annotated recordings, extracting missing features first."""
    from vidgru import api

    api.train(dataset, config)
    return 0


def _compare(dataset: str, config: configs.CompareConfig) -> int:
    """Train several settings on the same splits and compare cost and accuracy."""
    from vidgru import api

    api.compare(dataset, config)
    return 0


def _eval(model: str, dataset: str, config: configs.EvalConfig) -> int:
    """Evaluate a model on a split of annotated recordings."""
    from vidgru import api

    api.evaluate(model, dataset, config)
    return 0


def _predict(model: str, sources: list[str], config: configs.PredictConfig) -> int:
    """Predict events in recordings or a live stream."""
    from vidgru import api
    from vidgru.sources import is_live_source

    if any(map(is_live_source, sources)):
        if len(sources) > 1:
            raise SettingsError("a live source must be the only source", "run one command per live source")
        return api.predict_live(model, sources[0], config)
    from vidgru.prediction.outputs import INDEX
    from vidgru.prediction.results import summary_table

    results = api.predict(model, sources, config)
    print(summary_table(results))
    index = Path(config.out).expanduser() / INDEX
    if config.report and index.exists():  # absent as long as another process still predicts into the same folder
        print(f"open {index} in a browser")
    return _exit_code(results)


def _explain(model: str, recording: str, config: configs.ExplainConfig) -> int:
    """Explain the events predicted in a recording."""
    from vidgru import api

    print(api.explain(model, recording, config))
    return 0


def _export(model: str, config: configs.ExportConfig) -> int:
    """Export a model to ONNX."""
    from vidgru import api

    print(api.export(model, config))
    return 0


def _convert(dataset: str, out: str, config: configs.ConvertConfig) -> int:
    """Convert annotations to vidgru's CSV or JSONL, ActivityNet JSON, or subtitles."""
    from vidgru import api

    summary, *notes = api.convert(dataset, out, config)
    print(summary)
    for note in notes:
        print(note, file=sys.stderr)
    return 0


def _info(path: str, config: configs.InfoConfig) -> int:
    """Inspect and verify a video, cache, dataset or model."""
    from vidgru import api

    report = api.info(path, config)
    print(report)
    return 0 if report.is_valid else 1


def _demo(config: configs.DemoConfig) -> int:
    """Run the whole pipeline offline on synthetic scenes."""
    from vidgru import api

    print(api.demo(config))
    return 0


_ARGUMENTS = {
    "sources": "recordings: files, folders, globs, .txt lists",
    "inputs": "recordings, as for extract; caches or their entries; or a live source: a URL or a camera number",
    "dataset": "dataset YAML, annotation file, or a folder with an annotation file or with a folder per class",
    "out": "output: .csv, .jsonl, .json (ActivityNet), .vtt, or a folder (a .vtt per video)",
    "model": "model file, or folder of a training run",
    "recording": "video, or folder of a cache entry",
    "path": "video, cache or cache entry, dataset, model",
}
_NARGS = {"sources": "*", "inputs": "+"}  # imported detections need no sources
_COMMANDS = {
    "extract": Command(_extract, configs.ExtractConfig, ("sources",)),
    "train": Command(_train, configs.TrainConfig, ("dataset",)),
    "compare": Command(_compare, configs.CompareConfig, ("dataset",)),
    "eval": Command(_eval, configs.EvalConfig, ("model", "dataset")),
    "predict": Command(_predict, configs.PredictConfig, ("model", "inputs")),
    "explain": Command(_explain, configs.ExplainConfig, ("model", "recording")),
    "export": Command(_export, configs.ExportConfig, ("model",)),
    "convert": Command(_convert, configs.ConvertConfig, ("dataset", "out")),
    "info": Command(_info, configs.InfoConfig, ("path",)),
    "demo": Command(_demo, configs.DemoConfig, ()),
}


def _warn_of_no_objects(keys: set[str], config: configs.ExtractConfig) -> None:
    """Warn if nothing was detected in any recording, which wrong weights or thresholds cause more often than scenes."""
    from vidgru.cache import SequenceCache

    cache = SequenceCache(config.out)
    entries = [] if config.imported.detections else [cache.entry(key) for key in sorted(keys)]
    if entries and not any(entry is None or entry.objects for entry in entries):
        remedy = "try a lower --conf, a larger --imgsz or other --weights"
        print(
            f"vidgru: warning: {config.detector.weights} detected no objects in any recording; {remedy}",
            file=sys.stderr,
        )


def _exit_code(results: Iterable[Any]) -> int:
    return 0 if all(result.status in ("done", "reused") for result in results) else 1


def _overview() -> str:
    return "\n".join(
        [
            "usage: vidgru COMMAND ...",
            "",
            "Turn folders of recordings into timelines of labelled, described events.",
            "",
            *(f"  {name:<9}{getdoc(command.run)}" for name, command in _COMMANDS.items()),
            "",
            "vidgru COMMAND --help lists the flags of a command.",
        ]
    )


# --- flags ----------------------------------------------------------------------------------------------------------


def parse(name: str, argv: Sequence[str]) -> tuple[list[Any], Any]:
    """Parse the words after a command's name.

    Args:
        name: Name of the command.
        argv: Positional arguments and flags. Flags override the YAML file of `--config`.

    Returns:
        The positional arguments, and the config.

    Raises:
        SettingsError: An unknown flag or key, a missing argument, or a bad value.
    """
    command = _COMMANDS[name]
    kinds = configs.flag_types(command.config())
    parser = _parser(name, command, kinds)
    known, unknown = parser.parse_known_intermixed_args(_with_ray_address(argv))
    if unknown:
        flag = unknown[0].partition("=")[0]
        options = [option for action in parser._actions for option in action.option_strings]
        near = get_close_matches(flag, options, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"vidgru {name} --help lists the flags"
        raise SettingsError(f"unknown flag {flag}" if flag.startswith("-") else f"unexpected argument {flag!r}", remedy)
    values = vars(known)
    flags: dict[str, Any] = {}
    for file in values.get("config", ()):
        flags |= _read_yaml(file, name, kinds)
    flags |= {
        key: configs.parse_flag(key, value, kinds[key]) if isinstance(value, str) else value
        for key, value in values.items()
        if key in kinds
    }
    config = configs.from_flags(command.config, **flags)
    if "print_config" in values:
        import yaml

        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in configs.to_flags(config).items()}
        print(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), end="")
        sys.exit(0)
    return [values.get(f"<{argument}>", []) for argument in command.arguments], config


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are SettingsError."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"<(\w+)>", r"\1", message)
        raise SettingsError(message.removeprefix("argument "), f"{self.prog} --help lists the arguments and flags")


def _parser(name: str, command: Command, kinds: Mapping[str, Any]) -> argparse.ArgumentParser:
    """Return the parser of a command. Values are left as text, so that flags and YAML are checked by the same code."""
    metavars = {argument: argument.upper() + ("..." if argument in _NARGS else "") for argument in command.arguments}
    parser = _Parser(
        prog=f"vidgru {name}",
        usage=" ".join(["%(prog)s", *metavars.values(), "[--config FILE] [flags]"]).replace("INPUTS", "SOURCES"),
        description=getdoc(command.run),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    if command.arguments:
        positionals = parser.add_argument_group("arguments")
        for argument in command.arguments:
            metavar = "sources" if argument == "inputs" else argument
            positionals.add_argument(
                f"<{argument}>", metavar=metavar, nargs=_NARGS.get(argument), help=_ARGUMENTS[argument]
            )
    options = parser.add_argument_group("options")
    options.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    options.add_argument(
        "--config", metavar="FILE", action="append", help="YAML of these flags, or a preset; flags override it."
    )
    options.add_argument("--print-config", action="store_true", help="Print the resulting settings as YAML and exit.")
    defaults = configs.to_flags(command.config())
    for kind in configs.flag_groups(command.config()):
        title = (getdoc(kind) or "").partition("\n")[0].removesuffix(".")
        section = options if kind is command.config else parser.add_argument_group(title)
        for flag, text in _attributes(kind).items():
            if flag in kinds:
                _add_flag(section, flag, kinds[flag], text, defaults[flag])
    return parser


def _add_flag(section: argparse._ArgumentGroup, name: str, kind: Any, text: str, default: Any) -> None:
    option = f"--{name.replace('_', '-')}"
    shown = {True: "on", False: ""}[default] if isinstance(default, bool) else configs.format_flag(default)
    text += f" (default: {shown})" if shown else ""
    is_list = get_origin(kind) is tuple
    metavar = "A,B" if is_list else {int: "N", int | None: "N", float: "X", float | None: "X"}.get(kind, "TEXT")
    choices = configs.choices(get_args(kind)[0] if is_list else kind)
    if choices and len(choices) <= _MAX_METAVAR_CHOICES and not is_list:
        metavar = f"{{{','.join(choices)}}}"
    elif choices:
        text += f" Choices: {{{', '.join(choices)}}}."
    text = text.replace("%", "%%")
    if kind is bool:
        section.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
    else:
        section.add_argument(option, metavar=metavar, help=text)


def _attributes(kind: type[Any]) -> dict[str, str]:
    """Return the text of each field under `Attributes:` of a class's docstring."""
    block = (getdoc(kind) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", block, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _with_ray_address(argv: Sequence[str]) -> list[str]:
    """Complete `--ray` without an address to `--ray=auto`; else it would swallow a source that follows it."""
    words = list(argv)
    for position, word in enumerate(words):
        if word == "--ray" and not _RAY_ADDRESS.fullmatch("".join(words[position + 1 : position + 2])):
            words[position] = "--ray=auto"
    return words


def _read_yaml(file: str, command: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags in a YAML file, or in the preset of that name."""
    import yaml

    path = Path(file).expanduser()
    preset = bundled_file(file) if file.endswith(".yaml") else None
    if not path.is_file() and preset is None:
        folder = bundled_file("extract.yaml")
        names = sorted(p.name for p in folder.parent.glob("*.yaml")) if folder else []
        raise SettingsError(f"no config file or preset {file}", f"the presets are: {', '.join(names)}")
    try:
        values = yaml.load((path if path.is_file() else preset or path).read_bytes(), yaml.BaseLoader)  # all text
    except (OSError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SettingsError(f"{file} cannot be read: {reason}", "give a YAML file of settings") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{file} is not a mapping of settings", "write a line such as `fps: 5` per setting")
    flags = {}
    for key, value in values.items():
        if key not in kinds:
            near = get_close_matches(key, kinds, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"vidgru {command} --help lists the settings"
            raise SettingsError(f"{file}: unknown key {key!r}", remedy)
        try:
            flags[key] = configs.parse_flag(key, value, kinds[key])
        except SettingsError as error:
            raise SettingsError(f"{file}: {error.message}", error.remedy) from None
    return flags
