"""People, their roles, and what each role may do: one rule for the API and the pages."""

from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.integration.test_central_edge import FOR_AGENTS, OPEN, address, routes
from tests.support.browser import PASSWORD, add_person, browser
from tests.support.central import RunningCentral

# The smallest role that may; every other route needs an administrator.
VIEWERS = {
    ("GET", "/metrics"),
    *(
        ("GET", f"/api/v1{path}")
        for path in (
            "/content",
            "/content/{category}/{path}",
            "/alerts",
            "/conflicts",
            "/nodes",
            "/nodes/{node}",
            "/nodes/{node}/events",
            "/nodes/{node}/history",
            "/nodes/{node}/timeline",
            "/sites",
            "/sites/{site}",
            "/sites/{site}/conflicts",
            "/sites/{site}/conflicts/{conflict}",
            "/sites/{site}/health",
            "/sites/{site}/nodes",
            "/sites/{site}/outages",
            "/sites/{site}/queue",
            "/workflows",
            "/workflows/{workflow}",
        )
    ),
}
OPERATORS = {
    ("POST", "/api/v1/nodes"),
    ("POST", "/api/v1/nodes/assign"),
    ("POST", "/api/v1/nodes/move"),
    ("POST", "/api/v1/nodes/register"),
    ("PATCH", "/api/v1/nodes/{node}"),
    ("DELETE", "/api/v1/nodes/{node}"),
    ("PATCH", "/api/v1/nodes/{node}/state"),
    ("POST", "/api/v1/nodes/{node}/event"),
    ("POST", "/api/v1/report"),
    ("POST", "/api/v1/alerts/{alert}/acknowledge"),
    ("POST", "/api/v1/conflicts/resolve"),
    ("POST", "/api/v1/sites/{site}/cache/{name}/invalidate"),
    ("POST", "/api/v1/sites/{site}/conflicts/{conflict}/resolve"),
    ("POST", "/api/v1/sites/{site}/conflicts/{conflict}/undo"),
    ("POST", "/api/v1/sites/{site}/queue/{item}/discard"),
    ("POST", "/api/v1/sites/{site}/queue/{item}/requeue"),
    ("POST", "/api/v1/sites/{site}/sync"),
}


async def token_of(central: RunningCentral, role: str) -> httpx2.AsyncClient:
    made = await central.ask("POST", "/tokens", 201, json={"name": f"a-{role}", "role": role})
    return central.client(made["token"])


async def code(central: RunningCentral, method: str, path: str, status: int, **arguments: Any) -> str:
    return str((await central.ask(method, path, status, **arguments))["error"]["code"])


@pytest.mark.parametrize(("role", "allowed"), [("operator", VIEWERS | OPERATORS), ("viewer", VIEWERS)])
async def test_a_role_may_what_it_may_and_nothing_else(central: RunningCentral, role: str, allowed: set[Any]) -> None:
    client = await token_of(central, role)
    assert routes(central) >= VIEWERS | OPERATORS
    for method, path in sorted(routes(central) - OPEN - FOR_AGENTS):
        answer = await client.request(method, address(path))
        refused = answer.status_code == 403 and answer.json()["error"]["code"] == "role_needed"
        assert refused == ((method, path) not in allowed), (method, path, answer.text)


async def test_force_is_for_administrators(central: RunningCentral) -> None:
    await central.new_site("attic")
    node = await central.ask("POST", "/nodes", 201, json={"mac_address": "525400aabb01", "home_site_id": "attic"})
    body = {"state": "active", "force": True, "comment": "it is"}
    path = f"/api/v1/nodes/{node['id']}/state"
    assert (await (await token_of(central, "operator")).patch(path, json=body)).json()["error"]["code"] == "role_needed"
    assert (await central.ask("PATCH", f"/nodes/{node['id']}/state", json=body))["state"] == "active"


async def test_a_person_is_added_changed_and_removed(central: RunningCentral) -> None:
    await add_person(central, "Kim", "admin")
    await add_person(central, "lee", "viewer")
    assert [person["name"] for person in (await central.ask("GET", "/people"))["items"]] == ["kim", "lee"]
    changed = await central.ask("PATCH", "/people/LEE", json={"role": "operator", "disabled": True})
    assert (changed["role"], changed["disabled"]) == ("operator", True)
    assert await code(central, "POST", "/people", 409, json={"name": "KIM", "password": PASSWORD}) == "name_taken"
    await central.ask("DELETE", "/people/lee", 204)
    assert await code(central, "GET", "/people/lee", 404) == "unknown_person"


@pytest.mark.parametrize("name", ["", " ", "<b>", "a b", "-a", "a" * 65, "\N{CYRILLIC SMALL LETTER A}"])
async def test_a_name_that_could_mislead_is_refused(central: RunningCentral, name: str) -> None:
    await central.ask("POST", "/people", 422, json={"name": name, "password": PASSWORD})


async def test_a_short_password_is_refused_and_never_repeated(central: RunningCentral) -> None:
    answer = await central.admin.post("/api/v1/people", json={"name": "kim", "password": "kurz-und"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "password_length")
    assert "kurz-und" not in answer.text


async def test_the_last_administrator_stays_one(central: RunningCentral) -> None:
    await add_person(central, "kim", "admin")
    await add_person(central, "lee", "viewer")
    for patch in ({"role": "operator"}, {"disabled": True}):
        assert await code(central, "PATCH", "/people/kim", 409, json=patch) == "last_admin"
    assert await code(central, "DELETE", "/people/kim", 409) == "last_admin"
    await central.ask("PATCH", "/people/lee", json={"role": "admin"})
    await central.ask("DELETE", "/people/kim", 204)


async def test_no_password_and_no_cookie_lies_in_the_database(central: RunningCentral) -> None:
    await add_person(central, "kim", "admin")
    client = browser(central)
    await client.post("/sign-in", data={"name": "kim", "password": PASSWORD})
    stored = " ".join(central.everything_stored())
    assert PASSWORD not in stored
    assert client.cookies["pureboot_session"] not in stored
    assert "$argon2id$" in stored


async def test_what_is_asked_by_a_token_names_it_as_the_actor(central: RunningCentral) -> None:
    await central.new_site("attic")
    node = await central.ask("POST", "/nodes", 201, json={"mac_address": "525400aabb01", "home_site_id": "attic"})
    client = await token_of(central, "operator")
    await client.patch(f"/api/v1/nodes/{node['id']}/state", json={"state": "pending"})
    assert [step["actor"] for step in await central.history("525400aabb01")] == ["a-operator"]


async def test_a_token_is_shown_once_and_revoked(central: RunningCentral) -> None:
    made = await central.ask("POST", "/tokens", 201, json={"name": "ci", "role": "viewer"})
    assert [each["name"] for each in (await central.ask("GET", "/tokens"))["items"]] == ["admin", "ci"]
    assert made["token"] not in " ".join(central.everything_stored())
    assert await code(central, "POST", "/tokens", 409, json={"name": "ci", "role": "admin"}) == "name_taken"
    client = central.client(made["token"])
    assert (await client.get("/api/v1/sites")).status_code == 200
    await central.ask("DELETE", "/tokens/ci", 204)
    assert (await client.get("/api/v1/sites")).status_code == 401
    assert await code(central, "DELETE", "/tokens/ci", 404) == "unknown_token"
    assert await code(central, "DELETE", "/tokens/admin", 409) == "last_admin"
    await central.ask("GET", "/tokens")


@pytest.mark.parametrize("name", ["", ".", "..", " ", "ci/prod", "ci prod", "ci\n", "çi", "x" * 201], ids=ascii)
async def test_a_token_that_no_address_could_name_is_not_made(central: RunningCentral, name: str) -> None:
    error = (await central.ask("POST", "/tokens", 422, json={"name": name, "role": "viewer"}))["error"]
    assert error["message"].startswith("name: ")


@pytest.mark.parametrize("name", ["ci/prod", "/ci", "ci prod", " "])
async def test_a_token_of_before_is_revoked_whatever_its_name(central: RunningCentral, name: str) -> None:
    central.sql("INSERT INTO admin_credential SELECT 'x', :name, created_at, role FROM admin_credential", name=name)
    await central.ask("DELETE", f"/tokens/{quote(name, safe='')}", 204)
    assert [each["name"] for each in (await central.ask("GET", "/tokens"))["items"]] == ["admin"]
