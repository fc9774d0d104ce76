"""An agent's folder copied while it runs: one of the two writes, the other says so, and nothing is lost or doubled."""

import shutil
from pathlib import Path

from tests.support.agent import init, running_agent
from tests.support.central import RunningCentral
from tests.support.parts import MAC
from tests.support.wan import Wan


async def report(site: object, node: str, name: str) -> str:
    answer = await site.machine.post(f"/api/v1/nodes/{node}/event", json={"event": name})  # type: ignore[attr-defined]
    return str(answer.json()["queue_id"])


async def test_of_two_copies_of_an_agent_one_writes_and_the_other_says_so(
    central: RunningCentral, tmp_path: Path
) -> None:
    await central.new_site("attic")
    first, second = tmp_path / "first", tmp_path / "second"
    await init(central, "attic", first)
    async with running_agent(first, Wan(central.transport()), write_confirm_budget=0.5) as one:
        await one.synced()
        node = (await one.machine.post("/api/v1/nodes/register", json={"mac_address": MAC})).json()["id"]
        ids = [await report(one, node, "before the copy")]
        await one.synced()
        await one.agent.database.store.shrink(over=-1)  # what is in the log comes into the file
        shutil.copytree(first, second)
        async with running_agent(second, Wan(central.transport())) as two:
            await two.synced()
            ids.append(await report(two, node, "of the copy"))
            await two.until(lambda: two.agent.sync_queue.pending_count == 0, "drained")
            ids.append(await report(one, node, "of the original"))
            await one.agent.queue_processor.process_queue()
            health = await one.health()
            assert any("Another copy of this agent is writing" in problem for problem in health["problems"])
            assert (health["status"], health["pending_queue_items"]) == ("degraded", 1)
            assert (await two.health())["problems"] == []
            assert "#!ipxe" in await one.script(MAC)
    told = [event["item_id"] for event in await central.events(MAC)]
    assert [id for id in told if id in ids] == ids[:2]
