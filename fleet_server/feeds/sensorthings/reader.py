"""Asks the database for entities: pages by keyset, navigation, expansion. A fixed number of statements per request.

For a path of p segments and e expanded navigations (on all levels): at most p + 1 statements to get there and count, and
per page and per expanded navigation one for the rows, one for nested counts, and those of the rows' companions (at most six).
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    String,
    Subquery,
    and_,
    case,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from fleet_server.errors import Invalid, NotFound
from fleet_server.feeds.sensorthings.entities import (
    SETS,
    AnyRow,
    AnySelect,
    Attribute,
    Companions,
    EntitySet,
    iso,
    kept_count,
    to_many,
    to_one,
)
from fleet_server.feeds.sensorthings.options import Comparison, Options
from fleet_server.feeds.sensorthings.paths import MAX_ID, NAVIGATION, PROPERTIES, ResourcePath
from fleet_server.http_shared.paging import cut_page, with_query
from fleet_server.models import UtcSeconds, observation_key
from fleet_server.services import known_then

MAX_EXPANDED_ROWS = 20_000
"""All expanded rows of one navigation together; each parent gets its even share, and a nextLink for the rest."""

MAX_PARENTS = 200
"""Page size while something is expanded: SQLite joins at most 500 selects into one statement."""

LONGEST_SPAN = timedelta(days=31)
"""What may be ordered by a column without an index, over all Datastreams: some million rows in a city of 1,000 streams."""

TEXT_CHARACTERS = 200
"""Of a text that a page is ordered by: it stands in the nextLink, and an address must stay short."""

Entity = dict[str, Any]


@dataclass(frozen=True)
class OrderTerm:
    """One column that a page is ordered by; nulls never occur (see `_attribute_terms`)."""

    column: Any
    is_descending: bool
    kind: TypeEngine[Any]


@dataclass(frozen=True)
class Parent:
    """The entity that a collection belongs to."""

    entity_set: EntitySet
    row: AnyRow
    companions: Companions


class Reader:
    """One request's reader; `root` is the absolute address of the service."""

    def __init__(self, session: Session, *, root: str, only_public: bool, now: datetime) -> None:
        self._session = session
        self._as_of: datetime | None = None
        self._root = root
        self._only_public = only_public
        self._now = now

    def read(self, path: ResourcePath, options: Options, *, url: str) -> Any:
        """The answer to a request: a collection, an entity, or one property of it.

        Raises:
            NotFound: something on the path does not exist.
            Invalid: an option does not fit this entity set.
        """
        if options.as_of is not None and options.as_of > self._now:
            raise Invalid(f"asOf lies in the future; it is {iso(self._now)} now.")
        self._as_of = options.as_of
        parent, entity_set, condition = self._walk(path)
        _check(entity_set, options, is_collection=path.is_collection)
        if path.is_collection:
            return self._collection(
                entity_set, options, condition=condition, parent=parent, url=url, path=path
            )
        row = self._execute(entity_set.source(self._only_public).where(condition).limit(1)).first()
        if row is None:
            raise NotFound(f"There is no such entity: {url.partition('?')[0]}")
        entity = self._entities(entity_set, [row], options)[0]
        if path.reference_only:
            return {"@iot.selfLink": entity["@iot.selfLink"]}
        if path.property_name is None:
            return entity
        if path.property_name not in entity:
            raise NotFound(f"{entity_set.name} have no property {path.property_name!r}.")
        value = entity[path.property_name]
        return value if path.is_raw_value else {path.property_name: value}

    def _execute(self, query: Any) -> Any:
        return self._session.execute(self._then(query))

    def _scalar(self, query: Any) -> Any:
        return self._session.scalar(self._then(query))

    def _then(self, query: Any) -> Any:
        """Over what was known at the moment that is asked for."""
        return query if self._as_of is None else known_then.as_of(query, self._as_of)

    def _walk(self, path: ResourcePath) -> tuple[Parent | None, EntitySet, ColumnElement[bool]]:
        """Follow the path; the last step's set with the condition that narrows it."""
        parent: Parent | None = None
        condition: ColumnElement[bool] = literal_column("1") == literal_column("1")
        entity_set = SETS[path.steps[0].entity_set]
        for position, step in enumerate(path.steps):
            entity_set = SETS[step.entity_set]
            conditions = []
            if parent is not None:
                conditions.append(self._navigated(parent, step.name, is_many=step.is_many))
            if step.entity_id is not None:
                conditions.append(_or_nothing(entity_set.has_id(step.entity_id)))
            condition = and_(*conditions) if conditions else condition
            if position == len(path.steps) - 1:
                break
            row = self._execute(
                entity_set.source(self._only_public).where(condition).limit(1)
            ).first()
            if row is None:
                raise NotFound(f"There is no such entity on the way: {step.name}.")
            needs_companions = entity_set.name == "Observations"
            companions = entity_set.companions(self._session, [row]) if needs_companions else {}
            parent = Parent(entity_set, row, companions)
        return parent, entity_set, condition

    def _navigated(self, parent: Parent, name: str, *, is_many: bool) -> Any:
        if is_many:
            return to_many(parent.entity_set.name, name, parent.row)
        target = SETS[NAVIGATION[parent.entity_set.name][name][0]]
        entity_id = to_one(parent.entity_set.name, name, parent.row, parent.companions)
        return false() if entity_id is None else _or_nothing(target.has_id(entity_id))

    # --- collections ---

    def _collection(
        self,
        entity_set: EntitySet,
        options: Options,
        *,
        condition: ColumnElement[bool],
        parent: Parent | None,
        url: str,
        path: ResourcePath,
    ) -> Entity:
        _refuse_unbounded(entity_set, options, parent, now=self._now)
        answer: Entity = {}
        if options.count:
            answer["@iot.count"] = self._count(entity_set, options, condition, parent)
        size = min(options.page_size, MAX_PARENTS) if options.expand else options.page_size
        if size == 0:
            return answer | {"value": []}
        query, terms = _ordered(entity_set, self._where(entity_set, options, condition), options)
        if options.skip_token is not None:
            query = query.where(_after(terms, options.skip_token))
        elif options.skip:
            query = query.offset(options.skip)
        page = cut_page(self._execute(query.limit(size + 1)).all(), size=size)
        if page.has_more:
            answer["@iot.nextLink"] = _next_link(url, options, page.items[-1], terms)
        entities = self._entities(entity_set, page.items, options)
        if path.reference_only:
            entities = [{"@iot.selfLink": entity["@iot.selfLink"]} for entity in entities]
        return answer | {"value": entities}

    def _where(
        self, entity_set: EntitySet, options: Options, condition: ColumnElement[bool]
    ) -> AnySelect:
        return entity_set.source(self._only_public).where(
            condition, *(_compared(entity_set, one) for one in options.where)
        )

    def _count(
        self,
        entity_set: EntitySet,
        options: Options,
        condition: ColumnElement[bool],
        parent: Parent | None,
    ) -> int:
        if entity_set.name == "Observations" and not options.where and self._as_of is None:
            name, row = (parent.entity_set.name, parent.row) if parent else (None, None)
            counted = kept_count(name, row, self._only_public)
        else:
            rows = self._where(entity_set, options, condition).subquery()
            counted = select(func.count()).select_from(rows)
        return int(self._scalar(counted) or 0)

    # --- entities ---

    def _entities(
        self, entity_set: EntitySet, rows: Sequence[AnyRow], options: Options
    ) -> list[Entity]:
        """Rows as JSON with links, expanded and selected as asked."""
        if not rows:
            return []
        companions = entity_set.companions(self._session, rows)
        entities = [self._entity(entity_set, row, companions) for row in rows]
        for name, nested in options.expand:
            self._expand(entity_set, name, nested, rows, companions, entities)
        if options.select:
            entities = [_selected(entity_set, entity, options) for entity in entities]
        return entities

    def _entity(self, entity_set: EntitySet, row: AnyRow, companions: Companions) -> Entity:
        entity_id = entity_set.id_of(row)
        self_link = f"{self._root}/{entity_set.name}({entity_id})"
        return {
            "@iot.id": entity_id,
            "@iot.selfLink": self_link,
            **entity_set.represent(row, companions),
            **{
                f"{name}@iot.navigationLink": f"{self_link}/{name}"
                for name in NAVIGATION[entity_set.name]
            },
        }

    def _expand(
        self,
        entity_set: EntitySet,
        name: str,
        nested: Options,
        rows: Sequence[AnyRow],
        companions: Companions,
        entities: list[Entity],
    ) -> None:
        target_name, is_many = NAVIGATION[entity_set.name][name]
        target = SETS[target_name]
        if not is_many:
            ids = [to_one(entity_set.name, name, row, companions) for row in rows]
            found = self._by_id(target, {one for one in ids if one is not None}, nested)
            for entity, entity_id in zip(entities, ids, strict=True):
                entity[name] = found.get(entity_id) if entity_id is not None else None
            return
        if nested.count:
            for entity, count in zip(
                entities, self._counts(entity_set, name, target, nested, rows), strict=True
            ):
                entity[f"{name}@iot.count"] = count
        pages = self._pages(entity_set, name, target, nested, rows, entities)
        for entity, page in zip(entities, pages, strict=True):
            entity[name] = page

    def _by_id(self, target: EntitySet, ids: set[int], nested: Options) -> dict[int, Entity]:
        if not ids:
            return {}
        query = target.source(self._only_public).where(target.has_ids(sorted(ids)))
        rows = self._execute(query).all()
        entities = self._entities(target, rows, nested)
        return {target.id_of(row): one for row, one in zip(rows, entities, strict=True)}

    def _pages(
        self,
        entity_set: EntitySet,
        name: str,
        target: EntitySet,
        nested: Options,
        rows: Sequence[AnyRow],
        entities: list[Entity],
    ) -> list[list[Entity]]:
        """For each parent the first page of its children: all in one statement."""
        size = min(nested.page_size, max(1, MAX_EXPANDED_ROWS // len(rows)))
        if nested.expand:
            size = min(size, max(1, 2 * MAX_PARENTS // len(rows)))
        pages: list[list[Entity]] = [[] for _ in rows]
        if nested.page_size == 0:
            return pages
        selects = []
        terms: list[OrderTerm] = []
        for position, row in enumerate(rows):
            condition = to_many(entity_set.name, name, row)
            query, terms = _ordered(target, self._where(target, nested, condition), nested)
            cut = query.offset(nested.skip).limit(size + 1).subquery()
            selects.append(_numbered(cut, terms, of_parent=position))
        children = sorted(
            self._execute(union_all(*selects)), key=lambda row: (row.of_parent, row.place)
        )
        flat: list[AnyRow] = []
        for position, found in groupby(children, key=lambda row: row.of_parent):
            page = cut_page(list(found), size=size)
            if page.has_more:
                url = f"{entities[position]['@iot.selfLink']}/{name}"
                link = _next_link(url, nested, page.items[-1], terms)
                entities[position][f"{name}@iot.nextLink"] = link
            flat.extend(page.items)
        for child, made in zip(flat, self._entities(target, flat, nested), strict=True):
            pages[child.of_parent].append(made)
        return pages

    def _counts(
        self,
        entity_set: EntitySet,
        name: str,
        target: EntitySet,
        nested: Options,
        rows: Sequence[AnyRow],
    ) -> list[int]:
        """How many children each parent has: all in one statement."""
        selects = []
        for position, row in enumerate(rows):
            if target.name == "Observations" and not nested.where and self._as_of is None:
                counted = kept_count(entity_set.name, row, self._only_public)
            else:
                condition = to_many(entity_set.name, name, row)
                inner = self._where(target, nested, condition).subquery()
                counted = select(func.count()).select_from(inner)
            selects.append(
                select(
                    literal_column(str(position)).label("parent"),
                    counted.scalar_subquery().label("count"),
                )
            )
        counts = {row[0]: int(row[1]) for row in self._execute(union_all(*selects))}
        return [counts[position] for position in range(len(rows))]


# --- ordering and keysets ---


def _ordered(
    entity_set: EntitySet, query: AnySelect, options: Options
) -> tuple[AnySelect, list[OrderTerm]]:
    """`query` ordered as asked and then by key, with the ordering columns as `order_0`, `order_1`, …"""
    terms = _terms(entity_set, options)
    query = query.add_columns(
        *(term.column.label(f"order_{position}") for position, term in enumerate(terms))
    )
    return query.order_by(*(_directed(term.column, term.is_descending) for term in terms)), terms


def _numbered(cut: Subquery, terms: list[OrderTerm], *, of_parent: int) -> AnySelect:
    """A parent's children with their places, because UNION ALL promises no order."""
    order = (
        _directed(cut.c[f"order_{position}"], term.is_descending)
        for position, term in enumerate(terms)
    )
    return select(
        literal_column(str(of_parent)).label("of_parent"),
        func.row_number().over(order_by=[*order]).label("place"),
        cut,
    )


def _directed(column: Any, is_descending: bool) -> ColumnElement[Any]:
    directed: ColumnElement[Any] = column.desc() if is_descending else column.asc()
    return directed


def _terms(entity_set: EntitySet, options: Options) -> list[OrderTerm]:
    """As asked, then by key in the same direction, so that one index serves both; no column twice, nothing behind the whole key."""
    asked: list[OrderTerm] = []
    is_descending = False
    for name, is_descending in options.order:
        attribute = _attribute(entity_set.attributes, entity_set, name, "$orderby")
        asked.extend(_attribute_terms(attribute, is_descending))
    asked += [OrderTerm(one, is_descending, _type_of(one)) for one in entity_set.key]
    terms: list[OrderTerm] = []
    missing = list(entity_set.key)
    for term in asked:
        if missing and not any(term.column is one.column for one in terms):
            terms.append(term)
            missing = [column for column in missing if column is not term.column]
    return terms


def _attribute_terms(attribute: Attribute, is_descending: bool) -> list[OrderTerm]:
    if attribute.kind == "text":
        column = func.substr(attribute.columns[0], 1, TEXT_CHARACTERS, type_=String)
        return [OrderTerm(column, is_descending, String())]
    if not attribute.is_nullable:
        return [OrderTerm(one, is_descending, _type_of(one)) for one in attribute.columns]
    # The databases disagree on where null stands; here it is always last.
    is_null = case((attribute.columns[0].is_(None), literal_column("1")), else_=literal_column("0"))
    return [
        OrderTerm(is_null, False, BigInteger()),
        *(
            OrderTerm(func.coalesce(one, _something(one)), is_descending, _type_of(one))
            for one in attribute.columns
        ),
    ]


def _something(column: Any) -> ColumnElement[Any]:
    """Stands for null among rows that are equal in being null."""
    if isinstance(column.type, UtcSeconds):
        return literal(datetime.fromtimestamp(0, UTC), column.type)
    return literal_column("0.0")


def _type_of(column: Any) -> TypeEngine[Any]:
    is_own = isinstance(column.type, UtcSeconds | Double)
    return column.type if is_own else BigInteger()


def _after(terms: list[OrderTerm], token: str) -> ColumnElement[bool]:
    """Rows behind the one that a nextLink ended with."""
    values = [
        literal(value, term.kind) for value, term in zip(_decoded(token, terms), terms, strict=True)
    ]
    if len({term.is_descending for term in terms}) == 1:
        columns = tuple_(*(term.column for term in terms))
        last = tuple_(*values)
        return columns < last if terms[0].is_descending else columns > last
    same: list[ColumnElement[bool]] = []
    choices = []
    for term, value in zip(terms, values, strict=True):
        is_beyond = term.column < value if term.is_descending else term.column > value
        choices.append(and_(*same, is_beyond))
        same.append(term.column == value)
    # The first bound says nothing new, but an index can begin at it.
    first, begin = terms[0], values[0]
    bound = first.column <= begin if first.is_descending else first.column >= begin
    return and_(bound, or_(*choices))


def _next_link(url: str, options: Options, last: AnyRow, terms: list[OrderTerm]) -> str:
    values = []
    for position in range(len(terms)):
        value = getattr(last, f"order_{position}")
        values.append(int(value.timestamp()) if isinstance(value, datetime) else value)
    text = json.dumps(values, separators=(",", ":")).encode()
    token = base64.urlsafe_b64encode(text).decode().rstrip("=")
    kept = {
        name: value
        for name, value in options.as_given.items()
        if name not in ("$skip", "$skiptoken")
    }
    return with_query(url.partition("?")[0], kept | {"$skiptoken": token})


def _decoded(token: str, terms: list[OrderTerm]) -> list[Any]:
    wrong = Invalid("$skiptoken is not one that a nextLink of this request gave.")
    try:
        values = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, RecursionError) as problem:
        # RecursionError: what json.loads says to some thousand opening brackets.
        raise wrong from problem
    if not isinstance(values, list) or len(values) != len(terms):
        raise wrong
    return [_fitting(value, term.kind, wrong) for value, term in zip(values, terms, strict=True)]


def _fitting(value: Any, kind: TypeEngine[Any], wrong: Invalid) -> Any:
    """A token's value as its column has it; raises `wrong` for what no nextLink can have said."""
    if isinstance(kind, String):
        # Half a character (a lone surrogate) is a text in JSON, but none in a database.
        is_text = isinstance(value, str) and value.encode("utf-8", "replace").decode() == value
        if is_text and "\0" not in value:
            return value
        raise wrong
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:  # NaN is not, either
        raise wrong
    if isinstance(kind, Double):
        return float(value)
    if not isinstance(value, int) or abs(value) > MAX_ID:
        raise wrong
    if not isinstance(kind, UtcSeconds):
        return value
    if not 0 <= value < 2**32:
        raise wrong
    return datetime.fromtimestamp(value, UTC)


# --- filters ---


def _compared(entity_set: EntitySet, asked: Comparison) -> ColumnElement[bool]:
    attribute = _attribute(_filterable(entity_set), entity_set, asked.name, "$filter")
    if attribute.kind == "id":
        return _compared_id(entity_set, asked)
    fits = {
        "time": isinstance(asked.value, datetime),
        "number": isinstance(asked.value, int | float),
        "text": isinstance(asked.value, str) and "\0" not in asked.value,
    }
    if not fits[attribute.kind]:
        raise Invalid(f"$filter compares {asked.name} with a {attribute.kind}.")
    column = attribute.columns[0]
    return _operated(column, asked.operator, literal(asked.value, column.type))


def _compared_id(entity_set: EntitySet, asked: Comparison) -> ColumnElement[bool]:
    if not isinstance(asked.value, int):
        raise Invalid("$filter compares id with a whole number.")
    if entity_set.name != "Observations":
        return _operated(entity_set.key[0], asked.operator, literal(asked.value, BigInteger))
    is_possible = 0 <= asked.value <= MAX_ID
    if not is_possible and asked.operator == "eq":
        return false()
    datastream_id, sampled_at = observation_key(min(max(asked.value, 0), MAX_ID))
    last = tuple_(literal(datastream_id, BigInteger), literal(sampled_at, UtcSeconds()))
    return _operated(tuple_(*entity_set.key), asked.operator, last)


def _operated(column: Any, operator: str, value: Any) -> ColumnElement[bool]:
    answer: ColumnElement[bool] = {
        "eq": column.__eq__,
        "ne": column.__ne__,
        "gt": column.__gt__,
        "ge": column.__ge__,
        "lt": column.__lt__,
        "le": column.__le__,
    }[operator](value)
    return answer


def _filterable(entity_set: EntitySet) -> dict[str, Attribute]:
    return {
        name: attribute
        for name, attribute in entity_set.attributes.items()
        if "/" not in name and attribute.kind != "interval"
    }


def _attribute(
    known: Mapping[str, Attribute], entity_set: EntitySet, name: str, option: str
) -> Attribute:
    wanted = name.replace("@iot.id", "id")
    if wanted not in known:
        names = ", ".join(known)
        raise Invalid(f"{option} of {entity_set.name} may name {names}; it cannot name {name!r}.")
    return known[wanted]


def _or_nothing(condition: ColumnElement[bool] | None) -> ColumnElement[bool]:
    return false() if condition is None else condition


# --- what does not fit ---


def _refuse_unbounded(
    entity_set: EntitySet, options: Options, parent: Parent | None, *, now: datetime
) -> None:
    """Ordering everything by a column without an index would read everything for every page."""
    if entity_set.name != "Observations" or parent is not None or _has_short_span(options, now):
        return
    # Behind a first property with an index, the others order what is equal in that.
    named = [("$orderby", name) for name, _ in options.order[:1]]
    named += [("$filter", one.name) for one in options.where]
    for option, name in named:
        if name in ("result", "resultTime"):
            raise Invalid(
                f"{option} on {name} wants one Datastream, as in /Datastreams(1)/Observations, or a "
                f"$filter on phenomenonTime besides, for at most {LONGEST_SPAN.days} days."
            )


def _has_short_span(options: Options, now: datetime) -> bool:
    begins, ends = [], [now]
    for one in options.where:
        if one.name == "phenomenonTime" and isinstance(one.value, datetime):
            if one.operator in ("eq", "ge", "gt"):
                begins.append(one.value)
            if one.operator in ("eq", "le", "lt"):
                ends.append(one.value)
    return bool(begins) and min(ends) - max(begins) <= LONGEST_SPAN


def _check(entity_set: EntitySet, options: Options, *, is_collection: bool) -> None:
    """Every name and option on all levels, before anything is asked: a wrong one is wrong for an empty answer too."""
    if not is_collection:
        _refuse_collection_options(options)
    navigation = NAVIGATION[entity_set.name]
    for name in options.select:
        if name not in _selectable(entity_set.name):
            known = ", ".join(("id", *PROPERTIES[entity_set.name], *navigation))
            raise Invalid(
                f"$select of {entity_set.name} may name {known}; it cannot name {name!r}."
            )
    _terms(entity_set, options)
    for one in options.where:
        _compared(entity_set, one)
    for name, nested in options.expand:
        if name not in navigation:
            known = ", ".join(navigation)
            raise Invalid(f"$expand of {entity_set.name} may name {known}; not {name!r}.")
        target, is_many = navigation[name]
        _check(SETS[target], nested, is_collection=is_many)


def _refuse_collection_options(options: Options) -> None:
    for name in ("$top", "$skip", "$count", "$orderby", "$filter", "$skiptoken"):
        if name in options.as_given:
            raise Invalid(f"{name} is for collections; this is one entity.")


def _selectable(set_name: str) -> set[str]:
    navigation = NAVIGATION[set_name]
    links = (f"{name}@iot.navigationLink" for name in navigation)
    return {"id", "@iot.id", "@iot.selfLink", *PROPERTIES[set_name], *navigation, *links}


def _selected(entity_set: EntitySet, entity: Entity, options: Options) -> Entity:
    expanded = {name for name, _ in options.expand}
    links = {name: f"{name}@iot.navigationLink" for name in NAVIGATION[entity_set.name]}
    wanted = {{"id": "@iot.id", **links}.get(name, name) for name in options.select}
    return {
        name: value
        for name, value in entity.items()
        if name in wanted or name.partition("@")[0] in expanded
    }
