"""Programs under test: started with a scratch folder, listened to, and ended."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fleet_server.errors import Unavailable
from fleet_server.settings import CONFIG_VARIABLE

_READY_TIMEOUT_S = 30.0
_STOP_S = 10.0


class Programs:
    """Processes over one data folder and database; all of them end with `stack`."""

    def __init__(self, folder: Path, database_url: str, stack: ExitStack) -> None:
        self.folder = folder
        self.broker_url: str | None = None
        self.broker_pid = 0
        self._database_url = database_url
        self._stack = stack

    def start(
        self, name: str, command: list[str], *, listen: bool = False
    ) -> subprocess.Popen[str]:
        """What it says goes to `<name>.log`; with `listen`, its stdout is ours to read."""
        log = (self.folder / f"{name}.log").open("w")
        self._stack.callback(log.close)
        process = subprocess.Popen(  # noqa: S603 - our own programs and mosquitto
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if listen else log,
            stderr=log,
            text=True,
            env=self._environment(),
        )
        self._stack.callback(end, process)
        return process

    def start_broker(self, kind: str) -> dict[str, int]:
        """`embedded` or `mosquitto`, listening; its ports. What is started later finds it.

        Raises:
            Unavailable: it could not be started.
        """
        ports = {"node": _free_port(), "service": _free_port()}
        wanted = ["--node-port", str(ports["node"]), "--service-port", str(ports["service"])]
        if kind == "embedded":
            broker = self.start("broker", [own("fleet"), "broker", "embedded", *wanted])
        else:
            broker = self._start_mosquitto(wanted)
        self.broker_pid = broker.pid
        for port in ports.values():
            _wait_for_port(port)
        self.broker_url = f"mqtts://127.0.0.1:{ports['node']}?service_port={ports['service']}"
        return ports

    def _start_mosquitto(self, wanted: list[str]) -> subprocess.Popen[str]:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(program).exists():
            raise Unavailable("mosquitto is not installed: apt-get install mosquitto.")
        out = self.folder / "mosquitto"
        made = subprocess.run(  # noqa: S603 - our own program
            [own("fleet"), "broker", "config", "--out", str(out), *wanted],
            env=self._environment(),
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise Unavailable(f"fleet broker config failed: {made.stderr.strip()}")
        return self.start("broker", [program, "-c", str(out / "mosquitto.conf")])

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        clean.pop(CONFIG_VARIABLE, None)
        clean |= {"FLEET_DATA_DIR": str(self.folder), "FLEET_DATABASE_URL": self._database_url}
        if self.broker_url is not None:
            clean["FLEET_BROKER_URL"] = self.broker_url
        return clean


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of JSON that it says.

    Raises:
        Unavailable: it ended instead.
    """
    assert process.stdout is not None  # noqa: S101 - started with listen=True
    said = process.stdout.readline()
    if not said:
        raise Unavailable(f"{process.args!r} ended with exit {process.wait()}.")
    result: dict[str, Any] = json.loads(said)
    return result


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used (proc(5): fields 14 and 15, after the name in brackets)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def own(name: str) -> str:
    """A program that was installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Unavailable(f"The broker did not listen on port {port}.")
