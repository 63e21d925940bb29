"""`run.py`: a command that runs keeps its environment, whatever is set up beside it meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A project whose one program runs until its stdin ends, and only then looks for what is installed beside it. It is built by
# its own few lines, so that nothing has to be fetched.
_PROJECT = {
    "pyproject.toml": """
[build-system]
requires = []
build-backend = "builder"
backend-path = ["."]
[project]
name = "stadtsensor"
version = "1"
""",
    "constraints.txt": "",
    "tox.ini": """
[tox]
[testenv:run]
package = wheel
""",
    "builder.py": """
import zipfile
from pathlib import Path

_FILES = {
    "late.py": "",
    "long.py": '''
def main():
    import sys
    print(sys.prefix, flush=True)
    sys.stdin.read()
    import late
    print(late.__file__, flush=True)
''',
    "stadtsensor-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: stadtsensor\\nVersion: 1\\n",
    "stadtsensor-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "stadtsensor-1.dist-info/entry_points.txt": "[console_scripts]\\nfleet = long:main\\n",
    "stadtsensor-1.dist-info/RECORD": "",
}

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "stadtsensor-1-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        for path, text in _FILES.items():
            wheel.writestr(path, text)
    return name
""",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of that project with our `run.py`, whose tox is there already when it is there for us."""
    for name, text in _PROJECT.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "run.py").write_bytes((ROOT / "run.py").read_bytes())
    if (ROOT / ".venv" / "made_for").is_file():
        (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def begin(clone: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "run.py", "fleet"],
        cwd=clone,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PIP_NO_INDEX": "1"} if (clone / ".venv").is_symlink() else None,
    )


def change_dependencies(clone: Path) -> None:
    with (clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")


def environments(clone: Path) -> set[Path]:
    return {path for path in (clone / ".tox").glob("run-*") if path.is_dir()}


def test_running_command_keeps_its_environment_until_it_ends(clone: Path) -> None:
    first = begin(clone)
    assert first.stdout is not None
    prefix = Path(first.stdout.readline().strip())
    assert environments(clone) == {prefix}

    change_dependencies(clone)
    second, _ = begin(clone).communicate("")
    assert second.splitlines()[0] != str(prefix)
    assert prefix in environments(clone)

    rest, _ = first.communicate("")
    assert (first.returncode, Path(rest.strip()).is_relative_to(prefix)) == (0, True)

    change_dependencies(clone)
    third, _ = begin(clone).communicate("")
    assert environments(clone) == {Path(third.splitlines()[0])}
