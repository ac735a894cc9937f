"""The documentation names files, pages, flags and messages that exist, and the README stays one page."""

import re
import shlex
from pathlib import Path

import pytest

from vidgru import cli
from vidgru.flags import list_flags

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIBGL = "ImportError: libGL.so.1: cannot open shared object file"  # a message of OpenCV's import


def commands(page: Path) -> list[list[str]]:
    """Return the words after `vidgru` of each command with arguments, in code blocks and in sentences."""
    text = re.sub(r" \\\n +", " ", page.read_text(encoding="utf-8"))  # join continued lines
    text = re.sub(r"(torchrun .*)?scripts/(extract|train|predict)\.py ", r"vidgru \2 ", text)
    lines = re.findall(r"(?:^ {4}(?:\$ )?|`)vidgru ([a-z]+ [^`\n]+)", text, re.MULTILINE)
    return [shlex.split(re.sub(r"\$\w+", "1", line.partition(" | ")[0]), comments=True) for line in lines]


def test_architecture_names_existing_files() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:vidgru|tests|scripts)/[\w/.]+)`", text))
    assert len(named) > 40
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_architecture_lists_every_package() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = {f"vidgru/{path.parent.name}/" for path in (ROOT / "vidgru").glob("*/__init__.py")}
    assert [package for package in sorted(packages) if f"| `{package}` |" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_existing_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_docs_page_says_its_purpose_and_links_back(page: Path) -> None:
    title, blank, purpose = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert blank == ""
    assert purpose.endswith("([Back to the README](../README.md))")
    assert f"(docs/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_docs_are_valid(page: Path) -> None:
    for name, *words in commands(page):
        if words != ["--help"]:
            cli.parse(name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_in_docs_exist(page: Path) -> None:
    known = (flag for command in cli._COMMANDS.values() for flag in list_flags(command.config()).values())
    names = {flag.option.removeprefix("--") for flag in known}
    flags = re.findall(r"`--(?:no-)?([a-z-]+)", page.read_text(encoding="utf-8"))
    assert [flag for flag in flags if flag not in names | {"config"}] == []


def test_script_flags_in_docs_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    calls = re.findall(r"(scripts/(?:bench|check|make)_\w+\.py) ([^`\n]+)", text)
    assert calls
    for script, arguments in calls:
        for flag in re.findall(r"--[a-z-]+", arguments):
            assert f'"{flag}"' in (ROOT / script).read_text(encoding="utf-8"), f"{script} {flag}"


def test_troubleshooting_quotes_existing_messages() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "vidgru").rglob("*.py"))
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`(.+?)`", row) if quote != LIBGL]
    assert len(quotes) > 5
    pieces = [piece.strip() for quote in quotes for piece in quote.split("...")]
    assert [piece for piece in pieces if piece not in sources] == []
