"""Central's pages in a real Chromium: by keyboard and by touch, in light and dark, with and without JavaScript."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.integration.test_ui_pages import FOR_ADMINS, PAGES, hostile
from tests.support.browser import CHROMIUM, PASSWORD, PHONE, add_person, check_page, chromium, served, window
from tests.support.central import RunningCentral, SetClock, running_central
from tests.support.seed import content, node_id, outage_of, seed

pytestmark = [
    pytest.mark.requires(CHROMIUM),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def central(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCentral]:
    clock = SetClock()
    folder: Path = tmp_path_factory.mktemp("central")
    async with running_central(folder, clock) as central:
        now = clock.now()
        central.db.write_now(lambda conn: seed(conn, sites=40, nodes=120, workflows=4, now=now))
        central.db.write_now(lambda conn: outage_of(conn, 5, now))
        central.db.write_now(lambda conn: content(conn, now))
        for name, role in (("the-admin", "admin"), ("the-operator", "operator"), ("the-viewer", "viewer")):
            await add_person(central, name, role)
        yield central


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(central: RunningCentral) -> AsyncIterator[str]:
    async with served(central) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_each_page_is_for_everybody_and_fits(browser: Browser, url: str, scheme: Any) -> None:
    async with window(browser, url, "the-admin", color_scheme=scheme) as page:
        for path in (*PAGES, *FOR_ADMINS, "/nodes/nobody", "/sites?q=nowhere"):
            await page.goto(path)
            await check_page(page)
    async with window(browser, url, color_scheme=scheme) as page:
        await page.goto("/sign-in")
        await check_page(page)


async def test_each_page_fits_a_phone(browser: Browser, url: str) -> None:
    async with window(browser, url, "the-admin", size=PHONE) as page:
        for path in (*PAGES, *FOR_ADMINS):
            await page.goto(path)
            await check_page(page)


async def test_by_keyboard_alone_one_signs_in_and_moves_a_node(
    browser: Browser, central: RunningCentral, url: str
) -> None:
    node = (await central.ask("GET", "/nodes", params={"state": "discovered"}))["items"][0]
    async with window(browser, url) as page:
        await page.goto(f"/nodes/{node['id']}")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
        await page.keyboard.press("Enter")
        for text in ("the-operator", PASSWORD):
            await page.keyboard.press("Tab")
            await page.keyboard.type(text)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Now")).to_be_visible()
        await tab_to(page, "Approve: pending")
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("The node is pending now.")).to_be_visible()
    assert (await central.ask("GET", f"/nodes/{node['id']}"))["state"] == "pending"


async def tab_to(page: Any, text: str) -> None:
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"Tab leads to no {text!r}")


async def test_an_open_page_changes_by_itself(browser: Browser, central: RunningCentral, url: str) -> None:
    path = f"/nodes/{node_id(7)}"
    async with window(browser, url, "the-viewer") as page, window(browser, url, "the-operator") as other:
        await page.goto(path)
        await other.goto(path)
        await page.get_by_role("link", name="Workflows").focus()
        await other.get_by_label("Group").fill("half a")
        await other.get_by_role("link", name="Sites").focus()
        await central.ask("PATCH", f"/nodes/{node_id(7)}", json={"hostname": "renamed", "tags": ["fresh"]})
        await expect(page.get_by_text("fresh")).to_be_visible(timeout=20_000)
        await expect(page.get_by_role("link", name="Workflows")).to_be_focused()
        # Who types is not disturbed, and is told when it is sent.
        await expect(other.get_by_label("Group")).to_have_value("half a")
        await other.get_by_role("button", name="Save").click()
        await expect(other.get_by_role("alert")).to_contain_text("is at version")
        await expect(other.get_by_label("Group")).to_have_value("half a")


async def test_search_answers_while_one_types(browser: Browser, url: str) -> None:
    async with window(browser, url, "the-viewer") as page:
        await page.goto("/nodes")
        await page.get_by_label("Search by hostname or MAC").press_sequentially("srv-00001", delay=10)
        await expect(page.get_by_text("machines found")).to_be_visible()
        await expect(page.get_by_role("row")).to_have_count(10)
        assert "q=srv-00001" in page.url
        await expect(page.get_by_label("Search by hostname or MAC")).to_be_focused()


async def test_many_are_ticked_and_changed(browser: Browser, central: RunningCentral, url: str) -> None:
    async with window(browser, url, "the-operator") as page:
        await page.goto("/nodes?site=hamburg-01")
        await page.get_by_label("Tick all on this page").check()
        await page.locator("select[name=to_workflow]").select_option(label="talos")
        await page.get_by_role("button", name="Assign, after a look").click()
        await check_page(page)
        await page.get_by_role("button", name="Change ").click()
        await expect(page.get_by_role("status")).to_contain_text("changed")
    found = await central.ask("GET", "/nodes", params={"site": "hamburg-01", "workflow": "talos"})
    assert len(found["items"]) == 3


async def test_without_javascript_everything_still_works(browser: Browser, central: RunningCentral, url: str) -> None:
    async with window(browser, url, "the-operator", java_script_enabled=False) as page:
        await page.goto("/nodes")
        await page.get_by_label("Search by hostname or MAC").fill("srv-000012")
        await page.get_by_role("button", name="Show").click()
        await page.get_by_role("link", name="srv-000012").click()
        await page.get_by_label("Hostname").fill("by-hand")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("heading", name="by-hand")).to_be_visible()
    assert (await central.ask("GET", f"/nodes/{node_id(12)}"))["hostname"] == "by-hand"


async def test_an_ended_session_loses_no_typed_input(browser: Browser, central: RunningCentral, url: str) -> None:
    async with window(browser, url, "the-operator") as page:
        await page.goto(f"/nodes/{node_id(20)}")
        await page.get_by_label("Hostname").fill("typed-with-care")
        central.sql("DELETE FROM person_session")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("What you typed is kept")).to_be_visible()
        await check_page(page)
        await page.get_by_label("Name", exact=True).fill("the-operator")
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_text("typed-with-care")).to_be_visible()
        await check_page(page)
        assert (await central.ask("GET", f"/nodes/{node_id(20)}"))["hostname"] == "srv-000020"
        await page.get_by_role("button", name="Send it now").click()
        await expect(page.get_by_role("heading", name="typed-with-care")).to_be_visible()


async def test_an_open_page_says_that_its_session_has_ended(
    browser: Browser, central: RunningCentral, url: str
) -> None:
    async with window(browser, url, "the-viewer") as page:
        await page.goto("/nodes")
        central.sql("DELETE FROM person_session")
        await page.get_by_label("Search by hostname or MAC").press_sequentially("srv")
        await expect(page.get_by_text("Your session has ended")).to_be_visible()
        await expect(page.get_by_label("Search by hostname or MAC")).to_have_value("srv")
        await check_page(page)


async def test_a_page_that_nobody_touches_says_so_too(browser: Browser, central: RunningCentral, url: str) -> None:
    async with window(browser, url, "the-viewer") as page:
        await page.goto("/nodes")
        central.sql("DELETE FROM person_session")
        # Somebody looks at something else, and comes back.
        await page.evaluate("for (const to of ['pagehide', 'pageshow']) dispatchEvent(new Event(to))")
        await expect(page.get_by_text("Your session has ended")).to_be_visible()
        await expect(page.get_by_role("heading", name="Nodes")).to_be_visible()
        await check_page(page)


async def test_hostile_text_is_inert_in_the_browser(browser: Browser, central: RunningCentral, url: str) -> None:
    ids = await hostile(central)
    async with window(browser, url, "the-admin") as page:
        paths = [
            "/sites",
            "/nodes?state=pending",
            f"/nodes/{ids['node']}",
            "/workflows",
            f"/workflows/{ids['workflow']}",
        ]
        for path in [*paths, "/sites?q=%3Cimg%20src=x%20onerror=alert(1)%3E", "/nodes/%3Cscript%3E"]:
            await page.goto(path)
            assert await page.locator("main img, main script").count() == 0, path
            await check_page(page)
    # A complaint or a dialog has failed the test by now.
