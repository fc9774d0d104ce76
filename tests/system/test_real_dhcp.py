"""Real firmware and the real dnsmasq, configured by `pureboot agent dnsmasq-config`, on a LAN of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.programs import Agent, Central, Pair, running_pair_of
from tests.system import lan as lans
from tests.system.lan import AGENT, BRIDGE, Lan, configuration, own_lan, running_dnsmasq
from tests.system.machine import DISK_REACHED, NEEDS, Machine

MAC = "52:54:00:aa:00:01"
RANGE = "10.77.0.100,10.77.0.200"


@pytest.fixture
def lan() -> Iterator[Lan]:
    with own_lan() as lan:
        yield lan


@pytest.fixture
async def pair(tmp_path: Path, lan: Lan) -> AsyncIterator[Pair]:
    agent = Agent(tmp_path, host="0.0.0.0", tftp_port=69)
    async with running_pair_of(Central(tmp_path), agent) as pair:
        yield pair


def at(pair: Pair) -> list[str]:
    return ["--address", AGENT, "--http-port", str(pair.agent.port)]


@pytest.mark.requires(*NEEDS, *lans.NEEDS)
@pytest.mark.timeout(240)
async def test_a_bios_machine_gets_by_dhcp_to_its_disk_while_central_is_dead(
    tmp_path: Path, lan: Lan, pair: Pair, disk: Path
) -> None:
    config = await configuration("--range", RANGE, "--interface", BRIDGE, "--ipv6-ra", *at(pair))
    await pair.import_node(MAC, "active")
    await pair.caught_up(MAC, "active")
    await pair.central.kill()
    async with running_dnsmasq(tmp_path, config), Machine(mac=MAC, disk=disk, network=lan.tap()) as machine:
        await machine.wait_for("PureBoot Site Agent - OFFLINE", within=90)
        await machine.wait_for("LOCAL-DISK-OK", within=60)
        assert await machine.exited(within=60) == DISK_REACHED
