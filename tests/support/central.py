"""A real central in this process, reached through ASGI instead of a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from sqlalchemy import Connection, Row, text

from pureboot.central import engines
from pureboot.central import tables as t
from pureboot.central.bell import Bell
from pureboot.central.clock import Clock, SystemClock, new_id
from pureboot.central.db import Database
from pureboot.central.main import TOKEN_FILE, Central, build
from pureboot.config.central import CentralSettings
from pureboot.wire.messages import AgentCredential, FeedPage, PushAnswer

BASE_URL = "http://central"


class SetClock:
    """Stands still until it is told to go on."""

    def __init__(self, now: datetime = datetime(2026, 1, 28, 12, tzinfo=UTC)) -> None:
        self._now = now
        self._running = 0.0

    def now(self) -> datetime:
        return self._now

    def running(self) -> float:
        return self._running

    def advance(self, seconds: float) -> None:
        self.step(seconds)
        self._running += seconds

    def step(self, seconds: float) -> None:
        """It is set: no time passes."""
        self._now += timedelta(seconds=seconds)


class RunningCentral:
    """`admin` speaks with the administrator's token, `anybody` without one."""

    def __init__(self, central: Central, token: str, folder: Path) -> None:
        app, db = central.app, central.db
        self.app = app
        self.stop_waiting = central.stop_waiting
        self.folder = folder
        self.db = db
        self.housekeeping = central.housekeeping
        self.token = token
        self._clients: list[httpx2.AsyncClient] = []
        self.admin = self.client(token)
        self.anybody = self.client()

    def transport(self) -> httpx2.ASGITransport:
        """For an agent's own client; its base URL is `BASE_URL`."""
        return httpx2.ASGITransport(app=self.app)

    def client(self, token: str | None = None) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx2.AsyncClient(transport=self.transport(), base_url=BASE_URL, headers=headers)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    def sql(self, statement: str, **values: Any) -> list[Row[Any]]:
        """Past all the rules, in a transaction of its own."""

        def work(conn: Connection) -> list[Row[Any]]:
            result = conn.execute(text(statement), values)
            return list(result) if result.returns_rows else []

        return self.db.write_now(work)

    def everything_stored(self) -> list[str]:
        """The rows of all tables."""
        return [str(row) for table in t.metadata.sorted_tables for row in self.sql(f'SELECT * FROM "{table.name}"')]

    async def ask(self, method: str, path: str, status: int = 200, **arguments: Any) -> Any:
        """The administrator's call, which must answer with `status`."""
        answer = await self.admin.request(method, f"/api/v1{path}", **arguments)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def node(self, mac: str) -> dict[str, Any]:
        found = await self.ask("GET", "/nodes", params={"mac": mac})
        node: dict[str, Any] = found["items"][0]
        return node

    async def history(self, mac: str) -> list[dict[str, Any]]:
        node = await self.node(mac)
        steps: list[dict[str, Any]] = (await self.ask("GET", f"/nodes/{node['id']}/history"))["items"]
        return steps

    async def events(self, mac: str) -> list[dict[str, Any]]:
        node = await self.node(mac)
        events: list[dict[str, Any]] = (await self.ask("GET", f"/nodes/{node['id']}/events"))["items"]
        return events

    async def new_site(self, name: str = "attic", **fields: Any) -> dict[str, Any]:
        site: dict[str, Any] = await self.ask("POST", "/sites", 201, json={"name": name, **fields})
        return site

    async def speaking_agent(self, site: str) -> "SpeakingAgent":
        return SpeakingAgent(self, await self.new_agent(site))

    async def new_agent(self, site: str) -> AgentCredential:
        token = (await self.ask("POST", f"/sites/{site}/agent-token", 201))["token"]
        answer = await self.anybody.post("/api/v1/agents/register", json={"token": token, "version": "test"})
        assert answer.status_code == 201, answer.text
        return AgentCredential.model_validate_json(answer.content)


@cache
def _migrated() -> bytes:
    """An empty database at the newest schema: made once, for most of a first start is its migrations."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "central.db"
        Database(engines.sqlite_file(file), Bell()).close()
        return file.read_bytes()


def _prepare(folder: Path) -> None:
    file = folder / "central.db"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_migrated())


@asynccontextmanager
async def running_central(folder: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[RunningCentral]:
    """Central with its data in `folder`; a second one on the same folder goes on where the first stopped."""
    if not settings.get("database_url"):
        _prepare(folder)
    with build(CentralSettings(data_dir=folder, **settings), clock or SystemClock()) as central:
        running = RunningCentral(central, (folder / TOKEN_FILE).read_text().strip(), folder)
        try:
            yield running
        finally:
            central.stop_waiting()
            await running.close()


class SpeakingAgent:
    """The wire alone: what an agent sends, item by item, without an agent around it."""

    def __init__(self, central: RunningCentral, credential: AgentCredential) -> None:
        self.id = credential.agent_id
        self.site_id = credential.site_id
        self.client = central.client(credential.credential)
        self.generation = 1
        self._numbers = count(1)

    def item(self, kind: str, lane: str, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
        number = next(self._numbers)
        return {"id": new_id(), "epoch": "e1", "seq": number, "lane": lane, "item_type": kind, "body": body, **fields}

    def registration(self, node: str, *macs: str, **fields: Any) -> dict[str, Any]:
        facts = fields.pop("facts", {})
        return self.item("registration", node, {"node_id": node, "mac_addresses": macs, "facts": facts}, **fields)

    def event(self, node: str, event: str, **fields: Any) -> dict[str, Any]:
        return self.item("event", node, {"event": event}, **fields)

    def step(self, node: str, origin: str, target: str, attempt: int = 0, **fields: Any) -> dict[str, Any]:
        """`base` is the revision it is made on."""
        if "base" in fields:
            fields["base"] = {"generation": self.generation, "state_rev": fields["base"]}
        body = {"from_state": origin, "to_state": target, "attempt": attempt}
        return self.item("state_update", node, body | fields.pop("body", {}), **fields)

    async def post(self, *items: dict[str, Any], **fields: Any) -> httpx2.Response:
        request = {"agent_id": self.id, "epoch": "e1", "generation": self.generation, "items": items, **fields}
        return await self.client.post("/api/v1/sync/push", json=request)

    async def push(self, *items: dict[str, Any]) -> PushAnswer:
        answer = await self.post(*items)
        assert answer.status_code == 200, answer.text
        return PushAnswer.model_validate_json(answer.content)

    async def changes(self, since: str = "0", **query: Any) -> FeedPage:
        answer = await self.client.get("/api/v1/sync/changes", params={"since": since, **query})
        assert answer.status_code == 200, answer.text
        return FeedPage.model_validate_json(answer.content)
