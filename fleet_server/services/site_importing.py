"""Whole files of sites: which column means what, what an import would change, and doing it.

The key is the site's code. A column that the file lacks and a cell that is empty change nothing, so that a file with half of the columns
spoils nothing; what no field takes is kept among the site's details under its own name. A site that the file does not name stays.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import FleetError, NotFound, Said
from fleet_server.models import Site
from fleet_server.services import auditing, bulk, places, rights, sites
from fleet_server.services.file_store import FileStore
from fleet_server.services.places import SystemUnknown
from fleet_server.services.sites import SiteWrong
from fleet_server.services.tables import FileWrong, Row, Table, has_too_many_cells

POSITION_FIELDS = ("x", "y")
FIELDS = (
    "code",
    "name",
    "kind",
    *POSITION_FIELDS,
    "description",
    "species",
    "tree_number",
    "planted_year",
    "area_m2",
    "depth_m",
    "lowest_level_m",
    "soil_class",
    "unsealed_m2",
    "crown_m2",
    "tree_group",
    "is_group_reference",
)
"""What a column may be taken for. `x` is the east value (easting or longitude), `y` the north one."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "code": ("code", "site", "sitecode", "standort", "standortcode", "kennung", "kuerzel", "id"),
    "name": ("name", "bezeichnung", "standortname", "sitename", "title"),
    "kind": ("kind", "type", "typ", "messstellenart"),
    "x": (
        "x",
        "longitude",
        "lon",
        "lng",
        "laengengrad",
        "laenge",
        "easting",
        "east",
        "ostwert",
        "rechtswert",
        "e",
        "rw",
        "utmost",
    ),
    "y": (
        "y",
        "latitude",
        "lat",
        "breitengrad",
        "breite",
        "northing",
        "north",
        "nordwert",
        "hochwert",
        "n",
        "hw",
        "utmnord",
    ),
    "description": ("description", "beschreibung", "bemerkung", "lage", "remark"),
    "species": ("species", "baumart", "gattung", "art", "artbotanisch", "botanischername"),
    "tree_number": ("treenumber", "baumnr", "baumnummer", "baumid", "katasternummer", "treeno"),
    "planted_year": ("plantedyear", "pflanzjahr", "pflanzungsjahr", "plantingyear", "baujahr"),
    "area_m2": ("aream2", "flaeche", "flaechem2", "flaecheqm", "area"),
    "depth_m": ("depthm", "tiefe", "tiefem", "depth", "maximaletiefe"),
    "lowest_level_m": ("lowestlevelm", "mindestpegel", "mindestwasserstand", "mindestpegelm"),
    "soil_class": ("soilclass", "bodenartka5", "ka5"),  # a plain Bodenart may be any word
    "unsealed_m2": ("unsealedm2", "baumscheibem2", "unversiegeltm2", "entsiegeltm2"),
    "crown_m2": ("crownm2", "kronenflaeche", "kronenflaechem2"),
    "tree_group": ("treegroup", "baumgruppe"),
    "is_group_reference": ("isgroupreference", "referenzbaum", "referencetree"),
}
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("tree", "baum", "strassenbaum", "parkbaum"), "tree"),
    **dict.fromkeys(("water", "gewaesser", "teich", "weiher", "see", "bach", "pond"), "water"),
}
_YES_AND_NO: Mapping[str, bool] = {
    **dict.fromkeys(("1", "x", "ja", "yes", "true", "wahr"), True),
    **dict.fromkeys(("0", "nein", "no", "false", "falsch"), False),
}
_NUMBERS: Mapping[str, Said] = {
    "area_m2": Said("area"),
    "depth_m": Said("depth"),
    "lowest_level_m": Said("lowest level"),
    "unsealed_m2": Said("unsealed ground"),
    "crown_m2": Said("ground below the crown"),
}
_FRACTION = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_LISTED_CODES = 200
_PREVIEWS = "previews"
PREVIEW_KEPT = timedelta(days=1)
_AT_ONCE = 500


class FileForgotten(NotFound):
    """A file that was only looked at is not kept any more."""

    code = "file_forgotten"


@dataclass(frozen=True)
class WrongRow:
    """A row that cannot be taken, with one sentence, and the code that programs compare."""

    number: int
    sentence: str
    code: str


@dataclass(frozen=True)
class ImportPlan:
    """What an import would do. `new` and `changed` name codes; `changed` with the fields that differ."""

    new: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    same: int
    wrong: tuple[WrongRow, ...]

    @property
    def counts(self) -> dict[str, int]:
        return {
            "new": len(self.new),
            "changed": len(self.changed),
            "same": self.same,
            "wrong": len(self.wrong),
        }


@dataclass(frozen=True)
class ImportRules:
    """How a table is read.

    Attributes:
        columns: field → column; a field that is missing is not in the file.
        epsg: coordinate system of the positions.
        kind: of every site where no column says it; None: it must be said.
        is_public: of new sites.
    """

    columns: Mapping[str, str]
    epsg: int
    kind: str | None = None
    is_public: bool = False


@dataclass
class _Wanted:
    number: int
    code: str
    values: dict[str, Any] = field(default_factory=dict)


def guess_columns(table: Table) -> dict[str, str]:
    """Field → column, by what columns are called in German and English. The tree number is the code where nothing else is.

    >>> guess_columns(Table(("Baum-Nr.", "Ostwert", "Nordwert", "Pflanzjahr"), ()))
    {'tree_number': 'Baum-Nr.', 'x': 'Ostwert', 'y': 'Nordwert', 'planted_year': 'Pflanzjahr', 'code': 'Baum-Nr.'}
    """
    found: dict[str, str] = {}
    for column in table.columns:
        plain = _plain(column)
        for name, words in _NAMES.items():
            is_usable = name not in POSITION_FIELDS or not table.has_geometry
            if is_usable and name not in found and plain in words:
                found[name] = column
                break
    if "code" not in found and "tree_number" in found:
        found["code"] = found["tree_number"]
    return found


def guess_epsg(table: Table) -> int | None:
    """The system that the file names, else the one in which most of its positions could be; None when none fits."""
    if table.epsg is not None:
        return table.epsg if table.epsg in places.SYSTEMS else None
    columns = guess_columns(table)
    if not table.has_geometry and not all(name in columns for name in POSITION_FIELDS):
        return None
    fits = dict.fromkeys(places.SYSTEMS, 0)
    for row in table.rows[:50]:
        for epsg in fits:
            try:
                _place(row, columns, epsg)
            except FleetError:
                continue
            fits[epsg] += 1
    best = max(fits, key=lambda epsg: fits[epsg])
    return best if fits[best] else None


def make_rules(
    table: Table,
    *,
    crs: str | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    is_public: bool = False,
) -> ImportRules:
    """The rules for a table, where nothing is said guessed from it.

    Args:
        crs: like `EPSG:25832`.
        columns: field → column, beside those that are known by their names; an empty one takes that meaning from its column.

    Raises:
        SystemUnknown: `crs` is none that is read, or none is said and none can be guessed.
    """
    epsg = places.epsg_of(crs) if crs is not None else guess_epsg(table)
    if epsg is None:
        raise SystemUnknown(
            "In which coordinate system are the positions? Say it, like EPSG:25832."
        )
    named = {**guess_columns(table), **(columns or {})}
    return ImportRules(
        columns={name: column for name, column in named.items() if column},
        epsg=epsg,
        kind=kind,
        is_public=is_public,
    )


def check_rules(table: Table, rules: ImportRules) -> None:
    """Raises FileWrong when the rules name fields or columns that are not there, or lack what every site needs."""
    for name, column in rules.columns.items():
        if name not in FIELDS:
            raise FileWrong(
                "A site has no %(name)r; a column can be %(fields)s.",
                name=name,
                fields=", ".join(FIELDS),
            )
        if column not in table.columns:
            known = ", ".join(table.columns)
            raise FileWrong(
                "The file has no column %(column)r; it has %(known)s.", column=column, known=known
            )
    if "code" not in rules.columns:
        raise FileWrong(
            "Which column is the site's code? Say it, for example code=Baumnr; it is what a later import "
            "finds the site by."
        )
    has_place = table.has_geometry or all(name in rules.columns for name in POSITION_FIELDS)
    if not has_place:
        raise FileWrong(
            "Which columns are the position? Say it, for example x=Ostwert and y=Nordwert."
        )


def plan_import(session: Session, table: Table, rules: ImportRules, *, now: datetime) -> ImportPlan:
    """What importing would do; nothing is written.

    Raises:
        FileWrong: the rules do not fit the file.
    """
    check_rules(table, rules)
    return _compare(session, _read_rows(table, rules, now=now), now=now).plan


def import_sites(
    session: Session, table: Table, rules: ImportRules, *, data: bytes, now: datetime
) -> ImportPlan:
    """Do it, in one transaction: every row that is not wrong. Committed on return. Safe to repeat: then all are the same.

    Args:
        data: the file as it came; the audit entry names it by its SHA-256.

    Raises:
        FileWrong: the rules do not fit the file.
    """
    check_rules(table, rules)
    read = _read_rows(table, rules, now=now)  # before: ingest waits as long as we write
    with db.writing(session):
        found = _compare(session, read, now=now)
        rows = [
            {**_empty_site(), **values, "is_public": rules.is_public, "created_at": now}
            for values in found.new
        ]
        for some in bulk.chunks(rows, _AT_ONCE):
            session.execute(insert(Site), list(some))
        for site, values in found.changed:
            sites.write_changes(session, site, values)
        session.flush()
        if found.new or found.changed:
            _record(session, found.plan, data, now)
    return found.plan


def keep_file(data: bytes, *, store: FileStore) -> None:
    """Before it is imported: the audit log names it. Safe to repeat. Raises Unavailable."""
    store.put(f"imports/{_sha256(data)}", data)


def keep_preview(data: bytes, *, store: FileStore) -> str:
    """For who looks at what an import would do, until `forget_previews`; returns what it is asked for by. Raises Unavailable."""
    sha256 = _sha256(data)
    store.put(_preview_name(sha256), data)
    return sha256


def previewed_file(sha256: str, *, store: FileStore) -> bytes:
    """Raises FileForgotten, Unavailable."""
    try:
        return store.get(_preview_name(sha256))
    except NotFound as problem:
        raise FileForgotten("The file was not imported for a day; choose it again.") from problem


def forget_previews(*, store: FileStore, wall_now: datetime) -> int:
    """Files that were looked at a day ago and more; those that were imported are kept elsewhere. Returns how many. Safe to repeat."""
    return store.forget(_PREVIEWS, before=wall_now - PREVIEW_KEPT)


def _preview_name(sha256: str) -> str:
    return f"{_PREVIEWS}/.{sha256}"  # what begins with a dot is in no backup


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _record(session: Session, plan: ImportPlan, data: bytes, now: datetime) -> None:
    digest = _sha256(data)
    auditing.record(
        session,
        "sites_imported",
        subject=f"file {digest[:16]}",
        now=now,
        sha256=digest,
        counts=plan.counts,
        new=list(plan.new[:_LISTED_CODES]),
        changed=list(plan.changed)[:_LISTED_CODES],
    )


# ------------------------------------------------------------------------------------------------------------ comparing


@dataclass
class _ReadRows:
    """Every row of a table, as a site or as a sentence; what the database knows is not asked yet."""

    wanted: list[_Wanted]
    wrong: list[WrongRow]


@dataclass
class _Comparison:
    new: list[dict[str, Any]]
    changed: list[tuple[Site, dict[str, Any]]]
    plan: ImportPlan


def _compare(session: Session, read: _ReadRows, *, now: datetime) -> _Comparison:
    wanted, wrong = read.wanted, list(read.wrong)
    known = _known_sites(session, [one.code for one in wanted])
    new: list[dict[str, Any]] = []
    changed: list[tuple[Site, dict[str, Any]]] = []
    differing: dict[str, tuple[str, ...]] = {}
    references: dict[str, int] = {}
    for one in wanted:
        site = known.get(one.code)
        try:
            values = (
                _values_of_new(session, one, now=now)
                if site is None
                else _differences(session, site, one, now=now)
            )
            _note_reference(references, site, values, one.number)
        except FleetError as problem:
            wrong.append(WrongRow(one.number, problem.said, problem.code))
            continue
        if site is None:
            new.append(values)
        elif values:
            changed.append((site, values))
            differing[one.code] = tuple(values)
    wrong.sort(key=lambda row: row.number)
    plan = ImportPlan(
        new=tuple(str(values["code"]) for values in new),
        changed=differing,
        same=len(wanted) + len(read.wrong) - len(new) - len(changed) - len(wrong),
        wrong=tuple(wrong),
    )
    return _Comparison(new, changed, plan)


def _note_reference(
    references: dict[str, int], site: Site | None, values: Mapping[str, Any], row: int
) -> None:
    """Raises SiteWrong when two rows of the file want to stand for one group."""
    is_reference = values.get("is_group_reference", site is not None and site.is_group_reference)
    group = values.get("tree_group", site.tree_group if site else None)
    if not is_reference or group is None:
        return
    if group in references:
        raise SiteWrong(
            "Row %(row)s stands for the group %(group)s already.",
            row=references[group],
            group=group,
        )
    references[group] = row


def _read_rows(table: Table, rules: ImportRules, *, now: datetime) -> _ReadRows:
    wanted: list[_Wanted] = []
    wrong: list[WrongRow] = []
    first_rows: dict[str, int] = {}
    for row in table.rows:
        try:
            one = _read_row(row, rules, now=now)
            if one.code in first_rows:
                raise SiteWrong(
                    "The code %(code)s stands in row %(row)s already.",
                    code=one.code,
                    row=first_rows[one.code],
                )
        except FleetError as problem:
            wrong.append(WrongRow(row.number, problem.said, problem.code))
            continue
        first_rows[one.code] = row.number
        wanted.append(one)
    return _ReadRows(wanted, wrong)


def _read_row(row: Row, rules: ImportRules, *, now: datetime) -> _Wanted:
    if has_too_many_cells(row):
        raise SiteWrong("The row has more cells than the head has columns.")
    given = {name: row.cells.get(column, "") for name, column in rules.columns.items()}
    code = given["code"]
    if not code:
        raise SiteWrong("The row has no code.")
    values: dict[str, Any] = {"code": code}
    for name in ("name", "description", "species", "tree_number", "soil_class", "tree_group"):
        if given.get(name):
            values[name] = given[name]
    for name, what in _NUMBERS.items():
        if given.get(name):
            values[name] = _number(given[name], what)
    if given.get("is_group_reference"):
        values["is_group_reference"] = _yes_or_no(given["is_group_reference"])
    if given.get("planted_year"):
        values["planted_year"] = _year(given["planted_year"])
    kind = _kind(given.get("kind", ""), rules.kind)
    if kind is not None:
        values["kind"] = kind
    if row.position is not None or any(given.get(name) for name in POSITION_FIELDS):
        place = _place(row, rules.columns, rules.epsg)
        values |= {"latitude": place.latitude, "longitude": place.longitude}
    rest = _rest(row, rules.columns)
    checked = sites.checked_values({**values, "details": rest}, now=now)
    return _Wanted(row.number, str(checked["code"]), checked)


def _rest(row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    taken = set(columns.values())
    return {name: cell for name, cell in row.cells.items() if name not in taken and cell}


def _values_of_new(session: Session, one: _Wanted, *, now: datetime) -> dict[str, Any]:
    values = dict(one.values)
    if "kind" not in values:
        raise SiteWrong(
            "%(code)s is new, and nothing says whether it is a tree or a water: name the column, or the kind "
            "of all rows.",
            code=one.code,
        )
    if "latitude" not in values:
        raise SiteWrong("%(code)s is new and has no position.", code=one.code)
    values.setdefault("name", _name_of_new(values))
    rights.check_site_kind(session, values["kind"], what=sites.kind_unknown(values["kind"]))
    sites.check_reference(session, None, values)
    return values


def _name_of_new(values: Mapping[str, Any]) -> str:
    species = values.get("species")
    return f"{species} {values['code']}" if species else str(values["code"])


def _differences(session: Session, site: Site, one: _Wanted, *, now: datetime) -> dict[str, Any]:
    rights.check_site_kind(session, site.kind, what=Said("site %(code)s", code=site.code))
    values = {name: value for name, value in one.values.items() if name != "code"}
    if values.pop("kind", site.kind) != site.kind:
        raise SiteWrong(
            "%(code)s is a %(site_kind)s; what it is stays.",
            code=site.code,
            site_kind=sites.KIND_WORDS[site.kind],
        )
    details = {**site.details, **values.pop("details", {})}
    if details != site.details:
        values["details"] = sites.checked_values({"details": details}, now=now)["details"]
    sites.check_reference(session, site, values)
    return {name: value for name, value in values.items() if getattr(site, name) != value}


def _known_sites(session: Session, codes: Sequence[str]) -> dict[str, Site]:
    known: dict[str, Site] = {}
    for some in bulk.chunks(codes, _AT_ONCE):
        query = (
            select(Site).where(Site.code.in_(list(some))).execution_options(populate_existing=True)
        )
        known |= {site.code: site for site in session.scalars(query)}
    return known


def _empty_site() -> dict[str, Any]:
    """What a new site is without what its row says: all rows have the same columns."""
    unknown = dict.fromkeys(name for name in FIELDS if name not in POSITION_FIELDS)
    return {**unknown, "description": "", "details": {}, "is_group_reference": False}


# ---------------------------------------------------------------------------------------------------------------- cells


def _place(row: Row, columns: Mapping[str, str], epsg: int) -> places.Place:
    if row.position is not None:
        return places.place_of(*row.position, epsg=epsg)
    texts = [row.cells.get(columns.get(name, ""), "") for name in POSITION_FIELDS]
    if not all(texts):
        raise SiteWrong("The row has half a position; give both values or none.")
    x, y = (_number(text, Said("position")) for text in texts)
    return places.place_of(x, y, epsg=epsg)


def _number(text: str, what: str) -> float:
    """A number with decimal point or comma, and with or without separators of thousands.

    >>> _number("5.704.913,89", "position"), _number("376 136.7", "position"), _number("7,21", "position")
    (5704913.89, 376136.7, 7.21)
    """
    plain = re.sub(r"[\s'\u00a0\u202f]", "", text).replace("−", "-")
    if plain.count(",") and plain.count("."):
        thousands = "." if plain.rindex(",") > plain.rindex(".") else ","
        plain = plain.replace(thousands, "")
    for mark in (",", "."):
        if plain.count(mark) > 1:
            plain = plain.replace(mark, "")
    plain = plain.replace(",", ".")
    if not _FRACTION.fullmatch(plain) or not math.isfinite(float(plain)):
        raise SiteWrong("The %(what)s %(text)r is no number.", what=what, text=text)
    return float(plain)


def _year(text: str) -> int:
    number = _number(text, Said("planting year"))
    if number != int(number):
        raise SiteWrong("The planting year %(text)r is no year.", text=text)
    return int(number)


def _kind(text: str, default: str | None) -> str | None:
    if not text:
        return default
    kind = _KINDS.get(_plain(text))
    if kind is None:
        raise SiteWrong("%(text)r is neither a tree (Baum) nor a water (Gewässer).", text=text)
    return kind


def _yes_or_no(text: str) -> bool:
    found = _YES_AND_NO.get(_plain(text))
    if found is None:
        raise SiteWrong("%(text)r is neither yes (ja) nor no (nein).", text=text)
    return found


_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "²": "2"})


def _plain(name: str) -> str:
    """Small letters and digits alone: `Baum-Nr.` is `baumnr`."""
    lowered = unicodedata.normalize("NFC", name).lower().translate(_UMLAUTS)
    return re.sub(r"[^a-z0-9]", "", lowered)


def describe(plan: ImportPlan) -> Iterator[str]:
    """The report by row, line by line."""
    counts = plan.counts
    yield f"{counts['new']} new, {counts['changed']} changed, {counts['same']} the same, {counts['wrong']} wrong."
    for row in plan.wrong:
        yield f"Row {row.number}: {row.sentence}"
