"""When an alert begins and ends, how soon somebody should look, and after what time it is told again: defaults, and what operators changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid
from fleet_server.models import AlertKind, AlertRule, Severity
from fleet_server.services import auditing

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
        # From when on somebody is called is in services.release_repository: a week before.
        AlertKind.SIGNATURE: Rule(Severity.WARNING, escalate_after_s=3 * _DAY_S),
        AlertKind.CAMPAIGN: Rule(Severity.WARNING, escalate_after_s=_DAY_S),
        AlertKind.SENSOR: Rule(
            Severity.WARNING, {"readings": 4}, clear_after_s=_HOUR_S, escalate_after_s=7 * _DAY_S
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


def change_rule(session: Session, kind: AlertKind, rule: Rule, *, now: datetime) -> None:
    """Let another rule hold from the next look on. Committed on return; the same rule again changes nothing.

    Raises:
        RuleWrong: a threshold that this kind has not, or a number that makes no sense.
    """
    _check(kind, rule)
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
            raise RuleWrong(f"The rule {kind} has no threshold {name}; it has {has}.")
        if not -_LIMIT <= number <= _LIMIT or (number < 0 and not name.endswith("_dbm")):
            raise RuleWrong(f"{name} of the rule {kind} must be from 0 to {_LIMIT}, not {number}.")
    for name, seconds in (
        ("clear_after_s", rule.clear_after_s),
        ("escalate_after_s", rule.escalate_after_s),
    ):
        if seconds is not None and not 0 <= seconds <= _LONGEST_S:
            raise RuleWrong(f"{name} must be from 0 to {_LONGEST_S} seconds (a year).")


def _told(rule: Rule) -> dict[str, auditing.Detail]:
    return {
        "is_active": rule.is_active,
        "severity": str(rule.severity),
        "thresholds": dict(rule.thresholds),
        "clear_after_s": rule.clear_after_s,
        "escalate_after_s": rule.escalate_after_s,
    }
