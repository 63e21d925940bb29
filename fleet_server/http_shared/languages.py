"""German and English: chosen by what the reader's browser asks for; catalogues are the `.po` files translators edit.

Catalogues are compiled into the user's cache when the application is made, so that no generated file is committed.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import platformdirs
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from flask import Flask, Response, request
from flask_babel import Babel, get_locale

from fleet_server import clock

LANGUAGES = ("en", "de")
TIME_ZONE = clock.TIME_ZONE
_TRANSLATIONS = Path(__file__).parent.parent / "translations"


def choose_language() -> str:
    return request.accept_languages.best_match(LANGUAGES, default=LANGUAGES[0])


def language() -> str:
    """Language of this request, for `<html lang>`."""
    return str(get_locale() or LANGUAGES[0])


def compile_catalogues(cache: Path | None = None) -> Path:
    """Folder of compiled catalogues, named by the contents of their sources; made when missing."""
    sources = sorted(_TRANSLATIONS.glob("*/LC_MESSAGES/*.po"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = (cache or _cache_folder()) / f"translations-{digest}"
    for source in sources:
        target = folder / source.relative_to(_TRANSLATIONS).with_suffix(".mo")
        if not target.exists():
            _compile(source, target)
    return folder


def _cache_folder() -> Path:
    cache = platformdirs.user_cache_path("stadtsensor", appauthor=False)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # a service account without a home
        return Path(tempfile.mkdtemp(prefix="stadtsensor-"))
    return cache


def _compile(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        catalogue = read_po(file, locale=source.parent.parent.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as made:
        write_mo(made, catalogue)
    Path(made.name).replace(target)


def register_languages(app: Flask) -> None:
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(compile_catalogues())
    Babel(app, default_locale="en", default_timezone=TIME_ZONE, locale_selector=choose_language)
    app.jinja_env.globals["language"] = language

    @app.after_request
    def _vary(response: Response) -> Response:
        response.vary.add("Accept-Language")
        return response
