"""A server that does nothing: `python -m benchmarks.bare PORT [BYTES]`. What the same load comes to without our work.

With a framework and a route, as ours that take reports; with BYTES an application alone, which answers so many.
"""

import asyncio
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pureboot.wire.http import bind, serve_http


async def nothing(request: Request) -> Response:
    await request.body()
    return JSONResponse({"status": "queued", "offline": True, "queue_id": request.path_params["id"]}, 202)


def alone(size: int) -> ASGIApp:
    body = b"#!ipxe\n".ljust(size)
    headers = [(b"content-length", str(size).encode()), (b"content-type", b"text/plain; charset=utf-8")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def serve(port: int, size: int | None = None) -> None:
    routes = [Route("/api/v1/nodes/{id}/event", nothing, methods=["POST"])]
    app = Starlette(routes=routes) if size is None else alone(size)
    with bind("127.0.0.1", port) as sock:
        await serve_http(app, sock, stop=asyncio.Event())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*map(int, sys.argv[1:])))
