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
