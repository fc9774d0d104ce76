"""An operator at central and an item that failed at a site, with a real agent in between."""

from pureboot.agent.queue import QueueItem
from tests.support.agent import RunningAgent, init, running_agent
from tests.support.central import RunningCentral
from tests.support.parts import EPOCH


async def fails(site: RunningAgent, id: str = "i1") -> None:
    """An item that never got through, and waits for a person."""
    item = QueueItem(id=id, item_type="event", payload={"event": "e"}, created_at=EPOCH, lane="nobody")
    await site.agent.sync_queue.enqueue(item)
    await site.agent.sync_queue.mark_failed(id, "poison")


async def test_a_failed_item_is_seen_and_given_up_from_central_within_seconds(
    central: RunningCentral, site: RunningAgent
) -> None:
    await fails(site)
    await site.agent.heartbeat.beat()
    queue = await central.ask("GET", "/sites/attic/queue")
    assert [(item["id"], item["last_error"]) for item in queue["items"]] == [("i1", queue["items"][0]["last_error"])]
    failed = site.agent.sync_queue.failed_count
    assert queue["failed"] == failed == 1
    # Nobody calls beat(): the command ends the agent's long poll, and the agent beats.
    await central.ask("POST", "/sites/attic/queue/i1/discard", 202, json={"reason": "swapped"})
    await site.until(lambda: site.agent.sync_queue.failed_count == 0, "given up")
    for _ in range(500):
        queue = await central.ask("GET", "/sites/attic/queue")
        if queue["commands"][0]["outcome"] == "done" and not queue["failed"]:
            break
        await site.agent.heartbeat.beat()
    assert (queue["commands"][0]["outcome"], queue["items"]) == ("done", [])


async def test_a_command_given_in_an_outage_is_done_after_it(central: RunningCentral, site: RunningAgent) -> None:
    await fails(site)
    await site.cut()
    await central.ask("POST", "/sites/attic/queue/i1/requeue", 202)
    await central.ask("POST", "/sites/attic/queue/gone/discard", 202)
    assert site.agent.sync_queue.failed_count == 1
    await site.restore()
    await site.agent.heartbeat.beat()
    queue = await central.ask("GET", "/sites/attic/queue")
    by_item = {command["item_id"]: command for command in queue["commands"]}
    assert by_item["i1"]["outcome"] == "done"
    assert (by_item["gone"]["outcome"], by_item["gone"]["message"][:21]) == ("refused", "There is no such item")


async def test_a_heartbeat_tells_of_the_cache_and_the_outage(central: RunningCentral, site: RunningAgent) -> None:
    await site.cut()
    await site.restore()
    await site.agent.heartbeat.beat()
    metrics = (await central.ask("GET", "/sites/attic/health"))["metrics"]
    assert metrics["cache_limit_bytes"] > 0
    assert (metrics["cache_files"], metrics["report"]) == (0, None)


async def test_a_file_is_dropped_from_afar_and_fetched_again_where_it_is_wanted(
    central: RunningCentral, tmp_path_factory: object, site: RunningAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"cache_policy": "mirror"})
    await central.ask("PUT", "/content/images/a", content=b"a" * 1000)
    await site.synced()
    [before] = site.agent.content_cache.files()
    misses = site.agent.content_cache.misses
    await central.ask("POST", "/sites/attic/cache/images/a/invalidate", 202)
    await site.agent.heartbeat.beat()
    await site.agent.sync.sync_now()
    [after] = site.agent.content_cache.files()
    assert after.digest == before.digest
    queue = await central.ask("GET", "/sites/attic/queue")
    assert (queue["commands"][0]["outcome"], misses) == ("done", misses)


async def test_an_agent_that_was_restarted_goes_on_where_it_was(central: RunningCentral, tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "agent"
    await central.new_site("attic")
    await init(central, "attic", folder)
    async with running_agent(folder, central.transport()) as site:
        await site.synced()
        await fails(site)
        await site.agent.heartbeat.beat()
    await central.ask("POST", "/sites/attic/queue/i1/requeue", 202)
    async with running_agent(folder, central.transport()) as site:
        await site.synced()
        await site.agent.heartbeat.beat()
        queue = await central.ask("GET", "/sites/attic/queue")
        assert queue["commands"][0]["outcome"] == "done"
