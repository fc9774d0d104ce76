"""A real machine is installed by its agent while central is dead, from its approval to its first own boot."""

import base64
from pathlib import Path

import pytest

from tests.support.programs import Pair, running_pair
from tests.system import installer
from tests.system.machine import DISK_REACHED, NEEDS, Machine

MAC = "52:54:00:aa:00:07"

# What an installer does, in a few lines: says that it runs, writes the disk, says that it is done.
INSTALL = """
said() {{ sed -n "s/.*pureboot.$1=\\([^ ]*\\).*/\\1/p" /proc/cmdline; }}
report() {{
    wget -q -O - --post-data "mac=$(said mac)&event=$1&boot_token=$(said token)&report_id=$1" $(said url)/api/v1/report
    echo
}}
report install_started
echo {sector} | base64 -d | dd of=/dev/vda conv=notrunc
sync
report install_complete
reboot -f
"""


@pytest.mark.requires(*NEEDS, *installer.NEEDS)
@pytest.mark.timeout(420)
async def test_a_real_machine_is_installed_while_central_is_dead(
    tmp_path: Path, disk: Path, kernel: installer.Kernel
) -> None:
    blank = blank_like(disk, tmp_path / "blank.img")
    initrd = installer.busybox_initrd(kernel, INSTALL.format(sector=boot_sector(disk)))

    async with running_pair(tmp_path) as pair:
        node = await approved(pair, kernel.image.read_bytes(), initrd)
        await pair.central.kill()
        await pair.until("offline", is_online=False)

        stays = ["-action", "reboot=reset"]
        async with Machine(port=pair.agent.port, mac=MAC, disk=blank, memory_mib=256, options=stays) as machine:
            await machine.wait_for("Proceeding with install of debian, attempt 1", within=120)
            await machine.wait_for('"status":"queued"', within=120)
            await machine.wait_for("Node state: installed", within=120)
            await machine.wait_for("LOCAL-DISK-OK", within=120)
            assert await machine.exited(within=60) == DISK_REACHED

        await pair.central.start()
        await pair.until("drained", is_online=True, pending_queue_items=0)
        steps = await pair.history(node)
        assert [(step["from_state"], step["to_state"], step["attempt"]) for step in steps] == [
            ("discovered", "pending", 0),
            ("pending", "installing", 1),
            ("installing", "installed", 1),
        ]
        events = (await pair.ask("GET", f"/nodes/{node}/events"))["items"]
        assert [e["event"] for e in events if e["event"] != "boot_started"] == ["install_started", "install_complete"]


def blank_like(disk: Path, path: Path) -> Path:
    path.write_bytes(bytes(disk.stat().st_size))
    return path


def boot_sector(disk: Path) -> str:
    return base64.b64encode(disk.read_bytes()[:512]).decode()


async def approved(pair: Pair, kernel: bytes, initrd: bytes) -> str:
    """The id of a node whose install is approved, and whose content its site has."""
    for name, content in {"linux": kernel, "initrd": initrd}.items():
        assert (await pair.admin.put(f"/api/v1/content/images/{name}", content=content)).is_success
    body = {"name": "debian", "kernel": "images/linux", "initrd": ["images/initrd"], "cmdline": "console=ttyS0 quiet"}
    workflow = await pair.ask("POST", "/workflows", json=body)
    node = await pair.import_node(MAC, "discovered")
    await pair.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": workflow["id"]})
    await pair.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "pending"})
    await pair.caught_up(MAC, "pending")
    await pair.holds(2)
    return str(node["id"])
