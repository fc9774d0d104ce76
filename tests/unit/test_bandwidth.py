import asyncio

from pureboot.agent.bandwidth import Bandwidth


class Time:
    """Goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)
        await asyncio.sleep(0)


def limited(limit: int) -> tuple[Bandwidth, Time]:
    time = Time()
    return Bandwidth(limit, now=lambda: time.now, sleep=time.sleep), time


def late() -> bool:
    return False


async def test_without_a_limit_nobody_waits():
    bandwidth, time = limited(0)
    await bandwidth.spend(10**12, is_first=late)
    assert time.now == 100


async def test_all_downloads_together_take_the_limit_and_no_more():
    bandwidth, time = limited(1000)
    for _ in range(10):
        await bandwidth.spend(300, is_first=late)
        await bandwidth.spend(200, is_first=late)
    assert time.now == 100 + 5


async def test_a_pause_is_not_saved_up():
    bandwidth, time = limited(1000)
    time.now += 3600
    await bandwidth.spend(5000, is_first=late)
    assert time.now == 3700 + 5


async def test_while_a_machine_waits_what_looks_ahead_stands_still():
    bandwidth, _ = limited(1000)
    with bandwidth.first():
        ahead = asyncio.create_task(bandwidth.spend(100, is_first=late))
        for _ in range(20):
            await bandwidth.spend(100, is_first=lambda: True)
        assert not ahead.done()
    await ahead


async def test_what_looked_ahead_goes_on_once_a_machine_waits_for_it():
    bandwidth, _ = limited(1000)
    is_first = False
    with bandwidth.first():
        ahead = asyncio.create_task(bandwidth.spend(100, is_first=lambda: is_first))
        await asyncio.sleep(0.01)
        assert not ahead.done()
        is_first = True
        with bandwidth.first():
            await ahead
