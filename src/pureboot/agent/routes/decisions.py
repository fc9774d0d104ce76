"""What people at the site decide: conflicts, and (at a site of the level full) what administrators do with a node."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.agent.conflicts import SOMEBODY, ConflictDetector
from pureboot.agent.journal import Journal
from pureboot.agent.people import People
from pureboot.agent.proxy import CentralProxy, Written
from pureboot.agent.routes.bodies import read_body
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import Strict

Person = Annotated[str, Field(min_length=1, max_length=200)]
Comment = Annotated[str, Field(max_length=2000)]


class ResolveRequest(Strict):
    """`person`: whoever takes the decision, in words; central keeps it."""

    resolution: str
    comment: Comment = ""
    person: Person = SOMEBODY


class DecreeRequest(Strict):
    state: str
    comment: Comment = ""
    person: Person = SOMEBODY


class DecisionDesk:
    def __init__(self, people: People, detector: ConflictDetector, journal: Journal, proxy: CentralProxy) -> None:
        self._people, self._detector, self._journal, self._proxy = people, detector, journal, proxy

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/agent/conflicts/{id}/resolve", self.resolve, methods=["POST"]),
            Route("/api/v1/agent/nodes/{id}/state", self.move, methods=["POST"]),
        ]

    async def resolve(self, request: Request) -> Response:
        """200: settled, and central knows. 202: it is safe here, and counts once central confirms it."""
        self._people.admit(request)
        body = await read_body(request, ResolveRequest)
        conflict_id = request.path_params["id"]
        written = await self.settle(conflict_id, body)
        about = {"conflict_id": conflict_id, "resolution": body.resolution}
        return (
            JSONResponse({"id": conflict_id, "status": "applied"} | about) if written is None else _said(written, about)
        )

    async def settle(self, conflict_id: str, body: ResolveRequest) -> Written | None:
        """None: it was the site's own to settle, and is. Raises what `ConflictDetector.settle` does."""
        accepted = await self._detector.settle(conflict_id, body.resolution, comment=body.comment, person=body.person)
        return None if accepted is None else await self._proxy.confirmed(accepted)

    async def move(self, request: Request) -> Response:
        self._people.admit(request)
        body = await read_body(request, DecreeRequest)
        state = NodeState.parse(body.state)
        accepted = await self._journal.decree(
            request.path_params["id"], state, comment=body.comment, person=body.person
        )
        return _said(await self._proxy.confirmed(accepted), {})


def _said(written: Written, about: dict[str, str]) -> Response:
    return JSONResponse(written.body | about, status_code=202 if written.status == "queued" else 200)
