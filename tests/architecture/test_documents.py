"""What the documents promise is there: files and headings behind links, commands and options of our two programs."""

import dataclasses
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from fleet_server.cli.main import fleet
from fleet_server.settings import ENVIRONMENT_PREFIX, Settings
from provisioning.main import provision

ROOT = Path(__file__).parents[2]
PROGRAMS = {"fleet": fleet, "provision": provision}
LONGEST_DOCUMENT_LINES = 160

_FENCE = re.compile(
    r"^```(?P<language>[a-z]*)[^\n]*\n(?P<content>.*?)^```", re.MULTILINE | re.DOTALL
)
_MADE_TABLE = re.compile(r"<!-- table -->.*?<!-- end of table -->", re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_WORD = re.compile(r"[a-z][a-z-]*")
_OPTION = re.compile(r"--[a-z][a-z-]*")


def _documents() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in set(listing.stdout.split("\0")) if (ROOT / name).is_file())


def _text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def _anchors(path: Path) -> set[str]:
    """What the headings of a Markdown file are called in links, by the rule that code hosts share."""
    content = _FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+\s+(.+?)\s*$", content, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def _broken_links(document: str) -> Iterator[str]:
    for match in _LINK.finditer(_FENCE.sub("", _text(document))):
        target = match["target"]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        if not path.exists():
            yield f"{document}: {target} does not exist"
        elif anchor and path.suffix == ".md" and anchor not in _anchors(path):
            yield f"{document}: {target} has no such heading"


def _command_lines(document: str) -> Iterator[str]:
    """Lines of shell blocks, and inline code, that begin with one of our programs."""
    text = _text(document)
    found = [
        line
        for match in _FENCE.finditer(text)
        if match["language"] in ("sh", "console")
        for line in match["content"].replace("\\\n", " ").splitlines()
    ]
    found += [match[1] for match in _INLINE.finditer(_FENCE.sub("", text))]
    for line in found:
        for part in re.split(r"&&|\|\||[|;]|\$\(", line):
            words = part.strip().removeprefix("$ ").removeprefix("python3 run.py ")
            words = re.sub(r"^([A-Z_]+=\S+\s+)+", "", words)
            if words.startswith("demo"):
                words = "fleet " + words
            if words.split(" ")[0] in PROGRAMS:
                yield words


def _fault(line: str) -> str | None:
    """What is wrong with a command line of a document; None when it can be typed like this."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return f"{line!r} cannot be split into words"
    command: click.Command = PROGRAMS[words[0]]
    at = 1
    while isinstance(command, click.Group) and at < len(words):
        if not _WORD.fullmatch(words[at]):
            break
        name = words[at]
        known = command.list_commands(click.Context(command))
        if name not in known:
            return f"{line!r}: there is no {name!r}, only {', '.join(known)}"
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command, at = found, at + 1
    options = {name for parameter in command.params for name in parameter.opts}
    options |= {"--help", "--version"}
    for word in words[at:]:
        option = word.partition("=")[0]
        if _OPTION.fullmatch(option) and option not in options:
            return f"{line!r}: {command.name} has no option {option}"
    return None


@pytest.mark.parametrize("document", _documents())
def test_every_relative_link_leads_to_a_file_and_heading(document: str) -> None:
    assert list(_broken_links(document)) == []


@pytest.mark.parametrize("document", _documents())
def test_every_command_that_a_document_names_exists_with_its_options(document: str) -> None:
    assert [fault for line in _command_lines(document) if (fault := _fault(line))] == []


@pytest.mark.parametrize("document", _documents())
def test_document_is_short_and_names_no_folder_of_one_machine(document: str) -> None:
    text = _text(document)
    written = _MADE_TABLE.sub("", text)
    assert len(written.splitlines()) <= LONGEST_DOCUMENT_LINES or document == "CHANGELOG.md"
    assert re.findall(r"(?<![\w.])/(?:tmp|work|home|root|Users)/\S*", text) == []


def _named_code(document: str) -> Iterator[str]:
    """What stands in inline code of a document."""
    return (match[1] for match in _INLINE.finditer(_FENCE.sub("", _text(document))))


@pytest.mark.parametrize("document", _documents())
def test_every_file_that_a_document_names_is_there(document: str) -> None:
    files = [
        name
        for name in _named_code(document)
        if re.fullmatch(r"(firmware|fleet_server|provisioning|hardware|tests|docs)/[\w./-]*", name)
    ]
    gone = [
        name for name in files if not ((ROOT / name).exists() or (ROOT / f"{name}.py").exists())
    ]
    assert gone == []


@pytest.mark.parametrize("document", _documents())
def test_every_test_that_a_document_names_is_there(document: str) -> None:
    defined: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")))
    named = {name for name in _named_code(document) if re.fullmatch(r"test_\w+", name)}
    assert named - defined == set()


def test_a_command_that_is_not_there_is_noticed() -> None:
    assert _fault("fleet frobnicate") is not None
    assert _fault("fleet ca init --nonsense") is not None
    assert _fault("provision node enrol --label tree-01") is None


def test_documents_name_commands_at_all() -> None:
    """Guards the reading of documents itself: an empty search would pass every other test."""
    assert len(list(_command_lines("README.md"))) >= 2


def _setting_row(setting: dataclasses.Field[object]) -> str:
    """A setting's row in docs/configuration.md: name, what it is, its default."""
    default = setting.default
    if isinstance(default, bool):
        shown = f"`{str(default).lower()}`"
    else:
        shown = setting.metadata["default_text"] or (f"`{default}`" if str(default) else "none")
    return (
        f"| `{ENVIRONMENT_PREFIX}{setting.name.upper()}` | {setting.metadata['help']} | {shown} |"
    )


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    lines = _text("docs/configuration.md").splitlines()
    rows = [line for line in lines if line.startswith(f"| `{ENVIRONMENT_PREFIX}")]
    assert rows == [_setting_row(setting) for setting in dataclasses.fields(Settings)]
