"""The agent's HTTP face: routes, and errors in one shape."""

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pureboot.core.errors import Malformed, NotFound, PureBootError, TooLarge
from pureboot.wire.errors import body_of, headers_of, status_of
from pureboot.wire.sendfile import with_sendfile

log = logging.getLogger(__name__)


def create_app(routes: Sequence[BaseRoute], *, max_body_bytes: int, quick: Sequence[Route] = ()) -> ASGIApp:
    """`quick`: those of the routes that go `Ahead`."""
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
    return BodyLimit(Ahead(with_sendfile(app), quick), max_body_bytes)


class Ahead:
    """What machines send most goes straight to its route's endpoint, past the app: the app's layers cost as much as the
    endpoint does. Errors are the app's."""

    def __init__(self, app: ASGIApp, quick: Sequence[Route]) -> None:
        self._app, self._quick = app, quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in self._quick:
            match, found = route.matches(scope)
            if match is Match.FULL:
                response = await _answered(route, Request({**scope, **found}, receive))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _answered(route: Route, request: Request) -> Response:
    try:
        response: Response = await route.endpoint(request)
    except ClientDisconnect as error:
        return await _gone(request, error)
    except PureBootError as error:
        return _answer(error)
    except Exception as error:  # noqa: BLE001  # whatever it is, the machine gets an answer and the log a trace
        return await _unforeseen(request, error)
    return response


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
