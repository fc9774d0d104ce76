"""Content of a whole agent beside a real central: what is rotten comes again, and what a person may do."""

import os
from pathlib import Path

import httpx2
import pytest

from tests.support.agent import RunningAgent, init, running_agent
from tests.support.central import RunningCentral
from tests.support.disk import small_disk, through_tar
from tests.support.machines import MAC, import_node
from tests.support.wan import Wan

LOADER, TOOL = "bootloaders/undionly.kpxe", "images/tools/memtest"
CONTENT = b"content " * 1000


@pytest.fixture
async def holding(central: RunningCentral, site: RunningAgent) -> RunningAgent:
    """A site that holds a boot loader, and a tool that a machine asked for."""
    for name in (LOADER, TOOL):
        assert (await central.admin.put(f"/api/v1/content/{name}", content=CONTENT)).status_code == 200
    await site.synced()
    assert (await site.machine.get(f"/files/{TOOL}")).content == CONTENT
    await site.until(lambda: len(site.agent.content_cache.files()) == 2, "kept")
    return site


def held(site: RunningAgent) -> list[str]:
    return sorted(file.name for file in site.agent.content_cache.files())


async def test_what_rotted_is_dropped_shown_and_fetched_again(holding: RunningAgent) -> None:
    await holding.cut()
    path = next(file.path for file in holding.agent.content_cache.files() if file.name == TOOL)
    before = path.stat()
    path.write_bytes(CONTENT.swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    verifier = holding.agent.verifier
    verifier.begin_round()
    while await verifier.verify_next():
        pass
    assert held(holding) == [LOADER]
    assert f"{TOOL} rotted on the disk and is not back yet." in (await holding.health())["problems"]
    metrics = (await holding.person.get("/metrics")).text
    assert "pureboot_agent_cache_rotten_total 1.0" in metrics
    await holding.restore()
    await holding.until(lambda: held(holding) == [LOADER, TOOL], "back")
    await holding.until(lambda: not holding.agent.sync.lost, "told")
    assert not any("rotted" in problem for problem in (await holding.health())["problems"])


async def test_a_folder_that_came_back_from_tar_serves_its_content_while_central_is_dead(
    central: RunningCentral, holding: RunningAgent, tmp_path: Path
) -> None:
    await holding.agent.stop()
    copy = through_tar(holding.agent.settings.data_dir, tmp_path / "copy")
    async with running_agent(copy, Wan(central.transport(), "down")) as site:
        for name in (LOADER, TOOL):
            assert (await site.machine.get(f"/files/{name}")).content == CONTENT
        await site.until(lambda: not site.agent.content_cache.doubtful(), "all read again")
        assert held(site) == [LOADER, TOOL]


async def test_a_person_sees_what_is_there_and_what_wants_it(holding: RunningAgent) -> None:
    items = (await holding.person.get("/api/v1/agent/cache")).json()["items"]
    assert {item["name"]: item["wanted"] for item in items} == {LOADER: "pressing", TOOL: "no"}


async def test_what_no_policy_asks_for_can_be_evicted(holding: RunningAgent) -> None:
    answer = (await holding.person.post("/api/v1/agent/cache/evict")).json()
    assert answer == {"evicted": [TOOL], "freed": len(CONTENT)}
    assert held(holding) == [LOADER]
    assert (await holding.person.delete("/api/v1/agent/cache")).json() == {"evicted": [], "freed": 0}


async def test_one_file_can_be_removed_and_comes_back_if_it_is_wanted(holding: RunningAgent) -> None:
    await holding.cut()
    for name in (TOOL, LOADER):
        assert (await holding.person.delete(f"/api/v1/agent/cache/{name}")).status_code == 204
    assert held(holding) == []
    answer = await holding.person.delete(f"/api/v1/agent/cache/{TOOL}")
    assert answer.status_code == 404
    assert "`pureboot agent cache`" in answer.json()["error"]["hint"]
    await holding.restore()
    await holding.until(lambda: held(holding) == [LOADER], "back")


async def test_what_was_cleared_or_removed_and_the_policy_asks_for_is_fetched_again_at_once(
    central: RunningCentral, holding: RunningAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    document = (await central.admin.get(f"/api/v1/sites/{holding.agent.identity.site_id}")).json()
    changed = {"version": document["version"], "cache_policy": "mirror"}
    assert (await central.admin.patch(f"/api/v1/sites/{document['id']}", json=changed)).is_success
    await holding.synced()
    answer = (await holding.person.delete("/api/v1/agent/cache")).json()
    assert answer == {"evicted": [TOOL], "freed": len(CONTENT)}
    await holding.until(lambda: held(holding) == [LOADER, TOOL], "fetched again")
    assert (await holding.person.delete(f"/api/v1/agent/cache/{TOOL}")).is_success
    await holding.until(lambda: held(holding) == [LOADER, TOOL], "fetched again")
    assert f"cached content is cleared away: {TOOL}" in caplog.text
    assert "not used for long" not in caplog.text


async def test_all_can_be_read_again(holding: RunningAgent) -> None:
    answer = await holding.person.post("/api/v1/agent/cache/verify")
    assert (answer.status_code, answer.json()) == (202, {"files": 2})
    await holding.until(lambda: holding.agent.verifier.verified == 2, "verified")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/evict"), ("POST", "/verify"), ("DELETE", f"/{TOOL}")],
)
async def test_machines_may_do_none_of_it(holding: RunningAgent, method: str, path: str) -> None:
    answer: httpx2.Response = await holding.machine.request(method, f"/api/v1/agent/cache{path}")
    assert answer.status_code == 401
    assert held(holding) == [LOADER, TOOL]


class Counting(httpx2.AsyncBaseTransport):
    """Central, and the content that it was asked for."""

    def __init__(self, central: httpx2.AsyncBaseTransport) -> None:
        self._central = central
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/api/v1/content/"):
            self.asked.append(request.url.path)
        return await self._central.handle_async_request(request)


async def test_a_mirror_larger_than_the_disk_leaves_room_for_reports_and_is_not_fetched_again_and_again(
    central: RunningCentral, tmp_path: Path
) -> None:
    await central.new_site("attic", cache_policy="mirror")
    await import_node(central, MAC, state="active")
    for number in range(12):
        content = bytes([number]) * 6 * 1024**2
        assert (await central.admin.put(f"/api/v1/content/images/{number}", content=content)).is_success
    far = Counting(central.transport())
    with small_disk(tmp_path / "disk", "64m") as disk:
        await init(central, "attic", disk / "agent")
        async with running_agent(disk / "agent", Wan(far)) as site:
            await site.synced()
            await site.until(lambda: len(held(site)) == 9, "filled")
            await site.agent.sync.fetch_needed()
            asked = list(far.asked)
            assert len(asked) == len(held(site)) == 9
            assert (await site.agent.sync.fetch_needed())[0] == 0
            assert await site.agent.sync.tidy_content() == ()
            assert far.asked == asked
            for _ in range(20):
                answer = await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "hello"})
                assert answer.status_code == 200, answer.text
            assert any("no room in its cache. Free disk space" in text for text in (await site.health())["problems"])
