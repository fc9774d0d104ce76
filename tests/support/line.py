"""The TCP line from a site to central, in the test's own process, with what happens to lines."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

State = Literal["up", "cut", "stalled", "deaf"]

CHUNK = 64 * 1024


class Line:
    """`cut`: what is connected breaks, and so does each new connection at once. `stalled`: connections stay, and no
    byte moves. `deaf`: central hears everything, and of its answer half arrives before the connection breaks."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._state: State = "up"
        self._moving = asyncio.Event()
        self._moving.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    def turn(self, state: State) -> None:
        self._state = state
        if state == "stalled":
            self._moving.clear()
        else:
            self._moving.set()
        if state == "cut":
            self._break(*self._ends)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)

    async def close(self) -> None:
        self._server.close()
        self.turn("cut")
        while self._ends:
            await asyncio.sleep(0.01)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            if self._state != "cut":
                await self._carry_both_ways(reader, writer)
        except OSError:  # central's port is closed: so is this one
            pass
        finally:
            self._break(writer)
            self._ends.discard(writer)

    async def _carry_both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._ends.add(far_writer)
        try:
            ways = (self._carry(reader, far_writer), self._carry(far_reader, writer, answers=True))
            await asyncio.wait([asyncio.create_task(way) for way in ways], return_when=asyncio.ALL_COMPLETED)
        finally:
            self._break(far_writer)
            self._ends.discard(far_writer)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._moving.wait()
                if answers and self._state == "deaf":
                    writer.write(chunk[: len(chunk) // 2])
                    self._break(*self._ends)
                    return
                writer.write(chunk)
                await writer.drain()
            await self._moving.wait()
        writer.close()

    def _break(self, *ends: asyncio.StreamWriter) -> None:
        """A reset, as by somebody on the way. An end that is closed already stays so."""
        for end in ends:
            sock: socket.socket | None = end.get_extra_info("socket")
            if sock is not None and not end.transport.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


@asynccontextmanager
async def opened(target: int) -> AsyncIterator[Line]:
    line = Line(target)
    await line.open()
    try:
        yield line
    finally:
        await line.close()
