"""A server that does nothing: `python -m benchmarks.bare PORT`. What the same load comes to without our work."""

import asyncio
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.wire.http import bind, serve_http


async def nothing(request: Request) -> Response:
    await request.body()
    return JSONResponse({"status": "queued", "offline": True, "queue_id": request.path_params["id"]}, 202)


async def serve(port: int) -> None:
    app = Starlette(routes=[Route("/api/v1/nodes/{id}/event", nothing, methods=["POST"])])
    with bind("127.0.0.1", port) as sock:
        await serve_http(app, sock, stop=asyncio.Event())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
