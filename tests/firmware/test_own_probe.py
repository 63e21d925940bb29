"""A probe of a known interface is a file and no code: a made-up one, from its wire to its observation in the database.

Its two files lie in `tests/hardware/own_probe`, where a city would have a folder of its own; nothing else knows it.
"""

from __future__ import annotations

import struct
from datetime import timedelta
from pathlib import Path

import nodes
import pytest
from factories import NOON, deployed_node
from fake_probes import FakeModbus, FakeVoltage, crc16
from scripted_broker import ScriptedBroker
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Datastream, Observation
from fleet_server.services.ingest import Message, store_batch
from fleet_server.wire.topics import TopicKind
from hardware.catalogue import CatalogueError, load_node_model, load_sensor_type
from hardware.data_files import ENVIRONMENT
from hardware.virtual_board.wiring import Wiring
from provisioning.node_configuration import node_map

FOLDER = Path(__file__).parents[1] / "hardware" / "own_probe"
OXYGEN_MG_L, TEMPERATURE_C = 9.25, 17.5


@pytest.fixture
def _own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(FOLDER))


def answer(request: bytes) -> bytes:
    """A lakewatch at address 7: input registers, oxygen at 16, temperature at 32, silence for anything else."""
    address, function, first, count = struct.unpack(">BBHH", request[:6])
    if (address, function) != (7, 4) or request[6:] != crc16(request[:6]):
        return b""
    registers = bytearray(2 * count)
    for at, value in ((16, OXYGEN_MG_L), (32, TEMPERATURE_C)):
        if first <= at and at + 2 <= first + count:
            struct.pack_into(">f", registers, 2 * (at - first), value)
    head = bytes((address, function, len(registers))) + registers
    return head + crc16(head)


@pytest.mark.usefixtures("_own_folder")
def test_a_made_up_probe_goes_from_its_wire_to_its_observation(
    tmp_path: Path, broker: ScriptedBroker, session: Session
) -> None:
    model = load_node_model("lake-1")
    wiring = Wiring(uart={2: FakeModbus([answer])}, analog={35: FakeVoltage(1_937_000)})
    board = nodes.make_board(tmp_path / "node", wiring, node=node_map(model), port=broker.port)

    result = board.run_wake()
    deployed_node(session, nodes.NODE_ID, model="lake-1", from_at=NOON - timedelta(days=90))
    (payload,) = broker.payloads("tm")
    store_batch(session, [Message(TopicKind.TELEMETRY, nodes.NODE_ID, payload)], now=NOON)

    assert result.reason == "deepsleep"
    rows = session.execute(
        select(Datastream.property, Datastream.depth_cm, Observation.value, Observation.u).join(
            Datastream, Datastream.id == Observation.datastream_id
        )
    )
    found = {name: (depth_cm, value, u) for name, depth_cm, value, u in rows}
    assert found["water_temperature"] == (150, TEMPERATURE_C, pytest.approx(0.2, rel=1e-6))
    oxygen_u = (0.1**2 + (0.02 * OXYGEN_MG_L) ** 2) ** 0.5
    assert found["dissolved_oxygen"] == (150, OXYGEN_MG_L, pytest.approx(oxygen_u, rel=1e-6))


def test_without_its_folder_the_made_up_probe_is_not_known() -> None:
    with pytest.raises(CatalogueError, match="Sensor type lakewatch_o2 is not known"):
        load_sensor_type("lakewatch_o2")


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "gone"))
    with pytest.raises(CatalogueError, match=r"STADTSENSOR_HARDWARE names .*gone, which is not a"):
        load_sensor_type("ds18b20")


def test_a_file_that_is_there_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sensors").mkdir()
    (tmp_path / "sensors" / "ds18b20.toml").write_text("id = 'ds18b20'\n", encoding="utf-8")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with pytest.raises(CatalogueError, match=r"Sensor type ds18b20 is there twice: .* rename"):
        load_sensor_type("ds18b20")
