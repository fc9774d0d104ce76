"""The agent's HTTP face: routes, and errors in one shape."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pureboot.core.errors import Malformed, NotFound, PureBootError, TooLarge
from pureboot.wire.errors import body_of, headers_of, status_of
from pureboot.wire.sendfile import with_sendfile

log = logging.getLogger(__name__)


# From a body and its media type to an answer.
Handler = Callable[[bytes, str], Awaitable[Response]]


def create_app(
    routes: Sequence[BaseRoute], *, max_body_bytes: int, quick: Callable[[Scope], Handler | None] = lambda _: None
) -> ASGIApp:
    """`quick`: see `Ahead`."""
    app = Starlette(
        routes=routes,
        exception_handlers={
            PureBootError: _ours,
            HTTPException: _theirs,
            ClientDisconnect: _gone,
            Exception: _unforeseen,
        },
    )
    # A slash too many is a 404: some firmware gives up on a redirect (smee, pull request 229).
    app.router.redirect_slashes = False
    return Ahead(BodyLimit(with_sendfile(app), max_body_bytes), quick, max_body_bytes)


class Ahead:
    """What machines send most goes straight to its handler, past the app: the app's layers cost as much as the handler
    does. `quick` finds it, if the request has one. Limits and errors are the app's."""

    def __init__(self, app: ASGIApp, quick: Callable[[Scope], Handler | None], limit: int) -> None:
        self._app, self._quick, self._limit = app, quick, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._quick(scope) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await handler(await self._body(receive), content_type(scope))
        except ClientDisconnect:
            return
        except PureBootError as error:
            response = _answer(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the machine gets an answer and the log a trace
            response = _failed(error)
        await response(scope, receive, send)

    async def _body(self, receive: Receive) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            more = message.get("more_body", False)
            _check_size(len(body), self._limit)
        return body


def content_type(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), "")


class BodyLimit:
    """Counts what arrives, whatever Content-Length says."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            _check_size(received, self._limit)
            return message

        await self._app(scope, counted, send)


def _check_size(received: int, limit: int) -> None:
    if received > limit:
        raise TooLarge(f"The body is larger than {limit} bytes.")


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, PureBootError)
    return _answer(error)


async def _theirs(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = NotFound if error.status_code == 404 else Malformed
    body = body_of(kind(f"{error.detail}.", code="not_found" if kind is NotFound else "method_not_allowed"))
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    """A machine lost its power while it spoke. Nobody hears the answer, and it is no failure of ours."""
    return Response(status_code=400)


async def _unforeseen(_: Request, error: Exception) -> Response:
    return _failed(error)


def _failed(error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    body = body_of(PureBootError("The agent failed at this request.", hint="Its log says more.", code="internal"))
    return JSONResponse(body, status_code=500)


def _answer(error: PureBootError) -> Response:
    return JSONResponse(body_of(error), status_code=status_of(error), headers=headers_of(error))
