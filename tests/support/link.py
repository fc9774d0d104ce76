"""The agent's write side with central at the other end of its line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pureboot.agent.central_client import CentralClient, http_client
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue_processor import QueueProcessor
from tests.fakes import FakeCentral
from tests.support.parts import Parts

URL = "http://central"


@dataclass(frozen=True)
class Link:
    connectivity: ConnectivityMonitor
    proxy: CentralProxy
    processor: QueueProcessor


@asynccontextmanager
async def linked(
    parts: Parts, central: FakeCentral, *, patience: float = 1.0, budget: float = 0.5, **processor: Any
) -> AsyncIterator[Link]:
    """Nothing runs that is not started; `processor`: what QueueProcessor takes."""
    await parts.queue.initialize()
    http = http_client(URL, timeout=patience, transport=central)
    connectivity = ConnectivityMonitor(URL, timeout=patience, transport=central, now=parts.clock.when)
    proxy = CentralProxy(
        URL,
        connectivity,
        parts.queue,
        agent_id="a1",
        client=CentralClient(http, timeout=patience, credential=central.credential),
        journal=parts.journal,
        site=parts.site,
        write_confirm_budget=budget,
    )
    values: dict[str, Any] = {"mirror": parts.mirror, "retry_delay": 60.0, "chance": lambda: 0.999} | processor
    link = Link(connectivity, proxy, QueueProcessor(parts.queue, proxy, connectivity, **values))
    try:
        yield link
    finally:
        await link.processor.stop()
        await connectivity.stop()
        await http.aclose()
