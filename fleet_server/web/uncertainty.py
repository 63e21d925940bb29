"""What the uncertainty of a value is made of, as a page: the newest of a series, or any one."""

from __future__ import annotations

from flask import render_template

from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import budget_words, budgeting, flagging
from fleet_server.services.budgeting import Part
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words


@web.get("/fleet/uncertainty/<row_id:datastream_id>")
@needs(Right.SEE_FLEET)
def series_uncertainty(datastream_id: int) -> str:
    """Of the newest value of a series."""
    session = current_session()
    stream = flagging.series_with_id(session, datastream_id)
    return _page(budgeting.latest_of_series(session, stream.id))


@web.get("/fleet/observations/<observation_id:observation_id>/uncertainty")
@needs(Right.SEE_FLEET)
def observation_uncertainty(observation_id: int) -> str:
    """Of one value, as it is known now."""
    return _page(observation_id)


def _page(public_id: int) -> str:
    found = budgeting.budget_of(current_session(), public_id)
    conversion = found.version.made_by.lineage.conversion

    def words_of(part: Part) -> dict[str, str]:
        return {
            "what": in_words(budget_words.part_said(part.name)),
            "shape": in_words(budget_words.shape_said(part.shape)),
            "source": in_words(budget_words.source_said(part, conversion)),
            "freedom": budget_words.freedom_said(part.degrees_of_freedom),
        }

    return render_template(
        "budget.html",
        found=found,
        rows=[(part, words_of(part)) for part in found.parts],
        freedom=budget_words.freedom_said(found.degrees_of_freedom),
        standing=in_words(budget_words.standing_said(found)),
        remedies=[in_words(one) for one in budget_words.remedies_said(found)],
    )
