"""`GET /events`: the browser hears what changed, and fetches the piece that shows it again."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from pureboot.central import browsers
from pureboot.central.edge import AsViewer, Central, Services
from pureboot.central.news import Listener
from pureboot.central.ui.page_route import HEADERS, PageRoute
from pureboot.central.ui.view import Ui

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

# Seconds without news after which a comment keeps the line open; the session is looked at as often.
HEARTBEAT = 15.0


@routes.get("/events")
async def events(central: Central, view: Ui, _: AsViewer, since: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Ends with the session and with the program; `since` is the `id` of the last event that the browser has."""
    key = browsers.key_of(view.visit.token)
    central.news.check_room(key)

    async def stream() -> AsyncIterator[ServerSentEvent]:
        with central.news.listen(key, since) as listener:
            async for event in _told(central, listener):
                yield event

    # The comments are ours, so its own clock sleeps.
    return EventSourceResponse(stream(), headers=HEADERS, ping=3600)


async def _told(central: Services, listener: Listener) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(comment="listening")
    while await _is_signed_in(central, listener.key):
        topics = await listener.next(HEARTBEAT)
        if listener.over:
            break
        if topics:
            yield ServerSentEvent(event="change", id=str(central.news.count), data=" ".join(sorted(topics)))
        else:
            yield ServerSentEvent(comment="still here")
    yield ServerSentEvent(event="end", data="over")


async def _is_signed_in(central: Services, key: str) -> bool:
    now, life = central.clock.now(), central.session_life
    return await central.db.read(lambda conn: browsers.alive(conn, key, life, now))
