"""Every word of the pages has its German: a forgotten one would stand in English among German ones."""

from __future__ import annotations

from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import fleet_server

_PACKAGE = Path(fleet_server.__file__).parent


def test_german_catalogue_has_every_text_of_the_pages_and_no_other() -> None:
    found = extract_from_dir(
        _PACKAGE / "web",
        method_map=[("**.py", "python"), ("**/templates/**.html", "jinja2")],
        keywords={"_": None, "gettext": None, "lazy_gettext": None},
    )
    wanted = {str(message) for _, _, message, _, _ in found}
    with (_PACKAGE / "translations/de/LC_MESSAGES/messages.po").open("rb") as file:
        german = {str(message.id): message.string for message in read_po(file) if message.id}
    assert wanted == set(german)
    assert [text for text, translated in german.items() if not translated] == []
