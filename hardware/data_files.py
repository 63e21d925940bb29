"""Hardware data files: which folders hold them, and how one is found by its id.

Ours lie beside this module. A city's own folder may stand beside it: the folders that the environment variable
`STADTSENSOR_HARDWARE` names (separated as in PATH) hold the same subfolders and are looked through too, so that a
probe of a known interface is a new file and no change of the installed package. Not here: what stands in a file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

ENVIRONMENT = "STADTSENSOR_HARDWARE"

Kind = Literal["boards", "enclosures", "glands", "interfaces", "node_models", "sensors", "supplies"]

_NOUNS: dict[Kind, str] = {
    "boards": "Board",
    "enclosures": "Enclosure",
    "glands": "Gland",
    "interfaces": "Interface",
    "node_models": "Node model",
    "sensors": "Sensor type",
    "supplies": "Supply",
}
_HERE = Path(__file__).parent


class CatalogueError(Exception):
    """A board, node model or sensor type is unknown, or its file has a mistake; the text is one sentence."""


def folders() -> tuple[Path, ...]:
    """Our folder, then those of the environment variable, in its order."""
    named = os.environ.get(ENVIRONMENT, "").split(os.pathsep)
    return (_HERE, *(Path(name) for name in named if name))


def ids(kind: Kind) -> tuple[str, ...]:
    """Every id of this kind that there is a file for, sorted."""
    return tuple(sorted({path.stem for path in _files(kind, folders())}))


def read(kind: Kind, wanted: str, among: tuple[Path, ...]) -> tuple[str, str]:
    """(text, name) of the file with the id `wanted`; `name` is what an error calls it.

    Raises:
        CatalogueError: there is none or more than one, it cannot be read, or a named folder is missing.
    """
    for folder in among:
        if not folder.is_dir():
            raise CatalogueError(f"{ENVIRONMENT} names {folder}, which is not a folder.")
    found = [path for path in _files(kind, among) if path.stem == wanted]
    if not found:
        known = sorted({path.stem for path in _files(kind, among)})
        raise CatalogueError(
            f"{_NOUNS[kind]} {wanted} is not known; there are {', '.join(known) or 'none'}."
        )
    if len(found) > 1:
        raise CatalogueError(
            f"{_NOUNS[kind]} {wanted} is there twice: {found[0]} and {found[1]}; rename or remove one."
        )
    try:
        return found[0].read_text(encoding="utf-8"), f"{kind}/{found[0].name}"
    except (OSError, UnicodeDecodeError) as trouble:
        raise CatalogueError(f"{found[0]} cannot be read: {trouble}.") from trouble


def check_id(found: str, wanted: str, name: str) -> None:
    """Refuse a file whose `id` is not what it is called: it would be found under one and named by the other."""
    if found != wanted:
        raise CatalogueError(
            f"{name}: id is {found}, but the file is called {wanted}; make them the same."
        )


def _files(kind: Kind, among: tuple[Path, ...]) -> list[Path]:
    return [path for folder in among for path in sorted((folder / kind).glob("*.toml"))]
