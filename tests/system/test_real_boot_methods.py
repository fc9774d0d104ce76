"""The install methods that boot no kernel of ours: real firmware, images and scripts from the agent, central dead."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import Pair, running_pair
from tests.system.machine import DISK_REACHED, NEEDS, Machine

MAC = "52:54:00:aa:00:09"
# iPXE cannot boot a disk image of less than one cylinder (8 MB).
IMAGE_BYTES = 16 * 1024 * 1024
SCRIPT = b"#!ipxe\necho CHAINED-OK\nsanboot --no-describe --drive 0x80 || exit 1\n"


@pytest.mark.requires(*NEEDS)
@pytest.mark.timeout(300)
async def test_a_real_machine_boots_an_image_that_its_agent_serves(tmp_path: Path, disk: Path) -> None:
    """Its own disk is empty: what it shows comes from the image."""
    blank = tmp_path / "blank.img"
    blank.write_bytes(bytes(1024 * 1024))
    image = disk.read_bytes().ljust(IMAGE_BYTES, b"\0")  # noqa: ASYNC240
    async with running_pair(tmp_path) as pair:
        await approved(pair, image, install_method="sanboot", boot_url="images/tool", done_when="next_boot")
        async with Machine(port=pair.agent.port, mac=MAC, disk=blank) as machine:
            await machine.wait_for("Proceeding with install of tool, attempt 1", within=120)
            await machine.wait_for("LOCAL-DISK-OK", within=60)
            assert await machine.exited(within=60) == DISK_REACHED


@pytest.mark.requires(*NEEDS)
@pytest.mark.timeout(300)
async def test_a_real_machine_runs_a_script_that_its_agent_serves(tmp_path: Path, disk: Path) -> None:
    async with running_pair(tmp_path) as pair:
        await approved(pair, SCRIPT, install_method="chain", boot_url="images/tool", done_when="next_boot")
        async with Machine(port=pair.agent.port, mac=MAC, disk=disk) as machine:
            await machine.wait_for("CHAINED-OK", within=120)
            assert await machine.exited(within=60) == DISK_REACHED
        async with Machine(port=pair.agent.port, mac=MAC, disk=disk) as machine:
            await machine.wait_for("Node state: installed", within=120)
            assert await machine.exited(within=60) == DISK_REACHED
        assert "CHAINED-OK" not in machine.console


async def approved(pair: Pair, content: bytes, **workflow: Any) -> None:
    """The site has what it needs, and central is dead."""
    assert (await pair.admin.put("/api/v1/content/images/tool", content=content)).is_success
    made = await pair.ask("POST", "/workflows", json={"name": "tool"} | workflow)
    node = await pair.import_node(MAC, "discovered")
    await pair.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": made["id"]})
    await pair.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "pending"})
    await pair.caught_up(MAC, "pending")
    await pair.holds(1)
    await pair.central.kill()
    await pair.until("offline", is_online=False)
