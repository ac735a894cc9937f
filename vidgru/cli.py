"""The command line: `vidgru VERB ...`.

Flags and YAML keys are the fields of each verb's config dataclass. Only the verb that is asked for is set up, and its
code imported after its flags have passed, so that `--help` and mistakes are answered at once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, get_origin

import vidgru
from vidgru.errors import SettingsError, VidgruError
from vidgru.storage import bundled_file

Config = TypeVar("Config")

_ADDRESS = re.compile(r"auto|local|(ray://)?([\w.-]+|\[[\da-fA-F:]+\]):\d+")  # of a Ray cluster
INTERRUPTED = 130  # as a shell reports a process that Ctrl-C ended


class Positional(NamedTuple):
    """An argument without a dash, or several; `nargs` is argparse's."""

    name: str
    help: str
    nargs: str | None = None


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 all done or reused, 1 something partial, failed or unsound, 2 bad usage or input."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"vidgru {vidgru.__version__}")
        return 0
    verb = _VERBS.get(argv[0])
    try:
        if verb is None:
            raise SettingsError(f"there is no command {argv[0]!r}", f"one of: {', '.join(_VERBS)}")
        return verb(argv[1:])
    except VidgruError as error:
        print(f"vidgru: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("vidgru: interrupted; what was finished stays", file=sys.stderr)
        return INTERRUPTED


def _extract(argv: Sequence[str]) -> int:
    """See every sampled frame once: recordings into a cache of sequences."""
    from vidgru.config import ExtractConfig

    given, config = _parse("extract", ExtractConfig, argv, _SOURCES)
    from vidgru import api
    from vidgru.extraction.results import print_result, summary_table

    if config.dry_run:
        from vidgru.cache import SequenceCache
        from vidgru.extraction.estimate import estimate

        cache = SequenceCache(config.out)
        print(estimate(api.recordings_of(given["sources"], config, cache), cache, config.detector, config.runtime))
        return 0
    outcomes = api.extract(given["sources"], config, on_result=print_result if config.verbose else None)
    print(summary_table(outcomes))
    return _code(outcomes)


def _train(argv: Sequence[str]) -> int:
    """Train a model on annotated recordings; features that are missing are extracted first."""
    from vidgru.config import TrainConfig

    given, config = _parse("train", TrainConfig, argv, _DATASET)
    from vidgru import api

    api.train(given["dataset"], config)
    return 0


def _compare(argv: Sequence[str]) -> int:
    """Train cells, or any other settings, alike, and tell what each costs and what it is worth."""
    from vidgru.config import CompareConfig

    given, config = _parse("compare", CompareConfig, argv, _DATASET)
    from vidgru.training.compare import compare

    compare(given["dataset"], config)
    return 0


def _eval(argv: Sequence[str]) -> int:
    """Judge a model on a split of annotated recordings."""
    from vidgru.config import EvalConfig

    given, config = _parse("eval", EvalConfig, argv, _MODEL, _DATASET)
    from vidgru import api

    api.evaluate(given["model"], given["dataset"], config)
    return 0


def _predict(argv: Sequence[str]) -> int:
    """Find events in recordings that nobody annotated, and in live streams."""
    from vidgru.config import PredictConfig

    given, config = _parse("predict", PredictConfig, argv, _MODEL, _INPUTS)
    from vidgru.sources import is_live_source

    if any(map(is_live_source, given["sources"])):
        if len(given["sources"]) > 1:
            raise SettingsError("a live source is predicted alone, and several sources are given", "run one for each")
        from vidgru.prediction.live import predict_live

        return predict_live(given["model"], given["sources"][0], config)
    from vidgru import api
    from vidgru.prediction.outputs import INDEX
    from vidgru.prediction.results import summary_table

    predictions = api.predict(given["model"], given["sources"], config)
    print(summary_table(predictions))
    if config.report and (Path(config.out).expanduser() / INDEX).exists():  # not yet where another run collects
        print(f"open {Path(config.out) / INDEX} in a browser")
    return _code(predictions)


def _explain(argv: Sequence[str]) -> int:
    """Say why a model finds what it finds in a recording."""
    from vidgru.config import ExplainConfig

    given, config = _parse("explain", ExplainConfig, argv, _MODEL, _RECORDING)
    from vidgru.prediction.explain import explain_recording

    print(explain_recording(given["model"], given["recording"], config))
    return 0


def _export(argv: Sequence[str]) -> int:
    """Export a model to ONNX, without its captions."""
    from vidgru.config import ExportConfig

    given, config = _parse("export", ExportConfig, argv, _MODEL)
    from vidgru.model.onnx_export import export_model

    print(export_model(given["model"], config))
    return 0


def _info(argv: Sequence[str]) -> int:
    """Say what a video, a cache, a data set or a model is, and whether it is sound."""
    from vidgru.config import InfoConfig

    given, config = _parse("info", InfoConfig, argv, _PATH)
    from vidgru.info import info

    found = info(given["path"], verify=config.verify, prune=config.prune)
    print(found)
    return 0 if found.sound else 1


def _convert(argv: Sequence[str]) -> int:
    """Turn annotations of other tools into vidgru's CSV or JSONL, ActivityNet JSON, or subtitles."""
    from vidgru.config import ConvertConfig

    given, config = _parse("convert", ConvertConfig, argv, _DATASET, _OUT)
    from vidgru.datasets.convert import convert

    written, *said = convert(given["dataset"], given["out"], config)
    print(written)
    for sentence in said:
        print(sentence, file=sys.stderr)
    return 0


def _demo(argv: Sequence[str]) -> int:
    """Do all of it on drawn street scenes, with nothing but this package."""
    from vidgru.config import DemoConfig

    _, config = _parse("demo", DemoConfig, argv)
    from vidgru.demo.run import run as run_demo

    print(run_demo(config))
    return 0


_SOURCES = Positional("sources", "recordings: files, folders, globs, .txt lists", "*")  # detections need none
_INPUTS = Positional(
    "sources",
    "recordings, as for extract; caches or their entries; or a live source: a URL, a camera's number",
    "+",
)
_DATASET = Positional("dataset", "a YAML, an annotation file, or a folder with one, or with a folder for each class")
_OUT = Positional("out", "what to write: .csv, .jsonl, .json (ActivityNet), .vtt, or a folder (a .vtt a video)")
_MODEL = Positional("model", "a model file, or the folder of a training run")
_RECORDING = Positional("recording", "a video, or an entry of a cache (its folder)")
_PATH = Positional("path", "a video, a cache or one of its entries, a data set, a model")
_VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "extract": _extract,
    "train": _train,
    "compare": _compare,
    "eval": _eval,
    "predict": _predict,
    "explain": _explain,
    "export": _export,
    "convert": _convert,
    "info": _info,
    "demo": _demo,
}


def _code(ends: Iterable[Any]) -> int:
    """0 if every recording is done or reused, else 1."""
    return 0 if all(end.status in ("done", "reused") for end in ends) else 1


def _overview() -> str:
    lines = [
        "usage: vidgru COMMAND ... (vidgru COMMAND --help tells its flags)",
        "",
        "Turns folders of recordings into timelines of labelled, described events.",
        "",
    ]
    lines += [f"  {name:<9} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in _VERBS.items()]
    return "\n".join(lines)


def _parse(
    verb: str, config: type[Config], argv: Sequence[str], *positionals: Positional
) -> tuple[dict[str, Any], Config]:
    """Positional arguments by name, and the verb's config from its YAML (`--config FILE`) with flags on top.

    Raises:
        SettingsError: a flag or key that there is not, or a value that cannot be.
    """
    from jsonargparse import ArgumentParser

    from vidgru.config import flag_groups, from_flags, to_flags

    class Parser(ArgumentParser):
        """Says what is wrong in a line, with dashes in flags, as users type them."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise SettingsError(_one_line(message, argv), f"vidgru {verb} --help tells what can be given")

        def format_help(self, *options: Any, **named: Any) -> str:
            text = re.sub(r"--(\w+) \{true,false\}", r"--\1, --no-\1", super().format_help(*options, **named))
            return re.sub(r"--[a-z][a-z_-]+", lambda flag: flag[0].replace("_", "-"), text)

    usage = " ".join(f"{p.name.upper()}{'...' if p.nargs else ''}" for p in positionals)
    parser = Parser(prog=f"vidgru {verb}", usage=" ".join(f"vidgru {verb} {usage} [--config FILE] [flags]".split()))
    for p in positionals:
        parser.add_argument(p.name, help=p.help, nargs=p.nargs)
    parser.add_argument(
        "--config", action="config", help="YAML of the settings below, or the name of a preset; flags come on top"
    )
    names: list[str] = []
    for _, group in flag_groups(config()):
        nested = {item.name for item in fields(group) if is_dataclass(item.default_factory) or item.name == "train"}
        parser.add_class_arguments(group, skip=nested)
        names += [item.name for item in fields(group) if item.name not in nested]
    parser.set_defaults(to_flags(config()))
    values = parser.parse_args(_as_fields(argv, config))
    return {p.name: values[p.name] for p in positionals}, from_flags(config, **{name: values[name] for name in names})


def _as_fields(argv: Sequence[str], config: type[Any]) -> list[str]:
    """Flags as jsonargparse wants them: `--max-objects` is `--max_objects`, `--no-augment` is `--augment=false`.

    A `--config` that is not a file here is a preset of the package, lists may be written `a,b`, and `--ray` needs no
    address.
    """
    from vidgru.config import flag_types

    kinds = flag_types(config())
    words: list[str] = []
    awaited = ""  # the flag that the next word is the value of
    for position, word in enumerate(argv):
        if word == "--":
            return [*words, *argv[position:]]
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        if not name:
            words.append(_value(awaited, word, kinds))
        elif name == "ray" and not equals and not _ADDRESS.fullmatch("".join(argv[position + 1 : position + 2])):
            words.append("--ray=auto")
        elif kinds.get(name.removeprefix("no_")) is bool and not equals:
            words.append(f"--{name.removeprefix('no_')}={'false' if name.startswith('no_') else 'true'}")
        else:
            words.append(f"--{name}{equals}{_value(name, value, kinds) if equals else ''}")
        awaited = "" if equals else name
    return words


def _value(name: str, text: str, kinds: dict[str, Any]) -> str:
    """What the flag `name` was given, spelt for jsonargparse."""
    if name == "config" and not Path(text).is_file():
        return str(bundled_file(text) or text)
    if get_origin(kinds.get(name)) is tuple and not text.startswith("["):
        return json.dumps(text.split(","))
    return text


def _one_line(message: str, argv: Sequence[str]) -> str:
    """jsonargparse's message without line breaks and in vidgru's words; a key that no flag gave is the YAML file's."""
    message = re.sub(r"\s+", " ", message).strip()
    message = re.sub(r'^Parser key "(\w+)": ', r"\1: ", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message)
    unknown = re.search(r"Option '(\w+)' is not accepted", message)
    words = " ".join(argv).replace("-", "_")
    if unknown and f"__{unknown[1]}" not in words:
        files = re.findall(r"--config[= ](\S+)", " ".join(argv))
        return f"{', '.join(files)}: unknown key {unknown[1]!r}"
    return message
