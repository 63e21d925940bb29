"""The board's built-in modules offer nothing that an ESP32's do not (judged by the published stubs)."""

from __future__ import annotations

import ast
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import hardware.virtual_board

SHIMS = Path(hardware.virtual_board.__file__).parent / "shims"
MODULES = sorted(path.stem for path in SHIMS.glob("*.py") if not path.stem.startswith("_"))
# The stubs describe `ssl` by CPython's names, where the buffers are called files.
ANY_NAME = {"ssl"}


@dataclass
class Signature:
    positional: int = 0
    names: set[str] = field(default_factory=set)
    takes_any_keyword: bool = False


def _stub_tree(module: str) -> ast.Module:
    for package in ("micropython-esp32-stubs", "micropython-stdlib-stubs"):
        for file in importlib.metadata.files(package) or []:
            if str(file) in (
                f"{module}.pyi",
                f"stdlib/{module}.pyi",
                f"stdlib/{module}/__init__.pyi",
            ):
                return ast.parse(Path(str(file.locate())).read_text(encoding="utf-8"))
    raise AssertionError(f"no stub for {module}")


def _shim_tree(module: str) -> ast.Module:
    return ast.parse((SHIMS / f"{module}.py").read_text(encoding="utf-8"))


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The body with both branches of `if sys.version_info …` opened."""
    out: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If):
            out += _statements(statement.body) + _statements(statement.orelse)
        else:
            out.append(statement)
    return out


def _names(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for statement in _statements(body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {t.id for t in statement.targets if isinstance(t, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
        elif isinstance(statement, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in statement.names}
    return {name for name in names if not name.startswith("_")}


def _signatures(body: list[ast.stmt], prefix: str = "") -> dict[str, list[Signature]]:
    found: dict[str, list[Signature]] = {}
    for statement in _statements(body):
        if isinstance(statement, ast.ClassDef):
            found.update(_signatures(statement.body, f"{prefix}{statement.name}."))
        elif isinstance(statement, ast.FunctionDef) and not (
            statement.name.startswith("_") and statement.name != "__init__"
        ):
            arguments = statement.args
            positional = [a.arg for a in arguments.posonlyargs + arguments.args if a.arg != "self"]
            keywords = {a.arg for a in arguments.kwonlyargs}
            signature = Signature(
                positional=99 if arguments.vararg else len(positional),
                names=set(positional) | keywords,
                takes_any_keyword=arguments.kwarg is not None,
            )
            found.setdefault(prefix + statement.name, []).append(signature)
    return found


def _class_bodies(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {s.name: s for s in _statements(tree.body) if isinstance(s, ast.ClassDef)}


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_a_subset_of_the_esp32s(module: str) -> None:
    stub, shim = _stub_tree(module), _shim_tree(module)

    assert _names(shim.body) <= _names(stub.body)

    stub_classes = _class_bodies(stub)
    for name, shim_class in _class_bodies(shim).items():
        if name.startswith("_"):
            continue
        allowed = _names(stub_classes[name].body)
        for base in stub_classes[name].bases:  # one level of inheritance is all the stubs use
            if isinstance(base, ast.Name) and base.id in stub_classes:
                allowed |= _names(stub_classes[base.id].body)
        assert _names(shim_class.body) <= allowed, name


@pytest.mark.parametrize("module", sorted(set(MODULES) - ANY_NAME))
def test_signatures_take_nothing_that_the_esp32s_do_not(module: str) -> None:
    stub = _signatures(_stub_tree(module).body)
    for name, (signature, *_) in _signatures(_shim_tree(module).body).items():
        if name not in stub:
            continue  # inherited or built from a class: the names test has seen it
        overloads = stub[name]
        if signature.takes_any_keyword:
            signature.names.clear()
        names = set().union(*(o.names for o in overloads))
        assert signature.positional <= max(o.positional for o in overloads), name
        if not any(o.takes_any_keyword for o in overloads):
            keywords = signature.names - names
            assert len(keywords) <= max(o.positional for o in overloads), (name, keywords)


def test_errno_gives_the_numbers_that_the_board_raises() -> None:
    from hardware.virtual_board import errno_esp32

    for statement in _shim_tree("errno").body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.targets[0], ast.Name)
        name = statement.targets[0].id
        assert ast.literal_eval(statement.value) == getattr(errno_esp32, name)
