"""A registry of many nodes, written as rows: a fleet as it looks after a year, without the year.

Most were heard within their schedule; some are late, silent, or were never heard. A few also have real packs of three days, stored
by the real ingest, so that their pages have something to show.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.bench.load import payloads
from fleet_server.models import (
    Base,
    Configuration,
    Deployment,
    Gap,
    Node,
    NodeStatus,
    Outbox,
    Receipt,
    Release,
    Site,
)
from fleet_server.models.gap import BELOW_OLDEST, DECLARED_LOST
from fleet_server.services import deploying, ingest, node_settings
from fleet_server.wire.app_image import dotted
from fleet_server.wire.configuration import sha256_hex
from fleet_server.wire.manifest import (
    BundleFile,
    Image,
    Manifest,
    bundle_sha256,
    encode_manifest,
    target_path,
)
from fleet_server.wire.states import NodeState
from fleet_server.wire.topics import TopicKind
from hardware import catalogue

MODELS = ("tree-3", "pond-1", "soil-1", "tree-2")
VERSIONS = ("1.2.0", "1.3.1", "1.4.0", "1.4.1")
FULL_MODEL = "tree-3"
_ROWS_AT_ONCE = 5000
_SPOOL, _POWER_UP = 7, 7
_DAYS_OF_PACKS = 3
_PACKS_A_DAY = 96
_YEAR_OF_PACKS = 35_040

Row = dict[str, Any]


def node_id_of(number: int) -> str:
    return f"n-{number:06x}"


def release_of(
    version: str,
    counter: int,
    files: Sequence[BundleFile],
    *,
    model: str,
    now: datetime,
    allow_downgrade: bool = False,
    image: Image | None = None,
) -> Release:
    """A release as publishing it would leave it, but for its signatures; not yet in a session."""
    manifest = Manifest(
        version=version,
        counter=counter,
        models=(model,),
        mpy=6,
        micropython=(1, 29, 0),
        built_utc_s=int(now.timestamp()),
        allow_downgrade=allow_downgrade,
        notes="",
        files=tuple(files),
        image=image,
    )
    return Release(
        model=model,
        version=version,
        counter=counter,
        target_path=target_path(model, version),
        manifest=encode_manifest(manifest),
        manifest_sha256="0" * 64,
        bundle_sha256=bundle_sha256(files),
        size_bytes=sum(file.size_bytes for file in files),
        image_sha256=None if image is None else image.sha256.hex(),
        image_bytes=None if image is None else image.size_bytes,
        image_micropython=None if image is None else dotted(image.micropython),
        notes="",
        sbom={},
        sbom_sha256="0" * 64,
        support_until=now + timedelta(days=1000),
        uploaded_at=now,
        uploaded_by="anna",
    )


def fill(
    sessions: sessionmaker[Session],
    *,
    nodes: int,
    full: int,
    now: datetime,
    models: Sequence[str] = MODELS,
) -> list[str]:
    """Write `nodes` nodes of these models in turn, with their sites; the ids of the `full` ones that have packs. Committed on return."""
    # Spread over the list; every fourth is of their model.
    numbers = [number * len(MODELS) for number in range(nodes // len(MODELS))]
    chosen = [node_id_of(numbers[place * len(numbers) // full]) for place in range(full)]
    with db.writing(sessions) as session:
        for first in range(0, nodes, _ROWS_AT_ONCE):
            some = range(first, min(nodes, first + _ROWS_AT_ONCE))
            _insert(session, some, now, models, undeployed=frozenset(chosen))
    with sessions() as session:
        for node_id in chosen:
            _give_packs(session, node_id, now)
    return chosen


def _insert(
    session: Session,
    numbers: range,
    now: datetime,
    models: Sequence[str],
    *,
    undeployed: frozenset[str],
) -> None:
    drawn = random.Random(numbers.start)  # noqa: S311 - the same fleet in every run
    tables: dict[type[Base], list[Row]] = {
        model: []
        for model in (Site, Node, NodeStatus, Receipt, Configuration, Outbox, Gap, Deployment)
    }
    for number in numbers:
        for model, row in _rows(number, models[number % len(models)], drawn, now):
            tables[model].append(row)
        if node_id_of(number) in undeployed:  # its packs are to come
            tables[Receipt][-1] |= {"seq": 0, "highest_seq": 0}
        elif number % 50 == 49:
            tables[Node][-1]["state"] = NodeState.RETIRED
        else:
            tables[Node][-1]["state"] = NodeState.DEPLOYED
            stands = {"node_id": node_id_of(number), "site_id": number + 1, "from_at": _year(now)}
            tables[Deployment].append({**stands, "to_at": None})
    for model, rows in tables.items():
        if rows:
            session.execute(insert(model), rows)


def _rows(
    number: int, name: str, drawn: random.Random, now: datetime
) -> Iterator[tuple[type[Base], Row]]:
    node_id = node_id_of(number)
    kind = catalogue.load_node_model(name).site_kind
    year_ago = _year(now)
    yield (
        Site,
        {
            "id": number + 1,
            "code": f"{kind}-{number:06d}",
            "name": f"{'Linde' if kind == 'tree' else 'Teich'} {number}",
            "kind": kind,
            "latitude": 51.4 + drawn.random() / 5,
            "longitude": 7.1 + drawn.random() / 5,
            "description": "",
            "is_public": True,
            "created_at": year_ago,
        },
    )
    yield (
        Node,
        {
            "node_id": node_id,
            "label": f"{kind}-{number:06d}",
            "model": name,
            "state": NodeState.ENROLLED,
            "enrolled_at": year_ago,
            "public_key_sha256": f"{number:064x}",
            "certificate_serial": f"{number:x}",
        },
    )
    yield NodeStatus, _status(node_id, name, drawn, now)
    yield (
        Receipt,
        {
            "node_id": node_id,
            "spool": _SPOOL,
            "seq": _YEAR_OF_PACKS,
            "highest_seq": _YEAR_OF_PACKS,
            "channels_version": 0,
            "moved_at": now,
        },
    )
    yield Configuration, _configuration(node_id, name, year_ago)
    for due in ("receipt", "desired"):
        yield Outbox, _outbox(due, node_id, now)
    if number % 10 == 0:
        yield Gap, _gap(node_id, now)


def _status(node_id: str, model: str, drawn: random.Random, now: datetime) -> Row:
    silent_s = drawn.choices((600, 2700, 7000, 86_400 * 3), (45, 45, 5, 5))[0]
    is_heard = drawn.random() > 0.01
    battery_mv = round(drawn.gauss(3850, 150))
    return {
        "node_id": node_id,
        "model": model,
        "last_heard_at": now - timedelta(seconds=silent_s) if is_heard else None,
        "last_state_at": now - timedelta(seconds=silent_s) if is_heard else None,
        "version": drawn.choice(VERSIONS) if is_heard else None,
        "battery_mv": battery_mv if is_heard else None,
        "spool_depth": drawn.randrange(8) if is_heard else None,
        "power_up": _POWER_UP if is_heard else None,
        "last_error": "sensor r30: timeout" if is_heard and drawn.random() < 0.02 else None,
    }


def _configuration(node_id: str, model: str, at: datetime) -> Row:
    settings: Mapping[str, Any] = node_settings.provisioned_settings(model)
    return {
        "node_id": node_id,
        "version": 1,
        "settings": dict(settings),
        "sha256": sha256_hex(1, settings),
        "changed_at": at,
    }


def _outbox(kind: str, node_id: str, now: datetime) -> Row:
    return {
        "kind": kind,
        "key": node_id,
        "version": 1,
        "published_version": 1,
        "changed_at": now,
    }


def _gap(node_id: str, now: datetime) -> Row:
    return {
        "node_id": node_id,
        "spool": _SPOOL,
        "from_seq": 100,
        "to_seq": 140,
        "state": DECLARED_LOST,
        "reason": BELOW_OLDEST,
        "noticed_at": now,
    }


def _give_packs(session: Session, node_id: str, now: datetime) -> None:
    """Deployed at the site of the same number, with the packs of three days."""
    begin = now - timedelta(days=_DAYS_OF_PACKS)
    number = int(node_id.removeprefix("n-"), 16)
    deploying.deploy_node(
        session, node_id, site_code=f"tree-{number:06d}", from_at=begin, now=begin
    )
    messages = [
        ingest.Message(TopicKind.TELEMETRY, node_id, payload)
        for payload in payloads(
            node_id,
            _DAYS_OF_PACKS * _PACKS_A_DAY,
            spool=_SPOOL,
            first_utc_s=int(begin.timestamp()),
        )
    ]
    ingest.store_batch(session, messages, now=now)


def _year(now: datetime) -> datetime:
    return now - timedelta(days=365)
