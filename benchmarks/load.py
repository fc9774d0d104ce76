"""64 clients that cost little, so that what is measured is the server: requests are made beforehand, answers are only
counted, and uvloop carries both."""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

CLIENTS = 64

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """`took` in seconds; `times` of each request, in order of size."""

    took: float
    times: list[float]

    @property
    def rate(self) -> float:
        return len(self.times) / self.took

    def __str__(self) -> str:
        p50, p99 = statistics.median(self.times), self.times[int(len(self.times) * 0.99)]
        return f"{self.rate:8.0f}/s   p50 {p50 * 1000:.1f} ms   p99 {p99 * 1000:.1f} ms"


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\n"
    typed = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{head}{typed}\r\n".encode() + body


async def put_load(port: int, requests: Sequence[bytes], status: int) -> Load:
    """Each client sends its share, one after the other on one connection. Every answer must have `status`."""
    loop = asyncio.get_running_loop()
    clients = [_Client(requests[number::CLIENTS], status) for number in range(CLIENTS)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    began = time.monotonic()
    for client in clients:
        client.begin()
    await asyncio.gather(*(client.done for client in clients))
    return Load(time.monotonic() - began, sorted(seconds for client in clients for seconds in client.times))


class _Client(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], status: int) -> None:
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = iter(requests)
        self._expected = f"HTTP/1.1 {status} ".encode()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass

    def begin(self) -> None:
        following = next(self._requests, None)
        if following is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._sent = time.monotonic()
        self._transport.write(following)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_whole():
            return
        self.times.append(time.monotonic() - self._sent)
        if not self._received.startswith(self._expected):
            self._fail(f"not {self._expected!r}: {self._received[:500]!r}")
            return
        self._received = b""
        self.begin()

    def _is_whole(self) -> bool:
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        return bool(found) and length is not None and len(body) == int(length[1])

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was closed: {exc}")

    def _fail(self, why: str) -> None:
        self._transport.close()
        if not self.done.done():
            self.done.set_exception(AssertionError(why))
