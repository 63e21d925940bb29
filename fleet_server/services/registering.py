"""Nodes in the list before they exist: what they shall be called and become. Enrolment with that label takes the row that is here."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, FleetError, Invalid, NotFound, Said
from fleet_server.models import Node, Site
from fleet_server.services import auditing, enrolment, rights
from fleet_server.services.sites import KIND_WORDS
from fleet_server.wire.states import NodeState
from hardware import catalogue

ROWS_MAX = 20_000
_COLUMNS = ("label", "model", "site")
_SERIAL = "serial_"


class LabelTaken(Conflict):
    """A node that is not enrolled yet has this label."""

    code = "label_taken"


class ListWrong(Invalid):
    """The file is no list of nodes."""

    code = "list_wrong"


@dataclass(frozen=True)
class NewNode:
    """A node that shall be built; `serials` of its probes by slot, `site_code` where it shall stand."""

    label: str
    model: str
    site_code: str = ""
    serials: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RowReport:
    """What became of one row of a list: the node's id, or one sentence on what is wrong. `row` counts the header as 1."""

    row: int
    label: str
    node_id: str | None
    fault: str | None


@dataclass(frozen=True)
class ListReport:
    """`is_applied` is False when nothing was kept: a preview, or a row was wrong."""

    rows: Sequence[RowReport]
    is_applied: bool

    @property
    def faults(self) -> int:
        return sum(row.fault is not None for row in self.rows)


class _NotKept(Exception):
    """Ends the transaction of a preview."""


def register_node(session: Session, new: NewNode, *, now: datetime) -> Node:
    """Put a node that is not built yet on the list. Committed on return.

    Raises:
        EnrolmentWrong: label or node model cannot be.
        LabelTaken: another registered node has the label.
        NotFound: no such site, or a model that the actor has nothing to do with.
        Invalid: the site is for other models, or a serial number is for a slot that is not there.
    """
    enrolment.check_label_and_model(new.label, new.model)
    with db.writing(session):
        rights.check_site_kind(
            session,
            catalogue.load_node_model(new.model).site_kind,
            what=Said("node model %(model)s", model=new.model),
        )
        if enrolment.registered_node(session, new.label) is not None:
            raise LabelTaken(
                "A node labelled %(label)s is registered already; labels of nodes to be built differ.",
                label=new.label,
            )
        node = Node(
            node_id=enrolment.new_node_id(session),
            label=new.label,
            model=new.model,
            state=NodeState.REGISTERED,
            state_since=now,
            planned_site_id=_planned_site_id(session, new),
            planned_serials=_checked_serials(new) or None,
        )
        session.add(node)
        session.flush()
        enrolment.add_rows_of_a_node(session, node.node_id, new.model, now=now)
        auditing.record(
            session,
            "node_registered",
            subject=f"node {node.node_id}",
            now=now,
            label=new.label,
            model=new.model,
            site=new.site_code,
            serials=dict(new.serials),
        )
    return node


def register_list(
    session: Session, text: str, *, now: datetime, is_preview: bool = False
) -> ListReport:
    """Register the nodes of a CSV file: columns `label`, `model`, and where wanted `site` and `serial_<slot>`.

    All rows or none: when one is wrong nothing is kept, and the report says of each row what is wrong. Safe to repeat after that.

    Raises:
        ListWrong: it is no such file.
    """
    reports: list[RowReport] = []
    try:
        with db.writing(session):
            for number, new in _rows(text):
                try:
                    node_id, fault = register_node(session, new, now=now).node_id, None
                except FleetError as problem:
                    node_id, fault = None, problem.said
                reports.append(RowReport(number, new.label, node_id, fault))
            if is_preview or any(report.fault for report in reports):
                raise _NotKept
    except _NotKept:
        return ListReport(reports, is_applied=False)
    return ListReport(reports, is_applied=True)


def _rows(text: str) -> list[tuple[int, NewNode]]:
    lines = text.removeprefix("\ufeff")
    first = lines.partition("\n")[0]
    separator = max(";,\t", key=first.count)
    reader = csv.DictReader(io.StringIO(lines), delimiter=separator)
    names = [name.strip() for name in reader.fieldnames or ()]
    if not {"label", "model"} <= set(names):
        raise ListWrong("The list's first line names its columns; it must have label and model.")
    strange = [n for n in names if n not in _COLUMNS and not n.startswith(_SERIAL)]
    if strange:
        raise ListWrong(
            "The list has a column %(column)r; there can be label, model, site and serial_<slot>.",
            column=strange[0],
        )
    reader.fieldnames = names
    found: list[tuple[int, NewNode]] = []
    try:
        for row in reader:
            if len(found) == ROWS_MAX:
                raise ListWrong(
                    "The list has more than %(most)s nodes; give it in parts.", most=ROWS_MAX
                )
            found.append((reader.line_num, _new_node(row)))
    except csv.Error as problem:
        raise ListWrong(
            "The list is no CSV from line %(line)s on.", line=reader.line_num
        ) from problem
    if not found:
        raise ListWrong("The list has no node in it.")
    return found


def _new_node(row: Mapping[str | None, str | None]) -> NewNode:
    told = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    serials = {
        name.removeprefix(_SERIAL): value
        for name, value in told.items()
        if name.startswith(_SERIAL) and value
    }
    return NewNode(told["label"], told["model"], told.get("site", ""), serials)


def _planned_site_id(session: Session, new: NewNode) -> int | None:
    if not new.site_code:
        return None
    site = session.scalar(select(Site).where(Site.code == new.site_code))
    if site is None:
        raise NotFound("There is no site %(code)s.", code=new.site_code)
    if catalogue.load_node_model(new.model).site_kind != site.kind:
        raise Invalid(
            "%(model)s is not made for a %(site_kind)s, which %(code)s is.",
            model=new.model,
            site_kind=KIND_WORDS[site.kind],
            code=site.code,
        )
    return site.id


def _checked_serials(new: NewNode) -> dict[str, str]:
    slots = [slot.id for slot in catalogue.load_node_model(new.model).slots]
    for slot in new.serials:
        if slot not in slots:
            raise Invalid(
                "%(model)s has no slot %(slot)s; it has %(known)s.",
                model=new.model,
                slot=slot,
                known=", ".join(slots),
            )
    return dict(new.serials)
