"""The agent's HTTP face: routes, and errors in one shape."""

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pureboot.core.errors import Malformed, NotFound, PureBootError, TooLarge
from pureboot.wire.errors import body_of, headers_of, status_of

log = logging.getLogger(__name__)


def create_app(routes: Sequence[BaseRoute], *, max_body_bytes: int) -> ASGIApp:
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
    return BodyLimit(app, max_body_bytes)


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
            if received > self._limit:
                raise TooLarge(f"The body is larger than {self._limit} bytes.")
            return message

        await self._app(scope, counted, send)


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
    log.error("a request failed", exc_info=error)
    body = body_of(PureBootError("The agent failed at this request.", hint="Its log says more.", code="internal"))
    return JSONResponse(body, status_code=500)


def _answer(error: PureBootError) -> Response:
    return JSONResponse(body_of(error), status_code=status_of(error), headers=headers_of(error))
