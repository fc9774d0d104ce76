"""More connections than an agent takes of one address, on a LAN of its own: this host's loopback is not counted."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.programs import Agent, Central, running_pair_of
from tests.system.lan import AGENT, BRIDGE, OTHER, ip, own_lan

CONNECTIONS = 280


class Client:
    """One connection from `address`, that is kept."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port

    async def is_answered(self) -> bool:
        reader, self._writer = await asyncio.open_connection(AGENT, self._port, local_addr=(self._address, 0))
        try:
            self._writer.write(b"GET /boot.ipxe HTTP/1.1\r\nHost: agent\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        except ConnectionError:
            return False

    def leaves(self) -> None:
        self._writer.close()


@pytest.mark.requires("ip")
async def test_one_address_takes_a_quarter_of_the_connections(tmp_path: Path) -> None:
    with own_lan():
        ip("address", "add", f"{OTHER}/24", "dev", BRIDGE)
        settings = {"PUREBOOT_AGENT__MAX_CONNECTIONS": str(CONNECTIONS)}
        agent = Agent(tmp_path, "0.0.0.0", settings)
        async with running_pair_of(Central(tmp_path), agent), AsyncExitStack() as stack:

            async def comes(address: str) -> bool:
                client = Client(address, agent.port)
                stack.callback(client.leaves)
                return await client.is_answered()

            quarter = CONNECTIONS // 4
            assert [await comes(AGENT) for _ in range(quarter + 1)] == [True] * quarter + [False]
            assert await comes(OTHER)
