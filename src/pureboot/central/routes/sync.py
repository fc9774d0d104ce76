"""What agents and central tell each other (PROTOCOL 2)."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pureboot.central import feed, sessions
from pureboot.central.accounts import Agent
from pureboot.central.edge import AdmittedRoute, AsAgent, AsCurrentAgent, Central, GuardedRoute, Limit
from pureboot.core.errors import Fenced, Forbidden
from pureboot.wire.messages import Backpressure, FeedPage, PushAnswer, PushRequest, SessionGrant, SessionRequest

routes = APIRouter(route_class=GuardedRoute, tags=["sync"])


@routes.post("/sync/session")
async def session(central: Central, agent: AsAgent, request: SessionRequest) -> SessionGrant:
    """The right to write, for one life of one agent at a time; asked for again, it is prolonged."""
    _check_own(agent, request.agent_id)
    now = central.clock.now()
    answer = await central.db.write(lambda conn: sessions.open_session(conn, agent, request, now, central.ingest.lease))
    if isinstance(answer, Fenced):
        raise answer
    return answer


async def push(central: Central, agent: AsAgent, request: PushRequest) -> Response:
    """Always safe to repeat. A replaced agent may still push what it holds."""
    _check_own(agent, request.agent_id)
    answer = await central.ingest.push(agent, request)
    answer.backpressure = Backpressure(after_ms=central.gate.after_ms())
    central.metrics.pushed(answer)
    return _json(answer)


routes.add_api_route(
    "/sync/push", push, methods=["POST"], response_model=PushAnswer, route_class_override=AdmittedRoute
)


@routes.get("/sync/changes", response_model=FeedPage)
async def changes(
    central: Central,
    agent: AsCurrentAgent,
    since: Annotated[str, Query(max_length=100, description="`next` of the page before; 0 is the start")] = "0",
    limit: Limit = 500,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds to wait for news")] = 0,
    beats: Annotated[bool, Query(description="whether a heartbeat follows where one is waited for")] = False,
) -> Response:
    cursor = feed.Cursor.parse(since)
    return _json(await feed.follow(central.db, agent.site_id, cursor, limit, wait, beats=beats))


def _check_own(agent: Agent, id: str) -> None:
    if id != agent.id:
        raise Forbidden("This credential is another agent's.", code="not_yours")


def _json(answer: PushAnswer | FeedPage) -> Response:
    """As it is: it is ours, and large enough that checking it again would show."""
    return Response(answer.model_dump_json(), media_type="application/json")
