"""A disk that is full: reports are refused, boots go on, and what waits drains when there is room again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import init, running_agent
from tests.support.central import RunningCentral
from tests.support.parts import MAC, OTHER_MAC
from tests.support.wan import Wan

SIZE = 3 * 1024**2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "pureboot-test", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
    )
    if not mounted:
        pytest.skip("a disk of three megabytes needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def stuff(folder: Path) -> Path:
    """Takes what room there is, to the last page."""
    stuffing = folder / "stuffing"
    with stuffing.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return stuffing


@pytest.mark.parametrize("floor", [0, 64 * 1024], ids=["to the last byte", "to the floor"])
async def test_a_full_disk_refuses_reports_boots_go_on_and_everything_drains(
    central: RunningCentral, small_disk: Path, floor: int
) -> None:
    await central.new_site("attic")
    await init(central, "attic", small_disk)
    wan = Wan(central.transport())
    async with running_agent(small_disk, wan, disk_floor_bytes=floor) as site:
        await site.synced()
        node = (await site.machine.post("/api/v1/nodes/register", json={"mac_address": MAC})).json()["id"]
        await site.synced()
        await site.cut()
        stuffing = stuff(small_disk)
        accepted = []
        event = {"event": "said", "message": "x" * 1500}
        while (answer := await site.machine.post(f"/api/v1/nodes/{node}/event", json=event)).status_code == 202:
            accepted.append(answer.json()["queue_id"])
        assert answer.status_code == 507, answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert "#!ipxe" in await site.script(MAC)
        assert "#!ipxe" in await site.script(OTHER_MAC)
        answer = await site.machine.patch(f"/api/v1/nodes/{node}/state", json={"state": "pending"})
        assert answer.status_code in (403, 409, 507)
        stuffing.unlink()
        answer = await site.machine.post(f"/api/v1/nodes/{node}/event", json={"event": "after"})
        assert answer.status_code == 202
        accepted.append(answer.json()["queue_id"])
        await site.restore()
        await site.until(lambda: site.agent.sync_queue.pending_count == 0, "drained")
    told = [event["item_id"] for event in await central.events(MAC)]
    assert [id for id in told if id in accepted] == accepted
