"""Whatever programs send, whoever they are: no answer is a 500, and every answer is one that the OpenAPI document describes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from fleet_server.http_shared.limits import limiter
from fleet_server.models import Role
from fleet_server.services import accounts
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

# In all: about eight seconds. What a night has time for is the other test's.
EXAMPLES_AT_COMMIT, EXAMPLES_BY_NIGHT = 100, 40_000
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
# Things that are there, so that requests get further than "not found"; half of them are drawn freely all the same.
_THERE: dict[str, Any] = {
    "node_id": "n-000001",
    "site_code": "kortum",
    "deployment_id": 1,
    "pack_id": 1,
    "user_id": 1,
    "alert_id": 1,
    "kind": "battery",
    "recipient_id": 1,
}


@pytest.fixture(autouse=True)
def without_limits() -> Iterator[None]:
    limiter.enabled = False
    yield
    limiter.enabled = True


def _app(world: World) -> Flask:
    made = world.app(demo=False)
    made.config.update(WTF_CSRF_ENABLED=False)
    return made


def _cookies(world: World, app: Flask) -> dict[str, dict[str, str]]:
    """A session of each role, and of nobody."""
    found: dict[str, dict[str, str]] = {"nobody": {}}
    for role in Role:
        name = f"fuzz {role}"
        with world.sessions() as session:
            accounts.create_user(session, name, small_world.PASSWORD, now=NOW, roles=[role])
        client = app.test_client()
        client.post("/login", data={"name": name, "password": small_world.PASSWORD})
        found[role] = _cookie_of(client)
    return found


def _cookie_of(client: FlaskClient) -> dict[str, str]:
    cookie = client.get_cookie("stadtsensor")
    assert cookie is not None
    return {cookie.key: cookie.value}


def _operations(app: Flask) -> Iterator[Any]:
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    schema.config.generation.update(with_security_parameters=False)  # who asks is ours to say
    for found in schema.get_all_operations():
        yield found.ok()


def _fuzz(world: World, *, examples: int, is_thorough: bool) -> None:
    app = _app(world)
    cookies = _cookies(world, app)
    operations = list(_operations(app))
    assert len(operations) > 20
    seen: Counter[int] = Counter()
    for operation in operations:
        # In a short run each operation gets requests of one kind only: its name says which.
        modes = list(GenerationMode)
        if not is_thorough:
            modes = [random.Random(operation.label).choice(modes)]
        for mode in modes:
            each = max(3, examples // len(operations) // len(modes))
            seen += _fuzz_one(operation, mode, cookies, examples=each)
    # It came through to what is there, and not all of it was refused.
    assert {200, 401, 404} <= set(seen), seen


def _fuzz_one(
    operation: Any, mode: GenerationMode, cookies: dict[str, dict[str, str]], *, examples: int
) -> Counter[int]:
    """How often there was which status."""
    seen: Counter[int] = Counter()
    names = {parameter.name for parameter in operation.path_parameters}
    there = {name: value for name, value in _THERE.items() if name in names}
    cases = operation.as_strategy(generation_mode=mode)
    has_more = list(operation.query) or list(operation.body)
    if names and there.keys() >= names and (mode is GenerationMode.POSITIVE or has_more):
        cases |= operation.as_strategy(generation_mode=mode, path_parameters=there)

    @settings(
        max_examples=examples,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, who=st.sampled_from(sorted(cookies)), is_any_version=st.booleans())
    def answers_as_described(case: Any, who: str, is_any_version: bool) -> None:
        headers = {"If-Match": "*"} if is_any_version else {}
        answer = case.call(headers=headers, cookies=cookies[who])
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    # Of some, nothing can be wrong: then there is nothing to draw.
    with suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
        answers_as_described()
    return seen


def test_no_request_is_a_500_or_answered_other_than_described(sqlite_world: World) -> None:
    _fuzz(sqlite_world, examples=EXAMPLES_AT_COMMIT, is_thorough=False)


@pytest.mark.nightly
def test_no_request_of_a_long_night_is_a_500(world: World) -> None:
    _fuzz(world, examples=EXAMPLES_BY_NIGHT, is_thorough=True)
