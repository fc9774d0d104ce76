"""People at central's pages: signed in without a browser, and in a real Chromium."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from pureboot.wire.http import bind, serve_http
from tests.support.central import BASE_URL, RunningCentral

PASSWORD = "correct horse battery"
CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parent / "axe" / "axe.min.js"
_REFUSAL = re.compile(r"status of 4\d\d|Status Error Code 4\d\d")
WIDE, PHONE = (1280, 900), (360, 740)


@dataclass(frozen=True)
class Visitor:
    """Somebody who is signed in, page by page, as a browser without JavaScript would be."""

    client: httpx2.AsyncClient

    async def get(self, path: str, **arguments: Any) -> httpx2.Response:
        return await self.client.get(path, **arguments)

    async def post(self, path: str, /, **fields: Any) -> httpx2.Response:
        """Sends a form with the session's token, which every page carries."""
        token = form_token((await self.get("/sites")).text)
        return await self.client.post(path, data={"_csrf": token, **fields})


def form_token(html: str) -> str:
    found = re.search(r'name="_csrf" value="([0-9a-f]{64})"', html)
    assert found, html
    return found[1]


def browser(central: RunningCentral) -> httpx2.AsyncClient:
    """Keeps cookies, and goes nowhere by itself."""
    client = central.client()
    client.headers["Origin"] = BASE_URL
    return client


async def add_person(central: RunningCentral, name: str, role: str, password: str = PASSWORD) -> None:
    await central.ask("POST", "/people", 201, json={"name": name, "role": role, "password": password})


async def signed_in(central: RunningCentral, role: str = "admin", name: str = "") -> Visitor:
    name = name or f"the-{role}"
    await add_person(central, name, role)
    client = browser(central)
    answer = await client.post("/sign-in", data={"name": name, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return Visitor(client)


@asynccontextmanager
async def served(central: RunningCentral) -> AsyncIterator[str]:
    """Central's address on this machine; the server ends promptly, whoever still listens."""
    stop = asyncio.Event()
    with bind("127.0.0.1", 0) as sock:
        serving = asyncio.create_task(serve_http(central.app, sock, stop=stop))
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            central.stop_waiting()
            stop.set()
            await serving


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's own, without a window. Its sandbox does not work for root."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def window(
    browser: Browser, url: str, name: str = "", *, size: tuple[int, int] = WIDE, **options: Any
) -> AsyncIterator[Page]:
    """A page of a browser of its own; whatever it complains of, or a dialog, fails the test. `name` signs in."""
    context: BrowserContext = await browser.new_context(
        base_url=url, viewport={"width": size[0], "height": size[1]}, **options
    )
    page = await context.new_page()
    complaints: list[str] = []
    # A refusal that a test provokes is an answer with a status, which the console tells too.
    page.on("console", lambda said: complaints.append(said.text) if not _REFUSAL.search(said.text) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    try:
        if name:
            await page.goto("/sign-in")
            await page.get_by_label("Name", exact=True).fill(name)
            await page.get_by_label("Password", exact=True).fill(PASSWORD)
            await page.get_by_role("button", name="Sign in").click()
            await page.wait_for_url("**/sites")
        yield page
        assert not complaints, complaints
    finally:
        await context.close()


async def check_page(page: Page) -> None:
    """Nothing serious for whoever cannot see or use a mouse (axe-core), and no page that is wider than the screen."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run({resultTypes: ['violations']}).then(found => found.violations)")
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert not serious, (page.url, serious)
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page.url
