"""The edge: how a request is read, who sent it, how an error is said. Past it there are no dicts and no strangers."""

import logging
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pureboot.central.accounts import Agent, Person, identify
from pureboot.central.browsers import SessionLife
from pureboot.central.clock import Clock
from pureboot.central.content import Shelf
from pureboot.central.db import Database
from pureboot.central.gate import Gate
from pureboot.central.ingest import Ingest
from pureboot.central.metrics import Metrics
from pureboot.central.news import News
from pureboot.central.passwords import Passwords
from pureboot.central.patience import Patience
from pureboot.core.errors import Forbidden, Invalid, Malformed, NotFound, PureBootError, TooLarge, Unauthenticated
from pureboot.core.roles import Role
from pureboot.wire.errors import body_of, headers_of, status_of
from pureboot.wire.reading import read_json

log = logging.getLogger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with."""

    db: Database
    clock: Clock
    shelf: Shelf
    ingest: Ingest
    gate: Gate
    metrics: Metrics
    max_body_bytes: int
    passwords: Passwords
    patience: Patience
    session_life: SessionLife
    news: News


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def _sender(request: Request) -> Person | Agent:
    sender: Person | Agent = request.state.sender
    return sender


def check_role(person: Person, role: Role) -> None:
    """The one place where a role is asked for, by the API and by the pages. Raises Forbidden."""
    if not person.role.reaches(role):
        raise Forbidden(
            f"This needs the role {role}; {person.name} is {person.role}.",
            code="role_needed",
            hint="Ask an administrator to do it, or for the role.",
        )


def _at_least(role: Role) -> Callable[[Request], Person]:
    def person(request: Request) -> Person:
        match _sender(request):
            case Person() as person:
                check_role(person, role)
                return person
            case _:
                raise Forbidden("This needs a person's token, not an agent's credential.", code="people_only")

    return person


def _agent(request: Request) -> Agent:
    match _sender(request):
        case Agent() as agent:
            return agent
        case _:
            raise Forbidden("This needs an agent's credential.", code="agent_only")


def _current_agent(request: Request) -> Agent:
    agent = _agent(request)
    if not agent.current:
        raise Forbidden(
            "A newer agent was registered for this site.",
            code="agent_replaced",
            hint="It may still push what it holds. To serve the site again, run `pureboot agent init` and restart it.",
        )
    return agent


def _reader(request: Request) -> Person | Agent:
    match _sender(request):
        case Person() as person:
            return person
        case _:
            return _current_agent(request)


Central = Annotated[Services, Depends(services)]
AsViewer = Annotated[Person, Depends(_at_least(Role.VIEWER))]
AsOperator = Annotated[Person, Depends(_at_least(Role.OPERATOR))]
AsAdmin = Annotated[Person, Depends(_at_least(Role.ADMIN))]
AsAgent = Annotated[Agent, Depends(_agent)]
AsCurrentAgent = Annotated[Agent, Depends(_current_agent)]
AsReader = Annotated[Person | Agent, Depends(_reader)]

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=700, description="`next_cursor` of the page before")]


class BoundedRequest(Request):
    """Reads a body as far as the limit allows, unpacked too."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            encoding = self._encoding()
            if encoding not in ("identity", "gzip"):
                raise Malformed(f"The encoding {encoding[:40]!r} is not known.", hint="Send gzip, or none.")
            self._body = await self._read(services(self).max_body_bytes, unpack=encoding == "gzip")
        return self._body

    async def plain_body(self, limit: int) -> bytes:
        """Of a stranger, who is to cause no more work than is sent."""
        if self._encoding() != "identity":
            raise Malformed("This address takes nothing that is packed.", hint="Send it without an encoding.")
        return await self._read(min(limit, services(self).max_body_bytes), unpack=False)

    def _encoding(self) -> str:
        return self.headers.get("content-encoding", "identity").lower()

    async def _read(self, limit: int, *, unpack: bool) -> bytes:
        read = bytearray()
        inflate = zlib.decompressobj(wbits=31)
        async for chunk in self.stream():
            try:
                read += inflate.decompress(chunk, limit + 1 - len(read)) if unpack else chunk
            except zlib.error:
                raise Malformed("The body is not gzip, as its header says.") from None
            if len(read) > limit:
                raise TooLarge(f"The body is larger than {limit} bytes.", hint="Send less at a time.")
        if unpack and read and not inflate.eof:
            raise Malformed("The gzip body ends too early.")
        return bytes(read)

    async def json(self) -> Any:
        body = await self.body()
        # JSON can write the character 0 only like this. No text in PostgreSQL holds it, so none here does.
        return _without_nul(read_json(body)) if b"\\u0000" in body else read_json(body)


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case list():
            return [_without_nul(each) for each in value]
        case dict():
            return {_without_nul(key): _without_nul(each) for key, each in value.items()}
        case other:
            return other


class OpenRoute(APIRoute):
    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            if "\0" in request.url.path or "%00" in request.url.query:
                raise NotFound("No address holds the character 0.")
            mine = BoundedRequest(request.scope, request.receive)
            async with self.admission(mine):
                return await handle(mine)

        return bounded

    def admission(self, request: Request) -> AbstractAsyncContextManager[None]:
        """Everybody may come in, at once."""
        return nullcontext()


class GuardedRoute(OpenRoute):
    """Asks who it is before it reads a byte of the body."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request.state.sender = await _identified(request)
            return await handle(request)

        return guarded


class AdmittedRoute(GuardedRoute):
    """Lets only so many in at once. Whoever sends slowly takes nobody's place: a body is whole before it counts."""

    @asynccontextmanager
    async def admission(self, request: Request) -> AsyncIterator[None]:
        await request.body()
        with services(request).gate.admitted():
            yield


async def _identified(request: Request) -> Person | Agent:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("This needs a token.")
    return await services(request).db.read(lambda conn: identify(conn, token.strip()))


def answer_errors(app: FastAPI) -> None:
    app.add_exception_handler(PureBootError, _pureboot_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Unexpected)


async def _pureboot_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, PureBootError)
    return _said(error)


def _said(error: PureBootError, status: int = 0) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else headers_of(error)
    return JSONResponse(body_of(error), status or status_of(error), headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first, count = error.errors()[0], len(error.errors())
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return _said(Invalid(f"{where}: {first['msg']}.", hint=f"{count} field(s) to mend."))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # FastAPI wraps what goes wrong while it reads a body.
    if isinstance(error.__cause__, PureBootError):
        return _said(error.__cause__)
    if error.status_code == 404 and _is_a_person(request):
        return RedirectResponse("/missing", 303)
    if error.status_code == 404:
        return _said(NotFound("There is nothing at this address.", hint="GET /openapi.json lists what there is."))
    if error.status_code == 405:
        said = _said(NotFound("This address does not take this method.", code="method_not_allowed"), 405)
        said.headers.update(error.headers or {})
        return said
    return _said(PureBootError(str(error.detail), code="http_error"), error.status_code)


def _is_a_person(request: Request) -> bool:
    """Who typed an address into a browser gets a page."""
    wanted = "text/html" in request.headers.get("accept", "")
    return wanted and request.method == "GET" and not request.url.path.startswith("/api/")


class Unexpected:
    """The last resort: whatever nobody foresaw is one sentence to the caller, and all of it in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            return
        except Exception:  # it is logged, and must neither show a stack trace nor end the connection unanswered
            log.exception("a request failed: %s %s", scope.get("method"), scope.get("path"))
            if started:
                raise
            await _said(PureBootError("Central stumbled; its log says more.", code="internal"), 500)(
                scope, receive, send
            )
