"""One node with its channels, charts and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flask import (
    Response,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from flask_babel import gettext, lazy_gettext
from werkzeug.wrappers import Response as Redirection

from fleet_server import clock
from fleet_server.errors import Invalid, NotFound
from fleet_server.http_shared.access import needs, open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.languages import TIME_ZONE
from fleet_server.services import (
    commanding,
    configuring,
    credentials,
    naming,
    overviews,
    site_view,
    working,
)
from fleet_server.services.enrolment import LABEL_MAX_LENGTH
from fleet_server.services.rights import Right
from fleet_server.services.working import WorkFilter
from fleet_server.web import assets, words
from fleet_server.web.blueprint import web

RANGES = {
    "24h": (timedelta(hours=24), lazy_gettext("24 hours")),
    "3d": (timedelta(days=3), lazy_gettext("3 days")),
    "7d": (timedelta(days=7), lazy_gettext("7 days")),
    "30d": (timedelta(days=30), lazy_gettext("30 days")),
    "1y": (timedelta(days=366), lazy_gettext("1 year")),
}
_DEFAULT_RANGE = "3d"
_ROWS_PER_TABLE = 96  # one day at the usual 15 minutes
_EVENTS = 20
_ORDERS = 20
# The event that field mode began; it lasts ten minutes (firmware/node/field_mode.py), and the last sending takes a moment.
_FIELD_MODE, _FIELD_MODE_LASTS = "field_mode", timedelta(minutes=11)
_LOOKS_AGAIN_S = 15
_LONGEST = timedelta(days=367)
_ONE_YEAR_S = 31_622_400


@dataclass(frozen=True)
class Range:
    """begin ≤ t < end; `older` and `newer` are the `until` of the neighbouring pages."""

    key: str
    begin: datetime
    end: datetime
    older: int
    newer: int | None

    @property
    def since(self) -> int:
        return int(self.begin.timestamp())

    @property
    def until(self) -> int:
        return int(self.end.timestamp())


@web.get("/fleet/nodes", strict_slashes=False)
@needs(Right.SEE_FLEET)
def nodes_by_another_name() -> Redirection:
    """What is left when somebody takes a node's id off the address of its page."""
    return redirect(url_for("web.nodes"))


@web.get("/fleet/nodes/<node_id:node_id>")
@needs(Right.SEE_FLEET)
def node(node_id: str) -> str:
    """One node: its state, and each channel as chart and table over a chosen time."""
    session = current_session()
    now = clock.now()
    found = overviews.node_overview(session, node_id, now=now)
    newest = overviews.newest_sample_at(session, node_id)
    chosen = _chosen_range(newest, now)
    readings = overviews.node_readings(
        session, node_id, begin=chosen.begin, end=chosen.end, rows_per_channel=_ROWS_PER_TABLE
    )
    events = overviews.node_events(session, node_id, newest=_EVENTS)
    return render_template(
        "node.html",
        node=found,
        heard_s_ago=_heard_in_field_mode(events, found.last_heard_at, now),
        looks_again_s=_LOOKS_AGAIN_S,
        longest_label=LABEL_MAX_LENGTH,
        configuration=configuring.configuration_of(session, node_id),
        probes=site_view.probes_of(session, node_id),
        orders=working.work_lines(session, WorkFilter(node_id=node_id), limit=_ORDERS),
        now=now,
        commands=commanding.commands_of(session, node_id, now=now),
        credentials=credentials.credentials_of(session, node_id, now=datetime.now(UTC)),
        chosen=chosen,
        ranges=[{"key": key, "word": word} for key, (_, word) in RANGES.items()],
        channels=readings.channels,
        lineages=readings.lineages,
        events=events,
        has_charts=assets.has_assets(assets.vendor_folder()),
        sensorthings="/v1.1",
    )


@web.post("/fleet/nodes/<node_id:node_id>/label")
@needs(Right.OPERATE_NODES)
def label_node(node_id: str) -> Redirection:
    """Call the node by another label, and back to its page."""
    label = request.form.get("label", "").strip()
    naming.label_node(current_session(), node_id, label, now=clock.now())
    flash(gettext("It is called %(label)s now.", label=label))
    return redirect(url_for("web.node", node_id=node_id), code=303)


def _heard_in_field_mode(
    events: Sequence[overviews.EventOverview], last_heard_at: datetime | None, now: datetime
) -> int | None:
    """Seconds since the node was last heard, while somebody who mounts it may be waiting for that; None otherwise."""
    begun = [event.happened_at for event in events if event.name == _FIELD_MODE]
    if last_heard_at is None or not any(at and now - at < _FIELD_MODE_LASTS for at in begun):
        return None
    return max(0, int((now - last_heard_at).total_seconds()))


def _chosen_range(newest: datetime | None, now: datetime) -> Range:
    key = request.args.get("range", _DEFAULT_RANGE)
    if key not in RANGES:
        raise Invalid("%(name)s wants one of %(allowed)s.", name="range", allowed=", ".join(RANGES))
    length = RANGES[key][0]
    # A node that fell silent long ago shows its last days, not an empty chart.
    latest_end = now + timedelta(seconds=1)
    if newest is not None and not now - length < newest < latest_end:
        latest_end = newest + timedelta(seconds=1)
    end = min(_time("until") or latest_end, latest_end)
    newer = min(end + length, latest_end)
    return Range(
        key=key,
        begin=end - length,
        end=end,
        older=int((end - length).timestamp()),
        newer=int(newer.timestamp()) if newer > end else None,
    )


def _time(name: str) -> datetime | None:
    text = request.args.get(name, "")
    if not text:
        return None
    if not (text.isdecimal() and text.isascii() and _ONE_YEAR_S * 2 < int(text[:12]) < 2**32):
        raise Invalid("%(name)s wants a time in seconds since 1970.", name=name)
    return datetime.fromtimestamp(int(text), UTC)


@web.get("/fleet/nodes/<node_id:node_id>/series/<row_id:datastream_id>")
@needs(Right.SEE_FLEET)
def series(node_id: str, datastream_id: int) -> Response:
    """The columns of one chart."""
    begin, end = _time("since"), _time("until")
    if begin is None or end is None or not timedelta() < end - begin <= _LONGEST:
        raise Invalid("since and until want a time range of at most one year.")
    found = overviews.series(current_session(), node_id, datastream_id, begin=begin, end=end)
    known_u = sorted(u for u in found.expanded_u if u is not None)
    typical_u = known_u[len(known_u) // 2] if known_u else None
    return jsonify(
        {
            "kind": found.site_kind,
            "unit": words.unit_symbol(found.datastream.unit),
            "timeZone": TIME_ZONE,
            # A stream that is younger than the range begins at the left edge, not behind an empty chart.
            "from": max(int(begin.timestamp()), *found.time_s[:1], 0),
            "to": int(end.timestamp()),
            "decimals": words.decimals_for(typical_u),
            "t": found.time_s,
            "v": found.value,
            "u": found.expanded_u,
            "f": found.flag,
            "words": {
                "time": gettext("Time"),
                "value": gettext("Value"),
                "upper": gettext("Value + U"),
                "lower": gettext("Value − U"),
                "suspect": gettext("suspect"),
                "bad": gettext("bad"),
            },
        }
    )


@web.get("/static/vendor/<name>")
@open_to_all
def vendor(name: str) -> Response:
    """A file of the chart library from this machine's cache."""
    folder = assets.vendor_folder()
    if not assets.has_assets(folder):
        raise NotFound("The chart library is not on this machine yet; see the server's log.")
    return send_from_directory(folder, name, max_age=86_400)
