"""What an operator types about outages, alerts, the queue from afar, and a site's last boots."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from pureboot.cli.main import app
from tests.fakes_cli import Canned, serving

SITE = {"id": "s1", "name": "lab"}
OUTAGE = {
    "began_at": "2026-01-28T12:00:00Z",
    "offline_at": None,
    "ended_at": "2026-01-28T12:10:00Z",
    "account": "The agent noticed no outage.",
}
ALERT = {
    "id": "a1",
    "site_name": "lab",
    "kind": "site_silent",
    "severity": "critical",
    "message": "Its agent is silent.",
    "first_at": "2026-01-28T12:00:00Z",
    "ended_at": None,
    "acknowledged_by": "ada",
}
COMMAND = {
    "asked_at": "2026-01-28T12:00:00Z",
    "command": "requeue",
    "item_id": "i1",
    "person": "ada",
    "outcome": "refused",
    "message": "There is no such item.",
}
ITEM = {
    "id": "i1",
    "item_type": "event",
    "lane": "n1",
    "attempts": 3,
    "created_at": "2026-01-28T12:00:00Z",
    "last_error": "poison",
}
QUEUE = {"items": [ITEM], "commands": [COMMAND], "pending": 7, "failed": 1, "told_at": "2026-01-28T12:00:00Z"}
BOOT = {
    "seq": 5,
    "at": "2026-01-28T12:00:00Z",
    "mac_address": "52:54:00:aa:bb:01",
    "hostname": "web1",
    "state": "active",
    "decision": "local_disk",
    "link": "offline",
    "reason": "It boots its own disk.",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    monkeypatch.setenv("COLUMNS", "240")
    with serving(Canned()) as canned:
        monkeypatch.setenv("PUREBOOT_URL", canned.url)
        monkeypatch.setenv("PUREBOOT_TOKEN", "adm1n")
        canned.says("GET", "/api/v1/sites", {"items": [SITE], "next_cursor": None})
        yield canned


def pureboot(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_outages_are_listed_with_what_is_known(server: Canned) -> None:
    server.says("GET", "/api/v1/sites/s1/outages", {"items": [OUTAGE], "next_cursor": None})
    assert "The agent noticed no outage." in pureboot("site", "outages", "lab")
    assert json.loads(pureboot("site", "outages", "lab", "--json")) == [OUTAGE]


def test_the_queue_is_shown_with_what_was_asked(server: Canned) -> None:
    server.says("GET", "/api/v1/sites/s1/queue", QUEUE)
    output = pureboot("site", "queue", "lab")
    assert output.startswith("7 items wait and 1 failed, as its agent said at 2026-01-28 12:00:00Z.")
    assert "poison" in output
    assert "There is no such item." in output
    assert json.loads(pureboot("site", "queue", "lab", "--json")) == QUEUE


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("requeue", "lab", "i/1"), "queue/i%2F1/requeue", None),
        (("discard", "lab", "i1", "--reason", "swapped"), "queue/i1/discard", {"reason": "swapped"}),
        (("sync", "lab"), "sync", None),
        (("invalidate", "lab", "images/a b"), "cache/images/a%20b/invalidate", None),
    ],
)
def test_a_sites_agent_is_asked(
    server: Canned, arguments: tuple[str, ...], path: str, body: dict[str, str] | None
) -> None:
    server.says("POST", f"/api/v1/sites/s1/{path}", {"status": "queued", "id": "c1"}, status=202)
    assert "`pureboot site queue` shows what becomes of it." in pureboot("site", *arguments)
    assert (json.loads(server.last.body) if server.last.body else None) == body


def test_alerts_are_listed_and_acknowledged(server: Canned) -> None:
    server.says("GET", "/api/v1/alerts", {"items": [ALERT], "next_cursor": None})
    server.says("POST", "/api/v1/alerts/a1/acknowledge", ALERT)
    assert "Its agent is silent." in pureboot("alert", "list", "--site", "lab", "--status", "all")
    assert (server.last.query["site"], server.last.query["status"]) == ("s1", "all")
    assert pureboot("alert", "acknowledge", "a1") == "lab: Its agent is silent. Seen by ada.\n"


def test_boots_are_listed(server: Canned) -> None:
    server.says("GET", "/api/v1/agent/boots", {"items": [BOOT], "next_cursor": None, "last": 5})
    port = ("--port", server.url.rpartition(":")[2])
    assert "52:54:00:aa:bb:01" in pureboot("agent", "boots", *port)
    assert json.loads(pureboot("agent", "boots", "--json", *port)) == [BOOT]


def test_boots_are_followed_until_the_agent_is_gone(server: Canned) -> None:
    server.says("GET", "/api/v1/agent/boots", {"items": [BOOT], "next_cursor": None, "last": 5})
    server.says("GET", "/api/v1/agent/boots", {"items": [BOOT | {"seq": 6}], "next_cursor": None, "last": 6})
    error = {"error": {"code": "busy", "message": "The agent stops.", "hint": ""}}
    server.says("GET", "/api/v1/agent/boots", error, status=503)
    port = ("--port", server.url.rpartition(":")[2])
    lines = pureboot("agent", "boots", "--follow", "--json", *port, code=1).splitlines()
    assert [json.loads(line)["seq"] for line in lines[:2]] == [5, 6]
    assert [asked.query["after"] for asked in server.asked] == ["0", "5", "6"]
