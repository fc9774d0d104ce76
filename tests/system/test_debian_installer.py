"""Debian's installer, as Debian ships it, comes from the site's disk and reads its answers there, with central dead."""

import asyncio
from pathlib import Path

import pytest

from tests.support.programs import Pair, running_pair
from tests.system import installer, lifecycle
from tests.system.machine import NEEDS, Machine

MAC = "52:54:00:aa:00:0d"
PRESEED = "templates/preseed.cfg"
# The installer runs this as soon as it has read the file, and never otherwise.
ANSWERS = b"d-i preseed/early_command string echo PRESEED-READ >/dev/console; poweroff -f\n"


async def put_preseed(pair: Pair) -> None:
    """Also on the site's disk by the time this returns."""
    assert (await pair.admin.put(f"/api/v1/content/{PRESEED}", content=ANSWERS)).is_success
    async with asyncio.timeout(60):
        while (await pair.machine.get(f"/files/{PRESEED}")).content != ANSWERS:
            await asyncio.sleep(0.1)


@pytest.mark.requires(*NEEDS, *installer.NEEDS)
@pytest.mark.timeout(900)
async def test_debians_installer_reads_its_preseed_while_central_is_dead(
    tmp_path: Path, disk: Path, debian_installer: installer.DebianInstaller
) -> None:
    async with running_pair(tmp_path) as pair:
        await put_preseed(pair)
        url = f"http://10.0.2.2:{pair.agent.port}/files/{PRESEED}"
        cmdline = f"auto=true priority=critical console=ttyS0 DEBIAN_FRONTEND=text preseed/url={url}"
        linux, initrd = debian_installer.linux.read_bytes(), debian_installer.initrd.read_bytes()
        await lifecycle.approved(pair, MAC, linux, initrd, cmdline)
        await pair.central.kill()
        await pair.until("offline", is_online=False)
        async with Machine(port=pair.agent.port, mac=MAC, disk=disk, memory_mib=768) as machine:
            await machine.wait_for("Proceeding with install of debian, attempt 1", within=180)
            await machine.wait_for("PRESEED-READ", within=600)
            assert await machine.exited(within=60) == 0
