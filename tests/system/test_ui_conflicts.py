"""An outage as an operator sees it in a real Chromium, from the alert to the settled conflict, and as it shows at the
site meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from pureboot.central.watch import Watch
from pureboot.wire.http import bind, serve_http
from tests.integration.test_central_settlement import disputed
from tests.support.agent import RunningAgent, init, running_agent
from tests.support.browser import CHROMIUM, PHONE, add_person, check_page, chromium, served, window
from tests.support.central import RunningCentral, SetClock, running_central
from tests.support.machines import MAC, import_node

pytestmark = [pytest.mark.requires(CHROMIUM), pytest.mark.timeout(300)]

# Milliseconds that a page may take to hear of what happened.
SOON = 30_000.0


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def central(tmp_path: Path, clock: SetClock) -> AsyncIterator[RunningCentral]:
    async with running_central(tmp_path / "central", clock) as central:
        await add_person(central, "the-operator", "operator")
        yield central


@pytest.fixture
async def url(central: RunningCentral) -> AsyncIterator[str]:
    async with served(central) as url:
        yield url


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def at_the_site(browser: Browser, site: RunningAgent) -> AsyncIterator[Page]:
    """The agent's own page, in a browser on its host."""
    stop = asyncio.Event()
    with bind("127.0.0.1", 0) as sock:
        serving = asyncio.create_task(serve_http(site.agent.app, sock, stop=stop))
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        async with window(browser, address) as page:
            page.set_default_timeout(SOON)
            await page.goto(address)
            yield page
        site.agent.live.close()
        stop.set()
        await serving


async def time_passes(central: RunningCentral, clock: SetClock, seconds: int) -> None:
    for _ in range(max(1, seconds // 50)):
        clock.advance(min(seconds, 50))
        await Watch(central.db, clock).round()


async def test_an_outage_from_the_alert_to_the_settled_conflict(
    central: RunningCentral, clock: SetClock, url: str, browser: Browser, tmp_path: Path
) -> None:
    await central.new_site("attic", conflict_resolution="manual")
    await init(central, "attic", tmp_path / "agent")
    node = await import_node(central, MAC, state="installed")
    async with (
        running_agent(tmp_path / "agent", central.transport()) as site,
        at_the_site(browser, site) as local,
        window(browser, url, "the-operator") as page,
    ):
        page.set_default_timeout(SOON)
        await site.synced()
        await site.agent.heartbeat.beat()
        await time_passes(central, clock, 50)
        await page.goto("/alerts")

        await site.cut()
        await local.get_by_text("Central has not answered for").wait_for()
        await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
        await local.get_by_text("2 reports").wait_for()
        await time_passes(central, clock, 600)
        await page.get_by_text("Its agent is silent since").wait_for()
        # Somebody who does not know asks for a reinstall of a machine that is just coming up.
        await page.goto(f"/nodes/{node['id']}")
        await page.get_by_role("button", name="Reprovision").click()
        await page.get_by_text("The node is reprovision now.").wait_for()

        await site.restore()
        await site.synced()
        await site.agent.heartbeat.beat()
        await time_passes(central, clock, 50)
        await local.get_by_text("Until a conflict is settled its machine boots its own disk.").wait_for()
        await check_page(local)
        assert "Site and central disagree" in await site.script(MAC)

        await page.goto("/alerts")
        await page.get_by_text("1 conflict waits for a decision").wait_for()
        await page.get_by_role("link", name="See them").click()
        await page.get_by_role("link", name=MAC, exact=True).click()
        await check_page(page)
        sides = page.get_by_role("region", name="Both sides")
        await expect(sides.get_by_text("installed → active")).to_be_visible()
        await expect(sides.get_by_text("installed → reprovision")).to_be_visible()
        await page.get_by_label("Keep the site's").check()
        await page.get_by_label("Why").fill("it is up and working")
        # What somebody chose and typed stays while the page hears news.
        await central.ask("PATCH", f"/nodes/{node['id']}", json={"tags": ["news"]})
        await asyncio.sleep(3)
        await expect(page.get_by_label("Keep the site's")).to_be_checked()
        await page.get_by_role("button", name="Settle it").click()
        await page.get_by_text("Settled: keep_local. The site learns of it now.").wait_for()
        await check_page(page)
        await local.get_by_text("Site and central agree.").wait_for()
        assert (await central.node(MAC))["state"] == "active"

        # The time line shows what happened while the site was cut off, and when central learned of it.
        await page.goto(f"/nodes/{node['id']}")
        await expect(page.get_by_text("reprovision → active")).to_be_visible()
        await check_page(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_of_conflicts_are_for_everybody_and_fit(
    central: RunningCentral, url: str, browser: Browser, scheme: Any
) -> None:
    agent = await central.speaking_agent((await central.new_site("cellar", conflict_resolution="manual"))["id"])
    first = await disputed(central, agent, 1, whole=True)
    retired = await disputed(central, agent, 2, "retired")
    settled = await disputed(central, agent, 3)
    path = f"/sites/{agent.site_id}/conflicts/{settled['id']}/resolve"
    await central.ask("POST", path, json={"resolution": "keep_local", "comment": "seen"})
    ids = (first["id"], retired["id"], settled["id"])
    async with (
        window(browser, url, "the-operator", color_scheme=scheme) as page,
        window(browser, url, "the-operator", color_scheme=scheme, size=PHONE) as phone,
    ):
        for each in (page, phone):
            for path in ("/conflicts", "/conflicts?status=all", *(f"/conflicts/{id}" for id in ids)):
                await each.goto(path)
                await check_page(each)
        await page.goto("/conflicts")
        await page.get_by_label("Tick all on this page").check()
        await page.get_by_role("button", name="Keep the site's, after a look").click()
        await check_page(page)
        await expect(page.get_by_text("This node is retired at central.")).to_be_visible()
        await page.get_by_role("button", name="Settle 1 conflict").click()
        await check_page(page)
        await expect(page.get_by_role("heading", name="What was done: keep local")).to_be_visible()
