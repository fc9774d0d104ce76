"""The site's page, and what a person may do there: it needs nothing but this agent."""

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from pureboot import __version__
from pureboot.agent.boots import BootLog
from pureboot.agent.conflicts import ConflictDetector
from pureboot.agent.live import Live
from pureboot.agent.people import People
from pureboot.agent.queue import SyncQueue
from pureboot.agent.readiness import Readiness
from pureboot.agent.routes.bodies import read_body
from pureboot.agent.routes.decisions import DecisionDesk, ResolveRequest
from pureboot.agent.routes.queue import said
from pureboot.agent.routes.status import Status
from pureboot.agent.ui.page import HEADERS, ROWS, View, render
from pureboot.core.errors import Clash, PureBootError
from pureboot.wire.errors import status_of

_UI = Path(__file__).parent.parent / "ui"
_FILES = {"page.css": "text/css", "page.js": "text/javascript"}
# What was done, as the address of the page after it names it: no text of a link's maker is shown as ours.
DONE = {
    "requeued": "The item goes out again.",
    "discarded": "The item is given up; central will be told, unless it had refused it.",
    "settled": "The conflict is settled.",
    "decided": "It is decided here, and counts once central confirms it.",
}


class Page:
    def __init__(
        self,
        people: People,
        status: Status,
        *,
        queue: SyncQueue,
        detector: ConflictDetector,
        desk: DecisionDesk,
        readiness: Readiness,
        boots: BootLog,
        missing: Callable[[], Sequence[str]],
        live: Live,
    ) -> None:
        self._people, self._status = people, status
        self._queue, self._detector, self._readiness, self._desk = queue, detector, readiness, desk
        self._boots, self._missing, self._live = boots, missing, live
        self._files = {name: (_UI / name).read_bytes() for name in _FILES}

    def routes(self) -> list[Route]:
        return [
            Route("/", self.show, methods=["GET"]),
            Route("/events", self.events, methods=["GET"]),
            Route("/queue/{id}/requeue", self.requeue, methods=["POST"]),
            Route("/queue/{id}/discard", self.discard, methods=["POST"]),
            Route("/conflicts/{id}/resolve", self.resolve, methods=["POST"]),
            *(Route(f"/{name}", self.file, methods=["GET"]) for name in _FILES),
        ]

    async def show(self, request: Request) -> Response:
        """All of it at a glance, for a browser on the agent's own machine."""
        self._people.admit(request)
        return await self._page(done=DONE.get(request.query_params.get("done", ""), ""))

    async def events(self, request: Request) -> Response:
        """That something changed, as it happens."""
        self._people.admit(request)
        self._people.check_own_page(request)
        self._live.check_room()
        return StreamingResponse(self._live.changes(), media_type="text/event-stream", headers=HEADERS)

    async def requeue(self, request: Request) -> Response:
        self._people.admit(request)
        try:
            await self._queue.requeue(request.path_params["id"])
        except PureBootError as error:
            return await self._page(error=error)
        return _back("requeued")

    async def discard(self, request: Request) -> Response:
        self._people.admit(request)
        try:
            told = await said(request)
            await self._queue.discard(request.path_params["id"], told.reason, told.person)
        except PureBootError as error:
            return await self._page(error=error)
        return _back("discarded")

    async def resolve(self, request: Request) -> Response:
        self._people.admit(request)
        try:
            written = await self._desk.settle(request.path_params["id"], await read_body(request, ResolveRequest))
        except PureBootError as error:
            return await self._page(error=error)
        if written is not None and written.status == "rejected":
            return await self._page(error=Clash(f"Central refused it: {written.body.get('reason')}", code="rejected"))
        return _back("decided" if written is not None and written.status == "queued" else "settled")

    async def file(self, request: Request) -> Response:
        """Of the page; there is nothing of the site in it."""
        name = request.url.path[1:]
        headers = {"cache-control": "max-age=3600", "x-content-type-options": "nosniff"}
        return Response(self._files[name], media_type=_FILES[name], headers=headers)

    async def _page(self, *, done: str = "", error: PureBootError | None = None) -> Response:
        queue, _ = await self._queue.page(ROWS)
        view = View(
            status=self._status.everything(),
            readiness=self._readiness.report(),
            queue=queue,
            conflicts=await self._detector.get_pending_conflicts(),
            boots=self._boots.after(0, ROWS)[::-1],
            missing=self._missing(),
            version=__version__,
            done=done,
            error=error,
        )
        return HTMLResponse(render(view), status_of(error) if error else 200, headers=HEADERS)


def _back(done: str) -> Response:
    """A reload must not do it again."""
    return RedirectResponse(f"/?done={done}", 303, headers=HEADERS)
