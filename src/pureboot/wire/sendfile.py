"""Files from the page cache to a socket without passing through Python: ASGI's extension `http.response.zerocopysend`,
which uvicorn does not have. It is half the work of a core for a megabyte, or less.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

EXTENSION = "http.response.zerocopysend"

# Bytes that one call hands to the kernel; between two, others have their turn.
PIECE = 256 * 1024

Message = dict[str, Any]
App = Callable[..., Awaitable[None]]


def with_sendfile(app: App) -> App:
    """The same app, offered the extension where its server and the connection can do it (with TLS they cannot)."""

    async def offered(scope: Message, receive: Callable[..., Any], send: Callable[[Any], Awaitable[None]]) -> None:
        cycle = getattr(send, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle) or cycle.transport.get_extra_info("sslcontext"):
            await app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == EXTENSION:
                await _send_file(cycle, message["file"], message["offset"], message["count"])
            else:
                await send(message)

        await app({**scope, "extensions": scope.get("extensions", {}) | {EXTENSION: {}}}, receive, sending)

    return offered


async def _send_file(cycle: RequestResponseCycle, file: int, offset: int, count: int) -> None:
    """Returns when the kernel has all of it. Raises EOFError for a file that ends before, ConnectionError where the
    client is gone."""
    await _drained(cycle)
    _check_there(cycle)
    # Our own, for waiting: the loop lets nobody wait for one of a transport, which it may close under us besides.
    out = os.dup(cycle.transport.get_extra_info("socket").fileno())
    try:
        while count:
            sent = await _some(out, file, offset, min(count, PIECE))
            offset, count = offset + sent, count - sent
            cycle.expected_content_length -= sent
            _check_there(cycle)
    finally:
        os.close(out)


def _check_there(cycle: RequestResponseCycle) -> None:
    if cycle.disconnected or cycle.transport.is_closing():
        raise ConnectionError("The client is gone.")


async def _drained(cycle: RequestResponseCycle) -> None:
    """What was sent before is with the kernel."""
    cycle.transport.set_write_buffer_limits(high=0)
    try:
        while cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
    finally:
        with contextlib.suppress(RuntimeError):
            cycle.transport.set_write_buffer_limits()


async def _some(out: int, file: int, offset: int, count: int) -> int:
    if not _is_in_memory(file, offset + count - 1):
        # The disk may be slow; the loop must not wait for it.
        await asyncio.to_thread(os.pread, file, count, offset)
    while True:
        try:
            sent = os.sendfile(out, file, offset, count)
        except BlockingIOError:
            await _writable(out)
        else:
            if not sent:
                raise EOFError
            await asyncio.sleep(0)
            return sent


def _is_in_memory(file: int, position: int) -> bool:
    """As far as one byte can tell: files are read from front to back, and the kernel reads ahead."""
    try:
        return bool(os.preadv(file, [bytearray(1)], position, os.RWF_NOWAIT))
    except OSError:
        return False


async def _writable(out: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(out, _tell, ready)
    try:
        await ready
    finally:
        loop.remove_writer(out)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
