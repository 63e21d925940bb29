"""Sending a signed repository to the fleet: first the files that are missing there, one by one, then all that names them at once.

Safe to repeat at any point: what the server has is not sent again, and until the last step nothing of it is to be seen.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleet_server.wire.manifest import Manifest, target_path
from fleet_server.wire.signed_releases import ROOT, TARGETS, NamedTargets, releases_of
from provisioning.errors import BenchError, UsedWrongly
from provisioning.release_building import Checked, check_folder
from provisioning.release_folder import ReleaseFolder

_TIMEOUT_S = 60.0
_LONGEST_ANSWER_BYTES = 1024 * 1024
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HASHES_AT_ONCE = 1000


@dataclass(frozen=True)
class Server:
    """The fleet's pages, the CA that their certificate must come from (None: the system's), and who asks."""

    url: str
    ca_file: Path | None
    api_key: str


@dataclass(frozen=True)
class Sent:
    """What was new: metadata by role, releases, how many files."""

    metadata: Mapping[str, int]
    releases: Sequence[tuple[str, str]]
    files: int


def publish_folder(
    folder: ReleaseFolder, server: Server, *, now: datetime, say: Callable[[str], None]
) -> Sent:
    """Send everything that is signed in the folder.

    Raises:
        RepositoryWrong: nodes would refuse it; nothing is sent.
        BenchError: a file is missing here, or the server cannot be reached or refuses.
        UsedWrongly: the address or the CA file is none.
    """
    checked = check_folder(folder, now=now)
    fleet = _Fleet(server)
    try:
        known = _known(fleet)
        wanted = _files_of(checked)
        missing = _missing(fleet, sorted(wanted))
        for count, sha256 in enumerate(missing, start=1):
            say(f"File {count} of {len(missing)} …")
            content = base64.b64encode(folder.file(sha256)).decode()
            fleet.post("releases/files", {"sha256": sha256, "content": content})
        say("Metadata …")
        told = fleet.post("releases", _published(folder, checked, known))
    finally:
        fleet.close()
    try:
        return Sent(
            metadata=dict(told["metadata"]),
            releases=[(str(model), str(version)) for model, version in told["releases"]],
            files=len(missing),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{server.url} answered with something that is no outcome.") from error


@dataclass(frozen=True)
class _Known:
    """What the server has: versions of metadata by role, highest counters of releases by model."""

    versions: Mapping[str, int]
    counters: Mapping[str, int]


def _known(fleet: _Fleet) -> _Known:
    told = fleet.get("releases/repository")
    try:
        return _Known(
            {str(role["role"]): int(role["version"]) for role in told["roles"]},
            {str(model): int(counter) for model, counter in told["counters"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BenchError(
            f"{fleet.url} does not tell what it knows; is it the fleet's pages?"
        ) from error


def _files_of(checked: Checked) -> set[str]:
    return {sha256 for one in checked.manifests.values() for sha256 in one.file_hashes}


def _missing(fleet: _Fleet, wanted: Sequence[str]) -> list[str]:
    missing: list[str] = []
    for begin in range(0, len(wanted), _HASHES_AT_ONCE):
        told = fleet.post(
            "releases/files/missing", {"sha256": wanted[begin : begin + _HASHES_AT_ONCE]}
        )
        missing += [str(one) for one in told.get("sha256", ())]
    return missing


def _published(folder: ReleaseFolder, checked: Checked, known: _Known) -> dict[str, Any]:
    """What the server does not have yet."""
    repository = checked.repository

    def is_new(name: str, version: int) -> bool:
        return version > known.versions.get(name, 0)

    targets = repository.targets.signed.version
    documents: dict[str, bytes] = {}
    for name, role in repository.roles.items():
        for release in releases_of(name, role.signed).values():
            if release.counter > known.counters.get(name, 0):
                documents |= _documents(folder, release, checked.manifests[name, release.version])
    return {
        "roots": [
            # All of them: a server that began with a later one hands the earlier ones to nodes that slept.
            _text(folder.metadata(ROOT, version))
            for version in folder.versions(ROOT)
        ],
        "targets": _text(folder.metadata(TARGETS, targets)) if is_new(TARGETS, targets) else None,
        "roles": {
            name: _text(folder.metadata(name, role.signed.version))
            for name, role in repository.roles.items()
            if is_new(name, role.signed.version)
        },
        "documents": {path: _text(data) for path, data in documents.items()},
    }


def _documents(
    folder: ReleaseFolder, release: NamedTargets, manifest: Manifest
) -> dict[str, bytes]:
    path = target_path(release.model, manifest.version)
    found = {path: folder.target(path, release.manifest.hashes["sha256"])}
    if release.sbom is not None:
        found[release.sbom.path] = folder.target(release.sbom.path, release.sbom.hashes["sha256"])
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class _Fleet:
    """The management API over one connection."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self._headers = {
            "Authorization": f"Bearer {server.api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        self._connection = _connect(server)

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None)

    def post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(content))

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None) -> dict[str, Any]:
        try:
            self._connection.request(method, f"/api/v1/{path}", body=body, headers=self._headers)
            response = self._connection.getresponse()
            data = response.read(_LONGEST_ANSWER_BYTES)
        except ssl.SSLCertVerificationError as error:
            raise BenchError(
                f"{self.url} is not to be trusted: {error.verify_message.rstrip('.')}; name its CA with --server-ca."
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BenchError(
                f"{self.url} cannot be reached: {said.rstrip('.')}; repeat the command, it goes on where it was."
            ) from error
        return self._answer(response.status, data)

    def _answer(self, status: int, data: bytes) -> dict[str, Any]:
        if status == http.HTTPStatus.NO_CONTENT:
            return {}
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise BenchError(
                f"{self.url} answered {status} with something that is no answer of the fleet."
            )
        if status >= http.HTTPStatus.BAD_REQUEST:
            reason = content.get("detail") or content.get("title") or f"HTTP status {status}"
            raise BenchError(f"The fleet refused it: {str(reason).rstrip('.')}.")
        return content


def _connect(server: Server) -> http.client.HTTPConnection:
    try:
        address = urlsplit(server.url)
        host, port = address.hostname, address.port
    except ValueError:
        host, port, address = None, None, urlsplit("")
    is_plain = address.scheme == "http" and host in _LOOPBACK
    if not host or not (is_plain or address.scheme == "https"):
        raise UsedWrongly(
            f"{server.url} is not the address of the fleet's pages; it looks like https://HOST (http only on this machine)."
        )
    if not server.api_key.isascii() or not server.api_key.isprintable():
        raise UsedWrongly(
            "That is no API key; a release author makes one on the page of their account."
        )
    if is_plain:
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        context = ssl.create_default_context(cafile=str(server.ca_file) if server.ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise UsedWrongly(
            f"The CA file {server.ca_file} is not there or holds no certificate."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
