"""Backup and restore: everything that cannot be made anew, as it was at one moment, in a folder of its own.

A backup holds the database, the files (photos, …), the authority, the server's keys for releases and its secret key, with a manifest that names each with its
hash. The database comes first and is one snapshot; files are named by their content and never change, so those that come after it are at
least those that it names. A backup appears whole or not at all. It holds keys: it is as secret as the server.

After a restore the nodes are asked to send again what came after the backup: they keep at least thirty days on flash. An authority that
is still there stays: it knows who was revoked since. And what lets people, programs and benches in is shut, because a backup does not
know what was taken from whom since.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import URL, Engine, delete, func, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Unavailable
from fleet_server.models import EnrolmentToken, Node, PasswordReset, Receipt
from fleet_server.services import (
    auditing,
    authority,
    backup_troubles,
    commanding,
    credentials,
    keys,
    logins,
    telling,
)
from fleet_server.services.backup_troubles import BackupWrong
from fleet_server.wire.commands import CommandName
from fleet_server.wire.senml import U32_MAX
from fleet_server.wire.states import NodeState

MANIFEST = "manifest.json"
FORMAT = 1
_AUTHORITY, _FILES = "ca", "files"
KEPT = (_AUTHORITY, "release_keys", "secret_key", _FILES)
"""What of the data folder goes into a backup; the rest (broker's memory, logs) is made anew."""

_SQLITE_NAME, _POSTGRESQL_NAME = "database.sqlite3", "database.dump"
_NAMED = "%Y-%m-%dT%H-%M-%SZ"
_PARTIAL = ".partial"
_CUT_SHORT = f"????-??-??T??-??-??Z{_PARTIAL}"
_CHUNK = 1 << 20
_TABLES = ("node", "pack", "observation", "audit_entry")
_OTHER_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
_LOOKS, _LOOK_S = 10, 0.1
_DEBIAN_PROGRAMS = "/usr/lib/postgresql"


class BackupDamaged(Conflict):
    """A backup is not what its manifest says."""

    code = "backup_damaged"


class DataThere(Conflict):
    """The place to restore to is not empty."""

    code = "data_there"


class InUse(Conflict):
    """Somebody works with the database."""

    code = "database_in_use"


@dataclass(frozen=True)
class Backup:
    """What the manifest says. `files`: path below the backup's folder → SHA-256; `rows`: of some tables; `backend`: sqlite or postgresql."""

    folder: Path
    made_at: datetime
    backend: str
    revision: str
    rows: Mapping[str, int]
    files: Mapping[str, str]

    @property
    def database(self) -> Path:
        return self.folder / (_SQLITE_NAME if self.backend == "sqlite" else _POSTGRESQL_NAME)


# -------------------------------------------------------------------------------------------------------------- making


def back_up(
    engine: Engine, data_dir: Path, into: Path, *, now: datetime, files_dir: Path | None = None
) -> Backup:
    """Make a backup in a new folder below `into`, named by the time. Other processes go on meanwhile.

    Args:
        files_dir: Where photos and the like are, when not in the data folder.

    Raises:
        SchemaOutdated: the tables are not of this version.
        BackupRunning: another one is being made there.
        BackupWrong: the place is part of what is backed up.
        Unavailable: the place cannot be written to, or PostgreSQL's own programs are not here.
    """
    db.check_schema(engine)
    places = _places(data_dir, files_dir)
    for place in places.values():
        if into.resolve().is_relative_to(place.resolve()):
            raise backup_troubles.within_what_is_kept(into, place)
    folder = into / now.astimezone(UTC).strftime(_NAMED)
    partial = folder.with_name(folder.name + _PARTIAL)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with _alone_in(into):
            if folder.exists():
                raise backup_troubles.there_already(folder)
            for cut_short in into.glob(_CUT_SHORT):
                shutil.rmtree(cut_short)
            partial.mkdir(mode=0o700)
            backend = engine.dialect.name
            if backend == "sqlite":
                rows = _copy_sqlite(engine, partial / _SQLITE_NAME)
            else:
                rows = _dump_postgresql(engine, partial / _POSTGRESQL_NAME)
            for name, place in places.items():
                with _unchanging(place):
                    _copy(place, partial / name)
            files = {
                str(PurePosixPath(path.relative_to(partial))): _sha256(path)
                for path in _files_below(partial)
            }
            backup = Backup(
                folder, now.replace(microsecond=0), backend, _revision(engine), rows, files
            )
            _write_manifest(partial / MANIFEST, backup)
            for path in [*_files_below(partial), *_folders_below(partial)]:
                _sync(path)
            partial.rename(folder)
            _sync(into)
    except OSError as problem:
        raise backup_troubles.not_writable(into, problem) from problem
    return backup


def newest(into: Path) -> tuple[Path, datetime] | None:
    """The newest backup below `into`, and when it was made; None when there is none. Its files are not looked at."""
    found = []
    for manifest in into.glob(f"*/{MANIFEST}"):
        with suppress(ValueError):  # not named by us
            made_at = datetime.strptime(manifest.parent.name, _NAMED).replace(tzinfo=UTC)
            found.append((made_at, manifest.parent))
    return max(
        ((folder, made_at) for made_at, folder in found), key=lambda one: one[1], default=None
    )


def prune(into: Path, *, keep: int) -> list[Path]:
    """Remove all but the newest `keep` backups below `into`; what is no backup of ours stays."""
    found = sorted(
        path.parent for path in into.glob(f"*/{MANIFEST}") if path.parent.suffix != _PARTIAL
    )
    surplus = found[: max(0, len(found) - keep)]
    for folder in surplus:
        shutil.rmtree(folder)
    return surplus


def _places(data_dir: Path, files_dir: Path | None) -> dict[str, Path]:
    """Where what goes into a backup is, by its name there."""
    places = {name: data_dir / name for name in KEPT}
    if files_dir is not None:
        places[_FILES] = files_dir
    return places


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Until the end nobody else makes a backup there, so what looks cut short was."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise backup_troubles.running(folder) from None
    finally:
        os.close(descriptor)


@contextmanager
def _unchanging(place: Path) -> Iterator[None]:
    """While the authority is copied nobody signs: its files belong together. Files have their names from their content."""
    if place.name != _AUTHORITY or not place.is_dir():
        yield
        return
    with authority.held(place):
        yield


def _copy_sqlite(engine: Engine, target: Path) -> dict[str, int]:
    with (
        closing(sqlite3.connect(str(engine.url.database))) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)  # in one step: a snapshot, beside which others go on writing
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        return {name: _count(copy, name) for name in _TABLES}


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names


def _dump_postgresql(engine: Engine, target: Path) -> dict[str, int]:
    """By PostgreSQL's own program, in the snapshot in which the rows are counted."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        _run_postgresql(
            "pg_dump", engine.url, "--format=custom", "--no-owner", "--no-privileges",
            f"--snapshot={snapshot}", f"--file={target}",
        )  # fmt: skip
        return {
            name: int(connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one())  # noqa: S608 - our own names
            for name in _TABLES
        }


def _write_manifest(path: Path, backup: Backup) -> None:
    content: dict[str, Any] = asdict(backup)
    del content["folder"]
    content["made_at"] = backup.made_at.isoformat()
    path.write_text(json.dumps({"format": FORMAT, **content}, indent=1), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- reading


def read_backup(folder: Path) -> Backup:
    """The backup in `folder`, every file of it compared with the manifest.

    Raises:
        BackupWrong: this is no backup, or one of a later version.
        BackupDamaged: a file is missing, changed or too much; it is named.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if content["format"] != FORMAT:
            raise BackupWrong(f"The backup {folder} is of another version of Stadtsensor.")
        backup = Backup(
            folder=folder,
            made_at=datetime.fromisoformat(content["made_at"]),
            backend=content["backend"],
            revision=content["revision"],
            rows=dict(content["rows"]),
            files=dict(content["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BackupWrong(
            f"{folder} is no backup: it has no {MANIFEST} that can be read. Name one of the folders that `fleet db backup` made."
        ) from problem
    there = {str(PurePosixPath(path.relative_to(folder))) for path in _files_below(folder)}
    for name in sorted((there | set(backup.files)) - {MANIFEST}):
        if name not in backup.files:
            raise BackupDamaged(f"The backup {folder} is damaged: {name} does not belong to it.")
        if name not in there:
            raise BackupDamaged(f"The backup {folder} is damaged: {name} is missing.")
        if _sha256(folder / name) != backup.files[name]:
            raise BackupDamaged(f"The backup {folder} is damaged: {name} was changed.")
    return backup


def check_backup(folder: Path) -> Backup:
    """Read a backup, and its database too.

    Raises:
        BackupDamaged: also when the database is not one that can be restored.
    """
    backup = read_backup(folder)
    if backup.backend == "sqlite":
        _check_sqlite(backup)
    else:
        try:
            _run_postgresql("pg_restore", None, "--list", str(backup.database))
        except Unavailable as problem:
            raise BackupDamaged(f"The backup {folder} is damaged: {problem}") from problem
    return backup


def _check_sqlite(backup: Backup) -> None:
    try:
        address = f"file:{backup.database}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            said = connection.execute("PRAGMA integrity_check").fetchone()[0]
            rows = {name: _count(connection, name) for name in backup.rows}
    except sqlite3.Error as problem:
        said, rows = str(problem), {}
    if said != "ok":
        raise BackupDamaged(f"The backup {backup.folder} is damaged: its database says {said}.")
    if rows != backup.rows:
        raise BackupDamaged(f"The backup {backup.folder} is damaged: rows are missing.")


# ----------------------------------------------------------------------------------------------------------- restoring


def restore(
    backup: Backup,
    database_url: str,
    data_dir: Path,
    *,
    replaces: bool,
    now: datetime,
    files_dir: Path | None = None,
) -> list[Path]:
    """Put a backup in place, bring its tables to this version, and ask the nodes for what came after it.

    Nothing of what is there changes before the whole backup was read. Safe to repeat after it was cut short. The authority that is there
    stays when it is the backup's own: who was revoked since stays out.

    Args:
        replaces: what is there makes way: files are moved aside, PostgreSQL's tables into a schema of their own.
        files_dir: as for `back_up`.

    Returns:
        What was moved aside: files, folders, the name of a schema.

    Raises:
        BackupWrong: it is of another kind of database.
        DataThere: there is something, and `replaces` is False.
        InUse: some process works with the database.
    """
    url = make_url(database_url)
    if url.get_backend_name() != backup.backend:
        raise BackupWrong(
            f"The backup {backup.folder} is of {backup.backend}, the database of {url.get_backend_name()}: "
            "restore it into one of its own kind."
        )
    suffix = f".before-restore-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    places = _places(data_dir, files_dir)
    differing = [name for name, place in places.items() if _differs(backup, name, place)]
    if not replaces and differing:
        raise DataThere(
            f"{places[differing[0]].parent} holds another {places[differing[0]].name}; with --replace it is moved aside."
        )
    if backup.backend == "sqlite":
        aside = _restore_sqlite(backup, Path(str(url.database)), suffix, replaces=replaces)
    else:
        aside = _restore_postgresql(backup, url, suffix, replaces=replaces)
    for name in differing:
        aside.append(_move_aside(places[name], suffix))
    data_dir.mkdir(parents=True, exist_ok=True)
    for name, place in places.items():
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(backup.folder / name, place)
    engine = db.make_engine(database_url)
    try:
        db.upgrade(engine)
        with db.session_factory(engine)() as session:
            with suppress(authority.AuthorityMissing):
                credentials.follow_list(session, data_dir / _AUTHORITY, now=datetime.now(UTC))
            with db.writing(session):
                ask_for_missing(session, backup, now=now)
                _shut_doors(session, backup, now=now)
    finally:
        engine.dispose()
    return aside


def ask_for_missing(session: Session, backup: Backup, *, now: datetime) -> int:
    """Order `resend` of every node, from its receipt on; returns of how many. Committed on return.

    A node that has as many commands waiting as it can be told is left out: its own `resend` can be ordered later.
    """
    asked = 0
    with db.writing(session):
        rows = session.execute(
            select(Receipt.node_id, Receipt.seq)
            .join(Node, Node.node_id == Receipt.node_id)
            .where(Node.state.not_in((NodeState.RETIRED, NodeState.REVOKED)))
            .order_by(Receipt.node_id)
        ).all()
        for node_id, seq in rows:
            wanted = {"from": seq + 1, "to": U32_MAX}
            try:
                commanding.order_command(
                    session,
                    node_id,
                    CommandName.RESEND,
                    wanted,
                    now=now,
                    lifetime=commanding.LONGEST_LIFETIME,
                )
            except commanding.CommandsWaiting:
                continue
            asked += 1
        auditing.record(
            session,
            "backup_restored",
            subject=f"backup {backup.folder.name}",
            now=now,
            made_at=backup.made_at.isoformat(),
            nodes_asked=asked,
            nodes=len(rows),
        )
    return asked


def _shut_doors(session: Session, backup: Backup, *, now: datetime) -> None:
    """What was ended, used up or revoked after the backup is good again in it, and nobody knows what that was.

    So nobody stays logged in, no code or enrolment token is good, and keys wait for a word of their owners.
    """
    ended = logins.end_everybodys(session, now=now)
    held = keys.hold_all(session, now=now)
    session.execute(delete(PasswordReset))
    telling.forget_resets(session)  # the mail address may have been changed since, too
    tokens = session.scalars(
        update(EnrolmentToken)
        .where(EnrolmentToken.revoked_at.is_(None), EnrolmentToken.expires_at > now)
        .where(EnrolmentToken.uses_left > 0)
        .values(revoked_at=now)
        .returning(EnrolmentToken.id)
    ).all()
    auditing.record(
        session,
        "doors_shut",
        subject=f"backup {backup.folder.name}",
        now=now,
        sessions_ended=ended,
        keys_held=[key.id for key in held],
        tokens_revoked=sorted(tokens),
    )


def _restore_sqlite(backup: Backup, file: Path, suffix: str, *, replaces: bool) -> list[Path]:
    aside = []
    if file.exists():
        _refuse_sqlite_in_use(file)
        if not replaces and _has_nodes(db.make_engine(f"sqlite:///{file}")):
            raise DataThere(f"There is a database {file}; with --replace it is moved aside.")
        aside.append(_move_aside(file, suffix))
    file.parent.mkdir(parents=True, exist_ok=True)
    arriving = file.with_name(file.name + _PARTIAL)
    shutil.copyfile(backup.database, arriving)
    _sync(arriving)
    arriving.rename(file)
    _sync(file.parent)
    return aside


def _refuse_sqlite_in_use(file: Path) -> None:
    """Only who is alone may take the write-ahead log away; it also brings everything into the one file that is moved."""
    with closing(sqlite3.connect(file, timeout=1.0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError as problem:
            raise _in_use(str(file)) from problem
        except sqlite3.DatabaseError:
            return  # what is damaged is moved aside as it is


def _restore_postgresql(backup: Backup, url: URL, suffix: str, *, replaces: bool) -> list[Path]:
    """The tables that are there get a schema of their own; they come back when the restore fails."""
    engine = db.make_engine(url.render_as_string(hide_password=False))
    aside = "public" + suffix.replace(".", "_").replace("-", "_").lower()
    try:
        if not _is_alone(engine):
            raise _in_use(url.render_as_string())
        has_nodes = _has_nodes(engine)
        if has_nodes and not replaces:
            raise DataThere(
                f"There is data in {url.render_as_string()}; with --replace it is moved aside."
            )
        with engine.begin() as connection:
            connection.execute(text(f"ALTER SCHEMA public RENAME TO {aside}"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
        try:
            _run_postgresql(
                "pg_restore", url, "--no-owner", "--no-privileges", "--single-transaction",
                "--exit-on-error", str(backup.database),
            )  # fmt: skip
        except BaseException:
            with engine.begin() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text(f"ALTER SCHEMA {aside} RENAME TO public"))
            raise
        if not has_nodes:
            with engine.begin() as connection:
                connection.execute(text(f"DROP SCHEMA {aside} CASCADE"))
    finally:
        engine.dispose()
    return [Path(aside)] if has_nodes else []


def _is_alone(engine: Engine) -> bool:
    """Whether nobody else is connected; who has just left is still listed for a moment."""
    for _ in range(_LOOKS):
        with db.connected(engine) as connection:
            if not connection.execute(text(_OTHER_SESSIONS)).scalar_one():
                return True
        time.sleep(_LOOK_S)
    return False


def _in_use(where: str) -> InUse:
    return InUse(
        f"The database {where} is in use: end fleet serve, ingest, worker and broker first, then run this again."
    )


def _has_nodes(engine: Engine) -> bool:
    try:
        with db.connected(engine) as connection:
            return bool(connection.execute(select(func.count()).select_from(Node)).scalar_one())
    except DBAPIError:
        return False  # no tables
    finally:
        engine.dispose()


def _differs(backup: Backup, name: str, there: Path) -> bool:
    """Whether what is there under this name lacks or changes something of the backup."""
    if not there.exists():
        return False
    if name == _AUTHORITY and authority.is_continued_by(backup.folder / name, there):
        return False
    wanted = {
        there / PurePosixPath(path).relative_to(name): sha256
        for path, sha256 in backup.files.items()
        if path == name or path.startswith(f"{name}/")
    }
    return any(not path.is_file() or _sha256(path) != sha256 for path, sha256 in wanted.items())


def _move_aside(path: Path, suffix: str) -> Path:
    aside = path.with_name(path.name + suffix)
    path.rename(aside)
    for leftover in ("-wal", "-shm"):
        path.with_name(path.name + leftover).unlink(missing_ok=True)
    return aside


# --------------------------------------------------------------------------------------------------------------- files


def _copy(source: Path, target: Path) -> None:
    """A file or a folder, for the owner only; lock files and what is being written stay behind."""
    if source.is_dir():
        target.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(source.iterdir()):
            if not path.name.startswith(".") and not path.is_symlink():
                _copy(path, target / path.name)
        return
    with suppress(FileNotFoundError):  # none, or it was being written and has its own name by now
        shutil.copy2(source, target)


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _folders_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_dir())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _revision(engine: Engine) -> str:
    return db.schema_revision(engine) or ""


# --------------------------------------------------------------------------------------------------- PostgreSQL's own


def _run_postgresql(program: str, url: URL | None, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; the password goes by environment, which other users cannot read."""
    environment = dict(os.environ)
    command: Sequence[str] = [_postgresql_program(program), *arguments]
    if url is not None:
        if url.password:
            environment["PGPASSWORD"] = str(url.password)
        plain = url.set(drivername="postgresql")._replace(password=None)
        command = [*command, f"--dbname={plain.render_as_string(hide_password=False)}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - PostgreSQL's own
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise backup_troubles.program_failed(program, said)


def _postgresql_program(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    newest_first = sorted(Path(_DEBIAN_PROGRAMS).glob(f"*/bin/{name}"), reverse=True)
    if not newest_first:
        raise backup_troubles.program_missing(name)
    return str(newest_first[0])
