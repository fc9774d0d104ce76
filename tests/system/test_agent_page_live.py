"""The site's page in a real browser, during an outage: what happens shows as it happens, and a person acts on it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Page

from pureboot.agent.queue import QueueItem
from pureboot.wire.http import bind, serve_http
from tests.support.agent import RunningAgent, init, running_agent
from tests.support.browser import CHROMIUM, PHONE, check_page, chromium, window
from tests.support.central import RunningCentral, running_central
from tests.support.machines import import_node

PATIENCE = 30_000.0

pytestmark = pytest.mark.requires(CHROMIUM)


@pytest.fixture
async def central(tmp_path: Path) -> AsyncIterator[RunningCentral]:
    async with running_central(tmp_path / "central") as central:
        await central.new_site("attic")
        yield central


@pytest.fixture
async def site(central: RunningCentral, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    await init(central, "attic", tmp_path / "agent")
    async with running_agent(tmp_path / "agent", central.transport()) as site:
        await site.synced()
        yield site


@pytest.fixture
async def address(site: RunningAgent) -> AsyncIterator[str]:
    stop = asyncio.Event()
    with bind("127.0.0.1", 0) as sock:
        serving = asyncio.create_task(serve_http(site.agent.app, sock, stop=stop))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        site.agent.live.close()
        stop.set()
        await serving


@pytest.fixture
async def page(address: str) -> AsyncIterator[Page]:
    async with chromium() as browser, window(browser, address) as page:
        page.set_default_timeout(PATIENCE)
        await page.goto(address)
        yield page


async def fails(site: RunningAgent, id: str) -> None:
    item = QueueItem(id=id, item_type="event", payload={"event": "e"}, created_at=datetime.now(UTC), lane=f"of-{id}")
    await site.agent.sync_queue.enqueue(item)
    await site.agent.sync_queue.mark_failed(id, "poison")


async def test_an_outage_is_watched_and_worked_on_at_the_site(
    central: RunningCentral, site: RunningAgent, page: Page
) -> None:
    await import_node(central, "52:54:00:aa:bb:01", state="active")
    await site.synced()
    await page.get_by_text("This page shows what happens as it happens.").wait_for()
    await site.cut()
    await page.get_by_text("Central has not answered for").wait_for()
    await site.script("52:54:00:aa:bb:01")
    await page.get_by_role("region", name="Table of the last boots").get_by_text("52:54:00:aa:bb:01").wait_for()
    await fails(site, "i1")
    await fails(site, "i2")
    await page.get_by_role("button", name="Requeue event of of-i1").click()
    await page.get_by_text("The item goes out again.").wait_for()
    assert site.agent.sync_queue.failed_count == 1
    await page.get_by_text("Discard", exact=True).click()
    await page.get_by_label("Reason").fill("swapped")
    # What somebody is writing stays, whatever happens meanwhile.
    await site.script("52:54:00:aa:bb:02")
    await page.get_by_text("52:54:00:aa:bb:02").wait_for()
    assert await page.get_by_label("Reason").input_value() == "swapped"
    await page.get_by_label("Your name").fill("ada")
    await page.get_by_role("button", name="Discard for good").click()
    await page.get_by_text("The item is given up; central will be told, unless it had refused it.").wait_for()
    discards = [item.payload for item in await site.agent.sync_queue.peek(100) if item.item_type == "discard"]
    assert [(told["item_id"], told["reason"], told["person"]) for told in discards] == [("i2", "swapped", "ada")]


async def test_the_page_is_for_everybody_and_fits_a_phone(
    central: RunningCentral, site: RunningAgent, address: str, page: Page
) -> None:
    await import_node(central, "52:54:00:aa:bb:01", state="active")
    await site.synced()
    await site.cut()
    await site.script("52:54:00:aa:bb:01")
    await fails(site, "i1")
    for scheme in ("dark", "light"):
        await page.emulate_media(color_scheme=scheme)
        for width in (1280, PHONE[0]):
            await page.set_viewport_size({"width": width, "height": 900})
            await page.goto(address)
            await page.get_by_text("Discard", exact=True).click()
            await check_page(page)


async def test_a_page_of_somebody_else_posts_nothing_to_it(site: RunningAgent, page: Page, address: str) -> None:
    await site.cut()
    await fails(site, "i1")
    # A page of another origin in the same browser, which the agent's own headers do not reach.
    tab = await page.context.new_page()
    await tab.route("http://evil.test/", lambda route: route.fulfill(content_type="text/html", body=EVIL % address))
    await tab.goto("http://evil.test/")
    async with tab.expect_navigation():
        await tab.click("button")
    assert "not_our_page" in await tab.content()
    assert site.agent.sync_queue.failed_count == 1


EVIL = '<!doctype html><form method="post" action="%s/queue/i1/requeue"><button>You have won</button></form>'
