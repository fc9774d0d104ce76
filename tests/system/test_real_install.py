"""A real machine is installed by its agent while central is dead, from its approval to its first own boot."""

from pathlib import Path

import pytest

from tests.support.programs import running_pair
from tests.system import installer, lifecycle
from tests.system.machine import NEEDS, Machine

MAC = "52:54:00:aa:00:07"


@pytest.mark.requires(*NEEDS, *installer.NEEDS)
@pytest.mark.timeout(420)
async def test_a_real_machine_is_installed_while_central_is_dead(
    tmp_path: Path, disk: Path, kernel: installer.Kernel
) -> None:
    blank = lifecycle.blank_like(disk, tmp_path / "blank.img")
    initrd = lifecycle.initrd_that_installs(kernel, disk)

    async with running_pair(tmp_path) as pair:
        node = await lifecycle.approved(pair, MAC, kernel.image.read_bytes(), initrd)
        await pair.central.kill()
        await pair.until("offline", is_online=False)
        async with Machine(
            port=pair.agent.port, mac=MAC, disk=blank, memory_mib=lifecycle.MEMORY_MIB, options=lifecycle.STAYS
        ) as machine:
            await lifecycle.installs_itself_offline(machine)
        await lifecycle.central_learns_of_it_once(pair, node)
