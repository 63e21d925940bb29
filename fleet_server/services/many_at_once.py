"""The same to many, in one transaction: each is done or says why not, and a rehearsal does all of it and takes it back.

Who did not look away in between does what was rehearsed: a rehearsal's results have a tag, and with it the deed is refused when
anything would become of any node that the rehearsal did not say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, FleetError

MOST_AT_ONCE = 1000
"""They hold the database for a second or two; ingest waits that long."""


class RehearsalOutdated(Conflict):
    """Something else would become of them by now."""

    code = "rehearsal_outdated"


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
    session: Session,
    subjects: Iterable[str],
    do: Callable[[str], bool],
    *,
    is_rehearsal: bool,
    wish: object = "",
    rehearsed: Collection[str] | None = None,
) -> list[Result]:
    """Do the same to each, in order; what is refused leaves the others as they are. Committed on return, a rehearsal never.

    Args:
        do: to one of them; True when that changed something. It writes to the database only.
        wish: what `do` does, as JSON can tell it.
        rehearsed: tags of rehearsals (`tag_of`), one of which this must be like; None: it need not.

    Raises:
        RehearsalOutdated: something else would become of them; nothing was done.
    """
    with db.writing(session):
        all_of_it = session.begin_nested()
        results = [_done(session, subject, do) for subject in subjects]
        if rehearsed is not None and tag_of(results, wish) not in rehearsed:
            raise RehearsalOutdated(
                "Something else would become of these by now; nothing was done. Rehearse it again."
            )
        if is_rehearsal:
            all_of_it.rollback()
        else:
            all_of_it.commit()
    return results


def tag_of(results: Sequence[Result], wish: object = "") -> str:
    """Of what was wanted, and what became of whom, and why."""
    became = [[result.subject, result.outcome, result.code] for result in results]
    told = json.dumps([wish, became], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:20]


def _done(session: Session, subject: str, do: Callable[[str], bool]) -> Result:
    try:
        with session.begin_nested():
            has_changed = do(subject)
    except FleetError as problem:
        return Result(subject, Outcome.REFUSED, problem.code, problem.said)
    return Result(subject, Outcome.DONE if has_changed else Outcome.UNCHANGED)
