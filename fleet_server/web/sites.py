"""Sites for those who plan them: the list with its map, one site with its history, making, changing and closing one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.measurement.soil_water import SOIL_CLASSES
from fleet_server.models import Site
from fleet_server.services import (
    city_states,
    city_words,
    noting,
    overviews,
    places,
    site_list,
    site_map,
    site_view,
    working,
)
from fleet_server.services import sites as planning
from fleet_server.services.city_states import DecidedSite
from fleet_server.services.noting import About
from fleet_server.services.overviews import Shown
from fleet_server.services.rights import Right
from fleet_server.services.sites import Box, NewSite, SiteFilter, SiteState
from fleet_server.services.working import WorkFilter
from fleet_server.web import drawn_days, drawn_map, forms
from fleet_server.web.blueprint import web

_PAGE_SIZE = 100
_NOTES = 30
_ORDERS = 50
_SORTING = "code"
_Answer = str | Response | tuple[str, int]
EMPTY_MAP = site_map.SiteMap(0, None)


@dataclass(frozen=True)
class ListAddress:
    """What a list of sites was narrowed to, as it stands in the address."""

    kind: str | None
    state: SiteState | None
    text: str
    box: Box | None

    @property
    def query(self) -> dict[str, Any]:
        """The address's parameters, without a place in the list."""
        given = {
            "kind": self.kind or "",
            "state": self.state or "",
            "text": self.text,
            "box": drawn_map.box_text(self.box) if self.box else "",
        }
        return {name: value for name, value in given.items() if value}

    @property
    def filter(self) -> SiteFilter:
        return SiteFilter(self.kind, self.state, self.text, self.box)


def read_address() -> ListAddress:
    """Raises Invalid for what no list can be narrowed to."""
    kind, state = request.args.get("kind") or None, request.args.get("state") or None
    if kind is not None and kind not in planning.KINDS:
        raise Invalid("kind wants tree or water.")
    if state is not None and state not in tuple(SiteState):
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="state", allowed=", ".join(SiteState)
        )
    box_text = request.args.get("box", "")
    box = drawn_map.box_of(box_text)
    if box_text and box is None:
        raise Invalid("box wants west,south,east,north in degrees.")
    text = request.args.get("text", "").replace("\0", "").strip()
    return ListAddress(kind, SiteState(state) if state else None, text, box)


@web.get("/fleet/sites")
@needs(Right.SEE_FLEET)
def sites() -> str:
    """Sites that are the person's business, narrowed by the address, with their map; in pages by code."""
    session, address = current_session(), read_address()
    after = request.args.get("after")
    page = site_list.site_page(
        session,
        limit=_PAGE_SIZE,
        after=from_cursor(after, sorting=_SORTING) if after else None,
        kind=address.kind,
        text=address.text,
        state=address.state,
        box=address.box,
    )
    found = EMPTY_MAP  # it stands on the first page
    if not after:
        found = site_map.site_map(session, address.filter, shown=Shown.OWN, now=clock.now())
    following = as_cursor(page.next_key, sorting=_SORTING) if page.next_key else None
    return render_template(
        "sites.html",
        sites=overviews.describe_sites(session, page.items),
        drawn=drawn_map.draw_map(found, _addresses(address)),
        address=address,
        states=tuple(SiteState),
        next=url_for("web.sites", **address.query, after=following) if following else None,
        sensorthings="/v1.1",
    )


def _addresses(address: ListAddress) -> drawn_map.Addresses:
    return drawn_map.Addresses(
        of_site=lambda point: url_for("web.site", site_id=point.site_id),
        of_box=lambda box: url_for(
            "web.sites", **{**address.query, "box": drawn_map.box_text(box)}
        ),
    )


@web.get("/fleet/sites/<row_id:site_id>")
@needs(Right.SEE_FLEET)
def site(site_id: int) -> str:
    """One site: what is known of it, its values, nodes and probes, work orders, notes and photos."""
    session = current_session()
    view = site_view.site_view(session, site_id, now=clock.now())
    return render_template(
        "site.html",
        view=view,
        site=view.site,
        utm=places.coordinates_of(
            places.Place(view.site.latitude, view.site.longitude), epsg=places.UTM_32
        ),
        orders=working.work_lines(session, WorkFilter(site_id=site_id), limit=_ORDERS),
        notes=noting.notes_of(session, About(site_id=site_id), newest=_NOTES),
        now=clock.now(),
        decision=DecidedSite(view.site, city_states.state_of(session, site_id)),
        said=city_words.said,
        housekeeping=overviews.HOUSEKEEPING,
        days=[(one, drawn_days.draw_days(one)) for one in view.days],
        sensorthings="/v1.1",
    )


@web.route("/fleet/sites/new", methods=["GET", "POST"])
@needs(Right.PLAN_SITES)
def new_site() -> _Answer:
    """A form for a new site."""
    if request.method == "GET":
        empty = {"kind": "tree", "epsg": str(places.WGS84)}
        return _form(None, empty, "")
    made, fault = forms.tried(_make_site)
    if made is None:
        return _form(None, forms.typed(), fault), 400
    flash(gettext("Made site %(code)s.", code=made.code))
    return redirect(url_for("web.site", site_id=made.id), code=303)


@web.route("/fleet/sites/<row_id:site_id>/edit", methods=["GET", "POST"])
@needs(Right.PLAN_SITES)
def edit_site(site_id: int) -> _Answer:
    """A form for what is known of a site."""
    session = current_session()
    found = planning.site_of(session, site_id)
    if request.method == "GET":
        return _form(found, _as_typed(found), "")

    def change() -> Site:
        values = {**_values(), **_place_values()}
        return planning.change_site(session, site_id, values, now=clock.now())

    changed, fault = forms.tried(change)
    if changed is None:
        return _form(found, forms.typed(), fault), 400
    flash(gettext("Changed site %(code)s.", code=changed.code))
    return redirect(url_for("web.site", site_id=site_id), code=303)


@web.post("/fleet/sites/<row_id:site_id>/close")
@needs(Right.PLAN_SITES)
def close_site(site_id: int) -> Response:
    """Nothing is mounted there any more."""
    planning.close_site(current_session(), site_id, now=clock.now())
    return redirect(url_for("web.site", site_id=site_id), code=303)


@web.post("/fleet/sites/<row_id:site_id>/reopen")
@needs(Right.PLAN_SITES)
def reopen_site(site_id: int) -> Response:
    """It is in use again."""
    planning.reopen_site(current_session(), site_id, now=clock.now())
    return redirect(url_for("web.site", site_id=site_id), code=303)


@web.post("/fleet/sites/<row_id:site_id>/note")
@needs(Right.SEE_FLEET)
def note_on_site(site_id: int) -> Response:
    """Words about a site; photos are taken at its node or a work order."""
    noting.write_note(
        current_session(), About(site_id=site_id), text=forms.text("text"), now=clock.now()
    )
    return redirect(url_for("web.site", site_id=site_id, _anchor="notes"), code=303)


def _make_site() -> Site:
    place, values = _place_values(), _values()
    is_public = bool(values.pop("is_public"))
    new = NewSite(
        code=forms.text("code"),
        kind=forms.text("kind"),
        latitude=place.get("latitude", float("nan")),
        longitude=place.get("longitude", float("nan")),
        **values,  # type: ignore[arg-type] # each by its own reader
    )
    return planning.create_site(current_session(), new, is_public=is_public, now=clock.now())


def _values() -> dict[str, object]:
    return {
        "name": forms.text("name"),
        "description": forms.text("description"),
        "is_public": bool(forms.text("is_public")),
        "species": forms.text("species") or None,
        "tree_number": forms.text("tree_number") or None,
        "planted_year": forms.whole("planted_year", gettext("Planting year")),
        "area_m2": forms.number("area_m2", gettext("Area in m²")),
        "depth_m": forms.number("depth_m", gettext("Depth in m")),
        "lowest_level_m": forms.number("lowest_level_m", gettext("Lowest level in m")),
        "soil_class": forms.text("soil_class") or None,
        "unsealed_m2": forms.number("unsealed_m2", gettext("Unsealed ground in m²")),
        "crown_m2": forms.number("crown_m2", gettext("Ground below the crown in m²")),
        "tree_group": forms.text("tree_group") or None,
        "is_group_reference": bool(forms.text("is_group_reference")),
        "details": forms.lines("details", example="street: Ring 1"),
    }


def _place_values() -> dict[str, float]:
    """The position as typed, in WGS84; nothing when both fields are empty."""
    x, y = (forms.number(name, gettext("Position")) for name in ("x", "y"))
    if x is None and y is None:
        return {}
    if x is None or y is None:
        raise Invalid(gettext("A position has two values."))
    place = places.place_of(x, y, epsg=places.epsg_of(forms.text("epsg")))
    return {"latitude": place.latitude, "longitude": place.longitude}


def _as_typed(site: Site) -> dict[str, str]:
    given = {
        "name": site.name,
        "description": site.description,
        "is_public": "1" if site.is_public else "",
        "species": site.species,
        "tree_number": site.tree_number,
        "planted_year": site.planted_year,
        "area_m2": site.area_m2,
        "depth_m": site.depth_m,
        "lowest_level_m": site.lowest_level_m,
        "soil_class": site.soil_class,
        "unsealed_m2": site.unsealed_m2,
        "crown_m2": site.crown_m2,
        "tree_group": site.tree_group,
        "is_group_reference": "1" if site.is_group_reference else "",
        "details": "\n".join(f"{name}: {text}" for name, text in site.details.items()),
        "epsg": places.WGS84,
    }
    return {name: "" if value is None else str(value) for name, value in given.items()}


def _form(site: Site | None, values: Mapping[str, str], fault: str) -> str:
    return render_template(
        "site_form.html",
        site=site,
        values=values,
        fault=fault,
        systems=places.SYSTEMS,
        soil_classes=tuple(SOIL_CLASSES),
    )
