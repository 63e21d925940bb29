"""`provision virtual tuf-client`: the node's TUF client behind the command line of the public conformance suite.

The suite (github.com/theupdateframework/tuf-conformance, CLIENT-CLI.md) starts it once for every step of a test. All that is decided is decided
by the node's own code on a virtual board; the host reaches the repository for it, and compares what it downloads with what the node says.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import click

from hardware.virtual_board.board import ScriptFailed
from provisioning.errors import BenchError, UsedWrongly
from provisioning.files import write_whole
from provisioning.tuf_board import TRUSTED, Job, Outcome, Target, do_job, make_board

_TIMEOUT_S = 30
_PIECE_BYTES = 1 << 16
_LONGEST_TARGET = 400
_NOT_THERE = (403, 404)
# What must be there before what it vouches for: so does a run leave the folder, wherever it is stopped.
_TOP_LEVEL = ("root.json", "timestamp.json", "snapshot.json", "targets.json")

_FOLDER = click.Path(file_okay=False, path_type=Path)


@dataclass(frozen=True)
class _Options:
    """What stands before the command."""

    metadata_dir: Path
    metadata_url: str | None
    target_names: tuple[str, ...]
    target_base_url: str | None
    target_dir: Path | None


@click.group("tuf-client", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--metadata-dir", required=True, type=_FOLDER, help="Where the trusted metadata files lie."
)
@click.option("--metadata-url", help="Where the repository's metadata are.")
@click.option(
    "--target-name", "target_names", multiple=True, help="Path of a target; may be repeated."
)
@click.option("--target-base-url", help="Where the repository's targets are.")
@click.option("--target-dir", type=_FOLDER, help="Where verified targets are put.")
@click.pass_context
def tuf_client(
    context: click.Context,
    *,
    metadata_dir: Path,
    metadata_url: str | None,
    target_names: tuple[str, ...],
    target_base_url: str | None,
    target_dir: Path | None,
) -> None:
    """The node's TUF client, as the public conformance suite starts it. Exit 0 when everything was verified, else 1.

    Plain http:// is allowed for addresses of this computer only. The node's clock is this computer's.

    Example: provision virtual tuf-client --metadata-dir trusted init root.json
    """
    context.obj = _Options(metadata_dir, metadata_url, target_names, target_base_url, target_dir)


@tuf_client.command()
@click.argument("root", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.pass_obj
def init(options: _Options, root: Path) -> None:
    """Trust this root from now on; nothing is asked of anybody.

    Example: provision virtual tuf-client --metadata-dir trusted init root.json
    """
    options.metadata_dir.mkdir(parents=True, exist_ok=True)
    write_whole(options.metadata_dir / "root.json", root.read_bytes())


@tuf_client.command()
@click.pass_obj
def refresh(options: _Options) -> None:
    """Bring the trusted metadata up to date.

    Example: provision virtual tuf-client --metadata-dir trusted --metadata-url http://127.0.0.1:8001/metadata refresh
    """
    _verified(options, "")


@tuf_client.command()
@click.pass_obj
def download(options: _Options) -> None:
    """Bring the trusted metadata up to date, then fetch and verify the targets that are named.

    Example: provision virtual tuf-client --metadata-dir trusted --metadata-url http://127.0.0.1:8001/metadata
    --target-base-url http://127.0.0.1:8001/targets --target-dir verified --target-name tree-3/1.cbor download
    """
    if not options.target_names or options.target_dir is None or options.target_base_url is None:
        raise click.UsageError("download needs --target-name, --target-base-url and --target-dir.")
    targets = _Site(options.target_base_url, "--target-base-url")
    for name in options.target_names:
        outcome = _verified(options, name)
        if outcome.target is None:
            raise BenchError(f"No role names the target {name}.")
        _download(targets, name, outcome, options.target_dir)


def _verified(options: _Options, target: str) -> Outcome:
    """What the node makes of the repository now. Raises BenchError with its reason when it refuses."""
    if options.metadata_url is None:
        raise click.UsageError("This needs --metadata-url.")
    if len(target) > _LONGEST_TARGET:
        raise UsedWrongly(f"A target's path has at most {_LONGEST_TARGET} characters.")
    site = _Site(options.metadata_url, "--metadata-url")
    now_s = int(time.time())
    trusted = _trusted_files(options.metadata_dir)
    with tempfile.TemporaryDirectory(prefix="stadtsensor-tuf-") as scratch:
        board = make_board(Path(scratch) / "board", trusted, now_s=now_s)
        try:
            outcome = do_job(board, _Metadata(site), Job(now_s, target))
        except ScriptFailed as failure:
            said = str(failure).strip().splitlines()[-1:]
            raise BenchError(f"The node's client failed: {''.join(said)}.") from failure
        finally:
            names = [path.rpartition("/")[2] for path, _ in board.list_files(TRUSTED)]
            for name in sorted(names, key=_in_order):
                content = board.read_file(f"{TRUSTED}/{name}")
                if name.endswith(".json") and content != trusted.get(name):
                    write_whole(options.metadata_dir / name, content)
    if outcome.refused is not None:
        raise BenchError(f"The node refuses the repository: {outcome.refused}.")
    if outcome.failed is not None:
        raise BenchError(f"The node's client failed: {outcome.failed}.")
    return outcome


def _trusted_files(folder: Path) -> dict[str, bytes]:
    if not (folder / "root.json").is_file():
        raise UsedWrongly(f"There is no root.json in {folder}: begin with init.")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}


def _in_order(name: str) -> tuple[int, str]:
    place = _TOP_LEVEL.index(name) if name in _TOP_LEVEL else len(_TOP_LEVEL)
    return place, name


def _download(site: _Site, name: str, outcome: Outcome, folder: Path) -> None:
    """Fetch one target into the folder, unless it is there already. Nothing of it is there when it is not what the node has verified."""
    target = outcome.target
    assert target is not None  # noqa: S101 - the caller has looked
    path = folder / quote(name, safe="")
    if path.is_file() and _is(target, path.read_bytes()):
        return
    above, _, last = name.rpartition("/")
    if outcome.is_consistent:
        last = f"{target.sha256 or target.sha512}.{last}"
    address = quote(f"{above}/{last}" if above else last)
    with site.fetch(address) as answer:
        if answer.status != http.client.OK:
            raise BenchError(f"The repository does not have the target {name}.")
        content = answer.read(target.length + 1)
    if not _is(target, content):
        raise BenchError(f"What the repository sent is not the target {name}.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _is(target: Target, content: bytes) -> bool:
    return (
        len(content) == target.length
        and target.sha256 in (None, hashlib.sha256(content).hexdigest())
        and target.sha512 in (None, hashlib.sha512(content).hexdigest())
    )


class _Metadata:
    """The repository's metadata, as the board reads them (tuf_board.Repository)."""

    def __init__(self, site: _Site) -> None:
        self._site = site
        self._rest = b""

    def open(self, name: str) -> bool:
        """True when the repository has this file; what comes of it is bounded by the node."""
        with self._site.fetch(name) as answer:
            if answer.status in _NOT_THERE:
                return False
            if answer.status != http.client.OK:
                raise BenchError(f"The repository answers with {answer.status} to {name}.")
            self._rest = answer.read(_PIECE_BYTES * 4)
        return True

    def read(self, size: int) -> bytes:
        """The next piece."""
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


class _Site:
    """A server of files below one address."""

    def __init__(self, url: str, option: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            raise UsedWrongly(f"{option} {url} names no port.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsedWrongly(f"{option} {url} is no address that begins with http:// or https://.")
        if parts.scheme == "http" and not _is_own(parts.hostname):
            raise UsedWrongly(f"{option} must begin with https://, unless it is this computer.")
        self._kind = (
            http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
        )
        self._host, self._port = parts.hostname, port
        self._path = parts.path.rstrip("/") + "/"

    @contextmanager
    def fetch(self, name: str) -> Iterator[http.client.HTTPResponse]:
        """The answer to GET of a file (its name quoted). Raises BenchError when there is none."""
        connection = self._kind(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", self._path + name)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            raise BenchError(f"{self._host} gave no answer that can be read: {said}.") from error
        finally:
            connection.close()


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
