"""What all operations of the management API have in common, seen at nodes and sites."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.jobs import schedule
from fleet_server.models import AuditEntry, KeptAnswer, NodeStatus, Role, Site
from fleet_server.services import accounts, deploying, many_at_once, node_list, repeating, rights
from fleet_server.settings import load_settings
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World, log_in

TREE = {"name": "Linde", "kind": "tree", "latitude": 51.48, "longitude": 7.22}
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    """An operator's program."""
    return world.program()


def _code(answer: Any) -> str:
    assert answer.mimetype == "application/problem+json", answer.text
    body = answer.get_json()
    assert body["status"] == answer.status_code
    assert body["detail"].endswith(".")
    assert "\n" not in body["detail"]
    return str(body.get("code"))


# ---------------------------------------------------------------------------------------------------------------- pages


def _walk(client: FlaskClient, address: str) -> Iterator[list[dict[str, Any]]]:
    while address:
        page = client.get(address).get_json()
        yield page["items"]
        address = page["next"]


@pytest.mark.parametrize("sort", list(node_list.SORTINGS))
def test_pages_one_after_the_other_are_the_whole_list(client: FlaskClient, sort: str) -> None:
    whole = client.get(f"/api/v1/nodes?sort={sort}").get_json()
    assert whole["next"] is None
    pages = list(_walk(client, f"/api/v1/nodes?limit=1&sort={sort}"))
    assert [len(page) for page in pages] == [1, 1, 1]
    assert [node for page in pages for node in page] == whole["items"]


def test_node_that_was_never_heard_comes_before_those_that_were_and_was_heard_before_any_time(
    sqlite_world: World,
) -> None:
    client = sqlite_world.program()
    with sqlite_world.sessions() as session, db.writing(session):
        silent = update(NodeStatus).where(NodeStatus.node_id == "n-000002")
        session.execute(silent.values(last_heard_at=None, battery_mv=None))

    def found(query: str) -> list[str]:
        return [node["id"] for node in client.get(f"/api/v1/nodes?{query}").get_json()["items"]]

    assert found("heard_before=2001-01-01T00:00:00Z") == ["n-000002"]
    for sort in ("heard", "battery"):
        assert found(f"sort={sort}")[0] == found(f"sort=-{sort}")[-1] == "n-000002"
        pages = list(_walk(client, f"/api/v1/nodes?limit=1&sort={sort}"))
        assert [node["id"] for page in pages for node in page] == found(f"sort={sort}")


def test_row_that_comes_in_front_shifts_nothing(world: World, client: FlaskClient) -> None:
    first = client.get("/api/v1/sites?limit=1").get_json()
    client.post("/api/v1/sites", json={"code": "0-in-front", **TREE})
    rest = [site["code"] for page in _walk(client, first["next"]) for site in page]
    assert first["items"][0]["code"] not in rest
    assert "0-in-front" not in rest
    assert len(rest) == len(set(rest)) == 2


def test_list_asks_as_many_statements_for_many_as_for_one(
    world: World, client: FlaskClient
) -> None:
    with world.statements() as for_one:
        client.get("/api/v1/nodes?limit=1")
    with world.statements() as for_all:
        client.get("/api/v1/nodes")
    assert len(for_one) == len(for_all)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("model=pond-1", ["n-000002"]),
        ("site=kortum", ["n-000001"]),
        ("label=tree-", ["n-000001"]),
        ("label=%25", []),
        ("label=tree_", []),
        ("firmware_version=1.4.0", ["n-000002", "n-000001"]),
        ("battery_below_mv=3912", []),
        ("battery_below_mv=3913&model=pond-1", ["n-000002"]),
        ("heard_before=2026-07-14T12:00:00Z", []),
        ("heard_before=2026-07-14T14:00:01%2B02:00&model=pond-1", ["n-000002"]),
        ("state=retired", []),
    ],
)
def test_filters_hold_all_together(client: FlaskClient, query: str, ids: list[str]) -> None:
    found = client.get(f"/api/v1/nodes?{query}").get_json()["items"]
    assert [node["id"] for node in found] == ids


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("colour=red", "colour: not known here; known are after, battery_below_mv"),
        ("limit=0", "limit: must be greater than or equal to 1"),
        ("limit=many", "limit: not a valid integer."),
        ("limit=" + "9" * 5000, "limit: not a valid integer."),
        ("sort=colour", "sort: must be one of: label, -label, heard, -heard, battery, -battery."),
        ("state=asleep", "state: must be one of:"),
        ("heard_before=yesterday", "heard_before: not a valid datetime."),
        ("after=x", "after wants what the page before gave"),
        ("after=WyJsYWJlbCIsMV0", "This page follows none of this list"),
        ("sort=-label&after=WyJsYWJlbCIsImEiLCJiIl0", "after wants what the page before gave"),
        ("label=%00", "The address has a NUL in its query."),
    ],
)
def test_query_that_does_not_fit_is_one_sentence(
    client: FlaskClient, query: str, says: str
) -> None:
    answer = client.get(f"/api/v1/nodes?{query}")
    assert answer.status_code in (400, 422)
    _code(answer)
    assert answer.get_json()["detail"].startswith(says)


# --------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"code": "a\\u0000b"}', 400),
        (b'{"code": "\\ud800"}', 400),
        (b'{"latitude": 1e999}', 400),
        (b'{"latitude": NaN}', 400),
        (b'{"latitude": 99999999999999999999}', 400),
        (b'{"code": "' + b"x" * 1_100_000 + b'"}', 413),
        (b'{"code": 7}', 422),
        (b'{"code": "a", "colour": 1}', 422),
    ],
)
def test_body_that_cannot_be_is_refused(client: FlaskClient, body: bytes, status: int) -> None:
    answer = client.post("/api/v1/sites", data=body, content_type="application/json")
    assert answer.status_code == status
    _code(answer)


def test_body_of_another_kind_is_refused(client: FlaskClient) -> None:
    answer = client.post("/api/v1/sites", data="code=a")
    assert answer.status_code == 415
    _code(answer)


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/api/v1/nowhere", 404),
        ("GET", "/api/v1/nodes/UPPER", 404),
        ("GET", "/api/v1/nodes/n-999999", 404),
        ("GET", "/api/v1/sites/a%00b", 404),
        ("DELETE", "/api/v1/nodes", 405),
    ],
)
def test_what_is_not_there_is_a_problem_document(
    client: FlaskClient, method: str, address: str, status: int
) -> None:
    answer = client.open(address, method=method)
    assert answer.status_code == status
    _code(answer)


# ----------------------------------------------------------------------------------------------------------------- tags


def test_change_wants_the_tag_of_what_was_read(world: World, client: FlaskClient) -> None:
    address = "/api/v1/nodes/n-000001"
    tag = client.get(address).headers["ETag"]
    refused = client.patch(address, json={"label": "lime"})
    assert (refused.status_code, _code(refused)) == (428, "if_match_wanted")
    changed = client.patch(address, json={"label": "lime"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.get_json()["label"]) == (200, "lime")
    outdated = client.patch(address, json={"label": "oak"}, headers={"If-Match": tag})
    assert (outdated.status_code, _code(outdated)) == (412, "changed_meanwhile")
    again = {"If-Match": changed.headers["ETag"]}
    assert client.patch(address, json={"label": "tree-01"}, headers=again).status_code == 200
    with world.sessions() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.action == "node_labelled").order_by(AuditEntry.seq)
        )
        assert [entry.details["label"] for entry in entries] == ["lime", "tree-01"]


def test_tag_outlives_what_the_node_says(world: World, client: FlaskClient) -> None:
    """A form that is open while the node reports is not out of date."""
    address = "/api/v1/nodes/n-000002"
    before = client.get(address)
    with world.sessions() as session:
        plan = small_world.NODES[1]
        small_world.send_packs(session, plan, first_seq=25, packs=1, now=NOW)
    after = client.get(address)
    assert after.get_json()["packs"] == before.get_json()["packs"] + 1
    assert after.headers["ETag"] == before.headers["ETag"]


# ----------------------------------------------------------------------------------------------------- sent again


def _post(client: FlaskClient, key: str, **site: Any) -> Any:
    headers = {"Idempotency-Key": key}
    return client.post("/api/v1/sites", json={**TREE, **site}, headers=headers)


def test_request_sent_again_is_done_once_and_answered_alike(
    world: World, client: FlaskClient
) -> None:
    first, second = _post(client, "k-1", code="once"), _post(client, "k-1", code="once")
    assert first.status_code == 201
    assert first.headers["Location"] == "/api/v1/sites/once"
    for part in ("status_code", "data"):
        assert getattr(first, part) == getattr(second, part)
    for name in ("ETag", "Location", "Content-Type"):
        assert first.headers[name] == second.headers[name]
    with world.sessions() as session:
        kept = session.get_one(KeptAnswer, (small_world.USER, "k-1"))
        assert kept.answer is not None
        assert "once" not in kept.answer  # it may be a secret: sealed


def test_key_of_another_request_is_refused(client: FlaskClient) -> None:
    _post(client, "k-2", code="two")
    answer = _post(client, "k-2", code="other")
    assert (answer.status_code, _code(answer)) == (422, "idempotency_key_reused")


def test_what_was_refused_leaves_its_key_free(client: FlaskClient) -> None:
    _post(client, "k-3", code="three")
    taken = _post(client, "k-4", code="three")
    assert (taken.status_code, _code(taken)) == (409, "site_exists")
    again = _post(client, "k-4", code="four")
    assert again.status_code == 201


def test_same_request_at_once_is_told_to_wait(world: World, client: FlaskClient) -> None:
    body = {"code": "slow", **TREE}
    with world.sessions() as session:
        rights.act_as(session, rights.Actor(small_world.USER, frozenset(rights.Right)))
        digest = _digest_of(client, body)
        repeating.begin(session, "k-5", request_sha256=digest, secret_key=SECRET, now=NOW)
    answer = client.post("/api/v1/sites", json=body, headers={"Idempotency-Key": "k-5"})
    assert (answer.status_code, _code(answer)) == (409, "still_worked_on")


def _digest_of(client: FlaskClient, body: dict[str, Any]) -> str:
    """What the server takes as the same request: asked of itself."""
    sent = client.application.json.dumps(body).encode()
    return hashlib.sha256(b"POST /api/v1/sites?\n" + sent).hexdigest()


@pytest.mark.parametrize("key", ["", "two words", "ü", "x" * 201])
def test_key_that_cannot_be_is_refused(client: FlaskClient, key: str) -> None:
    answer = client.post(
        "/api/v1/sites",
        json={"code": "never", **TREE},
        headers={"Idempotency-Key": key.encode("utf-8").decode("latin-1")},
    )
    assert answer.status_code == 400
    _code(answer)


def test_request_that_was_cut_off_may_be_sent_again(world: World) -> None:
    """Its process died: after the lease another does it, and the first can no longer commit."""
    with world.sessions() as first, world.sessions() as second:
        cut_off = repeating.begin(first, "k-6", request_sha256="a", secret_key=SECRET, now=NOW)
        later = NOW + timedelta(minutes=6)
        taken = repeating.begin(second, "k-6", request_sha256="a", secret_key=SECRET, now=later)
        assert taken.answer is None
        with pytest.raises(repeating.StillWorkedOn):
            _make_site(first, cut_off)
        assert deploying.find_site(second, "cut-off") is None


def _make_site(session: Session, ticket: repeating.Ticket) -> None:
    site = deploying.NewSite("cut-off", "x", "tree", 51, 7)
    with db.writing(session):
        deploying.create_site(session, site, is_public=False, now=NOW)
        repeating.keep(session, ticket, "201", secret_key=SECRET)


def test_answer_is_kept_for_a_day(world: World) -> None:
    with world.sessions() as session:
        ticket = repeating.begin(session, "k-7", request_sha256="a", secret_key=SECRET, now=NOW)
        with db.writing(session):
            repeating.keep(session, ticket, "said", secret_key=SECRET)
        almost = NOW + timedelta(hours=24) - timedelta(seconds=1)
        kept = repeating.begin(session, "k-7", request_sha256="a", secret_key=SECRET, now=almost)
        assert kept.answer == "said"
        over = NOW + timedelta(hours=24)
        gone = repeating.begin(session, "k-7", request_sha256="b", secret_key=SECRET, now=over)
        assert gone.answer is None


def test_old_answers_go_by_schedule_and_those_of_today_stay(world: World, tmp_path: Path) -> None:
    over = NOW + timedelta(hours=25)
    with world.sessions() as session:
        for key, at in (("k-old", NOW), ("k-new", over - timedelta(hours=1))):
            repeating.begin(session, key, request_sha256="a", secret_key=SECRET, now=at)
        run = schedule.JOBS["forget_old_answers"].run
        run(session, load_settings({}, data_dir=tmp_path), over)
        assert session.get(KeptAnswer, (rights.actor_of(session).name, "k-old")) is None
        assert session.get(KeptAnswer, (rights.actor_of(session).name, "k-new")) is not None


def test_answer_under_another_secret_is_told_as_lost_and_nothing_is_done_again(
    world: World,
) -> None:
    with world.sessions() as session:
        ticket = repeating.begin(session, "k-8", request_sha256="a", secret_key=SECRET, now=NOW)
        with db.writing(session):
            repeating.keep(session, ticket, "said", secret_key=SECRET)
        with pytest.raises(repeating.AnswerLost):
            repeating.begin(session, "k-8", request_sha256="a", secret_key="other", now=NOW)


# ---------------------------------------------------------------------------------------------------------- many at once


@pytest.mark.parametrize("is_rehearsal", [True, False])
def test_many_at_once_each_is_done_or_says_why(world: World, is_rehearsal: bool) -> None:
    def make(code: str) -> bool:
        if code == "same":
            return False
        site = deploying.NewSite(code, code, "pond" if code == "wrong" else "tree", 51, 7)
        deploying.create_site(session, site, is_public=False, now=NOW)
        return True

    with world.sessions() as session:
        results = many_at_once.do_to_each(
            session, ["many-1", "wrong", "same", "many-2"], make, is_rehearsal=is_rehearsal
        )
    assert [result.outcome for result in results] == ["done", "refused", "unchanged", "done"]
    assert results[1].code == "site_wrong"
    with world.sessions() as session:
        made = set(session.scalars(select(Site.code).where(Site.code.startswith("many-"))))
    assert made == (set() if is_rehearsal else {"many-1", "many-2"})


# ------------------------------------------------------------------------------------------------------------- document


def test_every_operation_says_who_may_call_it_and_what_it_answers(sqlite_world: World) -> None:
    client = sqlite_world.app().test_client()
    document = client.get("/api/openapi.json").get_json()
    assert set(document["components"]["securitySchemes"]) == {"session", "key"}
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["security"], where
            assert "right" in operation["description"] or "logged in" in operation["description"]
            assert {"401", "403", "429", "503"} <= set(operation["responses"]), where
            for status, answer in operation["responses"].items():
                assert (status == "204") != ("content" in answer), f"{where} {status}"
                for content in answer.get("content", {}).values():
                    assert content["schema"]["$ref"] in known, f"{where} {status}"


def test_document_is_a_page_without_login(sqlite_world: World) -> None:
    app = sqlite_world.app()
    page = app.test_client().get("/api/docs", headers={"Accept-Language": "de"})
    assert page.status_code == 200
    for text in ("Verwaltungs-API", "PATCH /api/v1/nodes/{node_id}", "If-Match", "see_fleet"):
        assert text in page.text
    assert "<script" not in page.text


def test_who_asks_is_told_what_they_may(sqlite_world: World) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(
            session, "mona", small_world.PASSWORD, now=NOW, roles=[Role.TECHNICIAN]
        )
    client = sqlite_world.app().test_client()
    log_in(client, name="mona")
    told = client.get("/api/v1/me").get_json()
    assert (told["name"], told["rights"]) == ("mona", ["calibrate", "mount_nodes", "see_fleet"])
    site = {"code": "with-token", **TREE}
    without = client.post("/api/v1/sites", json=site)
    assert without.status_code == 400
    refused = client.post("/api/v1/sites", json=site, headers={"X-CSRFToken": told["csrf_token"]})
    assert (refused.status_code, _code(refused)) == (403, "not_allowed")
