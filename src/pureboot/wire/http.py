"""The seam between an app and the HTTP server that carries it: uvicorn, embedded in a loop of our own."""

import asyncio
import contextlib
import gc
import logging
import math
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from pureboot.core.errors import SettingsError

log = logging.getLogger(__name__)

# Answers under way when the program stops get this long, in seconds; then they are cut off.
GRACE = 3
# Bytes the kernel holds for one connection. By itself it takes 4 MB, and a machine that lost its power with half its
# kernel would count as one that has it all.
SEND_BUFFER = 256 * 1024
# Seconds from the connection, or from the first byte of a later request, until the request's head is whole.
HEAD_PATIENCE = 10
# Seconds in which the next so many bytes of a body have to come, or its end: 140 bytes a second, and no long silence.
BODY_PATIENCE = 30
BODY_STEP = 4096
# Bytes of a head, and of what else in a request no app gets to see: the parser joins the pieces of a line anew for
# every packet, while all others wait.
HEAD_BYTES = 64 * 1024
# Of its first line, which becomes a query of thousands of fields; a boot's facts are some hundred bytes.
URL_BYTES = 16 * 1024
# Seconds of quiet after which the other side is asked whether it is there, and between two such questions, of which
# three may be lost: a machine that lost its power says no goodbye.
KEEP_ALIVE_PROBES = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 20, socket.TCP_KEEPCNT: 3}
# An agent asks again every few seconds; with less it would pay a handshake each time.
KEEP_ALIVE = 75
# Open files beside the connections, and the file that each of them may be sent: databases, TFTP, what is fetched.
OTHER_FILES = 256


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
    # What is set here, the connections have.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE_PROBES.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def make_room(connections: int) -> None:
    """Open files for so many connections. A program starts with 1,024 on most systems, for the sake of old ones, and
    may take more (systemd.exec(5), LimitNOFILE). Else connections take the ones that the database needs."""
    wanted = 2 * connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    allowed = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "this program may have %d files open, and %d connections take up to %d: raise the limit "
            "(systemd: LimitNOFILE=), or lower 'max_connections'",
            allowed,
            connections,
            wanted,
        )


async def serve_http(
    app: Callable[..., Any],
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    on_started: Callable[[], None] = lambda: None,
    max_connections: int = 2048,
    max_per_address: float = math.inf,
    certfile: Path | None = None,
    keyfile: Path | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled, then end what is under way within `GRACE` seconds.

    `max_per_address`: connections of one client; this host's own are not counted. None behind a proxy, which is all
    clients at once. The app's lifetime is the caller's: no lifespan is run. Signals are the caller's too.
    """
    make_room(max_connections)
    config = uvicorn.Config(
        app,
        http=Impatient,
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
    server = _Server(config, on_started, Crowd(max_per_address))
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


class Crowd(ServerState):
    """The connections of a server, and how many of them each client has."""

    def __init__(self, max_per_address: float = math.inf) -> None:
        super().__init__()
        self._max_per_address = max_per_address
        self._of_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether there is room. One that is turned away leaves, too."""
        self._of_address[address] += 1
        return self._of_address[address] <= self._max_per_address or ip_address(address.partition("%")[0]).is_loopback

    def leave(self, address: str) -> None:
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


class Impatient(HttpToolsProtocol):
    """A connection whose client owes something, the rest of a head or of a body, and does not get on with it is closed:
    idle ones must not keep machines out. Between two requests a client owes nothing; `KEEP_ALIVE` bounds that."""

    server_state: Crowd

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._patience = HEAD_PATIENCE  # with what is owed; 0: nothing is
        self._waiting: asyncio.TimerHandle | None = None
        self._unseen = self._came = 0
        self._address = self.client[0] if self.client else ""
        self._wait()
        if self._address and not self.server_state.enter(self._address):
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        if self._address:
            self.server_state.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._patience = self._patience or HEAD_PATIENCE
        self._unseen += len(data)
        self._came += len(data)
        super().data_received(data)
        if self._unseen > HEAD_BYTES:
            self._refuse()
        if self._patience == BODY_PATIENCE and self._came >= BODY_STEP:
            self._wait_no_more()
        if self._patience and self._waiting is None:
            self._wait()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > URL_BYTES:
            raise ValueError  # which the parser takes for a bad request

    def on_headers_complete(self) -> None:
        self._owes(BODY_PATIENCE)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._owes(0)
        super().on_message_complete()

    def _owes(self, patience: int) -> None:
        self._patience = patience
        self._unseen = 0
        self._wait_no_more()

    def _wait(self) -> None:
        self._came = 0
        self._waiting = self.loop.call_later(self._patience, self._waited)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _waited(self) -> None:
        """A body that the app does not take in, and a request that comes before the answer to the last, are not the
        client's fault."""
        if self.flow.read_paused or (self._patience == HEAD_PATIENCE and self._is_answering()):
            self._wait()
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _refuse(self) -> None:
        if not self._is_answering() and not self.transport.is_closing():
            self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None], crowd: Crowd) -> None:
        super().__init__(config)
        self.server_state = crowd
        self._on_started = on_started

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()
