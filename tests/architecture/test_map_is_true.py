"""The maps "question → file → function" in README.md and docs/where_things_live*.md point at what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\|\s*(?P<question>[^|]+?)\s*\|\s*`(?P<file>[^`]+)`\s*\|\s*(?P<names>[^|]*)\|")


def _rows(document: Path) -> list[tuple[str, str, list[str]]]:
    found = []
    for line in document.read_text(encoding="utf-8").splitlines():
        match = ROW.match(line)
        if match:
            names = re.findall(r"`([^`]+)`", match["names"])
            found.append((match["question"], match["file"], names))
    return found


def _defined(path: Path) -> set[str]:
    """Names of functions, classes, methods (as Class.method) and module constants of a Python file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{child.name}"
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(
    "document",
    ["README.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/where_things_live*.md"))],
)
def test_every_row_of_the_map_names_a_file_and_functions_that_exist(document: str) -> None:
    rows = _rows(ROOT / document)
    assert len(rows) >= 8
    wrong = []
    for question, file, names in rows:
        path = ROOT / file
        if not path.exists():
            wrong.append(f"{question}: {file} does not exist")
            continue
        if path.suffix == ".py":
            wrong += [f"{question}: {file} has no {name}" for name in set(names) - _defined(path)]
    assert wrong == []


def test_every_room_of_the_server_is_on_the_map() -> None:
    text = (ROOT / "docs/where_things_live.md").read_text(encoding="utf-8")
    rooms = {
        path.name if path.is_dir() else path.stem
        for path in (ROOT / "fleet_server").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists())
        or (path.suffix == ".py" and path.stem != "__init__")
    }
    assert {room for room in rooms if f"fleet_server/{room}" not in text} == set()
