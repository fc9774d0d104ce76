"""Who may ask what, and how central says no."""

import gzip
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.central import RunningCentral, SpeakingAgent

OPEN = {("GET", "/health"), ("POST", "/api/v1/agents/register")}
FOR_AGENTS = {
    ("POST", "/api/v1/agents/heartbeat"),
    ("POST", "/api/v1/sync/push"),
    ("POST", "/api/v1/sync/session"),
    ("GET", "/api/v1/sync/changes"),
}
FOR_BOTH = {("GET", "/api/v1/content/{category}/{path}")}


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    await central.new_site("attic")
    return await central.speaking_agent("attic")


def routes(central: RunningCentral) -> set[tuple[str, str]]:
    paths = central.app.openapi()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def address(path: str) -> str:
    return path.replace("{category}", "images").replace("{path}", "k").replace("{", "").replace("}", "")


def test_the_table_below_speaks_of_routes_that_exist(central: RunningCentral) -> None:
    assert routes(central) >= OPEN | FOR_AGENTS | FOR_BOTH
    assert len(routes(central)) > 35


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer ", "Bearer nonsense", "Basic YTpi", "nonsense", "Bearer é"])
async def test_without_a_token_every_route_but_the_open_ones_is_401(
    central: RunningCentral, header: str | None
) -> None:
    headers = {b"Authorization": header.encode("latin-1")} if header else {}
    for method, path in sorted(routes(central) - OPEN):
        # Not even a broken body is looked at before.
        answer = await central.anybody.request(method, address(path), headers=headers, content=b"{")
        assert answer.status_code == 401, (method, path, answer.text)
        assert answer.json()["error"]["code"] in ("unauthenticated", "unknown_token")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_agent_is_refused_what_is_an_administrators(central: RunningCentral, agent: SpeakingAgent) -> None:
    for method, path in sorted(routes(central) - OPEN - FOR_AGENTS - FOR_BOTH):
        answer = await agent.client.request(method, address(path))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "people_only"), (method, path, answer.text)


async def test_an_administrator_is_no_agent(central: RunningCentral) -> None:
    for method, path in sorted(FOR_AGENTS):
        answer = await central.admin.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "agent_only"), (method, path)


async def test_health_is_open_and_names_the_product(central: RunningCentral) -> None:
    answer = await central.anybody.get("/health")
    body = answer.json()
    assert (answer.status_code, body["status"], body["product"]) == (200, "ok", "pureboot-central")
    assert body["version"]


async def test_the_description_is_open_and_loads_nothing_from_elsewhere(central: RunningCentral) -> None:
    assert (await central.anybody.get("/openapi.json")).json()["info"]["title"] == "PureBoot central"
    assert (await central.anybody.get("/docs")).status_code == 404


async def test_metrics_count_what_there_is(central: RunningCentral, agent: SpeakingAgent) -> None:
    item = agent.registration("n1", "52:54:00:aa:bb:01")
    await agent.push(item, item, agent.event("nobody", "x"))
    text = (await central.admin.get("/metrics")).text
    for line in (
        'pureboot_central_sites{status="unknown"} 1.0',
        'pureboot_central_nodes{state="discovered"} 1.0',
        "pureboot_central_pushes_total 1.0",
        'pureboot_central_push_items_total{outcome="applied"} 1.0',
        'pureboot_central_push_items_total{outcome="duplicate"} 1.0',
        'pureboot_central_push_items_total{outcome="rejected"} 1.0',
        "pureboot_central_conflicts_pending 0.0",
    ):
        assert line in text.splitlines()


async def said(central: RunningCentral, status: int, **request: Any) -> dict[str, Any]:
    request = {"method": "POST", "url": "/api/v1/sites"} | request
    answer = await central.admin.request(**request)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["message"].endswith(".")
    return error


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff\xfe", b'{"name":NaN}', b'{"name":"\\ud800"}', b'{"name":Infinity}', b"[" * 100_000],
    ids=["cut", "empty", "bytes", "nan", "half-character", "infinity", "deep"],
)
async def test_what_is_not_json_is_refused(central: RunningCentral, body: bytes) -> None:
    error = await said(central, 422 if body == b"" else 400, content=body, headers=JSON)
    assert error["code"] == ("invalid" if body == b"" else "malformed")


async def test_a_wrong_field_is_named(central: RunningCentral) -> None:
    error = await said(central, 422, json={"name": "x", "cache_retention_days": "many"})
    assert error["code"] == "invalid"
    assert error["message"].startswith("cache_retention_days: ")
    await said(central, 422, json=["x"])
    await said(central, 422, content=b"name=x", headers={"Content-Type": "application/x-www-form-urlencoded"})


async def test_nothing_there_and_not_like_that(central: RunningCentral) -> None:
    assert (await said(central, 404, url="/api/v1/nothing"))["code"] == "not_found"
    assert (await said(central, 404, url="/api/v1/sites/"))["code"] == "not_found"
    assert (await said(central, 405, method="DELETE", url="/api/v1/sites"))["code"] == "method_not_allowed"


async def endless(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 65536):
        yield b" " * 65536


async def test_a_body_beyond_the_limit_is_413_whatever_it_claims(central: RunningCentral) -> None:
    assert (await said(central, 413, content=endless(9 * 1024**2), headers=JSON))["code"] == "too_large"
    bomb = gzip.compress(bytes(64 * 1024**2))
    assert len(bomb) < 100_000
    await said(central, 413, content=bomb, headers=JSON | {"Content-Encoding": "gzip"})


async def test_a_body_may_be_packed(central: RunningCentral) -> None:
    headers = JSON | {"Content-Encoding": "gzip"}
    packed = gzip.compress(json.dumps({"name": "attic"}).encode())
    await central.ask("POST", "/sites", 201, content=packed, headers=headers)
    await said(central, 400, content=b"not gzip", headers=headers)
    await said(central, 400, content=packed[:-9], headers=headers)
    await said(central, 400, content=packed, headers=JSON | {"Content-Encoding": "br"})


async def test_what_nobody_foresaw_is_one_sentence_and_the_rest_is_logged(
    central: RunningCentral, caplog: pytest.LogCaptureFixture
) -> None:
    @central.app.get("/stumble")
    async def stumble() -> None:
        raise RuntimeError("a secret")

    with caplog.at_level(logging.ERROR):
        answer = await central.anybody.get("/stumble")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "command"),
    [
        ("GET", "nodes/nope", "pureboot node list"),
        ("PATCH", "people/nobody", "pureboot person list"),
        ("DELETE", "tokens/none", "pureboot token list"),
    ],
)
async def test_what_is_not_there_names_the_command_and_the_address_of_all(
    central: RunningCentral, method: str, path: str, command: str
) -> None:
    body = {"role": "viewer"} if method == "PATCH" else None
    hint = (await central.ask(method, f"/{path}", 404, json=body))["error"]["hint"]
    assert hint == f"`{command}` shows them, and GET /api/v1/{path.partition('/')[0]}."
