"""The audit log: what is in it, and that nobody changes it unseen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from factories import register_node
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, text, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.models import AuditEntry, AuditHead, Role, Scope
from fleet_server.services import accounts, audit_list, auditing, deploying, keys, rights
from fleet_server.services.auditing import Head
from fleet_server.services.deploying import NewSite

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
ENTRIES = 5
DAY = timedelta(days=1)


@pytest.fixture
def log(session: Session) -> Session:
    """A log of five entries."""
    for number in range(ENTRIES):
        auditing.record(
            session, "node_configured", subject=f"node n-{number}", now=NOON, version=number
        )
    return session


def test_entry_names_who_acts_in_the_session(session: Session) -> None:
    auditing.record(session, "node_configured", subject="node n-1", now=NOON)
    rights.act_as(session, rights.Actor("anna", frozenset()))
    auditing.record(session, "node_configured", subject="node n-1", now=NOON)
    auditing.record(session, "node_enrolled", subject="node n-2", now=NOON, by="token 7")

    entries = auditing.newest_entries(session, limit=9)
    assert [entry.actor for entry in entries] == ["token 7", "anna", "machine"]


def test_entry_of_a_transaction_that_fails_was_never_there(session: Session) -> None:
    with db.writing(session):
        auditing.record(session, "node_configured", subject="node n-1", now=NOON)
        session.rollback()
    auditing.record(session, "node_configured", subject="node n-1", now=NOON)
    report = auditing.verify_chain(session)
    assert (report.entries, report.fault) == (1, None)


PLANTED = {
    "what was done": ({"action": "looked_away"}, "Entry 3 was changed"),
    "who did it": ({"actor": "berta"}, "Entry 3 was changed"),
    "when": ({"at": datetime(2026, 7, 1, 11, tzinfo=UTC)}, "Entry 3 was changed"),
    "to what": ({"subject": "node n-9"}, "Entry 3 was changed"),
    "a detail": ({"details": {"version": 3}}, "Entry 3 was changed"),
    "what it follows": ({"previous_sha256": "1" * 64}, "Entry 3 does not follow"),
}


@pytest.mark.parametrize(("values", "says"), PLANTED.values(), ids=PLANTED.keys())
def test_planted_change_is_found(log: Session, values: dict[str, object], says: str) -> None:
    with db.writing(log):
        log.execute(update(AuditEntry).where(AuditEntry.seq == 3).values(**values))
    fault = auditing.verify_chain(log).fault
    assert fault is not None
    assert fault.startswith(says)


@pytest.mark.parametrize(
    ("seq", "says"),
    [(1, "Entry 1 is missing"), (3, "Entry 3 is missing"), (5, "The log ends at entry 4")],
    ids=["the first", "one in between", "the last"],
)
def test_entry_that_was_taken_out_is_missed(log: Session, seq: int, says: str) -> None:
    with db.writing(log):
        log.execute(delete(AuditEntry).where(AuditEntry.seq == seq))
    fault = auditing.verify_chain(log).fault
    assert fault is not None
    assert fault.startswith(says)


def test_log_written_anew_is_found_by_a_head_that_was_noted(log: Session) -> None:
    noted = auditing.verify_chain(log).head
    with db.writing(log):
        log.execute(delete(AuditEntry))
        log.execute(update(AuditHead).values(seq=0, sha256=auditing.FIRST_SHA256))
    for number in range(ENTRIES + 1):
        auditing.record(log, "node_configured", subject=f"node n-{number}", now=NOON)

    assert auditing.verify_chain(log).fault is None  # nobody could tell
    fault = auditing.verify_chain(log, expected=noted).fault
    assert fault is not None
    assert "written anew" in fault


def test_log_that_is_shorter_than_a_noted_head_says_so(log: Session) -> None:
    fault = auditing.verify_chain(log, expected=Head(ENTRIES + 2, "0" * 64)).fault
    assert fault is not None
    assert "which was noted, is missing" in fault


def test_entries_of_two_writers_follow_one_another(sessions: sessionmaker[Session]) -> None:
    with sessions() as one, sessions() as other:
        for number in range(4):
            auditing.record(one, "a_done", subject=f"node n-{number}", now=NOON)
            auditing.record(other, "b_done", subject=f"node n-{number}", now=NOON)
        assert auditing.verify_chain(one) == auditing.verify_chain(other)
        assert auditing.verify_chain(one).entries == 8


_DETAILS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(detail=_DETAILS)
def test_whatever_is_told_keeps_its_bytes(session: Session, detail: auditing.Detail) -> None:
    auditing.record(session, "told", subject="node n-1", now=NOON, detail=detail)
    session.expunge_all()
    assert auditing.verify_chain(session).fault is None


def test_filters_find_what_they_name(log: Session) -> None:
    found = auditing.newest_entries(log, limit=9, subject="node n-2")
    assert [entry.details for entry in found] == [{"version": 2}]
    older = auditing.newest_entries(log, limit=2, before_seq=3)
    assert [entry.seq for entry in older] == [2, 1]
    assert log.scalar(text("SELECT count(*) FROM audit_entry")) == ENTRIES


def test_reader_of_the_trees_reads_what_was_done_to_trees_only(session: Session) -> None:
    """What may be about both is for who has to do with all."""
    for node_id, model in (("n-000001", "tree-3"), ("n-000002", "pond-1")):
        register_node(session, node_id, model=model)
    for code, kind in (("linde", "tree"), ("teich", "water")):
        deploying.create_site(
            session, NewSite(code, code, kind, 51.5, 7.2), is_public=False, now=NOON
        )
    accounts.create_user(session, "berta", None, now=NOON)
    for name, scope in (("anna", Scope.TREES), ("nix", Scope.WATERS)):
        user = accounts.create_user(
            session, name, None, now=NOON, roles=[Role.AUDITOR], scope=scope
        )
        keys.make_key(
            session, user.id, roles=[Role.AUDITOR], scope=scope, lifetime=DAY, note="x", now=NOON
        )
    for subject in ("node n-000001", "node n-000002", "node n-", "change 3", "group teich"):
        auditing.record(session, "looked_at", subject=subject, now=NOON)

    every = {entry.subject for entry in auditing.newest_entries(session, limit=99)}
    rights.act_as(session, rights.Actor("anna", frozenset(), Scope.TREES))
    read = {entry.subject for entry in auditing.newest_entries(session, limit=99)}
    paged = {entry.subject for entry in audit_list.entry_page(session, limit=99).items}
    assert read == paged == {"node n-000001", "site linde", "account anna", "key 1 of anna"}
    assert {"node n-000002", "site teich", "account nix", "key 2 of nix", "change 3"} <= every
    assert not auditing.newest_entries(session, limit=9, subject="site teich")
    assert auditing.verify_chain(session).fault is None  # which is followed as a whole
