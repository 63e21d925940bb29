"""The bundle: same sources, same bytes; a mistake in the firmware is named."""

import json
from pathlib import Path

import pytest

from provisioning.errors import BenchError
from provisioning.firmware_bundle import build_bundle

BUILT_AT_UTC_S = 1_750_000_000


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    (folder / "node" / "bus").mkdir(parents=True)
    for name in ("boot.py", "main.py", "slots.py", "judge.py"):
        (folder / name).write_text(f"# {name}\n")
    (folder / "node" / "cycle.py").write_text("def run():\n    return 1\n")
    (folder / "node" / "bus" / "adc.py").write_text("PIN = 35\n")
    return folder


def test_boot_files_stay_source_and_the_slot_is_compiled(sources: Path) -> None:
    files = build_bundle(
        sources=sources, version="1.2.3", built_at_utc_s=BUILT_AT_UTC_S
    ).files_on_board()
    assert set(files) == {
        "/boot.py",
        "/main.py",
        "/slots.py",
        "/judge.py",
        "/a/node/cycle.mpy",
        "/a/node/bus/adc.mpy",
        "/a/VERSION",
    }
    assert files["/boot.py"] == b"# boot.py\n"
    # 'M', bytecode version 6, no native code, small integers of 31 bits: what an ESP32 loads.
    assert files["/a/node/cycle.mpy"][:4] == b"M\x06\x00\x1f"


def test_the_version_file_names_version_build_date_and_hash(sources: Path) -> None:
    bundle = build_bundle(sources=sources, version="1.2.3", built_at_utc_s=BUILT_AT_UTC_S)
    content = json.loads(bundle.files_on_board("b")["/b/VERSION"])
    assert content == {
        "version": "1.2.3",
        "counter": 0,
        "built_utc_s": BUILT_AT_UTC_S,
        "sha256": bundle.sha256,
    }


def test_the_same_sources_elsewhere_give_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    here = build_bundle(sources=sources, version="1", built_at_utc_s=BUILT_AT_UTC_S)
    elsewhere = tmp_path / "some" / "other" / "place"
    elsewhere.parent.mkdir(parents=True)
    sources.rename(elsewhere)
    assert build_bundle(sources=elsewhere, version="1", built_at_utc_s=BUILT_AT_UTC_S) == here


def test_another_line_of_code_is_another_hash(sources: Path) -> None:
    before = build_bundle(sources=sources, version="1", built_at_utc_s=BUILT_AT_UTC_S)
    (sources / "node" / "cycle.py").write_text("def run():\n    return 2\n")
    after = build_bundle(sources=sources, version="1", built_at_utc_s=BUILT_AT_UTC_S)
    assert after.sha256 != before.sha256


def test_a_module_that_does_not_compile_is_named_with_its_line(sources: Path) -> None:
    (sources / "node" / "cycle.py").write_text("x = 1\ndef run(:\n")
    with pytest.raises(BenchError, match=r"node/cycle.py does not compile: .*line 2.*SyntaxError"):
        build_bundle(sources=sources, version="1", built_at_utc_s=BUILT_AT_UTC_S)


def test_a_folder_without_firmware_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="There is no firmware"):
        build_bundle(sources=tmp_path, version="1", built_at_utc_s=BUILT_AT_UTC_S)
