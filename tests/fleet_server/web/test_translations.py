"""Every word of the pages has its German: a forgotten one would stand in English among German ones."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir, extract_from_file
from babel.messages.pofile import read_po

import fleet_server
from fleet_server import http_shared, jobs, services, web
from fleet_server.errors import FleetError

_PACKAGE = Path(fleet_server.__file__).parent
for _room in (http_shared, jobs, services, web):
    for _module in pkgutil.iter_modules(_room.__path__, f"{_room.__name__}."):
        importlib.import_module(_module.name)  # so that all that can be refused is known below
_ADMINISTRATION = (
    "accounting",
    "authority",
    "backups",
    "key_files",
    "online_keys",
    "rolling_over",
    "verifying",
)
"""Services that speak of files to who runs the server, in English as the commands do."""
_PART = re.compile(r"%\((\w+)\)[srg]")


def test_german_catalogue_has_every_text_of_the_pages_and_no_other() -> None:
    german = _german()
    assert {*_words_of_pages(), *_sentences_of_services()} == set(german)
    assert [text for text, translated in german.items() if not translated] == []


def test_a_translation_has_the_parts_of_its_text_and_no_other() -> None:
    differing = [
        text
        for text, translated in _german().items()
        if isinstance(translated, str)
        and not set(_PART.findall(translated)) <= set(_PART.findall(text))
    ]
    assert differing == []


@pytest.mark.parametrize("path", sorted(_PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_what_is_refused_is_a_sentence_written_out_with_all_its_parts(path: Path) -> None:
    """Else no catalogue finds it, or saying it fails instead of what it wants to say."""
    assert list(_badly_said(path)) == []


def _badly_said(path: Path) -> Iterator[str]:
    leaves = _leaves()
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call) or _name(call.func) not in {*leaves, "Said"}:
            continue
        sentence = call.args[0] if call.args else None
        given = {keyword.arg for keyword in call.keywords}
        place = f"{path.name}:{call.lineno}"
        if isinstance(sentence, ast.JoinedStr) and (given or _is_for_pages(path)):
            yield f"{place} is put together before it is said"
        if isinstance(sentence, ast.Constant) and given and None not in given:
            parts = set(_PART.findall(str(sentence.value)))
            if not parts <= given or "%" in _PART.sub("", str(sentence.value)).replace("%%", ""):
                yield f"{place} lacks one of its parts"


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _is_for_pages(path: Path) -> bool:
    return path.parent.name == "web" or path in _services()


def _services() -> list[Path]:
    return [
        path
        for path in sorted((_PACKAGE / "services").glob("*.py"))
        if path.stem not in _ADMINISTRATION
    ]


def _leaves(kind: type[FleetError] = FleetError) -> set[str]:
    names = {kind.__name__}
    for below in kind.__subclasses__():
        names |= _leaves(below)
    return names


def _words_of_pages() -> set[str]:
    found = extract_from_dir(
        _PACKAGE / "web",
        method_map=[("**.py", "python"), ("**/templates/**.html", "jinja2")],
        keywords={
            "_": None,
            "gettext": None,
            "lazy_gettext": None,
            **dict.fromkeys((*_leaves(), "Said")),
        },
    )
    return {str(message) for _, _, message, _, _ in found}


def _sentences_of_services() -> set[str]:
    keywords = dict.fromkeys((*_leaves(), "Said"))
    paths = [*_services(), *(_PACKAGE / "http_shared").glob("*.py"), _PACKAGE / "db.py"]
    # What nodes would not take of releases: the wire says it, `services.releasing.said_of` brings it to pages.
    of_releases = _PACKAGE / "wire" / "signed_releases.py"
    by_wire = dict.fromkeys(("RepositoryWrong", "_wrong"))
    return {
        str(message)
        for path, known in (*((path, keywords) for path in paths), (of_releases, by_wire))
        for _, message, _, _ in extract_from_file("python", path, keywords=known)
    }


def _german() -> dict[str, object]:
    with (_PACKAGE / "translations/de/LC_MESSAGES/messages.po").open("rb") as file:
        return {str(message.id): message.string for message in read_po(file) if message.id}
