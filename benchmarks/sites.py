"""The agents of many sites in one process: `python -m benchmarks.sites FOLDER ITEMS`, for `benchmarks.fleet`.

FOLDER holds a folder for each, as `pureboot agent init` leaves it. It says on a line where it stands, and goes on at a
line that comes in.
"""

import asyncio
import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import httpx2
import uvloop

from pureboot.agent.central_client import Network
from pureboot.agent.main import SiteAgent
from pureboot.config.settings import AgentSettings
from pureboot.core.changes import NodeEvent
from pureboot.wire.http import make_room, settle_down

# Of each site.
NODES = 5
# Sites that are filled at once.
FILLING = 16
# Files and sockets of one agent.
OPEN = 16


class Counting(Network):
    """A line of its own to central. What central answered is counted for all."""

    answers: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        # Nothing here is encrypted, and to read the host's certificates takes longest of all.
        super().__init__(verify=False, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asked = request.url.path.rpartition("/")[2]
        try:
            response = await super().handle_async_request(request)
        except httpx2.HTTPError as error:
            self.answers[f"{asked} {type(error).__name__}"] += 1
            raise
        self.answers[f"{asked} {response.status_code}"] += 1
        return response


async def main(folders: list[Path], items: int) -> None:
    logging.disable(logging.WARNING)  # each of them says that central is gone
    make_room(OPEN * len(folders))
    before = _resident()
    agents = [SiteAgent(AgentSettings(data_dir=each, tftp_port=0), transport=Counting()) for each in folders]
    for agent in agents:
        await agent.start()
    await _until(lambda: all(agent.state_cache.count() == NODES for agent in agents))
    settle_down()
    _say(f"known    {len(agents)} agents, {(_resident() - before) / len(agents):.1f} MB each")
    await _told()
    await _until(lambda: not any(agent.connectivity.is_online for agent in agents))
    began, filling = time.monotonic(), asyncio.Semaphore(FILLING)
    await asyncio.gather(*(_fill(agent, items, filling) for agent in agents))
    waiting = _waiting(agents)
    _say(f"filled   {waiting} items, {waiting / (time.monotonic() - began):.0f}/s")
    Counting.answers.clear()
    await _told()
    await _until(lambda: _waiting(agents) < waiting)
    began = time.monotonic()
    await _until(lambda: _waiting(agents) == 0)
    took = time.monotonic() - began
    _say(f"asked    {', '.join(f'{count} times {what}' for what, count in Counting.answers.most_common())}")
    _say(f"pushes   {waiting / Counting.answers['push 200']:.0f} items each, {_refused():.2f} refused for each taken")
    _say(f"drained  {waiting / took:.0f}/s, {took:.1f} s from the first push on")


async def _fill(agent: SiteAgent, items: int, filling: asyncio.Semaphore) -> None:
    nodes = agent.state_cache.nodes()
    async with filling:
        await asyncio.gather(
            *(
                agent.journal.record(
                    node_id := nodes[number % len(nodes)].node_id,
                    NodeEvent(node_id, "install_progress", f"{number} of {items}"),
                )
                for number in range(items)
            )
        )


def _waiting(agents: list[SiteAgent]) -> int:
    return sum(agent.sync_queue.pending_count for agent in agents)


def _refused() -> float:
    answers = Counting.answers
    return (answers["push 503"] + answers["push 429"]) / answers["push 200"]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.05)


async def _told() -> None:
    await asyncio.to_thread(sys.stdin.readline)


def _say(line: str) -> None:
    print(line, flush=True)


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sorted(Path(sys.argv[1]).iterdir()), int(sys.argv[2])))
