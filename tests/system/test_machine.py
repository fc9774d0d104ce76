"""The harness itself: what a machine does can be seen from a test. That it boots, and runs Linux, the others show."""

from pathlib import Path

import pytest

from tests.system import machine
from tests.system.machine import Machine, console_text


def test_the_console_is_what_a_person_would_read() -> None:
    long = "a line that is as long as the console is wide, and then goes on in the next one: "[:80]
    serial = f"\x1b[1;1H\x1b[2J{long}\nwhole.   \r\n10%\r100%\nbootx\b.ipxe\n"
    assert console_text(serial.encode()) == f"{long}whole.\n100%\nboot.ipxe\n\n"


@pytest.mark.requires(*machine.NEEDS)
@pytest.mark.timeout(300)
async def test_a_failure_shows_the_console_and_leaves_no_machine(disk: Path) -> None:
    it = Machine(port=1, mac="52:54:00:aa:00:02", disk=disk)

    async def fail() -> None:
        async with it:
            await it.wait_for("SeaBIOS", within=90)
            assert is_running(it.pid)
            await it.wait_for("NEVER-SHOWN", within=0.1)

    with pytest.raises(AssertionError, match="did not show 'NEVER-SHOWN'") as failure:
        await fail()
    assert any("SeaBIOS" in note for note in failure.value.__notes__)
    assert not is_running(it.pid)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
