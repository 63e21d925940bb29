"""The embedded broker, killed before and after it acknowledges a pack to a node.

python broker.py --node-port P --service-port Q --json     (options of `fleet broker embedded`)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import wrong_orders
from fault_points import (
    EMBEDDED_BROKER,
    FaultPoint,
    load_plan,
    note_process_id,
    run_and_restart,
    wrap,
)

from fleet_server.broker import embedded
from fleet_server.cli import broker as command_module
from fleet_server.cli.main import fleet

_PUBACK = 0x40
_TOPIC_ENDING = "/tm"

_plan = load_plan()
_before_broker_ack = FaultPoint("before_broker_ack", _plan)
_after_broker_ack = FaultPoint("after_broker_ack", _plan)
# With a broker that acknowledges before ingest does.
_before_passing_on = FaultPoint("before_passing_on", _plan)
# Every message is passed on by a task of its own.
_passing_on: ContextVar[str] = ContextVar("passing_on", default="")


def _pass_on(original: Callable[..., Any]) -> Callable[..., Any]:
    async def pass_on(
        self: embedded.FleetHandler, message: embedded.Message, packet_id: int
    ) -> None:
        _passing_on.set(message.topic)
        await original(self, message, packet_id)

    return pass_on


def _send(original: Callable[..., Any]) -> Callable[..., Any]:
    async def send(self: embedded.FleetHandler, data: bytes) -> None:
        topic = _passing_on.get()
        if data[0] != _PUBACK or not self.client.is_node or not topic.endswith(_TOPIC_ENDING):
            await original(self, data)
            return
        if _before_broker_ack.is_due():
            _before_broker_ack.kill_self(f"PUBACK {data.hex()} of {topic}")
        await original(self, data)
        if _after_broker_ack.is_due():
            # asyncio has already given it to the system: nothing else was waiting to be sent.
            _after_broker_ack.kill_self(f"PUBACK {data.hex()} of {topic}")

    return send


def _die_with_message(topic: str) -> None:
    if topic.endswith(_TOPIC_ENDING) and _before_passing_on.is_due():
        _before_passing_on.kill_self(f"a message of {topic} acknowledged, not passed on")


def _run(command: list[str]) -> None:
    note_process_id(_plan, EMBEDDED_BROKER)
    fleet.main(command, prog_name="fleet", standalone_mode=False)


def main() -> None:
    if wrong_orders.BROKER_ACKNOWLEDGES_FIRST in _plan.wrong:
        wrong_orders.acknowledge_before_ingest(embedded.EmbeddedBroker, _die_with_message)
    wrap(embedded.FleetHandler, "_pass_on", _pass_on)
    wrap(embedded.FleetHandler, "send", _send)
    assert command_module.broker  # imported before the fork, so that a restart does not wait for it
    command = ["broker", "embedded", *sys.argv[1:]]
    run_and_restart({"broker": lambda: _run(command)})


if __name__ == "__main__":
    main()
