"""The house itself: its folders, what it must not contain, and that its import rules can fail."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def test_top_level_folders_are_exactly_the_rooms() -> None:
    folders = {name.split("/")[0] for name in _tracked() if "/" in name}
    assert folders == {
        ".ci",
        "firmware",
        "fleet_server",
        "provisioning",
        "hardware",
        "tests",
        "docs",
    }


def test_nothing_tracked_is_binary_but_the_readmes_picture() -> None:
    binary = [name for name in _tracked() if b"\0" in (ROOT / name).read_bytes()]
    assert binary == ["docs/page.png"]


def test_no_tracked_file_names_a_package_registry_or_a_home_folder() -> None:
    hosts = (r"registry\.[a-z]+js\.", r"files\.python[a-z]+\.", r"pypi\.[a-z]+/simple")
    forbidden = re.compile("|".join((*hosts, "/home/[a-z]+/", "/root/")))
    hits = []
    for name in _tracked():
        if name == "tests/architecture/test_house.py":
            continue
        text = (ROOT / name).read_bytes().decode("utf-8", "replace")
        hits += [f"{name}: {match.group()}" for match in forbidden.finditer(text)]
    assert hits == []


def test_import_rules_catch_a_planted_fault(tmp_path: Path) -> None:
    """A service that imports Flask is refused by the import rules (so that a green check means something)."""
    for room in ("fleet_server", "provisioning", "hardware"):
        for source in (ROOT / room).rglob("*.py"):
            target = tmp_path / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    (tmp_path / "importlinter.ini").write_bytes((ROOT / "importlinter.ini").read_bytes())
    victim = tmp_path / "fleet_server" / "services" / "ingest.py"
    victim.write_text("import flask\n" + victim.read_text(encoding="utf-8"), encoding="utf-8")
    result = subprocess.run(
        [
            Path(sys.executable).parent / "lint-imports",
            "--config",
            "importlinter.ini",
            "--no-cache",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "fleet_server.services.ingest -> flask" in result.stdout
