"""The outbox, for people: what waits, and what a person may do about what failed."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.agent.conflicts import SOMEBODY
from pureboot.agent.people import People
from pureboot.agent.queue import SyncQueue
from pureboot.agent.routes.bodies import read_body, read_limit
from pureboot.wire.messages import Strict


class DiscardRequest(Strict):
    """`person`: whoever takes the decision, in words; central keeps it beside the node."""

    reason: Annotated[str, Field(max_length=2000)] = ""
    person: Annotated[str, Field(min_length=1, max_length=200)] = SOMEBODY


class QueueDesk:
    def __init__(self, people: People, queue: SyncQueue) -> None:
        self._people, self._queue = people, queue

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/agent/queue", self.list, methods=["GET"]),
            Route("/api/v1/agent/queue/failed", self.clear_failed, methods=["DELETE"]),
            Route("/api/v1/agent/queue/{id}/requeue", self.requeue, methods=["POST"]),
            Route("/api/v1/agent/queue/{id}/discard", self.discard, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        self._people.admit(request)
        items, cursor = await self._queue.page(read_limit(request), request.query_params.get("cursor", ""))
        return JSONResponse({"items": [item.model_dump(mode="json") for item in items], "next_cursor": cursor})

    async def requeue(self, request: Request) -> Response:
        self._people.admit(request)
        queue_id = request.path_params["id"]
        await self._queue.requeue(queue_id)
        return JSONResponse({"id": queue_id, "status": "pending"})

    async def discard(self, request: Request) -> Response:
        self._people.admit(request)
        queue_id = request.path_params["id"]
        told = await said(request)
        await self._queue.discard(queue_id, told.reason, told.person)
        return JSONResponse({"id": queue_id, "status": "discarded"})

    async def clear_failed(self, request: Request) -> Response:
        self._people.admit(request)
        told = await said(request)
        return JSONResponse({"cleared": await self._queue.clear_failed(reason=told.reason, person=told.person)})


async def said(request: Request) -> DiscardRequest:
    """What a person gives as the reason, and who it is; both may be left out."""
    return await read_body(request, DiscardRequest) if await request.body() else DiscardRequest()
