"""Open pages hear that something changed, in bounded number, and hold up nothing."""

import asyncio

import pytest

from pureboot.agent.live import MOST, Live
from pureboot.core.errors import Busy


async def test_a_page_hears_at_once_then_of_each_change() -> None:
    shown = [0]
    live = Live(lambda: shown[0], period=0.01, still=1e9)
    changes = live.changes()
    assert b"event: change" in await anext(changes)
    waits = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.05)
    assert not waits.done()
    shown[0] = 1
    async with asyncio.timeout(30):
        assert b"event: change" in await waits
    await changes.aclose()
    assert live.open == 0


async def test_where_nothing_changes_ages_still_grow() -> None:
    live = Live(lambda: 0, period=0.01, still=0.02)
    changes = live.changes()
    async with asyncio.timeout(30):
        assert [b"change" in await anext(changes) for _ in range(2)] == [True, True]
    await changes.aclose()


async def test_only_so_many_pages_listen() -> None:
    live = Live(lambda: 0, period=0.01)
    streams = [live.changes() for _ in range(MOST)]
    for stream in streams:
        live.check_room()
        await anext(stream)
    with pytest.raises(Busy, match="Too many pages"):
        live.check_room()
    await streams[0].aclose()
    live.check_room()
    for stream in streams:
        await stream.aclose()


async def test_the_end_of_the_program_is_the_end_of_all_streams() -> None:
    live = Live(lambda: 0, period=1000, still=1e9)
    changes = live.changes()
    await anext(changes)
    waits = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.01)
    live.close()
    async with asyncio.timeout(30):
        with pytest.raises(StopAsyncIteration):
            await waits
    with pytest.raises(Busy):
        live.check_room()
