"""A site and the alerts in a real Chromium: an outage as an operator sees it, and a failed report."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from pureboot.central.watch import Watch
from tests.support.browser import CHROMIUM, PHONE, add_person, check_page, chromium, served, window
from tests.support.central import RunningCentral, SetClock, SpeakingAgent, running_central

pytestmark = [
    pytest.mark.requires(CHROMIUM),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

OBEYS = ["discard", "requeue", "sync"]
FAILED = {
    "id": "i1",
    "lane": "n1",
    "item_type": "event",
    "attempts": 3,
    "last_error": "<b>poison</b>",
    "created_at": "2026-01-28T11:59:00Z",
}
SOON = 20_000.0


class Site:
    """`attic`, whose agent is spoken for by the test."""

    def __init__(self, central: RunningCentral, clock: SetClock, agent: SpeakingAgent) -> None:
        self.central, self.clock, self.agent = central, clock, agent
        self.path = f"/sites/{agent.site_id}"

    async def beats(self, *failed: dict[str, Any], done: list[dict[str, str]] | None = None) -> list[dict[str, Any]]:
        report = {"obeys": OBEYS, "failed_items": failed, "commands_done": done or []}
        cache = {"cache_bytes": 10**9, "cache_limit_bytes": 4 * 10**9, "cache_files": 3}
        metrics = {"version": "9", "failed_queue_items": len(failed), "report": report, **cache}
        body = {"agent_id": self.agent.id, "interval_seconds": 60, "metrics": metrics}
        answer = await self.agent.client.post("/api/v1/agents/heartbeat", json=body)
        assert answer.status_code == 200, answer.text
        commands: list[dict[str, Any]] = answer.json()["commands"]
        await Watch(self.central.db, self.clock).round()
        return commands

    async def is_silent(self, seconds: int) -> None:
        for _ in range(seconds // 50):
            self.clock.advance(50)
            await Watch(self.central.db, self.clock).round()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("central")
    clock = SetClock()
    async with running_central(folder, clock) as central:
        await central.new_site("attic", description="Third floor")
        for name, role in (("the-admin", "admin"), ("the-operator", "operator"), ("the-viewer", "viewer")):
            await add_person(central, name, role)
        site = Site(central, clock, await central.speaking_agent("attic"))
        await site.beats(FAILED)
        await site.is_silent(600)
        await site.beats(FAILED)
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(site: Site) -> AsyncIterator[str]:
    async with served(site.central) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_the_pages_are_for_everybody_and_fit(browser: Browser, url: str, site: Site, scheme: Any) -> None:
    for name in ("the-admin", "the-viewer"):
        async with window(browser, url, name, color_scheme=scheme) as page:
            for path in (site.path, f"{site.path}?window=30d", "/alerts", "/alerts?status=all"):
                await page.goto(path)
                await check_page(page)


async def test_they_fit_a_phone(browser: Browser, url: str, site: Site) -> None:
    async with window(browser, url, "the-admin", size=PHONE) as page:
        for path in (site.path, "/alerts?status=all"):
            await page.goto(path)
            await check_page(page)


async def test_an_operator_gives_a_failed_report_up_and_sees_what_became_of_it(
    browser: Browser, url: str, site: Site
) -> None:
    async with window(browser, url, "the-operator") as page:
        await page.goto(site.path)
        await page.get_by_text("Discard", exact=True).click()
        await page.get_by_label("Why it is given up").fill("swapped")
        # What somebody types stays while the page hears news.
        await site.beats(FAILED)
        await expect(page.get_by_label("Why it is given up")).to_have_value("swapped")
        await page.get_by_role("button", name="Discard for good").click()
        await expect(page.get_by_text("waits for the agent")).to_be_visible()
        [command] = await site.beats(FAILED)
        await site.beats(done=[{"id": command["id"], "outcome": "done"}])
        await expect(page.get_by_text("waits for the agent")).to_have_count(0, timeout=SOON)
        assert (command["reason"], command["person"]) == ("swapped", "the-operator")
        await expect(page.get_by_role("link", name="0 failed")).to_be_visible()


async def test_an_outage_is_an_alert_with_a_badge_until_it_is_seen(browser: Browser, url: str, site: Site) -> None:
    async with window(browser, url, "the-operator") as page:
        await page.goto("/alerts")
        await site.is_silent(600)
        await expect(page.get_by_text("Its agent is silent since")).to_be_visible(timeout=SOON)
        badge = page.locator("#alert-badge")
        before = int((await badge.inner_text()).split()[0])
        await page.get_by_role("button", name="Acknowledge: attic, Its agent is silent").click()
        await expect(page.get_by_text("It is noted that you have seen it.")).to_be_visible()
        after = (await badge.inner_text()).split()
        assert int(after[0] if after else 0) == before - 1
        await page.goto(site.path)
        await expect(page.get_by_role("img", name="2 outages in the last 24 hours")).to_be_visible()
        await site.beats()
        await page.goto("/alerts")
        await expect(page.get_by_text("Its agent is silent since")).to_have_count(0)
