"""Backup and restore on both databases: whole or not at all, and nothing missing afterwards."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from databases import Databases, SqliteDatabases
from factories import NOON, SimulatedNode, deployed_node
from servers import PostgresqlServer
from sqlalchemy import Engine, func, make_url, select, text
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Unavailable
from fleet_server.models import Command, EnrolmentToken, Node, Pack, Receipt, Role, Scope
from fleet_server.services import (
    accounts,
    auditing,
    authority,
    backups,
    credentials,
    enrolment,
    keys,
    logins,
    telling,
    verifying,
)
from fleet_server.services.backup_troubles import BackupRunning
from fleet_server.services.backups import (
    Backup,
    BackupDamaged,
    BackupWrong,
    DataThere,
    InUse,
)
from fleet_server.services.ingest import store_batch
from fleet_server.services.keys import KeyRefused
from fleet_server.wire.senml import U32_MAX

SECOND, YEAR = timedelta(seconds=1), timedelta(days=365)
LATER = NOON + timedelta(days=30)


@dataclass
class Server:
    """A server's database and data folder, and where its backups go."""

    url: str
    data_dir: Path
    into: Path
    engine: Engine

    def session(self) -> Session:
        return db.session_factory(self.engine)()

    def back_up(self, number: int = 0) -> Backup:
        return backups.back_up(self.engine, self.data_dir, self.into, now=NOON + number * SECOND)

    def restore(self, backup: Backup, *, replaces: bool = True) -> list[Path]:
        self.engine.dispose()
        return backups.restore(
            backups.check_backup(backup.folder),
            self.url,
            self.data_dir,
            replaces=replaces,
            now=LATER,
        )

    def destroy(self) -> None:
        self.engine.dispose()
        if self.engine.dialect.name == "sqlite":
            Path(str(self.engine.url.database)).unlink()
        else:
            with self.engine.begin() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
            self.engine.dispose()


@pytest.fixture
def server(databases: Databases, tmp_path: Path) -> Iterator[Server]:
    """A node at a site, a photo, an authority and a secret key."""
    data_dir = laid_out(tmp_path / "data")
    if isinstance(databases, PostgresqlServer):
        # A restore puts whole schemas aside: not in a database that others use again.
        yield from _serving(databases.url(databases.create_migrated()), data_dir, tmp_path)
        return
    with databases.fresh() as url:
        yield from _serving(url, data_dir, tmp_path)


@pytest.fixture
def file_server(sqlite_databases: SqliteDatabases, tmp_path: Path) -> Iterator[Server]:
    """The same for what does not depend on the kind of database."""
    with sqlite_databases.fresh() as url:
        yield from _serving(url, laid_out(tmp_path / "data"), tmp_path)


def laid_out(data_dir: Path) -> Path:
    for name, content in (
        ("ca/root.crt", b"a certificate"),
        ("ca/services/svc-ingest.key", b"a key"),
        ("ca/.lock", b""),
        ("files/ab/abcdef", b"a photo"),
        ("secret_key", b"s" * 48),
        ("broker/status.json", b"{}"),
    ):
        path = data_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return data_dir


def _serving(url: str, data_dir: Path, folder: Path) -> Iterator[Server]:
    engine = db.make_engine(url)
    made = Server(url, data_dir, folder / "backups", engine)
    with made.session() as session:
        deployed_node(session)
    yield made
    engine.dispose()


def store(server: Server, node: SimulatedNode, count: int) -> None:
    with server.session() as session:
        messages = node.packs(range(node.next_seq, node.next_seq + count))
        store_batch(session, messages, now=LATER)


def packs(server: Server) -> int:
    with server.session() as session:
        return session.scalar(select(func.count()).select_from(Pack)) or 0


def test_after_a_restore_the_nodes_are_asked_for_what_came_later_and_nothing_is_missing(
    server: Server,
) -> None:
    """The restore drill: a backup, 1,000 more packs, the database destroyed, the backup restored."""
    node = SimulatedNode()
    store(server, node, 200)
    backup = server.back_up()
    store(server, node, 1000)
    server.destroy()

    server.restore(backup)

    assert packs(server) == 200
    with server.session() as session:
        (order,) = session.scalars(select(Command)).all()
        assert (order.name, order.arguments) == ("resend", {"from": 201, "to": U32_MAX})
    # The node sends its newest first, then what it was asked for.
    node.next_seq = 201
    with server.session() as session:
        store_batch(session, [node.pack(1201)], now=LATER)
        for first in range(201, 1201, 200):
            store_batch(session, node.packs(range(first, first + 200)), now=LATER)
        assert session.get_one(Receipt, "n-000001").seq == 1201
        assert verifying.verify(session).is_clean
    assert packs(server) == 1201


def test_what_was_ended_or_revoked_after_the_backup_is_not_good_again_in_it(server: Server) -> None:
    """A logged-in browser, a key, a code for a new password, an enrolment token: all taken back between backup and restore."""
    with server.session() as session:
        anna = accounts.create_user(session, "anna", None, now=NOON)
        cookie = logins.begin(session, anna.id, browser="?", now=NOON)
        lost, kept = (
            keys.make_key(
                session, anna.id, roles=[Role.ADMINISTRATOR], scope=Scope.ALL, lifetime=YEAR, note=note, now=NOON
            )
            for note in ("lost", "kept")
        )  # fmt: skip
        code = accounts.begin_reset(session, "anna", now=LATER)
        token = enrolment.create_token(session, uses=1, lifetime=YEAR, note="", now=NOON)
        telling.ask_for_reset(session, "anna", language="de", now=NOON, wall_now=NOON)
    backup = server.back_up()
    with server.session() as session:
        logins.end_all(session, anna, now=NOON)
        keys.revoke_key(session, lost.key.id, owner_id=None, now=NOON)
        accounts.finish_reset(session, code, "three words of mine", now=LATER)

    server.restore(backup)

    with server.session() as session:
        assert logins.find(session, cookie) is None
        for one in (lost, kept):
            with pytest.raises(KeyRefused, match="waits since a backup was restored"):
                keys.find_key(session, one.secret, now=LATER)
        with pytest.raises(accounts.ResetRefused):
            accounts.finish_reset(session, code, "three other words", now=LATER)
        assert session.scalars(select(EnrolmentToken.revoked_at)).one() == LATER, token
        assert [key.note for key in keys.held_keys(session)] == ["lost", "kept"]
        assert telling.claim_due(session, wall_now=LATER) == []
        entry = auditing.newest_entries(session, limit=1, action="doors_shut")[0]
        assert entry.details == {"sessions_ended": 1, "keys_held": [1, 2], "tokens_revoked": [1]}

        keys.confirm_key(session, kept.key.id, owner_id=anna.id, now=LATER)
        keys.revoke_key(session, lost.key.id, owner_id=anna.id, now=LATER)
        keys.confirm_key(session, lost.key.id, owner_id=anna.id, now=LATER)  # stays revoked
        assert keys.find_key(session, kept.secret, now=LATER).note == "kept"
        with pytest.raises(KeyRefused, match="was revoked"):
            keys.find_key(session, lost.secret, now=LATER)


def test_backup_holds_all_that_cannot_be_made_anew_and_only_its_owner_reads_it(
    server: Server,
) -> None:
    store(server, SimulatedNode(), 3)
    backup = server.back_up()

    assert set(backup.files) == {
        backup.database.name,
        "ca/root.crt",
        "ca/services/svc-ingest.key",
        "files/ab/abcdef",
        "secret_key",
    }
    assert (backup.rows["node"], backup.rows["pack"], backup.rows["observation"]) == (1, 3, 21)
    assert stat.S_IMODE(backup.folder.stat().st_mode) == 0o700
    assert backups.check_backup(backup.folder) == backup


def test_backup_is_of_one_moment_while_ingest_goes_on(server: Server) -> None:
    """What is committed after the snapshot began is in none of its tables."""
    node = SimulatedNode()
    store(server, node, 5)
    with server.session() as open_session, db.writing(open_session):
        open_session.execute(text("UPDATE node SET label = 'half done'"))
        backup = server.back_up()
    store(server, node, 5)
    server.destroy()

    server.restore(backup)

    assert packs(server) == 5
    with server.session() as session:
        assert session.scalar(text("SELECT label FROM node")) == "n-000001"
        assert verifying.verify(session).is_clean


def test_data_is_replaced_only_when_that_is_said_and_then_kept_aside(server: Server) -> None:
    store(server, SimulatedNode(), 2)
    backup = server.back_up()
    store(server, SimulatedNode(next_seq=3), 5)
    (server.data_dir / "secret_key").write_bytes(b"t" * 48)

    with pytest.raises(DataThere, match="--replace"):
        server.restore(backup, replaces=False)
    assert packs(server) == 7

    aside = server.restore(backup)

    assert packs(server) == 2
    assert (server.data_dir / "secret_key").read_bytes() == b"s" * 48
    kept = [path for path in aside if path.name.startswith("secret_key")]
    assert [path.read_bytes() for path in kept] == [b"t" * 48]
    if server.engine.dialect.name == "sqlite":
        with sqlite3.connect(aside[0]) as old:
            assert old.execute("SELECT count(*) FROM pack").fetchone() == (7,)
    else:
        with server.engine.connect() as connection:
            old_packs = text(f"SELECT count(*) FROM {aside[0]}.pack")  # noqa: S608 - ours
            assert connection.execute(old_packs).scalar_one() == 7


def test_restore_brings_back_what_was_lost_and_leaves_the_rest_alone(server: Server) -> None:
    backup = server.back_up()
    (server.data_dir / "files/cd").mkdir()
    (server.data_dir / "files/cd/newer").write_bytes(b"a later photo")
    shutil.rmtree(server.data_dir / "ca")

    aside = server.restore(backup)

    assert (server.data_dir / "ca/root.crt").read_bytes() == b"a certificate"
    assert (server.data_dir / "files/cd/newer").exists()
    assert len(aside) == 1  # the database


def test_who_was_revoked_after_the_backup_stays_out(file_server: Server) -> None:
    """The authority that is there knows more than the backup's: it stays, and its root's key stays away."""
    ca_dir = file_server.data_dir / "ca"
    shutil.rmtree(ca_dir)
    authority.initialise(ca_dir)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    issued = authority.sign_node_request(ca_dir, pem, node_id="n-000001")
    backup = file_server.back_up()
    authority.AuthorityFiles(ca_dir).root_key.unlink()
    with file_server.session() as session:
        credentials.revoke_node(session, "n-000001", "stolen", ca_dir, now=LATER)

    aside = file_server.restore(backup)

    assert [path.name for path in aside if path.name.startswith("ca")] == []
    assert issued.serial in authority.revoked_serials(ca_dir)
    assert not authority.AuthorityFiles(ca_dir).root_key.exists()
    with file_server.session() as session:
        assert session.get_one(Node, "n-000001").state == "revoked"
        assert session.scalars(select(Command)).all() == []


def test_files_that_are_kept_elsewhere_are_in_the_backup_too(
    file_server: Server, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "photos"
    elsewhere.mkdir()
    (elsewhere / "abc").write_bytes(b"another photo")
    backup = backups.back_up(
        file_server.engine, file_server.data_dir, file_server.into, now=NOON, files_dir=elsewhere
    )
    shutil.rmtree(elsewhere)
    file_server.destroy()

    backups.restore(
        backup,
        file_server.url,
        file_server.data_dir,
        replaces=False,
        now=LATER,
        files_dir=elsewhere,
    )

    assert (elsewhere / "abc").read_bytes() == b"another photo"


def test_backup_waits_for_nobody_and_nobodys_leftovers_stay(file_server: Server) -> None:
    """What a killed one has left would fill the disk with keys; what another one is writing is not touched."""
    left = file_server.into / "2026-01-01T02-00-00Z.partial"
    left.mkdir(parents=True)
    (left / backups.MANIFEST).write_text("{}")
    with backups._alone_in(file_server.into), pytest.raises(BackupRunning, match="wait until"):
        file_server.back_up()
    assert left.exists()
    assert backups.prune(file_server.into, keep=1) == [], "it counts for none"

    file_server.back_up()

    assert not left.exists()


@pytest.mark.parametrize("inside", ["files", "files/ab", "ca/../files", "ca"])
def test_backup_into_what_is_backed_up_is_refused(file_server: Server, inside: str) -> None:
    """It would hold itself, and that again."""
    into = file_server.data_dir / inside
    with pytest.raises(BackupWrong, match="name a folder outside"):
        backups.back_up(file_server.engine, file_server.data_dir, into, now=NOON)


def test_nobody_signs_while_the_authority_is_copied(
    file_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its register and its list would not belong together; what a killed signer has left behind is none of its files."""
    ca_dir = file_server.data_dir / "ca"
    (ca_dir / ".crl.pem.new").write_bytes(b"half a list")
    could_sign = []
    copy = backups._copy

    def spy(source: Path, target: Path) -> None:
        if source == ca_dir:
            with (ca_dir / ".lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    could_sign.append(True)
                except BlockingIOError:
                    could_sign.append(False)
        copy(source, target)

    monkeypatch.setattr(backups, "_copy", spy)
    backup = file_server.back_up()

    assert could_sign == [False]
    assert not (backup.folder / "ca/.crl.pem.new").exists()


def test_database_in_use_is_not_replaced(server: Server) -> None:
    backup = server.back_up()
    with server.session() as busy:
        busy.scalar(select(func.count()).select_from(Pack))
        with pytest.raises(InUse, match="end fleet serve, ingest, worker"):
            backups.restore(backup, server.url, server.data_dir, replaces=True, now=LATER)
        assert busy.scalar(select(func.count()).select_from(Pack)) == 0


def test_restore_that_fails_leaves_what_was_there(server: Server) -> None:
    """The database in the backup is not one, though its hash is right."""
    store(server, SimulatedNode(), 4)
    backup = server.back_up()
    backup.database.write_bytes(b"no database at all")
    forged = json.loads((backup.folder / backups.MANIFEST).read_bytes())
    forged["files"][backup.database.name] = backups._sha256(backup.database)
    (backup.folder / backups.MANIFEST).write_text(json.dumps(forged))

    with pytest.raises(BackupDamaged, match="is damaged"):
        server.restore(backup)
    if server.engine.dialect.name == "postgresql":
        # Also where the check did not see it coming.
        server.engine.dispose()
        with pytest.raises(Unavailable, match="pg_restore"):
            backups.restore(
                backups.read_backup(backup.folder),
                server.url,
                server.data_dir,
                replaces=True,
                now=LATER,
            )
    assert packs(server) == 4


def _change(folder: Path) -> None:
    path = folder / "ca/root.crt"
    path.write_bytes(path.read_bytes()[:-1] + b"X")


DAMAGE: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "a byte changed": (_change, BackupDamaged, "ca/root.crt was changed"),
    "a file missing": (lambda f: (f / "secret_key").unlink(), BackupDamaged, "secret_key is missing"),
    "a file too much": (lambda f: (f / "x").write_bytes(b""), BackupDamaged, "x does not belong"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), BackupWrong, "is no backup"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text("{"), BackupWrong, "is no backup"),
    "a later format": (
        lambda f: (f / "manifest.json").write_text('{"format": 2}'),
        BackupWrong,
        "another version",
    ),
}  # fmt: skip


def test_damaged_backup_is_told_and_not_restored(server: Server) -> None:
    backup = server.back_up()
    for name, (damage, kind, says) in DAMAGE.items():
        copy = server.into / name.replace(" ", "-")
        shutil.copytree(backup.folder, copy)
        damage(copy)
        with pytest.raises(kind, match=says):
            server.restore(Backup(**{**vars(backup), "folder": copy}))


def test_backup_of_another_kind_of_database_is_refused(server: Server, tmp_path: Path) -> None:
    backup = server.back_up()
    other = (
        "postgresql+psycopg://127.0.0.1:1/none"
        if server.engine.dialect.name == "sqlite"
        else f"sqlite:///{tmp_path}/other.sqlite3"
    )
    with pytest.raises(BackupWrong, match="one of its own kind"):
        backups.restore(backup, other, server.data_dir, replaces=True, now=LATER)


def test_backup_that_was_cut_short_is_none_and_the_next_one_works(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(backups, "_copy", full)
        with pytest.raises(Unavailable, match="No space left"):
            server.back_up()
    assert list(server.into.glob(f"*/{backups.MANIFEST}")) == []
    assert backups.check_backup(server.back_up().folder)


def test_only_the_newest_backups_are_kept(server: Server) -> None:
    made = [server.back_up(number) for number in range(3)]
    (server.into / "holiday-photos").mkdir()

    removed = backups.prune(server.into, keep=2)

    assert removed == [made[0].folder]
    assert sorted(path.name for path in server.into.iterdir()) == [
        made[1].folder.name,
        made[2].folder.name,
        "holiday-photos",
    ]


def test_password_of_the_database_stands_on_no_command_line(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server.engine.dialect.name == "sqlite":
        return
    seen: list[object] = []
    real = backups.subprocess.run

    def spy(command: object, **options: object) -> object:
        seen.append(command)
        return real(command, **options)  # type: ignore[call-overload] # passed on as it came

    monkeypatch.setattr(backups.subprocess, "run", spy)
    secret = make_url(server.url).set(password="s3cret")
    engine = db.make_engine(secret.render_as_string(hide_password=False))
    backups.back_up(engine, server.data_dir, server.into, now=NOON)
    assert seen
    assert "s3cret" not in str(seen)
    engine.dispose()
