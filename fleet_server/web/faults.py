"""Why something was refused, in the reader's language: services say it in English with its parts apart (`fleet_server.errors.Said`)."""

from __future__ import annotations

from datetime import datetime

from flask_babel import gettext

from fleet_server.errors import FleetError, Said
from fleet_server.models import CalibrationStatus, CampaignState, Role, WorkState
from fleet_server.services.flag_reasons import Quantity
from fleet_server.web import words
from fleet_server.web.calibration_states import STATUS_WORDS
from fleet_server.web.campaign_states import CAMPAIGN_WORDS
from fleet_server.web.node_states import state_word
from fleet_server.web.site_words import role_word, work_state_word
from fleet_server.wire.states import NodeState


def in_words(fault: FleetError | str | None) -> str:
    """The sentence as the page says it. Text that no service said (from a form, from a node) stays as it is."""
    if isinstance(fault, FleetError):
        fault = fault.said
    if not isinstance(fault, Said):
        return fault or ""
    if not fault.template:  # gettext's answer to nothing is the catalogue's head
        return ""
    return str(
        gettext(fault.template, **{name: _named(name, part) for name, part in fault.parts.items()})
    )


def _named(name: str, part: object) -> object:
    """A property or a unit that a sentence names is called as on the pages."""
    if isinstance(part, str) and name == "property":
        return str(words.PROPERTY_WORDS.get(part, part))
    if isinstance(part, str) and name in ("unit", "ours"):
        return words.unit_symbol(part) or part
    return _part(part)


def _part(part: object) -> object:
    """A part of a sentence; numbers stay numbers, for templates that format them."""
    if isinstance(part, Said):
        return in_words(part)
    if isinstance(part, NodeState):
        return state_word(part)
    if isinstance(part, WorkState):
        return work_state_word(part)
    if isinstance(part, CampaignState):
        return str(CAMPAIGN_WORDS[part].word)
    if isinstance(part, CalibrationStatus):
        return str(STATUS_WORDS[part].word)
    if isinstance(part, Role):
        return role_word(part)
    if isinstance(part, Quantity):
        return words.quantity_in_words(part)
    if isinstance(part, datetime):
        return words.local_time(part)
    return part
