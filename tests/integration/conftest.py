from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent import RunningAgent, init, running_agent
from tests.support.central import RunningCentral, SetClock, running_central


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def central(tmp_path: Path, clock: SetClock) -> AsyncIterator[RunningCentral]:
    async with running_central(tmp_path / "central", clock) as running:
        yield running


@pytest.fixture
async def site(central: RunningCentral, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    """The agent of the site `attic`, in touch with central."""
    await central.new_site("attic")
    await init(central, "attic", tmp_path / "agent")
    async with running_agent(tmp_path / "agent", central.transport()) as site:
        await site.synced()
        yield site
