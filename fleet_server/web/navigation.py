"""Where the pages hang: the links in every page's head, in groups. A page belongs to the link whose address its own begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import request, url_for
from flask_babel import LazyString, lazy_gettext

from fleet_server.http_shared.access import current_actor
from fleet_server.services.rights import Actor, Right
from fleet_server.web.blueprint import web


@dataclass(frozen=True)
class Link:
    """`is_in_bar`: it stands in the line beside the city's name where there is room, else in the menu; `is_short`: on a phone, too.

    `site_kind`: only for who has to do with such sites.
    """

    endpoint: str
    word: LazyString
    right: Right | None = Right.SEE_FLEET
    is_in_bar: bool = False
    is_short: bool = False
    site_kind: str | None = None

    def is_for(self, actor: Actor) -> bool:
        is_theirs = self.site_kind is None or self.site_kind in actor.site_kinds
        return is_theirs and (self.right is None or self.right in actor.rights)


@dataclass(frozen=True)
class Group:
    """Links of the menu below one heading."""

    word: LazyString
    links: Sequence[Link]

    @property
    def is_in_bar(self) -> bool:
        """Whether nothing of it is left for the menu where the bar has room."""
        return all(link.is_in_bar for link in self.links)


OVERVIEW = Link("web.public_sites", lazy_gettext("Overview"), None, is_in_bar=True)
ACCOUNT = Link("web.account", lazy_gettext("Your account"), None)
"""It stands beside the way out."""
GROUPS = (
    Group(
        lazy_gettext("Every day"),
        (
            OVERVIEW,
            Link("web.nodes", lazy_gettext("Nodes"), is_in_bar=True, is_short=True),
            Link("web.alerts", lazy_gettext("Alerts"), is_in_bar=True, is_short=True),
            Link("web.sites", lazy_gettext("Sites"), is_in_bar=True),
            Link("web.work", lazy_gettext("Work"), is_in_bar=True),
            Link("web.field", lazy_gettext("In the field"), is_in_bar=True, is_short=True),
        ),
    ),
    Group(
        lazy_gettext("Decisions"),
        (
            Link("web.city_trees", lazy_gettext("Trees"), site_kind="tree"),
            Link("web.city_waters", lazy_gettext("Waters"), site_kind="water"),
        ),
    ),
    Group(
        lazy_gettext("Many nodes"),
        (
            Link("web.configuration", lazy_gettext("Configuration"), is_in_bar=True),
            Link("web.groups", lazy_gettext("Groups")),
            Link("web.drift", lazy_gettext("Drift")),
            Link("web.commands", lazy_gettext("Commands")),
            Link("web.releases", lazy_gettext("Releases")),
            Link("web.campaigns", lazy_gettext("Updates")),
        ),
    ),
    Group(
        lazy_gettext("Measurement"),
        (
            Link("web.calibrations", lazy_gettext("Calibrations")),
            Link("web.measurements", lazy_gettext("Others' measurements")),
            Link("web.revisions", lazy_gettext("Revisions")),
            Link("web.limits", lazy_gettext("Limits")),
        ),
    ),
    Group(
        lazy_gettext("Who may"),
        (
            Link("web.people", lazy_gettext("People"), Right.MANAGE_PEOPLE),
            Link("web.credentials", lazy_gettext("Credentials")),
            Link("web.tokens", lazy_gettext("Enrolment tokens"), Right.ADMIT_NODES),
        ),
    ),
    Group(
        lazy_gettext("Looking into it"),
        (
            Link("web.quarantine", lazy_gettext("Quarantine")),
            Link("web.audit", lazy_gettext("Audit"), Right.READ_AUDIT),
            Link("web.api_docs", lazy_gettext("Management API"), None),
        ),
    ),
)
"""In the order in which they stand."""


@web.app_template_global()
def navigation() -> list[Group]:
    """The groups with the links that whoever asks may follow; without a login, the overview alone."""
    actor = current_actor()
    if actor is None:
        return [Group(OVERVIEW.word, [OVERVIEW])]
    allowed = [
        Group(
            group.word,
            [link for link in group.links if link.is_for(actor)],
        )
        for group in GROUPS
    ]
    return [group for group in allowed if group.links]


@web.app_template_global()
def place_of_page() -> str | None:
    """The endpoint of the link that the page belongs to: of all that it lies below, the nearest."""
    here = request.script_root + request.path
    addresses = {url_for(link.endpoint): link.endpoint for link in _all_links()}
    above = [address for address in addresses if _lies_at_or_below(here, address)]
    return addresses[max(above, key=len)] if above else None


def _all_links() -> list[Link]:
    return [link for group in GROUPS for link in group.links] + [ACCOUNT]


def _lies_at_or_below(here: str, address: str) -> bool:
    if address == url_for(OVERVIEW.endpoint):
        return here == address  # everything lies below it
    return f"{here.rstrip('/')}/".startswith(f"{address.rstrip('/')}/")
