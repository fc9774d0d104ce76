"""The seam between an app and the HTTP server that carries it: uvicorn, embedded in a loop of our own."""

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pureboot.core.errors import SettingsError

# Answers under way when the program stops get this long, in seconds; then they are cut off.
GRACE = 3
# Bytes the kernel holds for one connection. By itself it takes 4 MB, and a machine that lost its power with half its
# kernel would count as one that has it all.
SEND_BUFFER = 256 * 1024
# Seconds a new connection may say nothing.
SILENCE = 10
# An agent asks again every few seconds; with less it would pay a handshake each time.
KEEP_ALIVE = 75


def bind(host: str, port: int) -> socket.socket:
    """A listening address, taken before anything else starts; port 0 lets the system choose.

    Raises SettingsError where it is taken, not allowed or not an address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # create_server's own text repeats the address; the resolver's numbers are not the system's.
        why = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise SettingsError(
            f"Cannot listen on {host}, port {port}: {why}.",
            hint="Choose another 'host' or 'port', or stop the program that has it.",
        ) from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return sock


async def serve_http(
    app: Callable[..., Any],
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    on_started: Callable[[], None] = lambda: None,
    max_connections: int = 2048,
    certfile: Path | None = None,
    keyfile: Path | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled, then end what is under way within `GRACE` seconds.

    The app's lifetime is the caller's: no lifespan is run. Signals are the caller's too.
    """
    config = uvicorn.Config(
        app,
        http=_Impatient,
        interface="asgi3",  # a guess would take a bound method for the old interface
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    server = _Server(config, on_started)
    serving = asyncio.create_task(server.serve([sock]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.should_exit = True
        await serving


def settle_down() -> None:
    """For a program that has started: what it is made of by now stays, and Python's collector need not walk over it
    again. It does so every few thousand requests otherwise, and whoever asks then waits some 30 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class _Impatient(HttpToolsProtocol):
    """A connection that says nothing is closed after a while: idle ones must not keep machines out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # The first byte ends this wait, as it does between two requests.
        self.timeout_keep_alive_task = self.loop.call_later(SILENCE, self.timeout_keep_alive_handler)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()
