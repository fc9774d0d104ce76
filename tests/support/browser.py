"""People at central's pages: signed in without a browser, and in a real Chromium."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from pureboot.wire.http import bind, serve_http
from tests.support.central import BASE_URL, RunningCentral

PASSWORD = "correct horse battery"


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
