"""What a person may do about the outbox over HTTP, and who may."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from pureboot.agent.app import create_app
from pureboot.agent.people import SiteAdmins
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.routes.queue import QueueDesk
from tests.support.parts import EPOCH

HERE, ELSEWHERE = ("127.0.0.1", 4711), ("192.0.2.10", 4711)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SyncQueue]:
    queue = SyncQueue(tmp_path / "agent.db")
    await queue.initialize()
    for n in range(3):
        item = QueueItem(id=f"i{n}", item_type="event", payload={"event": "e"}, created_at=EPOCH, lane=f"n{n}")
        await queue.enqueue(item)
    await queue.mark_failed("i1", "poison")
    yield queue
    queue.database.close()


def speaking(queue: SyncQueue, folder: Path, client: tuple[str, int] = HERE) -> httpx2.AsyncClient:
    app = create_app(QueueDesk(SiteAdmins(folder), queue).routes(), max_body_bytes=10_000)
    transport = httpx2.ASGITransport(app=app, client=client)
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080/api/v1/agent")


async def test_the_listing_has_a_cursor(queue: SyncQueue, tmp_path: Path) -> None:
    async with speaking(queue, tmp_path) as person:
        first = (await person.get("/queue", params={"limit": 2})).json()
        rest = (await person.get("/queue", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        assert [item["id"] for item in (*first["items"], *rest["items"])] == ["i1", "i0", "i2"]
        assert rest["next_cursor"] is None
        assert (await person.get("/queue", params={"cursor": "nonsense"})).status_code == 400


async def test_a_failed_item_is_sent_again_or_given_up(queue: SyncQueue, tmp_path: Path) -> None:
    async with speaking(queue, tmp_path) as person:
        assert (await person.post("/queue/i1/requeue")).json() == {"id": "i1", "status": "pending"}
        answer = await person.post("/queue/i1/discard", json={"reason": "swapped", "person": "ada"})
        assert answer.json() == {"id": "i1", "status": "discarded"}
        assert (await person.post("/queue/i1/requeue")).status_code == 404
    *_, told = await queue.peek()
    assert (told.item_type, told.payload["item_id"], told.payload["person"]) == ("discard", "i1", "ada")


async def test_all_that_failed_is_cleared_and_recorded(queue: SyncQueue, tmp_path: Path) -> None:
    async with speaking(queue, tmp_path) as person:
        assert (await person.delete("/queue/failed")).json() == {"cleared": 1}
        assert (await person.delete("/queue/failed")).json() == {"cleared": 0}
    *_, told = await queue.peek()
    assert (told.item_type, told.payload["person"]) == ("discard", "somebody at the site")


async def test_what_is_on_its_way_is_a_clash(queue: SyncQueue, tmp_path: Path) -> None:
    await queue.database.store.write(lambda tx: queue.take(tx, 10))
    async with speaking(queue, tmp_path) as person:
        answer = await person.post("/queue/i0/discard", json={"person": "ada"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "on_its_way")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/queue"), ("POST", "/queue/i1/requeue"), ("POST", "/queue/i1/discard"), ("DELETE", "/queue/failed")],
)
async def test_machines_are_not_let_in(queue: SyncQueue, tmp_path: Path, method: str, path: str) -> None:
    async with speaking(queue, tmp_path, ELSEWHERE) as machine:
        assert (await machine.request(method, path)).status_code == 401
    assert (queue.pending_count, queue.failed_count) == (2, 1)
