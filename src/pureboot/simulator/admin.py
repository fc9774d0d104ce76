"""An administrator in software: central's API as its people use it."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel

from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.core.reconcile import Resolution
from pureboot.simulator.ledger import Account, EventRow, HistoryRow
from pureboot.wire.errors import from_answer
from pureboot.wire.messages import ConflictDocument, Lenient, NodeDocument, SiteFields, WorkflowFields

M = TypeVar("M", bound=BaseModel)


class Identified(Lenient):
    id: str


class SiteView(Lenient):
    id: str
    name: str
    agent_status: str = "unknown"


class OneTimeToken(Lenient):
    token: str


class Admin:
    """Raises the PureBootError that an answer stands for."""

    def __init__(self, url: str, token: str, client: httpx2.AsyncClient) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._client = client

    async def create_site(self, fields: SiteFields) -> str:
        return (await self._send("POST", "/sites", Identified, fields.model_dump(mode="json", exclude_unset=True))).id

    async def site(self, site_id: str) -> SiteView:
        return await self._send("GET", f"/sites/{site_id}", SiteView)

    async def agent_token(self, site_id: str) -> str:
        return (await self._send("POST", f"/sites/{site_id}/agent-token", OneTimeToken)).token

    async def put_content(self, name: str, data: bytes) -> None:
        await self._request("PUT", f"/content/{name}", content=data)

    async def create_workflow(self, fields: WorkflowFields) -> str:
        body = fields.model_dump(mode="json", exclude_unset=True)
        return (await self._send("POST", "/workflows", Identified, body)).id

    async def nodes(self, site_id: str) -> dict[MacAddress, NodeDocument]:
        found = [node async for node in self._pages(f"/sites/{site_id}/nodes", NodeDocument)]
        return {MacAddress.parse(node.mac_address): node for node in found}

    async def assign(self, node_id: str, workflow_id: str) -> None:
        await self._request("PATCH", f"/nodes/{node_id}", json={"workflow_id": workflow_id})

    async def move(self, node_id: str, state: NodeState, comment: str = "", *, force: bool = False) -> None:
        body = {"state": state, "comment": comment, "force": force}
        await self._request("PATCH", f"/nodes/{node_id}/state", json=body)

    async def add_person(self, name: str, role: str, password: str) -> None:
        await self._request("POST", "/people", json={"name": name, "role": role, "password": password})

    async def account(self, mac: MacAddress, node_id: str) -> Account:
        history = [row async for row in self._pages(f"/nodes/{node_id}/history", HistoryRow)]
        events = [row async for row in self._pages(f"/nodes/{node_id}/events", EventRow)]
        return Account(mac, tuple(history), tuple(events))

    async def conflicts(self, site_id: str) -> list[ConflictDocument]:
        return [c async for c in self._pages(f"/sites/{site_id}/conflicts", ConflictDocument, {"status": "pending"})]

    async def resolve(self, site_id: str, conflict_id: str, resolution: Resolution) -> None:
        path = f"/sites/{site_id}/conflicts/{conflict_id}/resolve"
        await self._request("POST", path, json={"resolution": resolution})

    async def _pages(self, path: str, kind: type[M], parameters: Mapping[str, str] | None = None) -> AsyncIterator[M]:
        cursor: dict[str, str] = {}
        while True:
            page = await self._request("GET", path, params={"limit": "200", **(parameters or {}), **cursor})
            for item in page["items"]:
                yield kind.model_validate(item)
            if not page["next_cursor"]:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def _send(self, method: str, path: str, kind: type[M], body: Mapping[str, Any] | None = None) -> M:
        return kind.model_validate(await self._request(method, path, json=body))

    async def _request(self, method: str, path: str, **arguments: Any) -> Any:
        answer = await self._client.request(method, f"{self._url}/api/v1{path}", headers=self._headers, **arguments)
        body = answer.json() if answer.content else None
        if not answer.is_success:
            raise from_answer(answer.status_code, body, None)
        return body
