"""One pack as received: the last step when a value is followed back by hand."""

from __future__ import annotations

from flask import render_template

from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import overviews
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web


@web.get("/fleet/packs/<row_id:pack_id>")
@needs(Right.SEE_FLEET)
def pack(pack_id: int) -> str:
    """Identity, times, raw readings and the bytes themselves."""
    return render_template("pack.html", found=overviews.pack_overview(current_session(), pack_id))
