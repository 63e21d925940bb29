"""Pages: what people see with a browser that runs no script."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from fleet_server.broker.refusals import Refusal, Tally
from fleet_server.models import Role
from fleet_server.services import accounts
from fleet_server.web import words
from tests.fleet_server import small_world
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

OPERATOR_PAGES = (
    "/fleet/",
    "/fleet/sites",
    "/fleet/quarantine",
    "/fleet/nodes/n-000001",
    "/fleet/nodes/n-000002?range=24h",
    "/fleet/packs/1",
    "/fleet/account",
    "/fleet/account/second-factor",
    "/fleet/people",
    "/fleet/people/1",
    "/fleet/audit",
    "/fleet/sites/1",
    "/field/nodes/n-000001",
)


@pytest.fixture(scope="module")
def anyone(world: World) -> FlaskClient:
    return world.app().test_client()


@pytest.fixture(scope="module")
def operator(world: World) -> FlaskClient:
    return world.browser()


class _Page(HTMLParser):
    """Links, headings, labels and what must not be there, of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if given.get("method") == "post":
            return  # what changes something is no link
        for name in ("href", "src", "action", "data-series"):
            if given.get(name) and given.get("method") != "post":  # nothing that one only looks at
                self.links.append(str(given[name]))

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.elements if name == tag)


def test_public_page_shows_value_uncertainty_flag_and_time_without_login(
    anyone: FlaskClient,
) -> None:
    page = anyone.get("/")
    assert page.status_code == 200
    assert "Kortumstraße, Linde 12" in page.text
    assert "Soil water tension, 30\N{NO-BREAK SPACE}cm" in page.text
    assert re.search(
        r'<b class="number">[\d.,]+</b>\s*<span class="quiet number">± [\d.,]+', page.text
    )
    assert "✓</span>good" in page.text
    assert '<time datetime="2026-07-14T12:00:00+00:00">14 Jul 2026, 14:00</time>' in page.text


def test_sites_that_are_not_public_are_hidden_outside_the_demo(sqlite_world: World) -> None:
    client = sqlite_world.app(demo=False).test_client()
    assert "Stadtparkteich" not in client.get("/").text
    assert "Kortumstraße" in client.get("/").text
    log_in(client)
    assert "Stadtparkteich" in client.get("/").text


@pytest.mark.parametrize(
    ("wanted", "language", "word"),
    [
        ("de-DE,de;q=0.9,en;q=0.5", "de", "Bodenwasserspannung"),
        ("en-GB", "en", "Soil water tension"),
        ("fr", "en", "Soil water tension"),
        ("", "en", "Soil water tension"),
    ],
)
def test_page_speaks_the_language_that_the_browser_asks_for(
    sqlite_world: World, wanted: str, language: str, word: str
) -> None:
    page = sqlite_world.app().test_client().get("/", headers={"Accept-Language": wanted})
    assert f'<html lang="{language}">' in page.text
    assert word in page.text
    assert "Accept-Language" in page.headers["Vary"]


@pytest.mark.parametrize("path", OPERATOR_PAGES)
def test_operator_page_without_login_leads_to_login_and_back(
    sqlite_world: World, path: str
) -> None:
    client = sqlite_world.app().test_client()
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(("/login?next=/fleet/", "/login?next=/field/"))


@pytest.mark.parametrize("path", ["/fleet/nodes", "/fleet/nodes/", "/fleet"])
def test_what_a_person_would_try_leads_to_the_nodes(operator: FlaskClient, path: str) -> None:
    page = operator.get(path, follow_redirects=True)
    assert (page.status_code, page.request.path) == (200, "/fleet/")


@pytest.mark.parametrize("path", ["/", "/login", "/reset", *OPERATOR_PAGES])
def test_page_is_whole_without_script(operator: FlaskClient, path: str) -> None:
    page = operator.get(path)
    if path == "/login":
        assert page.status_code == 302  # who is logged in has no business there
        return
    assert page.status_code == 200
    parsed = _Page(page.text)
    assert parsed.count("h1") == 1
    assert parsed.elements[0] == ("html", {"lang": "en"})
    assert ("a", {"class": "skip", "href": "#content"}) in parsed.elements
    inline = [given for tag, given in parsed.elements if tag == "style" or "style" in given]
    assert inline == []
    handlers = [name for _, given in parsed.elements for name in given if name.startswith("on")]
    assert handlers == []


@pytest.mark.parametrize(
    "of_a_kind",
    [2, pytest.param(1000, marks=pytest.mark.nightly)],
    ids=["two of a kind", "all"],
)
def test_every_link_of_every_page_leads_somewhere(sqlite_world: World, of_a_kind: int) -> None:
    """Of a kind are links to one view with the same questions: those of a tree and of a pond, not of every row."""
    app = sqlite_world.app()
    operator = app.test_client()
    log_in(operator)
    views = app.url_map.bind("localhost")
    seen: set[str] = set()
    kinds: Counter[tuple[str, ...]] = Counter()
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        answer = operator.get(path, buffered=True)
        assert answer.status_code in (200, 302), (path, answer.status_code)
        if not answer.content_type.startswith("text/html") or answer.status_code != 200:
            continue
        for link in _Page(answer.text).links:
            local = link.partition("#")[0]
            pattern = re.sub(
                r"(since|until|before)=\d+|(actor|action|subject)=[^&]+|\(\d+\)|packs/\d+",
                "…",
                local,
            )
            if not local.startswith("/") or local == "/logout" or pattern in seen:
                continue
            seen.add(pattern)
            kind = _kind(views, local)
            kinds[kind] += 1
            if kinds[kind] <= of_a_kind:
                waiting.append(local)
    assert len(kinds) > 40


def _kind(views: MapAdapter, link: str) -> tuple[str, ...]:
    """The view that a link leads to and the names of what it asks; the link itself where no view is, or a file."""
    parts = urlsplit(link)
    try:
        endpoint, _ = views.match(parts.path, method="GET")
    except HTTPException:
        return (link,)
    if endpoint.endswith("static"):
        return (link,)
    return (endpoint, *sorted(name for name, _ in parse_qsl(parts.query, keep_blank_values=True)))


def test_node_page_holds_its_readings_as_a_table(operator: FlaskClient) -> None:
    page = operator.get("/fleet/nodes/n-000002?range=24h").text
    assert page.count("<tr><td") == 4 * 24
    assert "Oxygen saturation" in page
    assert "–</span>missing" in page  # every seventh reading failed
    assert "do_modbus n-000002/o2" in page
    assert "/v1.1/Datastreams(" in page


def test_node_is_called_otherwise_on_its_page_and_shows_its_probes(
    sqlite_world: World,
) -> None:
    client = sqlite_world.browser()
    page = client.get("/fleet/nodes/n-000001").text
    assert 'href="#probes"' in page
    probes = page[page.index('id="probes"') :]
    assert "watermark" in probes[: probes.index("</table>")]
    was = re.findall(r'name="label" value="([^"]*)"', page)[0]
    for label in ("lime 12", was):
        sent = {"csrf_token": csrf_token(page), "label": label}
        renamed = client.post("/fleet/nodes/n-000001/label", data=sent, follow_redirects=True)
        assert f"<h1>{label}</h1>" in renamed.text
    refused = client.post(
        "/fleet/nodes/n-000001/label", data={"csrf_token": csrf_token(page), "label": ""}
    )
    assert refused.status_code == 400


def test_time_range_moves_by_links(operator: FlaskClient) -> None:
    now_page = operator.get("/fleet/nodes/n-000001?range=24h")
    found = re.search(r'href="([^"]*until=\d+[^"]*)"[^>]*>← earlier', now_page.text)
    assert found
    earlier = operator.get(found[1].replace("&amp;", "&"))
    assert earlier.status_code == 200
    assert "No readings in this time range." in earlier.text
    assert "later →" in earlier.text


@pytest.mark.parametrize(
    "query", ["range=2w", "until=yesterday", "until=-5", "until=99999999999999999999", "until=٣"]
)
def test_wrong_time_range_is_told_in_one_sentence(operator: FlaskClient, query: str) -> None:
    answer = operator.get(f"/fleet/nodes/n-000001?{query}")
    assert answer.status_code == 400
    assert " wants " in answer.text


def test_series_carries_value_expanded_uncertainty_and_flag(operator: FlaskClient) -> None:
    page = operator.get("/fleet/nodes/n-000002?range=24h").text
    first = re.search(r"/v1.1/Datastreams\((\d+)\)", page)
    assert first
    until = int(small_world.NOW.timestamp()) + 1
    series = f"/fleet/nodes/n-000002/series/{first[1]}?since={until - 86_400}&until={until}"
    answer = operator.get(series)
    assert answer.status_code == 200
    given = answer.get_json()
    assert given["unit"] == "mg/L"
    assert len(given["t"]) == len(given["v"]) == len(given["u"]) == len(given["f"]) == 24
    failed = [at for at, value in enumerate(given["v"]) if value is None]
    assert failed
    assert all(given["f"][at] == 9 and given["u"][at] is None for at in failed)
    assert given["t"] == sorted(given["t"])


def test_series_of_a_datastream_that_the_node_does_not_feed_is_not_found(
    operator: FlaskClient,
) -> None:
    answer = operator.get("/fleet/nodes/n-000001/series/4000000?since=1783000000&until=1783086400")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/fleet/nodes/n-ffffff",
        "/fleet/nodes/%00",
        "/fleet/nodes/svc-ingest",
        "/fleet/nodes/n-000001/series/99999999999999999999?since=1&until=2",
        "/fleet/packs/99999999",
        "/fleet/packs/99999999999999999999",
        "/fleet/packs/-1",
        "/static/vendor/..%2fassets.py",
    ],
)
def test_address_of_nothing_is_not_found(operator: FlaskClient, path: str) -> None:
    assert operator.get(path).status_code == 404


def test_names_that_look_like_markup_stay_text(operator: FlaskClient) -> None:
    for path in ("/", "/fleet/", "/fleet/sites", "/fleet/nodes/n-000003", "/fleet/quarantine"):
        page = operator.get(path).text
        parsed = _Page(page)
        assert all(given.get("src") != "x" for _, given in parsed.elements)
        assert "alert(1)</script>" not in page
        assert "{{7*191}}" in page or path == "/fleet/quarantine"
        assert ">1337<" not in page


def test_quarantine_lists_reason_and_first_bytes(operator: FlaskClient) -> None:
    page = operator.get("/fleet/quarantine").text
    assert "The payload is not an array of SenML records." in page
    assert "ff 20 67 61" in page


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/nowhere", 404, ("Nicht vorhanden", "Unter dieser Adresse gibt es nichts.")),
        ("/fleet/many", 405, ("So nicht", "Diese Adresse gehört zu einem Formular")),
    ],
)
def test_errors_of_http_itself_are_told_in_the_readers_language(
    anyone: FlaskClient, path: str, status: int, says: tuple[str, ...]
) -> None:
    answer = anyone.get(path, headers={"Accept-Language": "de", "Accept": "text/html"})
    assert answer.status_code == status
    for words_of_it in says:
        assert words_of_it in answer.text


def test_unknown_page_is_a_page_for_people_and_a_problem_for_programs(anyone: FlaskClient) -> None:
    page = anyone.get("/nowhere", headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert "<h1>404" in page.text
    problem = anyone.get("/nowhere", headers={"Accept": "application/json"})
    assert (problem.status_code, problem.mimetype) == (404, "application/problem+json")
    assert problem.get_json()["status"] == 404


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/", 7),
        ("/fleet/", 7),
        ("/fleet/sites", 7),
        ("/fleet/sites/1", 12),
        ("/fleet/nodes/n-000001", 32),
        ("/field/nodes/n-000001", 12),
        ("/field/?q=nobody", 4),
        ("/field/work", 3),
        ("/fleet/quarantine", 3),
    ],
)
def test_page_asks_a_fixed_number_of_statements(
    world: World, operator: FlaskClient, path: str, most: int
) -> None:
    with world.statements() as statements:
        assert operator.get(path).status_code == 200
    asked = [one for one in statements if not one.startswith(("BEGIN", "PRAGMA"))]
    assert len(asked) <= most, asked


# --- login ---


@pytest.fixture
def fresh(sqlite_world: World) -> FlaskClient:
    return sqlite_world.app().test_client()


def test_login_leads_back_to_the_page_that_was_asked_for(fresh: FlaskClient) -> None:
    page = fresh.get("/login?next=/fleet/sites").text
    answer = fresh.post(
        "/login",
        data={
            "name": small_world.USER,
            "password": small_world.PASSWORD,
            "csrf_token": csrf_token(page),
            "next": "/fleet/sites",
        },
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/fleet/sites")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\nb",
        "",
    ],
)
def test_login_never_leads_to_another_host(fresh: FlaskClient, target: str) -> None:
    page = fresh.get("/login").text
    answer = fresh.post(
        "/login",
        data={
            "name": small_world.USER,
            "password": small_world.PASSWORD,
            "csrf_token": csrf_token(page),
            "next": target,
        },
    )
    assert answer.headers["Location"] == "/fleet/"


def test_wrong_password_is_refused_without_telling_which_was_wrong(fresh: FlaskClient) -> None:
    token = csrf_token(fresh.get("/login").text)
    answers = [
        fresh.post("/login", data={"name": name, "password": "wrong", "csrf_token": token})
        for name in (small_world.USER, "nobody", "\0")
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert all("Name, password or code is wrong." in answer.text for answer in answers)
    assert "/login?" in fresh.get("/fleet/").headers["Location"]


@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_form_without_csrf_token_is_refused(fresh: FlaskClient, path: str) -> None:
    answer = fresh.post(path, data={"name": small_world.USER, "password": small_world.PASSWORD})
    assert answer.status_code == 400
    assert "out of date" in answer.text


def test_logout_ends_the_session(fresh: FlaskClient) -> None:
    log_in(fresh)
    token = csrf_token(fresh.get("/fleet/").text)
    assert fresh.post("/logout", data={"csrf_token": token}).status_code == 303
    assert fresh.get("/fleet/").status_code == 302


def test_new_password_ends_the_sessions_of_the_old_one(sqlite_world: World) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(
            session,
            "leaver",
            small_world.PASSWORD,
            now=small_world.NOW,
            roles=[Role.OPERATOR],
        )
    client = sqlite_world.app().test_client()
    log_in(client, name="leaver")
    assert client.get("/fleet/").status_code == 200
    with sqlite_world.sessions() as session:
        accounts.set_password(session, "leaver", "another password", now=small_world.NOW)
    assert client.get("/fleet/").status_code == 302


def test_login_is_limited_and_reading_is_not(sqlite_world: World) -> None:
    client = sqlite_world.app().test_client()
    assert {client.get("/v1.1").status_code for _ in range(100)} == {200}
    token = csrf_token(client.get("/login").text)
    data = {"name": "nobody", "password": "x", "csrf_token": token}
    statuses = [client.post("/login", data=data).status_code for _ in range(11)]
    assert statuses[:10] == [403] * 10
    assert statuses[10] == 429


# --- headers ---


@pytest.mark.parametrize("path", ["/", "/login", "/v1.1/Things", "/nowhere", "/static/pages.css"])
def test_answer_carries_a_policy_without_unsafe_words(fresh: FlaskClient, path: str) -> None:
    answer = fresh.get(path, buffered=True)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (
        policy != fresh.get(path, buffered=True).headers["Content-Security-Policy"]
    )  # the nonce is new


def test_cookie_is_for_https_only_where_pages_are(sqlite_world: World) -> None:
    client = sqlite_world.app(public_url="https://sensors.example.org").test_client()
    answer = client.get("/login", base_url="https://sensors.example.org")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "Strict-Transport-Security" in answer.headers


def test_what_the_broker_refused_stands_below_quarantine_in_words(sqlite_world: World) -> None:
    client = sqlite_world.app().test_client()
    log_in(client)
    assert "Refused by the broker" not in client.get("/fleet/quarantine").text
    tally = Tally(sqlite_world.settings().broker_status_path)
    tally.write()
    assert "It has refused nothing." in client.get("/fleet/quarantine").text
    for _ in range(1234):
        tally.refuse(Refusal.SUBSCRIBE_DENIED, client="<b>n-x</b>")
    tally.write()
    page = client.get("/fleet/quarantine").text
    assert "A wish to read what is for others." in page
    assert ">1,234<" in page
    assert "publish_denied" not in page
    german = client.get("/fleet/quarantine", headers={"Accept-Language": "de"}).text
    assert "Vom Broker abgewiesen" in german


def test_every_reason_of_a_refusal_has_words() -> None:
    assert set(words.REFUSAL_WORDS) == {reason.value for reason in Refusal}
