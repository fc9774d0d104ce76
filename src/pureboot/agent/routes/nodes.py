"""What machines say of themselves. 200: central has it; 202: it is safe here, and central will."""

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.proxy import CentralProxy, Written
from pureboot.agent.routes.bodies import read_body
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import Forbidden, IllegalEdge, Malformed, NotFound
from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import EventBody, Outcome, RegisterBody, ReportBody, StateBody
from pureboot.wire.reading import levels

# An item has to fit into a push with others; one that does not would stop its node's lane for good.
METADATA_BYTES = 64 * 1024
METADATA_DEPTH = 32


class Nodes:
    """`may_install`: whether a boot of the node would install it now."""

    def __init__(self, proxy: CentralProxy, cache: NodeStateCache, may_install: Callable[[CachedNode], bool]) -> None:
        self._proxy, self._cache, self._may_install = proxy, cache, may_install

        # A whole site that installs says little else.
        self.reports = [
            Route("/api/v1/nodes/{id}/event", self.event, methods=["POST"]),
            Route("/api/v1/report", self.report, methods=["POST"]),
        ]

    def routes(self) -> list[Route]:
        return [
            *self.reports,
            Route("/api/v1/nodes/register", self.register, methods=["POST"]),
            Route("/api/v1/nodes/{id}/state", self.move, methods=["PATCH"]),
            Route("/api/v1/nodes", self.find, methods=["GET"]),
            Route("/api/v1/nodes/{id}", self.get, methods=["GET"]),
        ]

    async def register(self, request: Request) -> Response:
        return _answer(await self._proxy.register(await read_body(request, RegisterBody)))

    async def move(self, request: Request) -> Response:
        body = await read_body(request, StateBody)
        if body.force:
            raise Forbidden("A machine cannot force an edge.", hint="An administrator can, at central.")
        written = await self._proxy.move(
            request.path_params["id"],
            NodeState.parse(body.state),
            comment=body.comment,
            report_id=body.report_id,
            boot_token=body.boot_token,
            may_begin=self._may_begin(self._cache.by_id(request.path_params["id"])),
        )
        if written.status == Outcome.REJECTED:
            raise IllegalEdge(str(written.body.get("reason", "Central refused it.")), code="rejected")
        return _answer(written)

    async def event(self, request: Request) -> Response:
        body = await read_body(request, EventBody)
        event = _event(request.path_params["id"], body)
        may_begin = self._may_begin(self._cache.by_id(event.node_id))
        written = await self._proxy.record(
            event, report_id=body.report_id, boot_token=body.boot_token, may_begin=may_begin
        )
        return _answer(written)

    async def report(self, request: Request) -> Response:
        body = await read_body(request, ReportBody)
        mac = MacAddress.parse(body.mac_address)
        may_begin = self._may_begin(self._cache.by_mac(mac))
        written = await self._proxy.report(
            mac, _event("", body), report_id=body.report_id, boot_token=body.boot_token, may_begin=may_begin
        )
        return _answer(written)

    def _may_begin(self, node: CachedNode | None) -> bool:
        return node is not None and node.state is NodeState.PENDING and self._may_install(node)

    async def find(self, request: Request) -> Response:
        mac = request.query_params.get("mac")
        if mac is None:
            raise Malformed("The query names no machine.", hint="Ask for /api/v1/nodes?mac=52:54:00:aa:bb:01.")
        node = self._cache.by_mac(MacAddress.parse(mac))
        items = [] if node is None else [await self._document(node)]
        return JSONResponse({"items": items, "next_cursor": None})

    async def get(self, request: Request) -> Response:
        node = self._cache.by_id(request.path_params["id"])
        if node is None:
            raise NotFound("There is no such node here.", hint="Register it first.")
        return JSONResponse(await self._document(node))

    async def _document(self, node: CachedNode) -> dict[str, Any]:
        return await self._cache.database.store.read(lambda c: document_of(c, node))


def document_of(connection: sqlite3.Connection, node: CachedNode) -> dict[str, Any]:
    """Central's document where there is one, with what this site knows better: the effective state, MACs and facts."""
    row = connection.execute("SELECT document, facts FROM node WHERE id = ?", [node.node_id]).fetchone()
    document: dict[str, Any] = json.loads(row["document"]) if row and row["document"] else {}
    return document | {
        "id": node.node_id,
        "mac_address": node.mac_address,
        "mac_addresses": list(node.macs),
        "hostname": node.hostname,
        "state": node.state,
        "attempt": node.attempt,
        "version": node.base_version,
        "state_rev": node.base_state_rev,
        "workflow_id": node.workflow_id,
        "facts": json.loads(row["facts"]) if row else {},
        "updated_at": node.updated_at.isoformat(),
    }


def _event(node_id: str, body: EventBody) -> NodeEvent:
    metadata = _carried(body.metadata) | ({"status": body.status} if body.status else {})
    return NodeEvent(node_id, body.event, body.message, metadata)


def _carried(metadata: dict[str, Any]) -> dict[str, Any]:
    """Without what no push could carry: the report itself is kept, for an installer must not die of its log."""
    if not metadata:
        return metadata
    if sum(1 for _ in levels(metadata)) > METADATA_DEPTH + 1:
        return {"dropped": f"'metadata' was nested deeper than {METADATA_DEPTH} levels."}
    if len(json.dumps(metadata)) > METADATA_BYTES:
        return {"dropped": f"'metadata' was larger than {METADATA_BYTES} bytes. Send a log elsewhere, and its address."}
    return metadata


def _answer(written: Written) -> Response:
    status = 202 if written.status == "queued" else 200
    return Response(to_json(written.body), status, media_type="application/json")
