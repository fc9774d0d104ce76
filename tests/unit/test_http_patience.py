"""What a client may not do to the HTTP server: owe something and take its time, fill a head without end, crowd."""

import asyncio
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from pureboot.wire.http import (
    BODY_PATIENCE,
    BODY_STEP,
    HEAD_BYTES,
    HEAD_PATIENCE,
    KEEP_ALIVE,
    URL_BYTES,
    Crowd,
    Impatient,
    bind,
    make_room,
    serve_http,
)

Message = dict[str, Any]
PACKET = 16 * 1024


class Timer:
    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self.call = due, call

    def cancel(self) -> None:
        self.call = lambda: None


class Loop:
    """Tasks run; time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[Timer] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        self._timers.append(timer := Timer(self.now + delay, call))
        return timer

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self._timers if timer.due <= end]:
            self._timers.remove(first := min(due, key=lambda timer: timer.due))
            self.now = first.due
            first.call()
        self.now = end


class Wire:
    """The transport of one connection, and whoever is at its other end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.said = b""
        self.is_closed = self.is_paused = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": (self.address, 4711), "sockname": ("192.0.2.1", 8080)}.get(name, default)

    def write(self, data: bytes) -> None:
        self.said += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class App:
    """Says how many bytes a body had. While not `may_read` it takes none in, while not `may_answer` it thinks."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_read, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_read.set()
        self.may_answer.set()

    async def __call__(self, scope: Message, receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
        self.asked += 1
        await self.may_read.wait()
        count, more = 0, True
        while more:
            message = await receive()
            count, more = count + len(message.get("body", b"")), message.get("more_body", False)
        await self.may_answer.wait()
        body = b"%d bytes" % count
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


class Server:
    def __init__(self, **crowd: float) -> None:
        self.app, self.loop, self._crowd = App(), Loop(), Crowd(**crowd)
        self._config = uvicorn.Config(self.app, interface="asgi3", lifespan="off", ws="none", log_config=None)
        self._config.timeout_keep_alive = KEEP_ALIVE
        self._config.load()

    def connect(self, address: str = "192.0.2.10") -> "Client":
        return Client(Impatient(self._config, self._crowd, {}, self.loop), Wire(address))  # type: ignore[arg-type]


class Client:
    def __init__(self, protocol: Impatient, wire: Wire) -> None:
        self._protocol, self.wire = protocol, wire
        protocol.connection_made(wire)  # type: ignore[arg-type]

    async def sends(self, data: bytes) -> None:
        """In packets, for as long as the server listens."""
        for start in range(0, len(data), PACKET):
            if self.wire.is_closed:
                break
            self._protocol.data_received(data[start : start + PACKET])
            await settled()

    def leaves(self) -> None:
        self._protocol.connection_lost(None)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> Server:
    return Server()


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
LONG = BODY_STEP * 20


async def test_a_request_is_answered_and_the_connection_kept_for_the_next(server: Server) -> None:
    client = server.connect()
    for _ in range(3):
        await client.sends(HEAD + b"Content-Length: 4\r\n\r\nbody")
        assert client.wire.said.endswith(b"4 bytes")
        server.loop.pass_by(KEEP_ALIVE - 1)
        assert not client.wire.is_closed
    server.loop.pass_by(1)
    assert client.wire.is_closed


async def test_who_says_nothing_is_not_waited_for(server: Server) -> None:
    client = server.connect()
    server.loop.pass_by(HEAD_PATIENCE)
    assert client.wire.is_closed


@pytest.mark.parametrize("before", [b"", HEAD + b"Content-Length: 0\r\n\r\n"], ids=["first", "later"])
@pytest.mark.parametrize(
    ("begin", "drop"), [(b"GET / HTTP/1.1\r\nX: ", b"a"), (b"\r\n", b"\r\n")], ids=["header", "lines"]
)
async def test_a_head_that_comes_drop_by_drop_is_not_waited_for(
    server: Server, before: bytes, begin: bytes, drop: bytes
) -> None:
    client = server.connect()
    await client.sends(before)
    await client.sends(begin)
    for _ in range(HEAD_PATIENCE):
        assert not client.wire.is_closed
        await client.sends(drop)
        server.loop.pass_by(1)
    assert client.wire.is_closed
    assert server.app.asked == bool(before)


async def test_a_body_that_stops_is_not_waited_for(server: Server) -> None:
    client = server.connect()
    await client.sends(HEAD + b"Content-Length: 100\r\n\r\nhalf")
    server.loop.pass_by(BODY_PATIENCE - 1)
    assert not client.wire.is_closed
    server.loop.pass_by(1)
    assert client.wire.is_closed


async def test_nor_one_that_comes_drop_by_drop(server: Server) -> None:
    client = server.connect()
    await client.sends(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(BODY_PATIENCE):
        await client.sends(b"drop")
        server.loop.pass_by(1)
    assert client.wire.is_closed


async def test_a_long_body_over_a_thin_line_arrives(server: Server) -> None:
    client = server.connect()
    await client.sends(HEAD + b"Content-Length: %d\r\n\r\n" % LONG)
    for _ in range(LONG // BODY_STEP):
        server.loop.pass_by(BODY_PATIENCE - 1)
        await client.sends(bytes(BODY_STEP))
    assert client.wire.said.endswith(b"%d bytes" % LONG)


async def test_a_body_that_the_app_does_not_take_in_is_not_the_clients_fault(server: Server) -> None:
    server.app.may_read.clear()
    client = server.connect()
    await client.sends(HEAD + b"Content-Length: %d\r\n\r\n" % (5 * PACKET) + bytes(5 * PACKET - 1))
    assert client.wire.is_paused
    server.loop.pass_by(10 * BODY_PATIENCE)
    server.app.may_read.set()
    await settled()
    await client.sends(b"!")
    assert client.wire.said.endswith(b"%d bytes" % (5 * PACKET))


async def test_an_answer_that_takes_its_time_is_not_cut_off_by_what_comes_meanwhile(server: Server) -> None:
    server.app.may_answer.clear()
    client = server.connect()
    await client.sends(HEAD + b"Content-Length: 0\r\n\r\n")
    await client.sends(b"\r\n")
    server.loop.pass_by(10 * HEAD_PATIENCE)
    assert not client.wire.is_closed
    server.app.may_answer.set()
    await settled()
    assert client.wire.said.endswith(b"0 bytes")


@pytest.mark.parametrize(
    "endless", [b"GET / HTTP/1.1\r\nX: " + b"a" * 10**6, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10**5]
)
async def test_a_head_without_end_is_refused(server: Server, endless: bytes) -> None:
    client = server.connect()
    await client.sends(endless)
    assert client.wire.said.startswith(b"HTTP/1.1 431 ")
    assert client.wire.is_closed
    assert server.app.asked == 0


async def test_what_follows_a_body_without_end_closes_the_connection(server: Server) -> None:
    client = server.connect()
    await client.sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: " + b"a" * 10**6)
    assert client.wire.is_closed
    assert client.wire.said == b""


async def test_an_address_as_long_as_a_book_is_refused(server: Server) -> None:
    client = server.connect()
    await client.sends(b"GET /?" + b"a=&" * (URL_BYTES // 3) + b" HTTP/1.1\r\n\r\n")
    assert client.wire.said.startswith(b"HTTP/1.1 400 ")
    assert client.wire.is_closed
    assert server.app.asked == 0


async def test_a_large_head_and_a_large_body_at_once_are_no_such_thing(server: Server) -> None:
    client = server.connect()
    body = bytes(2 * HEAD_BYTES)
    head = HEAD + b"X: %s\r\nContent-Length: %d\r\n\r\n" % (b"a" * (HEAD_BYTES // 2), len(body))
    for _ in range(2):
        await client.sends(head + body)
    assert client.wire.said.count(b"%d bytes" % len(body)) == 2
    assert not client.wire.is_closed


async def test_one_client_does_not_take_every_connection() -> None:
    server = Server(max_per_address=2)
    first, second, third = (server.connect() for _ in range(3))
    assert [client.wire.is_closed for client in (first, second, third)] == [False, False, True]
    assert not server.connect("192.0.2.11").wire.is_closed
    third.leaves()
    second.leaves()
    assert not server.connect().wire.is_closed


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_what_this_host_does_is_its_own_affair(address: str) -> None:
    server = Server(max_per_address=2)
    assert not any(server.connect(address).wire.is_closed for _ in range(10))


def test_a_client_that_is_gone_without_a_word_is_noticed() -> None:
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            every = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            times = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert idle + every * times <= 180


@pytest.fixture
def few_files() -> Iterator[int]:
    """The limit most programs start with, and the one they may take."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_as_many_connections_as_are_allowed_find_an_open_file_each(few_files: int) -> None:
    (stop := asyncio.Event()).set()
    with bind("127.0.0.1", 0) as sock:
        await serve_http(Starlette(), sock, stop=stop, max_connections=2000)
    assert 4000 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= few_files


def test_a_limit_that_is_too_low_for_them_is_told(few_files: int, caplog: pytest.LogCaptureFixture) -> None:
    make_room(few_files)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few_files
    assert "LimitNOFILE" in caplog.text


def test_what_is_enough_is_left_alone(few_files: int) -> None:
    make_room(64)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1024, few_files)
