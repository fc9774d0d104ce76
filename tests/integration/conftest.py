from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import HASTY, RunningAgent, init, running_agent
from tests.support.central import RunningCentral, SetClock, running_central
from tests.support.postgres import empty_database
from tests.support.postgres import postgres as postgres

# Where it matters which database it is. The others ask about what lies before it, and run on SQLite.
ON_BOTH = {
    "test_central_commands",
    "test_central_conflicts",
    "test_central_feed",
    "test_central_generation",
    "test_central_housekeeping",
    "test_central_nodes",
    "test_central_push",
    "test_central_push_failure",
    "test_central_sessions",
    "test_central_settlement",
    "test_central_sites",
    "test_central_text",
    "test_conflict_matrix",
    "test_central_watch",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in ON_BOTH
        metafunc.parametrize("database", ["sqlite", "postgresql"] if both else ["sqlite"], indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    with empty_database(request.param, lambda: request.getfixturevalue("postgres")) as address:
        yield address


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def central(tmp_path: Path, clock: SetClock, database: str) -> AsyncIterator[RunningCentral]:
    async with running_central(tmp_path / "central", clock, database_url=database) as running:
        yield running


@pytest.fixture
async def site(central: RunningCentral, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    """The agent of the site `attic`, in touch with central."""
    async with attic(central, tmp_path / "agent") as site:
        yield site


@pytest.fixture
async def hasty_site(central: RunningCentral, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    """The same, with the patience of production or less."""
    async with attic(central, tmp_path / "agent", **HASTY) as site:
        yield site


@asynccontextmanager
async def attic(central: RunningCentral, folder: Path, **changed: Any) -> AsyncIterator[RunningAgent]:
    await central.new_site("attic")
    await init(central, "attic", folder)
    async with running_agent(folder, central.transport(), **changed) as site:
        await site.synced()
        yield site
