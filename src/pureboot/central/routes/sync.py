"""What agents and central tell each other (PROTOCOL 2)."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pureboot.central import feed
from pureboot.central.edge import AsAgent, AsCurrentAgent, Central, GuardedRoute, Limit
from pureboot.core.errors import Forbidden
from pureboot.wire.messages import FeedPage, PushAnswer, PushRequest

routes = APIRouter(route_class=GuardedRoute, tags=["sync"])


@routes.post("/sync/push", response_model=PushAnswer)
async def push(central: Central, agent: AsAgent, request: PushRequest) -> Response:
    """Always safe to repeat. A replaced agent may still push what it holds."""
    if request.agent_id != agent.id:
        raise Forbidden("This credential is another agent's.", code="not_yours")
    answer = await central.ingest.push(agent, request.items, request.generation)
    central.metrics.pushed(answer)
    return _json(answer)


@routes.get("/sync/changes", response_model=FeedPage)
async def changes(
    central: Central,
    agent: AsCurrentAgent,
    since: Annotated[str, Query(max_length=40, description="`next` of the page before; 0 is the start")] = "0",
    limit: Limit = 500,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds to wait for news")] = 0,
) -> Response:
    return _json(await feed.follow(central.db, agent.site_id, feed.Cursor.parse(since), limit, wait))


def _json(answer: PushAnswer | FeedPage) -> Response:
    """As it is: it is ours, and large enough that checking it again would show."""
    return Response(answer.model_dump_json(), media_type="application/json")
