"""Real firmware against a real agent whose central is dead."""

from pathlib import Path

import pytest

from tests.support.programs import running_pair
from tests.system.machine import DISK_REACHED, NEEDS, Machine

MAC = "52:54:00:aa:00:01"
UUID = "11223344-5566-7788-99aa-bbccddeeff00"


@pytest.mark.requires(*NEEDS)
@pytest.mark.timeout(240)
async def test_a_real_machine_boots_its_disk_while_central_is_dead(tmp_path: Path, disk: Path) -> None:
    async with running_pair(tmp_path) as pair:
        await pair.import_node(MAC, "active")
        await pair.caught_up(MAC, "active")
        await pair.central.kill()
        await pair.until("offline", is_online=False)
        async with Machine(port=pair.agent.port, mac=MAC, disk=disk) as machine:
            await machine.wait_for("PureBoot Site Agent - OFFLINE", within=90)
            await machine.wait_for("Central controller is unreachable.", within=10)
            await machine.wait_for("Node state: active", within=10)
            await machine.wait_for("LOCAL-DISK-OK", within=60)
            assert await machine.exited(within=60) == DISK_REACHED


@pytest.mark.requires(*NEEDS)
@pytest.mark.timeout(240)
async def test_a_real_machine_nobody_knows_is_recorded_with_its_facts_and_boots_its_disk(
    tmp_path: Path, disk: Path
) -> None:
    async with running_pair(tmp_path) as pair:
        await pair.central.kill()
        await pair.until("offline", is_online=False)
        options = ["-uuid", UUID, "-smbios", "type=1,manufacturer=Dell & Söhne + Co,serial=A;B"]
        async with Machine(port=pair.agent.port, mac=MAC, disk=disk, options=options) as machine:
            await machine.wait_for("LOCAL-DISK-OK", within=90)
            assert await machine.exited(within=60) == DISK_REACHED
        await pair.central.start()
        await pair.until("drained", is_online=True, pending_queue_items=0)
        (node,) = (await pair.ask("GET", "/nodes", params={"mac": MAC}))["items"]
        assert node["state"] == "discovered"
        assert (
            node["facts"].items()
            >= {
                "system_uuid": UUID,
                "vendor": "Dell & Söhne + Co",
                "serial_number": "A;B",
                "platform": "pcbios",
            }.items()
        )
