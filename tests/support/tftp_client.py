"""UDP sockets of machines that fetch over TFTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from pureboot.tftp.packets import Packet, ReadRequest, dump, parse
from tests.support.tftp import Reader

Address = tuple[Any, ...]


class Client(asyncio.DatagramProtocol):
    """One UDP socket of a machine."""

    def __init__(self, server: Address) -> None:
        self.server = server
        self._heard: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is no instance of it

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._heard.put_nowait((data, addr))

    def say(self, packet: Packet | bytes, to: Address | None = None) -> None:
        self._transport.sendto(packet if isinstance(packet, bytes) else dump(packet), to or self.server)

    async def hear(self, within: float = 10.0) -> tuple[Packet, Address]:
        async with asyncio.timeout(within):
            datagram, sender = await self._heard.get()
        return parse(datagram), sender

    async def silence(self, seconds: float = 0.15) -> None:
        with pytest.raises(TimeoutError):
            await self.hear(seconds)

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def client_of(port: int, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(lambda: Client((host, port)), local_addr=(host, 0))
    try:
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)  # it closes in the loop's next turn


async def fetch(port: int, name: str, *, host: str = "127.0.0.1", **options: int) -> Reader:
    async with client_of(port, host) as client:
        client.say(ReadRequest(name, options=tuple((key, str(value)) for key, value in options.items())))
        reader = Reader()
        while not reader.whole and reader.error is None:
            packet, sender = await client.hear()
            for answer in reader.take(dump(packet)):
                client.say(answer, sender)
    return reader
