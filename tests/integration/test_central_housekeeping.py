"""What central forgets by its age, and that a clock that is wrong makes nothing old."""

from datetime import timedelta

import pytest

from pureboot.central.content import Shelf
from pureboot.central.housekeeping import Housekeeping
from pureboot.central.unnamed import Unnamed
from pureboot.central.watch import Watch
from tests.support.central import RunningCentral, SetClock, SpeakingAgent

HOUR, DAY = 3600.0, 86_400.0
TOMBSTONE_DAYS = 30


class House:
    """A site with an outage and an alert that have ended, a command that is done, and a node that is gone."""

    def __init__(self, central: RunningCentral, clock: SetClock, agent: SpeakingAgent) -> None:
        self._central, self._clock, self._agent = central, clock, agent
        self.start()

    def start(self) -> None:
        """Central was started again."""
        unnamed = Unnamed(Shelf(self._central.folder / "content"))
        self._keeping = Housekeeping(self._central.db, self._clock, timedelta(days=TOMBSTONE_DAYS), unnamed)

    async def fill(self) -> None:
        await self.delete("n1", "52:54:00:aa:bb:01")
        await self._beat()
        for _ in range(5):
            self._clock.advance(50)
            await Watch(self._central.db, self._clock).round()
        await self._central.ask("POST", "/sites/attic/sync", 202)
        await self._beat()
        await Watch(self._central.db, self._clock).round()

    async def delete(self, node: str, mac: str) -> None:
        await self._agent.push(self._agent.registration(node, mac))
        self._since = (await self._agent.changes()).next
        await self._central.ask("DELETE", f"/nodes/{node}", 204)

    async def keep(self, rounds: int = 1) -> None:
        """A round after each hour."""
        for _ in range(rounds):
            self._clock.advance(HOUR)
            await self._keeping.round()

    async def round(self) -> None:
        """That of a start."""
        await self._keeping.round()

    def kept(self) -> list[int]:
        tables = ("site_outage", "alert WHERE ended_at IS NOT NULL", "site_command WHERE done_at IS NOT NULL")
        return [self._central.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables]

    async def tells_of_the_deletion(self) -> bool:
        answer = await self._agent.client.get("/api/v1/sync/changes", params={"since": self._since})
        return answer.status_code == 200

    async def _beat(self) -> None:
        body = {"agent_id": self._agent.id, "interval_seconds": 60, "metrics": {}}
        assert (await self._agent.client.post("/api/v1/agents/heartbeat", json=body)).status_code == 200


@pytest.fixture
async def house(central: RunningCentral, clock: SetClock) -> House:
    agent = await central.speaking_agent((await central.new_site("attic"))["id"])
    house = House(central, clock, agent)
    await house.fill()
    await house.keep()
    house.start()
    assert (house.kept(), await house.tells_of_the_deletion()) == ([1, 1, 1], True)
    return house


async def test_a_clock_that_is_ahead_for_a_while_makes_nothing_old(
    house: House, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.step(400 * DAY)
    await house.round()
    await house.keep(3)
    clock.step(-400 * DAY)
    await house.keep(3)
    assert (house.kept(), await house.tells_of_the_deletion()) == ([1, 1, 1], True)
    assert [record.getMessage() for record in caplog.records if "its clock is ahead" in record.getMessage()] == [
        "central was off for long, or its clock is ahead; old things go later: days=400"
    ]


async def test_a_clock_that_is_behind_for_a_while_makes_nothing_old(house: House, clock: SetClock) -> None:
    await house.delete("n2", "52:54:00:aa:bb:02")
    clock.step(-9000 * DAY)
    await house.round()
    clock.step(9000 * DAY)
    await house.keep(3)
    assert (house.kept(), await house.tells_of_the_deletion()) == ([1, 1, 1], True)


async def test_after_a_long_rest_old_things_go_in_time(house: House, clock: SetClock) -> None:
    clock.step(60 * DAY)
    await house.round()
    await house.keep(TOMBSTONE_DAYS - 2)
    assert (house.kept(), await house.tells_of_the_deletion()) == ([1, 1, 1], True)
    await house.keep(4)
    assert (house.kept(), await house.tells_of_the_deletion()) == ([1, 1, 0], False)


async def test_a_central_that_is_on_for_an_hour_a_day_forgets_too(house: House, clock: SetClock) -> None:
    for day in range(TOMBSTONE_DAYS + 3):
        assert await house.tells_of_the_deletion() or day >= TOMBSTONE_DAYS
        house.start()
        await house.round()
        await house.keep()
        clock.step(23 * HOUR)
    assert (house.kept(), await house.tells_of_the_deletion()) == ([1, 1, 0], False)


async def test_old_things_go(house: House, clock: SetClock) -> None:
    await house.round()
    clock.advance(366 * DAY)
    await house.round()
    assert (house.kept(), await house.tells_of_the_deletion()) == ([0, 0, 0], False)
