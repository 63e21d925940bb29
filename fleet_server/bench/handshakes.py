"""A listener that does nothing but mutual TLS handshakes: the limit that a storm of nodes is compared with.

    python -m fleet_server.bench.handshakes FOLDER

Prints one line with its port; ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path

from fleet_server.services.authority import AuthorityFiles

_BACKLOG = 1024


async def serve(folder: Path) -> None:
    """Until the process is ended."""
    files = AuthorityFiles(folder / "ca")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.chain))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.certificate("broker"), files.key("broker"))

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(
        hang_up, "127.0.0.1", 0, ssl=context, ssl_handshake_timeout=60.0, backlog=_BACKLOG
    )
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port}), flush=True)  # noqa: T201 - the parent reads it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
