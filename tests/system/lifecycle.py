"""The life of one real machine, from its approval to its first own boot, whatever network leads it there."""

import base64
from pathlib import Path
from typing import Any

from tests.support.programs import Pair
from tests.system import installer
from tests.system.machine import DISK_REACHED, Machine

MEMORY_MIB = 256
STAYS = ("-action", "reboot=reset")
"""Options of QEMU: the machine starts anew when its installer says so."""

# What an installer does, in a few lines: says that it runs, writes the disk, says that it is done.
_INSTALL = """
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


def blank_like(disk: Path, path: Path) -> Path:
    path.write_bytes(bytes(disk.stat().st_size))
    return path


def initrd_that_installs(kernel: installer.Kernel, disk: Path) -> bytes:
    """It writes the boot sector of `disk`."""
    sector = base64.b64encode(disk.read_bytes()[:512]).decode()
    return installer.busybox_initrd(kernel, _INSTALL.format(sector=sector))


async def approved(
    pair: Pair, mac: str, kernel: bytes, initrd: bytes, cmdline: str = "console=ttyS0 quiet", **workflow: Any
) -> str:
    """The id of a node whose install is approved, and whose content its site has."""
    for name, content in {"linux": kernel, "initrd": initrd}.items():
        assert (await pair.admin.put(f"/api/v1/content/images/{name}", content=content)).is_success
    body = {"name": "debian", "kernel": "images/linux", "initrd": ["images/initrd"], "cmdline": cmdline}
    made = await pair.ask("POST", "/workflows", json=body | workflow)
    node = await pair.import_node(mac, "discovered")
    await pair.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": made["id"]})
    await pair.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "pending"})
    await pair.caught_up(mac, "pending")
    await pair.holds(2, under="images/")
    return str(node["id"])


async def installs_itself_offline(machine: Machine) -> None:
    await machine.wait_for("Proceeding with install of debian, attempt 1", within=120)
    await machine.wait_for('"status":"queued"', within=180)
    await machine.wait_for("Node state: installed", within=180)
    await machine.wait_for("LOCAL-DISK-OK", within=120)
    assert await machine.exited(within=60) == DISK_REACHED


async def central_learns_of_it_once(pair: Pair, node: str) -> None:
    """Central is started, and has each edge and each event of the install once and in order."""
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
