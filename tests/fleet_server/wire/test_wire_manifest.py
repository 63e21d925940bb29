"""The manifest: what a release consists of, spelt in one way only."""

from dataclasses import replace

import cbor2
import pytest

from fleet_server.wire.errors import WireError
from fleet_server.wire.manifest import (
    MOST_FILE_BYTES,
    BundleFile,
    Image,
    Manifest,
    bundle_sha256,
    decode_manifest,
    encode_manifest,
    target_path,
)

FILES = (
    BundleFile("node/bus/adc.mpy", 70, bytes(range(32))),
    BundleFile("node/cycle.mpy", 300, bytes(32)),
)
MANIFEST = Manifest(
    version="0.7.0",
    counter=7,
    models=("tree-3",),
    micropython=(1, 24, 0),
    built_utc_s=1_790_000_000,
    files=FILES,
    notes="Wärmere Tage.\nSecond line.",
)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST
    downgrade = replace(MANIFEST, allow_downgrade=True, notes="")
    assert decode_manifest(encode_manifest(downgrade)) == downgrade


def test_its_bytes_are_these() -> None:
    small = Manifest("1", 1, ("tree-3",), (1, 24, 0), 0, (BundleFile("node/a.mpy", 1, bytes(32)),))
    assert encode_manifest(small).hex() == (
        "aa"
        "66666f726d6174" "01"
        "6776657273696f6e" "6131"
        "67636f756e746572" "01"
        "666d6f64656c73" "8166747265652d33"
        "636d7079" "06"
        "6b6d6963726f707974686f6e" "8301181800"
        "6b6275696c745f7574635f73" "00"
        "6f616c6c6f775f646f776e6772616465" "f4"
        "656e6f746573" "60"
        "6566696c6573" "81836a6e6f64652f612e6d707901" "5820" + "00" * 32
    )  # fmt: skip


def test_an_image_stands_at_the_end_under_a_format_that_nodes_of_before_refuse() -> None:
    small = Manifest("1", 1, ("tree-3",), (1, 24, 0), 0, (BundleFile("node/a.mpy", 1, bytes(32)),))
    image = Image(300_000, bytes(range(32)), (1, 28, 0))
    plain = encode_manifest(small).hex()
    data = encode_manifest(replace(small, image=image))
    assert data.hex() == (
        "ab" "66666f726d6174" "02" + plain[18:]
        + "65696d616765" "831a000493e0" "5820" + bytes(range(32)).hex() + "8301181c00"
    )  # fmt: skip
    assert decode_manifest(data).image == image
    assert decode_manifest(data).bundle_sha256 == small.bundle_sha256


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image(0, bytes(32), (1, 28, 0)), "no possible image"),
        (Image(0x180001, bytes(32), (1, 28, 0)), "1572864 bytes"),
        (Image(1, bytes(31), (1, 28, 0)), "no possible image"),
        (Image(1, bytes(32), (1, 1000, 0)), "no MicroPython version"),
        (Image(1, bytes(32), (1, 23, 9)), "brings MicroPython 1.23.9, but its files need 1.24.0"),
    ],
)
def test_an_image_that_no_node_could_take_is_refused(image: Image, said: str) -> None:
    with pytest.raises(WireError, match=said):
        encode_manifest(replace(MANIFEST, image=image))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 1}, "of format 1, not 2"),
        ({"image": 7}, "no size, hash and version"),
        ({"image": [1, b"", (1, 28)]}, "no MicroPython version"),
        ({"image": ["1", bytes(32), [1, 28, 0]]}, "no size, hash and version"),
    ],
)
def test_an_image_that_is_spelt_otherwise_is_refused(change: dict[str, object], said: str) -> None:
    whole = encode_manifest(replace(MANIFEST, image=Image(1, bytes(32), (1, 28, 0))))
    with pytest.raises(WireError, match=said):
        decode_manifest(cbor2.dumps(cbor2.loads(whole) | change))


def test_the_bundle_hash_needs_no_file_and_no_order() -> None:
    assert bundle_sha256(FILES) == bundle_sha256(reversed(FILES)) == MANIFEST.bundle_sha256
    assert bundle_sha256(FILES[:1]) != MANIFEST.bundle_sha256
    assert target_path("tree-3", "0.7.0") == "tree-3/0.7.0.cbor"


def _with_path(path: str) -> Manifest:
    return replace(MANIFEST, files=(BundleFile(path, 1, bytes(32)),))


@pytest.mark.parametrize(
    "path",
    ["boot.py", "boot.mpy", "main.py", "slots.mpy", "../main.py", "node/../boot.py", "/node/cycle.mpy",
     "node//cycle.mpy", "node/cycle", "", "node/.mpy", "cycle.mpy", "node/cycle.py", "node\\cycle.mpy", "node/" + "a" * 65 + ".mpy"],
)  # fmt: skip
def test_a_file_that_may_not_be_in_a_bundle_is_refused(path: str) -> None:
    with pytest.raises(WireError, match="may not be in a bundle"):
        encode_manifest(_with_path(path))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": "0/7"}, "version"),
        ({"version": ""}, "version"),
        ({"counter": 0}, "counter"),
        ({"counter": 2**32}, "counter"),
        ({"models": ()}, "node model"),
        ({"models": ("Tree 3",)}, "node model"),
        ({"mpy": 5}, "format 5"),
        ({"micropython": (1, 2000, 0)}, "MicroPython"),
        ({"built_utc_s": -1}, "build date"),
        ({"notes": "x" * 501}, "500 bytes"),
        ({"notes": "a\0b"}, "printed"),
        ({"files": ()}, "no file"),
        ({"files": FILES[::-1]}, "sorted"),
        ({"files": (FILES[0], FILES[0])}, "sorted"),
        ({"files": tuple(BundleFile(f"node/{n}.mpy", 62_000, bytes(32)) for n in (1, 2))}, "slot holds"),
        ({"files": (BundleFile("node/a.mpy", MOST_FILE_BYTES + 1, bytes(32)),)}, "size or hash"),
        ({"files": (BundleFile("node/a.mpy", 1, bytes(31)),)}, "size or hash"),
        ({"files": tuple(BundleFile(f"node/{n:03}.mpy", 1, bytes(32)) for n in range(121))}, "121 files"),
        ({"files": tuple(BundleFile(f"node/{'m' * 40}{n:03}.mpy", 1, bytes(32)) for n in range(118))}, "8192"),
    ],
)  # fmt: skip
def test_what_no_node_could_take_is_not_written(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(WireError, match=said):
        encode_manifest(replace(MANIFEST, **wrong))  # type: ignore[arg-type]


def _changed(**changes: object) -> bytes:
    return cbor2.dumps({**cbor2.loads(encode_manifest(MANIFEST)), **changes})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        cbor2.dumps([1, 2]),
        cbor2.dumps({"format": 1}),
        _changed(format=2),
        _changed(counter="7"),
        _changed(counter=True),
        _changed(models=[1]),
        _changed(micropython=[1, 24]),
        _changed(files=[["node/cycle.mpy", 300]]),
        _changed(files=[["boot.py", 300, bytes(32)]]),
        _changed(more=1),
        encode_manifest(MANIFEST) + b"\x00",
        # A number in two bytes where one does: the same content, other bytes.
        encode_manifest(MANIFEST).replace(b"\x67counter\x07", b"\x67counter\x18\x07"),
        bytes(9000),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_manifest(data)
