"""Moments on the command line: typed in UTC to the second, never in the future where something has happened."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from fleet_server.cli.named_nodes import moment_text
from fleet_server.errors import Invalid

EXAMPLE_TIME = "2026-07-01T12:00:00Z"


class UtcTime(click.ParamType[datetime]):
    """A moment as ISO 8601 in UTC, to the second."""

    name = "UTC time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        text = str(value)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time; write it like {EXAMPLE_TIME}.", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{text!r} names no time zone; write UTC, like {EXAMPLE_TIME}.", param, ctx)
        if moment.utcoffset():
            self.fail(f"{text!r} is not in UTC; write it like {EXAMPLE_TIME}.", param, ctx)
        return moment.astimezone(UTC).replace(microsecond=0)


def not_in_future(moment: datetime, *, now: datetime, option: str) -> datetime:
    """Raises Invalid, which names the option."""
    if moment > now:
        raise Invalid(
            f"{option} {moment_text(moment)} lies in the future; it is {moment_text(now)} now."
        )
    return moment
