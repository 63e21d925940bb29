"""The node's codec on the virtual machine, held to the vectors that the server's codec is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nodes import run_on

from hardware.virtual_board.board import Board

GOLDEN = Path(__file__).parents[1] / "golden"


def _vectors(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def _reading(reading: list[Any]) -> tuple[str, int | bytes | str]:
    key, content = reading
    if "float32" in content:
        return key, bytes.fromhex(content["float32"])
    return key, content.get("integer", content.get("reason", content.get("text")))


def test_integers_are_written_in_shortest_form(shared_board: Board) -> None:
    vectors = _vectors("integers")
    values = [vector["value"] for vector in vectors]

    printed = run_on(
        shared_board, f"from node import cbor\nfor n in {values!r}: print(cbor.integer(n).hex())"
    )

    assert printed == [vector["hex"] for vector in vectors]


@pytest.mark.parametrize(("name", "kind"), [("packs", "tm"), ("events", "ev")])
def test_packs_are_written_byte_for_byte_as_the_wire_says(
    shared_board: Board, name: str, kind: str
) -> None:
    vectors = _vectors(name)
    cases = [
        (
            (
                v["spool"],
                v["seq"],
                v["power_up"],
                v["uptime_ms"],
                [_reading(r) for r in v["readings"]],
            ),
            (v["node_id"], v["time_utc_s"], v["oldest"]),
        )
        for v in vectors
    ]

    printed = run_on(
        shared_board,
        f"from node import senml\nfor body, head in {cases!r}:\n"
        "    n, b = senml.body(*body)\n"
        "    print(senml.kind(b), n, b.hex(), senml.head(*head, n).hex() + b.hex())",
    )

    assert printed == [
        f"{kind} {v['body_records']} {v['body_hex']} {v['payload_hex']}" for v in vectors
    ]


THIN = """
import os, struct
from node import senml, thinning
from node.spool import Spool
for n, (spool, node_id, utc_s, packs) in enumerate(CASES):
    folder = "/golden%d" % n
    os.mkdir(folder)
    with open(folder + "/id", "wb") as file:
        file.write(b"SP1\\0" + struct.pack("<I", spool))
    s = Spool(folder, None)
    for power_up, uptime_ms, readings in packs:
        s.append(power_up, uptime_ms, *senml.body(spool, s.next_seq, power_up, uptime_ms, readings))
    thinning.thin(s, len(packs))
    ((_, _, _, count, body),) = s.packs(s.newest, s.newest)
    print(count, body.hex(), senml.head(node_id, utc_s, s.oldest, count).hex() + body.hex())
"""


def test_packs_are_thinned_byte_for_byte_as_the_wire_says(board: Board) -> None:
    vectors = _vectors("thinned")
    cases = [
        (
            v["spool"],
            v["node_id"],
            v["time_utc_s"],
            [
                (p["power_up"], p["uptime_ms"], [_reading(r) for r in p["readings"]])
                for p in v["made_of"]
            ],
        )
        for v in vectors
    ]

    printed = run_on(board, THIN.replace("CASES", repr(cases)))

    assert printed == [f"{v['body_records']} {v['body_hex']} {v['payload_hex']}" for v in vectors]


def test_state_messages_are_written_as_the_wire_says(shared_board: Board) -> None:
    vectors = _vectors("states")
    cases = [list(vector["fields"].items()) for vector in vectors]

    printed = run_on(
        shared_board,
        f"from node import cbor\nfor s in {cases!r}: print(bytes(cbor.encode_map_into(bytearray(1200), s)).hex())",
    )

    assert printed == [vector["hex"] for vector in vectors]


def test_manifests_are_read_as_the_wire_says(shared_board: Board) -> None:
    vectors = _vectors("manifests")
    for number, vector in enumerate(vectors):
        shared_board.write_file(f"/golden{number}.cbor", bytes.fromhex(vector["hex"]))

    printed = run_on(
        shared_board,
        f"from node.update.manifest import Manifest\nfor n in range({len(vectors)}):\n"
        "    m = Manifest('/golden%d.cbor' % n)\n"
        "    print([m.version, m.counter, m.image, m.bundle_sha256()])",
    )

    assert printed == [
        str([v["version"], v["counter"], v["image"] and tuple(v["image"][:2]), v["bundle_sha256"]])
        for v in vectors
    ]


@pytest.mark.parametrize("name", ["receipts", "desired"])
def test_what_the_server_says_is_read(shared_board: Board, name: str) -> None:
    vectors = _vectors(name)
    cases = [bytes.fromhex(vector["hex"]) for vector in vectors]

    printed = run_on(
        shared_board, f"from node import cbor\nfor b in {cases!r}: print(repr(cbor.decode(b)))"
    )

    for vector, line in zip(vectors, printed, strict=True):
        expected = {key: value for key, value in vector.items() if key != "hex"}
        if isinstance(expected.get("certificate"), str):
            expected["certificate"] = bytes.fromhex(expected["certificate"])
            expected["roots"] = [bytes.fromhex(root) for root in expected["roots"]]
        assert eval(line) == expected  # noqa: S307 - a literal printed by our own node


def test_reasons_are_those_that_the_server_knows(shared_board: Board) -> None:
    printed = run_on(shared_board, "from node import errors\nprint(' '.join(errors.REASONS))")

    assert printed == [" ".join(_vectors("reasons"))]


def test_commands_and_results_are_those_that_the_server_knows(shared_board: Board) -> None:
    printed = run_on(
        shared_board, "from node import commands\nprint(commands.NAMES)\nprint(commands.RESULTS)"
    )

    assert [list(eval(line)) for line in printed] == _vectors("commands")  # noqa: S307 - our own node


def test_configurations_are_taken_refused_and_hashed_as_the_server_does(
    shared_board: Board,
) -> None:
    vectors = _vectors("configurations")
    cases = [(v["cbor_hex"], v["node"], v["battery_mv"]) for v in vectors]

    printed = run_on(
        shared_board,
        "import gc\nfrom node import cbor, config, schema\n"
        f"for content, node, battery_mv in {cases!r}:\n"
        "    values = cbor.decode(bytes.fromhex(content))\n"
        "    fault = schema.fault(values, node, battery_mv)\n"
        "    print(fault, fault or config.digest(7, values).hex())\n    gc.collect()",
    )

    assert printed == [f"{v['fault']} {v['fault'] or v['sha256']}" for v in vectors]


MALFORMED = {
    "empty": "",
    "cut short": "a26573706f6f6c01",
    "more behind it": "0000",
    "tag": "c000",
    "indefinite array": "9fff",
    "array longer than its bytes": "9b7fffffffffffffff",
    "text longer than its bytes": "7b7fffffffffffffff61",
    "text that is not UTF-8": "62c328",
    "key twice": "a2616101616102",
    "key that is a list": "a18001",
    "nested deeper than anything ours": "81" * 40 + "00",
    "more items than anything ours": "9901f4" + "00" * 500,
    "reserved length": "1c",
    "undefined simple value": "f8ff",
    "infinite half": "f97c00",
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_bytes_that_are_no_message_are_refused_by_name(shared_board: Board, payload: str) -> None:
    printed = run_on(
        shared_board,
        f"from node import cbor\ntry:\n    print(cbor.decode({bytes.fromhex(payload)!r}))\n"
        "except cbor.Malformed:\n    print('malformed')",
    )

    assert printed == ["malformed"]


def test_steps_of_an_update_and_why_a_slot_was_left_have_the_wires_names(
    shared_board: Board,
) -> None:
    stages, reasons = _vectors("updates")

    printed = run_on(
        shared_board,
        "import judge\nfrom node.update import job\n"
        "for names in (job.STAGES, judge.REASONS[1:]): print('|'.join(names))",
    )

    assert printed == ["|".join(stages), "|".join(reasons)]
