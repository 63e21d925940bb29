"""Load nodes that all connect at once, as after a power cut of the broker's street: one process, one task per node.

    python -m fleet_server.bench.reconnect storm|bare FOLDER PORT FILE_OF_NODE_IDS

`storm`: each node connects over mutual TLS, subscribes, gets its receipt and its desired state, publishes its state and one pack,
and waits for the receipt of that pack. `bare`: each makes its TLS connection and ends it. Who is refused or not answered tries again
after a random time that doubles, as a node does. Prints one line with the seconds when each was through, and the tries.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fleet_server.services.authority import AuthorityFiles
from fleet_server.wire.desired import decode_receipt
from fleet_server.wire.senml import encode_pack
from fleet_server.wire.state_message import NodeStateMessage, encode_state
from fleet_server.wire.topics import TopicKind, topic_name

SPOOL, MODEL = 9, "tree-3"
# What a node waits for: a handshake, and an answer (firmware/node/link).
_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S = 30.0, 60.0
_FIRST_WAIT_S, _LAST_WAIT_S = 1.0, 16.0
_PATIENCE_S = 540.0
# A connection's buffer; asyncio's own is a quarter of a megabyte, which five thousand times is too much.
_TLS_BUFFER_BYTES = 16 * 1024
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _DISCONNECT = (
    0x10,
    0x20,
    0x30,
    0x40,
    0x82,
    0x90,
    0xE0,
)
_QOS_1 = 0x02
_TROUBLE = (OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError, ConnectionError)


@dataclass
class _Progress:
    began_s: float
    through_s: list[float] = field(default_factory=list)
    tries: int = 0


@dataclass(frozen=True)
class Scene:
    """Where the nodes' keys are, and where they connect to."""

    folder: Path
    port: int
    is_bare: bool

    def context(self, node_id: str) -> ssl.SSLContext:
        made = ssl.create_default_context(
            cafile=str(AuthorityFiles(self.folder / "ca").root_certificate)
        )
        made.load_cert_chain(self.folder / f"{node_id}.crt", self.folder / f"{node_id}.key")
        return made


async def run(scene: Scene, node_ids: list[str]) -> dict[str, object]:
    """All of them, until the last one is through."""
    progress = _Progress(time.monotonic())
    nodes = [_until_through(scene, node_id, progress) for node_id in node_ids]
    async with asyncio.timeout(_PATIENCE_S):
        await asyncio.gather(*nodes)
    return {"through_s": sorted(progress.through_s), "tries": progress.tries}


async def _until_through(scene: Scene, node_id: str, progress: _Progress) -> None:
    wait_s = _FIRST_WAIT_S
    while True:
        progress.tries += 1
        try:
            await _once(scene, node_id)
        except _TROUBLE:
            await asyncio.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - to spread, not to hide
            wait_s = min(2 * wait_s, _LAST_WAIT_S)
        else:
            progress.through_s.append(round(time.monotonic() - progress.began_s, 3))
            return


async def _once(scene: Scene, node_id: str) -> None:
    context = scene.context(node_id)
    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", scene.port, ssl=context, server_hostname="localhost"
        )
    try:
        if not scene.is_bare:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await _talk(node_id, reader, writer)
    finally:
        writer.transport.abort()


async def _talk(node_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """MQTT 3.1.1 as a node speaks it (firmware/node/link): sections 3.1, 3.8, 3.3, 3.14."""
    keep_alive_s = 120
    variable = _text("MQTT") + bytes((4, 0x02)) + struct.pack(">H", keep_alive_s)
    writer.write(_packet(_CONNECT, variable + _text(node_id)))
    kind, body = await _read(reader)
    if kind != _CONNACK or body[1] != 0:
        raise ConnectionRefusedError(node_id)
    receipts = topic_name(TopicKind.RECEIPT, node_id)
    wanted = {receipts, topic_name(TopicKind.DESIRED, node_id)}
    topics = b"".join(_text(topic) + b"\x01" for topic in sorted(wanted))
    writer.write(_packet(_SUBSCRIBE, struct.pack(">H", 1) + topics))
    while wanted:
        topic, _ = await _next_publish(reader, writer)
        wanted.discard(topic)
    for number, (kind_of, payload) in enumerate(_said(node_id), start=2):
        name = _text(topic_name(kind_of, node_id))
        writer.write(_packet(_PUBLISH | _QOS_1, name + struct.pack(">H", number) + payload))
    while True:
        topic, payload = await _next_publish(reader, writer)
        if topic == receipts and decode_receipt(payload).spool == SPOOL:
            break
    writer.write(_packet(_DISCONNECT, b""))
    await writer.drain()


def _said(node_id: str) -> list[tuple[TopicKind, bytes]]:
    now_s = int(time.time())
    state = NodeStateMessage(
        model=MODEL, version="1.4.0", power_up=7, uptime_ms=60_000, utc_s=now_s, battery_mv=3900
    )
    pack = encode_pack(
        node_id=node_id,
        time_utc_s=now_s,
        oldest=1,
        spool=SPOOL,
        seq=1,
        power_up=7,
        uptime_ms=60_000,
        readings=[("r30", 2000.0, None), ("t30", 288.0, None), ("bat", 3900.0, None)],
    )
    return [(TopicKind.STATE, encode_state(state)), (TopicKind.TELEMETRY, pack)]


async def _next_publish(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[str, bytes]:
    """The next message that comes in, acknowledged; what else comes is passed over."""
    while True:
        kind, body = await _read(reader)
        if kind & 0xF0 != _PUBLISH:
            continue
        (length,) = struct.unpack_from(">H", body)
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        if kind & 0x06:
            writer.write(_packet(_PUBACK, rest[:2]))
            rest = rest[2:]
        return topic, rest


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return kind, await reader.readexactly(length)
        shift += 7


def _packet(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (0x80 if left else 0))
        if not left:
            return bytes((kind,)) + bytes(length) + body


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def main(kind: str, folder: Path, port: int, node_ids: list[str]) -> None:
    """Run them and say when each was through."""
    from asyncio import sslproto

    sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
    scene = Scene(folder, port, is_bare=kind == "bare")
    said = asyncio.run(run(scene, node_ids))
    print(json.dumps(said), flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        int(sys.argv[3]),
        Path(sys.argv[4]).read_text(encoding="ascii").split(),
    )
