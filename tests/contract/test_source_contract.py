"""What an agent relies on where its content comes from, asked of the fake in tests/fakes.py and of the real central."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pureboot.agent.central_client import CentralClient, http_client
from pureboot.agent.download import ContentSource
from pureboot.core.errors import Invalid, NotFound
from tests.fakes import FolderSource
from tests.support.central import BASE_URL, running_central

NAME = "images/debian/linux"
CONTENT = bytes(range(256)) * 1000


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[ContentSource]:
    async with running_central(folder) as central:
        await central.new_site("attic")
        credential = (await central.new_agent("attic")).credential
        answer = await central.admin.put(f"/api/v1/content/{NAME}", content=CONTENT)
        assert answer.status_code == 200
        http = http_client(BASE_URL, timeout=10, transport=central.transport())
        try:
            yield CentralClient(http, timeout=10, credential=credential)
        finally:
            await http.aclose()


@pytest.fixture(params=["fake", "real"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ContentSource]:
    if request.param == "fake":
        yield FolderSource({NAME: CONTENT})
        return
    async with real(tmp_path) as source:
        yield source


async def read(source: ContentSource, name: str, offset: int = 0) -> bytes:
    async with source.download(name, offset) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("offset", [0, 1, 100_000, len(CONTENT) - 1])
async def test_a_file_comes_from_where_it_is_asked_for(source: ContentSource, offset: int) -> None:
    assert await read(source, NAME, offset) == CONTENT[offset:]


@pytest.mark.parametrize("offset", [len(CONTENT), len(CONTENT) + 7])
async def test_it_does_not_begin_past_its_end(source: ContentSource, offset: int) -> None:
    with pytest.raises(Invalid):
        await read(source, NAME, offset)


@pytest.mark.parametrize("offset", [0, 5])
async def test_what_central_does_not_have_is_not_found(source: ContentSource, offset: int) -> None:
    with pytest.raises(NotFound):
        await read(source, "images/other", offset)
