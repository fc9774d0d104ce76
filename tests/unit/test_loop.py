import asyncio

from pureboot.agent.loop import Loop


async def test_a_loop_that_stumbles_begins_anew(caplog) -> None:
    runs = asyncio.Queue[int]()
    count = 0

    async def run() -> None:
        nonlocal count
        count += 1
        runs.put_nowait(count)
        if count < 3:
            raise ValueError("nobody foresaw this")
        await asyncio.Event().wait()

    loop = Loop("the drain", run, pause=0)
    loop.start()
    loop.start()
    assert [await runs.get() for _ in range(3)] == [1, 2, 3]
    await loop.stop()
    assert not loop.is_running
    assert "the drain stumbled and begins anew" in caplog.text


async def test_stopping_what_never_ran_is_nothing() -> None:
    async def idle() -> None: ...

    await Loop("idle", idle).stop()


async def test_a_stop_that_comes_together_with_what_it_waits_for_ends_it_all_the_same() -> None:
    """Until Python 3.12 `wait_for` swallows such a cancellation."""
    woken, rounds = asyncio.Event(), 0

    async def run() -> None:
        nonlocal rounds
        while True:
            woken.clear()
            rounds += 1
            await asyncio.wait_for(woken.wait(), 60)

    loop = Loop("waits", run)
    loop.start()
    await asyncio.sleep(0)
    while rounds < 1:
        await asyncio.sleep(0)
    for _ in range(3):  # into the wait itself
        await asyncio.sleep(0)
    woken.set()
    await asyncio.sleep(0)  # what it waited for is there, and it has not heard of it yet
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        await loop.stop()
    assert asyncio.get_running_loop().time() - began < 5
