"""A file on its way to a site whose agent is killed, with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from tests.support.programs import Pair, running_pair

pytestmark = pytest.mark.timeout(240)

NAME = "images/disk.img"
CONTENT = Random(1).randbytes(6_000_000)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Over a line of 2 MB/s."""
    async with running_pair(tmp_path, settings={"PUREBOOT_AGENT__BANDWIDTH_LIMIT": "2000000"}) as pair:
        yield pair


async def test_a_download_survives_kill_9_of_the_agent_and_goes_on_there(pair: Pair) -> None:
    await pair.admin.put(f"/api/v1/content/{NAME}", content=CONTENT)
    await pair.until_served(f"/files/{NAME}")
    async with pair.machine.stream("GET", f"/files/{NAME}") as answer:
        assert answer.headers["content-length"] == str(len(CONTENT))
        received = b""
        async for chunk in answer.aiter_raw():
            received += chunk
            if len(received) > 2_000_000:
                await pair.agent.kill()
                break
    assert CONTENT.startswith(received)
    [part] = (pair.agent.folder / "cache" / "landing").iterdir()
    assert part.stat().st_size >= len(received)

    await pair.agent.start()
    answer = await pair.machine.get(f"/files/{NAME}")
    assert answer.content == CONTENT
    assert "a download goes on at byte" in pair.agent.log.read_text()
    await pair.holds(1)
    assert not part.exists()
