"""The same to many, in one transaction: each is done or says why not, and a rehearsal does all of it and takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import FleetError

MOST_AT_ONCE = 1000
"""They hold the database for a second or two; ingest waits that long."""


class Outcome(StrEnum):
    DONE = "done"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True)
class Result:
    """What became of one; `code` and `sentence` say why it was refused."""

    subject: str
    outcome: Outcome
    code: str | None = None
    sentence: str | None = None


def do_to_each(
    session: Session, subjects: Iterable[str], do: Callable[[str], bool], *, is_rehearsal: bool
) -> list[Result]:
    """Do the same to each, in order; what is refused leaves the others as they are. Committed on return, a rehearsal never.

    Args:
        do: to one of them; True when that changed something. It writes to the database only.
    """
    with db.writing(session):
        all_of_it = session.begin_nested()
        results = [_done(session, subject, do) for subject in subjects]
        if is_rehearsal:
            all_of_it.rollback()
        else:
            all_of_it.commit()
    return results


def _done(session: Session, subject: str, do: Callable[[str], bool]) -> Result:
    try:
        with session.begin_nested():
            has_changed = do(subject)
    except FleetError as problem:
        return Result(subject, Outcome.REFUSED, problem.code, str(problem))
    return Result(subject, Outcome.DONE if has_changed else Outcome.UNCHANGED)
