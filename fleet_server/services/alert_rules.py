"""When an alert begins and ends, how soon somebody should look, and after what time it is told again: defaults, and what operators changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused
from fleet_server.models import AlertKind, AlertRule, Scope, Severity
from fleet_server.services import auditing, keyset, rights

_HOUR_S, _DAY_S = 3600, 86_400
_LONGEST_S = 366 * _DAY_S
_LIMIT = 1_000_000


class RuleWrong(Invalid):
    """A rule cannot be like this."""

    code = "alert_rule_wrong"


@dataclass(frozen=True)
class Rule:
    """`thresholds` are whole numbers with their unit in the name; those that begin with `clear_` end what the other began.

    An alert is over when its condition was not there for `clear_after_s`. `escalate_after_s`: nobody has acknowledged it by then; None:
    never. Times are seconds.
    """

    severity: Severity
    thresholds: Mapping[str, int] = field(default_factory=dict)
    clear_after_s: int = 0
    escalate_after_s: int | None = None
    is_active: bool = True


DEFAULTS: Mapping[AlertKind, Rule] = MappingProxyType(
    {
        # Nodes wake at their own times: when several that were due in a row did not come, it is not they.
        AlertKind.FLEET_SILENT: Rule(
            Severity.URGENT,
            {"due_nodes": 5, "silent_s": 900, "recovery_s": 2 * _HOUR_S},
            clear_after_s=300,
            escalate_after_s=_HOUR_S,
        ),
        AlertKind.PLACE_SILENT: Rule(
            Severity.WARNING,
            {"nodes": 3, "share_pct": 60, "recovery_s": 2 * _HOUR_S},
            clear_after_s=600,
            escalate_after_s=_DAY_S,
        ),
        # When a node is late or offline follows from its own schedule (services.health).
        AlertKind.OFFLINE: Rule(Severity.WARNING, escalate_after_s=3 * _DAY_S),
        AlertKind.LATE: Rule(Severity.NOTICE),
        AlertKind.BATTERY: Rule(
            Severity.WARNING,
            {"days": 30, "clear_days": 45},
            clear_after_s=_DAY_S,
            escalate_after_s=7 * _DAY_S,
        ),
        # Half a percent is eighteen seconds in an hour: more than a crystal or a good RC oscillator does.
        AlertKind.CLOCK_DRIFT: Rule(
            Severity.NOTICE, {"ppm": 5000, "clear_ppm": 4000}, clear_after_s=_HOUR_S
        ),
        AlertKind.SPOOL_GROWING: Rule(
            Severity.WARNING,
            {"packs": 200, "clear_packs": 100},
            clear_after_s=_HOUR_S,
            escalate_after_s=3 * _DAY_S,
        ),
        AlertKind.REBOOT_LOOP: Rule(
            Severity.WARNING,
            {"restarts": 5, "clear_restarts": 2},
            clear_after_s=6 * _HOUR_S,
            escalate_after_s=3 * _DAY_S,
        ),
        # Certificates are renewed by themselves at two thirds of two years: what is left at sixty days was not.
        AlertKind.CERTIFICATE: Rule(
            Severity.WARNING, {"days": 60, "clear_days": 61}, escalate_after_s=14 * _DAY_S
        ),
        AlertKind.SENSOR: Rule(
            Severity.WARNING, {"readings": 4}, clear_after_s=_HOUR_S, escalate_after_s=7 * _DAY_S
        ),
        # A job may fail once (a database that is away for a minute); a nightly backup may be late by a day.
        AlertKind.JOB: Rule(
            Severity.WARNING,
            {"failing_s": 900, "overdue_s": 900, "backup_s": 2 * _DAY_S},
            escalate_after_s=_DAY_S,
        ),
        AlertKind.RADIO: Rule(
            Severity.NOTICE,
            {"drop_db": 8, "clear_drop_db": 5, "below_dbm": -80},
            clear_after_s=_DAY_S,
        ),
    }
)


def rules(session: Session) -> dict[AlertKind, Rule]:
    """All rules as they hold. One statement."""
    held = dict(DEFAULTS)
    for row in session.scalars(select(AlertRule)):
        kind = AlertKind(row.kind)
        held[kind] = Rule(
            Severity(row.severity),
            # A threshold that a later version knows has its default until somebody says otherwise.
            {**DEFAULTS[kind].thresholds, **row.thresholds},
            row.clear_after_s,
            row.escalate_after_s,
            row.is_active,
        )
    return held


@dataclass(frozen=True)
class NamedRule(Rule):
    """A rule with its kind's name."""

    kind: str = ""

    def changed(self, given: Mapping[str, Any]) -> Rule:
        """This rule with what is given in the place of what was."""
        held = {name: getattr(self, name) for name in Rule.__dataclass_fields__}
        return Rule(**{**held, **given})


def rule_of(session: Session, kind: str) -> NamedRule:
    """Raises NotFound when there is no such kind."""
    if kind not in tuple(AlertKind):
        raise NotFound("There is no rule %(name)s.", name=kind)
    return _named(AlertKind(kind), rules(session)[AlertKind(kind)])


def rule_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[NamedRule]:
    """By kind, in pages. One statement."""
    keyset.check_key(after, (str,))
    held = rules(session)
    names = sorted(str(kind) for kind in held if after is None or str(kind) > str(after[0]))
    shown = [_named(AlertKind(name), held[AlertKind(name)]) for name in names[:limit]]
    return keyset.Page(shown, (shown[-1].kind,) if len(names) > limit else None)


def _named(kind: AlertKind, rule: Rule) -> NamedRule:
    return NamedRule(
        rule.severity,
        rule.thresholds,
        rule.clear_after_s,
        rule.escalate_after_s,
        rule.is_active,
        kind=str(kind),
    )


def change_rule(session: Session, kind: AlertKind, rule: Rule, *, now: datetime) -> None:
    """Let another rule hold from the next look on. Committed on return; the same rule again changes nothing.

    Raises:
        RuleWrong: a threshold that this kind has not, or a number that makes no sense.
        Refused: the actor has not to do with all sites; rules hold for all.
    """
    _check(kind, rule)
    if rights.actor_of(session).scope is not Scope.ALL:
        raise Refused("Rules hold for all sites; only who has to do with all of them changes one.")
    with db.writing(session):
        before = rules(session)[kind]
        whole = replace(rule, thresholds={**before.thresholds, **rule.thresholds})
        if before == whole:
            return
        session.merge(
            AlertRule(
                kind=kind,
                is_active=rule.is_active,
                severity=rule.severity,
                thresholds=dict(whole.thresholds),
                clear_after_s=rule.clear_after_s,
                escalate_after_s=rule.escalate_after_s,
                changed_at=now,
            )
        )
        auditing.record(
            session,
            "alert_rule_changed",
            subject=f"alert rule {kind}",
            now=now,
            before=_told(before),
            after=_told(whole),
        )


def _check(kind: AlertKind, rule: Rule) -> None:
    known = DEFAULTS[kind].thresholds
    for name, number in rule.thresholds.items():
        if name not in known:
            has = ", ".join(known) or "none"
            raise RuleWrong(
                "The rule %(kind)s has no threshold %(name)s; it has %(has)s.",
                kind=kind,
                name=name,
                has=has,
            )
        if not -_LIMIT <= number <= _LIMIT or (number < 0 and not name.endswith("_dbm")):
            raise RuleWrong(
                "%(name)s of the rule %(kind)s must be from 0 to %(highest)s, not %(number)s.",
                name=name,
                kind=kind,
                highest=_LIMIT,
                number=number,
            )
    for name, seconds in (
        ("clear_after_s", rule.clear_after_s),
        ("escalate_after_s", rule.escalate_after_s),
    ):
        if seconds is not None and not 0 <= seconds <= _LONGEST_S:
            raise RuleWrong(
                "%(name)s must be from 0 to %(highest_s)s seconds (a year).",
                name=name,
                highest_s=_LONGEST_S,
            )


def _told(rule: Rule) -> dict[str, auditing.Detail]:
    return {
        "is_active": rule.is_active,
        "severity": str(rule.severity),
        "thresholds": dict(rule.thresholds),
        "clear_after_s": rule.clear_after_s,
        "escalate_after_s": rule.escalate_after_s,
    }
