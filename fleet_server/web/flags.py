"""The flags of one series: what the tests and persons have against its latest values, and a form to say something of them."""

from __future__ import annotations

from flask import redirect, render_template, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import flag_reasons, flagging, rights
from fleet_server.services.flagging import FLAGS, Flagged
from fleet_server.services.rights import Right
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words

_Answer = str | Response | tuple[str, int]
_SHOWN = 10
_TAKEN_BACK = "none"


@web.get("/fleet/flags/<row_id:datastream_id>")
@needs(Right.SEE_FLEET)
def flags(datastream_id: int) -> str:
    """The latest flagged values of a series with their reasons, and all that persons said of it."""
    return _page(datastream_id, {}, "")


@web.post("/fleet/flags/<row_id:datastream_id>")
@needs(Right.STEWARD_DATA)
def give_flag(datastream_id: int) -> _Answer:
    """Say something of a series' values."""
    given, fault = forms.tried(lambda: _give(datastream_id))
    if given is None:
        return _page(datastream_id, forms.typed(), fault), 400
    return redirect(url_for("web.flags", datastream_id=datastream_id), code=303)


def _give(datastream_id: int) -> Flagged:
    session, now = current_session(), clock.now()
    stream = flagging.series_with_id(session, datastream_id)
    word = forms.text("flag")
    if word not in (*FLAGS, _TAKEN_BACK):
        raise Invalid(gettext("Choose what you say of the values."))
    if not forms.text("from"):
        raise Invalid(gettext("Say from when on."))
    return flagging.give_flag(
        session,
        stream.id,
        from_at=forms.moment("from", now=now),
        to_at=forms.moment("to", now=now),
        flag=FLAGS.get(word),
        reason=forms.text("reason"),
        author=rights.actor_of(session).name,
        now=now,
    )


def _page(datastream_id: int, values: object, fault: str) -> str:
    session = current_session()
    stream = flagging.series_with_id(session, datastream_id)
    verdicts = flagging.flagged_values(session, stream, limit=_SHOWN)
    return render_template(
        "flags.html",
        stream=stream,
        site=flagging.site_of(session, stream),
        rows=[
            (
                verdict,
                [in_words(flag_reasons.said(one, stream.property)) for one in verdict.reasons]
                + [in_words(flag_reasons.said_without_numbers(one)) for one in verdict.others],
            )
            for verdict in verdicts
        ],
        persons=flagging.flags_of(session, stream.id),
        values=values,
        fault=fault,
    )
