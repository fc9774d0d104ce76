"""What open pages hear: one look at the database for all of them, on a stream that ends when it should."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass

import httpx2
import pytest

from pureboot.central.news import MOST_LISTENERS, MOST_OF_ONE, News
from pureboot.core.errors import Busy
from tests.support.browser import PASSWORD, add_person, form_token, served
from tests.support.central import RunningCentral


@dataclass
class Watch:
    now: float = 0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def news(central: RunningCentral, watch: Watch) -> AsyncIterator[News]:
    """Past its first look; it looks again when the test says so."""
    news = News(central.db, period=3600, now=watch)
    await central.new_site("attic")
    await news.look()
    yield news
    news.close()


async def test_a_change_is_told_by_its_topic_and_at_its_pace(central: RunningCentral, news: News, watch: Watch) -> None:
    with news.listen("kim", news.count) as listener:
        await central.ask("POST", "/nodes", 201, json={"mac_address": "525400aabb01", "home_site_id": "attic"})
        watch.now = 1.5
        await news.look()
        assert await listener.next(0) == {"conflicts"}
        watch.now = 2.5
        await news.look()
        assert await listener.next(0) == {"nodes"}
        watch.now = 4
        await news.look()
        assert await listener.next(0) == frozenset()
        watch.now = 6
        await news.look()
        assert await listener.next(0) == {"sites"}
        watch.now = 30
        await news.look()
        # That an agent fell silent changed nothing in the database.
        assert await listener.next(0) == {"sites"}


async def test_whoever_missed_something_is_told_at_once(news: News) -> None:
    with news.listen("kim", news.count - 1) as listener:
        assert await listener.next(0) == {"nodes", "conflicts", "sites", "alerts"}
    with news.listen("kim", news.count) as listener:
        assert await listener.next(0) == frozenset()


@pytest.mark.parametrize(
    ("keys", "refused", "free"),
    [
        ([str(number) for number in range(MOST_LISTENERS)], "one more", None),
        (["kim"] * MOST_OF_ONE, "kim", "lee"),
    ],
    ids=["in all", "of one session"],
)
async def test_only_so_many_listen(news: News, keys: list[str], refused: str, free: str | None) -> None:
    with ExitStack() as listening:
        for key in keys:
            news.check_room(key)
            listening.enter_context(news.listen(key, 0))
        with pytest.raises(Busy):
            news.check_room(refused)
        if free:
            news.check_room(free)
    news.check_room(refused)


@pytest.fixture
async def browser(central: RunningCentral) -> AsyncIterator[httpx2.AsyncClient]:
    """Signed in, over a real socket."""
    await add_person(central, "kim", "viewer")
    async with served(central) as url, httpx2.AsyncClient(base_url=url, timeout=20) as client:
        await client.post("/sign-in", data={"name": "kim", "password": PASSWORD})
        yield client


async def heard(client: httpx2.AsyncClient, then: Callable[[], AsyncIterator[None]]) -> str:
    """All that the stream says until it ends; `then` happens once it began."""
    text = ""
    async with client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for piece in answer.aiter_text():
            if not text:
                async for _ in then():
                    pass
            text += piece
    return text


async def test_signing_out_ends_the_stream(central: RunningCentral, browser: httpx2.AsyncClient) -> None:
    async def sign_out() -> AsyncIterator[None]:
        token = form_token((await browser.get("/sites")).text)
        await browser.post("/sign-out", data={"_csrf": token})
        yield

    assert (await heard(browser, sign_out)).rstrip().endswith("event: end\r\ndata: over")


async def test_a_stop_ends_the_streams_at_once(central: RunningCentral) -> None:
    await add_person(central, "kim", "viewer")
    async with httpx2.AsyncClient(timeout=20) as client:
        async with served(central) as url:
            await client.post(f"{url}/sign-in", data={"name": "kim", "password": PASSWORD})
            request = client.build_request("GET", f"{url}/events")
            answer = await client.send(request, stream=True)
            pieces = answer.aiter_text()
            assert "listening" in await anext(pieces)
            began = time.monotonic()
        # The server was given three seconds for what is under way, and needed none of them.
        assert time.monotonic() - began < 2.5
        await answer.aclose()


async def test_a_change_reaches_an_open_page(central: RunningCentral, browser: httpx2.AsyncClient) -> None:
    page = (await browser.get("/sites")).text
    count = page.split('data-count="')[1].split('"')[0]
    async with asyncio.timeout(20), browser.stream("GET", f"/events?since={count}") as answer:
        told = ""
        async for piece in answer.aiter_text():
            told += piece
            if "listening" in piece:
                await central.new_site("attic")
            if "event: change" in told and "nodes" in told:
                break


async def test_nobody_listens_without_a_session(central: RunningCentral) -> None:
    assert (await central.anybody.get("/events")).status_code == 303
