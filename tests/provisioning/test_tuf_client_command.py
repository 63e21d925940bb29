"""`provision virtual tuf-client` as the conformance suite starts it: against a repository of python-tuf's on a web server of this computer."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tuf_repository import TufRepository
from typed_commands import is_one_sentence

from provisioning import tuf_board
from provisioning.start import main

Run = Callable[..., tuple[int, str]]


class Served:
    """A repository on a port of this computer; every release has the same content."""

    def __init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self.repository = TufRepository(expires=now + datetime.timedelta(days=2))
        self.content = b"x"
        self.asked: list[str] = []
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                content = served.find(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def find(self, path: str) -> bytes | None:
        kind, _, name = path.lstrip("/").partition("/")
        if kind == "metadata":
            return self.repository.files.get(name)
        # Consistent snapshots: the hash stands before the last part of the path.
        is_named = f"/{hashlib.sha256(b'x').hexdigest()}." in path
        return self.content if is_named else None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    started = Served()
    yield started
    started.close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types a command of the client, on a folder of its own."""

    def typed(*words: str) -> tuple[int, str]:
        own = ["virtual", "tuf-client", "--metadata-dir", str(tmp_path / "trusted"), *words]
        monkeypatch.setattr(sys, "argv", ["provision", *own])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        return int(str(ended.value.code)), err

    return typed


def downloading(served: Served, folder: Path, *names: str) -> list[str]:
    words = [
        "--metadata-url",
        served.url + "/metadata",
        "--target-base-url",
        served.url + "/targets",
    ]
    for name in names:
        words += ["--target-name", name]
    return [*words, "--target-dir", str(folder), "download"]


def test_targets_are_downloaded_once_and_trusted_metadata_kept_as_they_came(
    run: Run, served: Served, tmp_path: Path
) -> None:
    (tmp_path / "root.json").write_bytes(served.repository.files["1.root.json"])
    verified = tmp_path / "verified"

    assert run("init", str(tmp_path / "root.json")) == (0, "")
    assert served.asked == []
    assert run("--metadata-url", served.url + "/metadata/", "refresh") == (0, "")
    names = ("tree-3/0.0.0.cbor", "tree-3/0.1.0.cbor")
    assert run(*downloading(served, verified, *names)) == (0, "")

    assert sorted(path.read_bytes() for path in verified.iterdir()) == [b"x", b"x"]
    held = {path.name: path.read_bytes() for path in (tmp_path / "trusted").iterdir()}
    assert held["timestamp.json"] == served.repository.files["timestamp.json"]
    assert held["tree-3.json"] == served.repository.files["1.tree-3.json"]

    served.asked.clear()
    assert run(*downloading(served, verified, *names)) == (0, "")
    assert not [path for path in served.asked if path.startswith("/targets")]


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        (["refresh"], 2, "This needs --metadata-url."),
        (["--metadata-url", "http://127.0.0.1:9", "refresh"], 2, "begin with init"),
        (["--metadata-url", "http://example.org/m", "refresh"], 2, "must begin with https://"),
        (["--metadata-url", "ftp://127.0.0.1/m", "refresh"], 2, "no address"),
        (["--metadata-url", "http://127.0.0.1:x/", "refresh"], 2, "names no port"),
        (["--metadata-url", "http://127.0.0.1:9", "download"], 2, "download needs"),
        (["init", "nowhere.json"], 2, "does not exist"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    run: Run, typed: list[str], status: int, said: str
) -> None:
    ended, told = run(*typed)

    assert (ended, said in told) == (status, True), told


def test_a_refusal_is_told_with_its_reason(run: Run, served: Served, tmp_path: Path) -> None:
    document = json.loads(served.repository.files["1.root.json"])
    document["signatures"] = []
    (tmp_path / "root.json").write_text(json.dumps(document))
    run("init", str(tmp_path / "root.json"))

    ended, told = run("--metadata-url", served.url + "/metadata", "refresh")

    assert ended == 1
    assert is_one_sentence(told, "refuses the repository: root signature.")


def test_a_target_that_nobody_names_and_one_that_is_another_are_not_there(
    run: Run, served: Served, tmp_path: Path
) -> None:
    (tmp_path / "root.json").write_bytes(served.repository.files["1.root.json"])
    run("init", str(tmp_path / "root.json"))

    ended, told = run(*downloading(served, tmp_path / "verified", "nothing"))
    assert (ended, "No role names the target nothing" in told) == (1, True)

    served.content = b"y"
    ended, told = run(*downloading(served, tmp_path / "verified", "tree-3/0.1.0.cbor"))
    served.content = b"x"
    assert (ended, "is not the target" in told) == (1, True)
    assert not (tmp_path / "verified").exists()


def test_a_server_that_is_not_there_is_told(run: Run, served: Served, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(served.repository.files["1.root.json"])
    run("init", str(tmp_path / "root.json"))
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]

    ended, told = run("--metadata-url", f"http://127.0.0.1:{port}/", "refresh")

    assert (ended, "gave no answer that can be read" in told) == (1, True)


def test_the_command_starts_without_the_rest_of_the_bench() -> None:
    """A suite starts it some three hundred times."""
    code = (
        "import sys\nsys.argv = ['provision', 'virtual', 'tuf-client', '--help']\n"
        "from provisioning.start import main\n"
        "try:\n    main()\nfinally:\n    print(sorted(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "node's TUF client" in said
    for module in ("reportlab", "serial", "rich", "provisioning.main"):
        assert f"'{module}'" not in said


def test_the_client_has_the_heap_of_an_esp32(tmp_path: Path) -> None:
    board = tuf_board.make_board(tmp_path / "node", {}, now_s=1_790_000_000)
    assert board.heap_bytes == 100 * 1024
