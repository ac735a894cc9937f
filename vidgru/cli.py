"""The command line: `vidgru COMMAND ...`.

A command is a function of `vidgru.api`, which is imported once the command line is parsed, so that `--help` and usage
errors are instant. Its flags, and the keys of its YAML files, are the settings of its config.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import getdoc
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import vidgru
from vidgru import api
from vidgru import config as configs
from vidgru.errors import SettingsError, VidgruError
from vidgru.flags import Flag, from_settings, list_flags, suggest, to_settings
from vidgru.storage import user_path

_INTERRUPTED = 130  # as shells report a process ended by Ctrl-C
_CLOSED_PIPE = 141  # as shells report a process ended by a closed pipe
_MAX_METAVAR_CHOICES = 5  # more are listed in the text of the flag, which wraps
_RAY_ADDRESS = re.compile(r"auto|local|(ray://)?([\w.-]+|\[[\da-fA-F:]+\]):\d+")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 all done or reused, 1 something partial, failed or corrupt, 2 bad usage or input."""
    try:
        exit_code = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again when it flushes
        exit_code = _CLOSED_PIPE
    gc.freeze()  # at exit Python would look for cycles among all objects of PyTorch's modules: 0.4 s of CPU time
    sys.exit(exit_code)


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
            remedy = suggest(name, _COMMANDS, f"the commands are: {', '.join(_COMMANDS)}")
            raise SettingsError(f"unknown command {name!r}", remedy)
        arguments, config, print_config = parse(name, argv[1:])
        if print_config:
            print(_to_yaml(config), end="")
            return 0
        return _COMMANDS[name].run(*arguments, config)
    except VidgruError as error:
        print(f"vidgru: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # pathlib raises it even where it only looks whether a file exists
            raise
        print(f"vidgru: error: {error.strerror}: {error.filename}\n  give a shorter path", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vidgru: interrupted; finished work is kept", file=sys.stderr)
        return _INTERRUPTED


# --- commands: their output and exit codes --------------------------------------------------------------------------


def _extract(sources: list[str], config: configs.ExtractConfig) -> int:
    if config.dry_run:
        print(api.estimate(sources, config))
        return 0
    from vidgru.extraction.results import print_result, summary_table

    results = api.extract(sources, config, on_result=print_result if config.verbose else None)
    print(summary_table(results))
    _warn_of_no_objects({result.key for result in results if result.key}, config)
    return _exit_code(results)


def _warn_of_no_objects(keys: set[str], config: configs.ExtractConfig) -> None:
    """Warn if nothing was detected in any recording: usually wrong weights or thresholds, not empty scenes."""
    from vidgru.cache import SequenceCache

    cache = SequenceCache(config.out)
    entries = [] if config.imported.detections else [cache.entry(key) for key in sorted(keys)]
    if entries and not any(entry is None or entry.objects for entry in entries):
        warning = f"{config.detector.weights} detected no objects in any recording"
        print(f"vidgru: warning: {warning}; try a lower --conf, a larger --imgsz or other --weights", file=sys.stderr)


def _train(dataset: str, config: configs.TrainConfig) -> int:
    api.train(dataset, config)
    return 0


def _pretrain(features: list[str], config: configs.PretrainConfig) -> int:
    api.pretrain(features, config)
    return 0


def _compare(dataset: str, config: configs.CompareConfig) -> int:
    api.compare(dataset, config)
    return 0


def _eval(model: str, dataset: str, config: configs.EvalConfig) -> int:
    api.evaluate(model, dataset, config)
    return 0


def _tune(model: str, dataset: str, config: configs.TuneConfig) -> int:
    api.tune(model, dataset, config)
    return 0


def _predict(model: str, sources: list[str], config: configs.PredictConfig) -> int:
    from vidgru.sources import is_live_source

    if any(map(is_live_source, sources)):
        if len(sources) > 1:
            raise SettingsError("a live source must be the only source", "run one command per live source")
        return api.predict_live(model, sources[0], config)
    from vidgru.prediction.outputs import INDEX
    from vidgru.prediction.results import count_trained_on, summary_table

    results = api.predict(model, sources, config)
    print(summary_table(results))
    if number := count_trained_on(results):
        print(f"the model was trained on {number} of these recordings: expect less in others")
    index = user_path(config.out) / INDEX
    if config.report and index.exists():  # absent as long as another process still predicts into the same folder
        print(f"open {index} in a browser")
    return _exit_code(results)


def _explain(model: str, recording: str, config: configs.ExplainConfig) -> int:
    print(api.explain(model, recording, config))
    return 0


def _label(sources: list[str], config: configs.LabelConfig) -> int:
    out = api.label(sources, config)
    print(f"labels: {out}" if out.exists() else "nothing was labelled")
    return 0


def _suggest(model: str, sources: list[str], config: configs.SuggestConfig) -> int:
    from vidgru.labeling.suggest_command import suggestions_table

    suggestions = api.suggest(model, sources, config)
    print(f"{len(suggestions)} suggestions: {config.out}" if config.out else suggestions_table(suggestions))
    return 0


def _export(model: str, config: configs.ExportConfig) -> int:
    print(api.export(model, config))
    return 0


def _convert(dataset: str, out: str | None, config: configs.ConvertConfig) -> int:
    summary, *notes = api.convert(dataset, out, config)
    print(summary)
    for note in notes:
        print(note, file=sys.stderr)
    return 0


def _info(path: str, config: configs.InfoConfig) -> int:
    report = api.info(path, config)
    print(report)
    return 0 if report.is_valid else 1


def _demo(config: configs.DemoConfig) -> int:
    api.demo(config)
    return 0


def _exit_code(results: Iterable[Any]) -> int:
    return 0 if all(result.status in ("done", "reused") for result in results) else 1


class Argument(NamedTuple):
    """A positional argument.

    Attributes:
        name: Name in the help.
        help: Help text.
        nargs: As for argparse; None takes exactly one value.
    """

    name: str
    help: str
    nargs: str | None = None


class Command(NamedTuple):
    """A command.

    Attributes:
        run: Takes the positional arguments and the config, prints the result and returns the exit code.
        function: Function of `vidgru.api`; the first line of its docstring is the help text.
        config: Class of its settings.
        arguments: Positional arguments.
    """

    run: Callable[..., int]
    function: Callable[..., Any]
    config: type[Any]
    arguments: tuple[Argument, ...]

    @property
    def summary(self) -> str:
        """Help text in one line."""
        return (getdoc(self.function) or "").partition("\n")[0]


# optional, because imported detections need no sources
_SOURCES = Argument("sources", "Recordings: files, folders, globs, .txt lists.", "*")
_INPUTS = Argument(
    "sources", "Recordings, as for extract; caches or their entries; or a live source: a URL or a camera number.", "+"
)
_DATASET = Argument(
    "dataset", "Dataset YAML, annotation file, or a folder with an annotation file or with a folder per class."
)
_OUT = Argument(
    "out",
    "Output: .csv, .jsonl, .json (ActivityNet), .vtt, .xml (CVAT), .boris, or a folder (a .vtt per video). With --to, "
    "the default is a name beside the dataset.",
    "?",
)
_RECORDINGS = Argument("recordings", "Recordings: files, folders, globs, .txt lists.", "+")
_STORED = Argument("sources", "Recordings, as for extract; caches or their entries.", "+")
_FEATURES = Argument("features", "Folders of sequence caches.", "+")
_MODEL = Argument("model", "Model file, or folder of a training run.")
_RECORDING = Argument("recording", "Video, or folder of a cache entry.")
_PATH = Argument("path", "Video, cache or cache entry, dataset, model, weights of a detector (.pt).")

_COMMANDS = {
    "extract": Command(_extract, api.extract, configs.ExtractConfig, (_SOURCES,)),
    "train": Command(_train, api.train, configs.TrainConfig, (_DATASET,)),
    "pretrain": Command(_pretrain, api.pretrain, configs.PretrainConfig, (_FEATURES,)),
    "compare": Command(_compare, api.compare, configs.CompareConfig, (_DATASET,)),
    "eval": Command(_eval, api.evaluate, configs.EvalConfig, (_MODEL, _DATASET)),
    "tune": Command(_tune, api.tune, configs.TuneConfig, (_MODEL, _DATASET)),
    "predict": Command(_predict, api.predict, configs.PredictConfig, (_MODEL, _INPUTS)),
    "label": Command(_label, api.label, configs.LabelConfig, (_RECORDINGS,)),
    "suggest": Command(_suggest, api.suggest, configs.SuggestConfig, (_MODEL, _STORED)),
    "explain": Command(_explain, api.explain, configs.ExplainConfig, (_MODEL, _RECORDING)),
    "export": Command(_export, api.export, configs.ExportConfig, (_MODEL,)),
    "convert": Command(_convert, api.convert, configs.ConvertConfig, (_DATASET, _OUT)),
    "info": Command(_info, api.info, configs.InfoConfig, (_PATH,)),
    "demo": Command(_demo, api.demo, configs.DemoConfig, ()),
}


def _overview() -> str:
    lines = ["usage: vidgru COMMAND ...", "", vidgru.__doc__.partition(": ")[2].partition("\n")[0].capitalize(), ""]
    lines += [f"  {name:<9}{command.summary}" for name, command in _COMMANDS.items()]
    return "\n".join([*lines, "", "vidgru COMMAND --help lists the flags of a command."])


# --- flags ----------------------------------------------------------------------------------------------------------


def parse(name: str, argv: Sequence[str]) -> tuple[list[Any], Any, bool]:
    """Parse the words after a command's name.

    Args:
        name: Name of the command.
        argv: Positional arguments and flags. Flags override the YAML file of `--config`.

    Returns:
        The positional arguments, the config, and whether to print it instead of running the command.

    Raises:
        SettingsError: An unknown flag or key, a missing argument, or a bad value.
    """
    command = _COMMANDS[name]
    flags = list_flags(command.config())
    parser = _parser(name, command, flags)
    options = [option for action in parser._actions for option in action.option_strings]
    words = _prepare(argv)
    for word in (word.partition("=")[0] for word in words if word.startswith("--")):
        if word not in options and (hint := _yolo_hint(word[2:], flags)):
            raise SettingsError(f"unknown flag {word}", hint)
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        word = unknown[0].partition("=")[0]
        message = f"unknown flag {word}" if word.startswith("-") else f"unexpected argument {word!r}"
        raise SettingsError(message, suggest(word, options, f"vidgru {name} --help lists the flags"))
    values = vars(known)
    arguments = [values.get(f"<{argument.name}>", []) for argument in command.arguments]
    _refuse_assignments(arguments, flags)
    settings: dict[str, Any] = {}
    for file in values.get("config", ()):
        settings |= _read_yaml(file, name, flags)
    for key in values.keys() & flags.keys():
        value = values[key]
        settings[key] = flags[key].parse(value) if isinstance(value, str) else value
    config = from_settings(command.config, **settings)
    return arguments, config, "print_config" in values


# flags of `yolo`, and one of other commands, that are spelled in another way
_YOLO_FLAGS = {
    "features": "the cache is what extract writes: use --out FOLDER",
    "source": "recordings need no flag: vidgru predict MODEL RECORDINGS",
    "data": "the dataset needs no flag: vidgru train DATASET",
    "model": "a model needs no flag: vidgru predict MODEL RECORDINGS; the detector is --weights",
    "pretrained": "use --init MODEL to start from a model",
    "classes": "use --only person,car for objects, in extract and train; --labels of predict for events",
    "max-det": "use --max-objects, in extract and train",
    "vid-stride": "use --fps, the frames per second to sample, in extract and train",
    "lr0": "use --lr",
    "half": "use --precision fp16",
    "project": "use --out FOLDER",
    "name": "use --out FOLDER",
    "cache": "features are always cached, in the folder --features",
    "save": "use --save-video; events are always written",
    "save-txt": "events are always written, as .jsonl, .csv, .vtt and .srt; vidgru extract caches the objects",
    "save-crop": "use --clips to cut each event into a file",
    "line-width": "--save-video chooses line widths by the size of the video",
    "show": "use --save-video, or open the report page",
}


def _yolo_hint(flag: str, flags: Mapping[str, Flag]) -> str:
    """Return what to write instead of a flag of `yolo`, or of a detector setting that a model brings; else nothing."""
    hint = _YOLO_FLAGS.get(flag.replace("_", "-"), "")
    if not hint and flag.replace("-", "_") in list_flags(configs.DetectorSettings()).keys() - flags.keys():
        events = ", and --threshold is the score of events" if flag == "conf" and "threshold" in flags else ""
        hint = f"a model brings the settings of its detector: --{flag} is a flag of extract and train{events}"
    return hint


def _refuse_assignments(arguments: Iterable[Any], flags: Mapping[str, Flag]) -> None:
    """Refuse settings that are written as for `yolo`: conf=0.3."""
    for word in (word for value in arguments for word in ([value] if isinstance(value, str) else value or ())):
        key, equals, value = word.partition("=")
        is_flag = key.replace("-", "_") in flags
        hint = f"write --{key.replace('_', '-')} {value}" if is_flag else _yolo_hint(key, flags)
        if equals and hint and not Path(word).exists():
            raise SettingsError(f"{word!r} is neither a flag nor a file", hint)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are SettingsError."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"<(\w+)>", r"\1", message).removeprefix("argument ")
        raise SettingsError(message, f"{self.prog} --help lists the arguments and flags")


def _parser(name: str, command: Command, flags: Mapping[str, Flag]) -> argparse.ArgumentParser:
    """Return the parser of a command. Values stay text, so that flags and YAML are checked by the same code."""
    forms = {None: "{}", "*": "{}...", "+": "{}...", "?": "[{}]"}
    words = [forms[argument.nargs].format(argument.name.upper()) for argument in command.arguments]
    parser = _Parser(
        prog=f"vidgru {name}",
        usage=" ".join(["%(prog)s", *words, "[--config FILE] [flags]"]),
        description=command.summary,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    section = parser.add_argument_group("arguments")
    for argument in command.arguments:  # in brackets, because a setting may have the same name
        section.add_argument(f"<{argument.name}>", metavar=argument.name, nargs=argument.nargs, help=argument.help)
    section = parser.add_argument_group("options")
    section.add_argument("-h", "--help", action="help", help="Show this help and exit.")
    file_help = "YAML of these flags, or a preset; flags override it."
    section.add_argument("--config", metavar="FILE", action="append", help=file_help)
    section.add_argument("--print-config", action="store_true", help="Print the resulting settings as YAML and exit.")
    defaults = to_settings(command.config())
    for group, members in groupby(flags.values(), lambda flag: flag.group):
        section = parser.add_argument_group(group.replace("`", ""))
        for flag in members:
            _add_flag(section, flag, defaults[flag.name])
    return parser


def _add_flag(section: argparse._ArgumentGroup, flag: Flag, default: Any) -> None:
    option, text = flag.option, flag.help
    if default not in ("", (), None) and default is not False:
        value = ",".join(map(str, default)) if flag.is_list else f"{default:g}" if flag.type is float else default
        text += f" (default: {'on' if default is True else value})"
    metavar = "A,B" if flag.is_list else "TIME" if flag.is_time else {int: "N", float: "X"}.get(flag.type, "TEXT")
    if flag.choices and len(flag.choices) <= _MAX_METAVAR_CHOICES and not flag.is_list:
        metavar = f"{{{','.join(flag.choices)}}}"
    elif flag.choices:
        text += f" Choices: {{{', '.join(flag.choices)}}}."
    text = text.replace("%", "%%")
    if flag.type is bool:
        section.add_argument(option, dest=flag.name, action=argparse.BooleanOptionalAction, help=text)
    else:
        section.add_argument(option, dest=flag.name, metavar=metavar, help=text)


def _prepare(argv: Sequence[str]) -> list[str]:
    """Rewrite what argparse would misunderstand.

    `--ray` without an address would swallow a source that follows it. Paths after `--` that start with a dash would be
    flags, because argparse reads intermixed words in two passes and forgets the `--` in the second.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    words = list(argv[:end])
    for position, word in enumerate(words):
        if word == "--ray" and not _RAY_ADDRESS.fullmatch("".join(words[position + 1 : position + 2])):
            words[position] = "--ray=auto"
    return words + [f"./{word}" if word.startswith("-") else word for word in argv[end + 1 :]]


def _to_yaml(config: Any) -> str:
    import yaml

    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in to_settings(config).items()}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _read_yaml(file: str, command: str, flags: Mapping[str, Flag]) -> dict[str, Any]:
    """Return the settings in a YAML file, or in the preset of that name."""
    import yaml

    from vidgru.storage import bundled_file

    path = user_path(file)
    preset = bundled_file(file) if file.endswith(".yaml") else None
    if not path.is_file() and preset is not None:
        path = preset
    elif not path.is_file():
        folder = bundled_file("extract.yaml")
        presets = sorted(item.name for item in folder.parent.glob("*.yaml")) if folder else []
        raise SettingsError(f"no config file or preset {file}", f"the presets are: {', '.join(presets)}")
    try:
        values = yaml.load(path.read_bytes(), yaml.BaseLoader)  # scalars stay text
    except (OSError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SettingsError(f"{file} cannot be read: {reason}", "give a YAML file of settings") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{file} is not a mapping of settings", "write a line such as `fps: 5` per setting")
    settings = {}
    for key, value in values.items():
        if key not in flags:
            remedy = suggest(key, flags, f"vidgru {command} --help lists the settings")
            raise SettingsError(f"{file}: unknown key {key!r}", remedy)
        try:
            settings[key] = flags[key].parse(value)
        except SettingsError as error:
            raise SettingsError(f"{file}: {error.message}", error.remedy) from None
    return settings
