"""A process that writes through the agent's own parts and says what was acknowledged, until somebody ends it."""

import asyncio
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from pureboot.agent.queue import QueueItem
from pureboot.core.changes import NodeEvent
from pureboot.core.mac import MacAddress
from tests.support.parts import EPOCH, Parts, opened

WRITERS = 6


def write_until_killed(path: Path, life: int, said: Connection) -> None:
    asyncio.run(_write(path, life, said))


async def _write(path: Path, life: int, said: Connection) -> None:
    with opened(path, registrations_per_minute=1_000_000) as parts:
        await parts.queue.initialize()
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(_writer(parts, life, writer, said))


async def _writer(parts: Parts, life: int, writer: int, said: Connection) -> None:
    for n in count():
        mac = MacAddress.parse(f"52:54:{life:02x}:{writer:02x}:{n // 256:02x}:{n % 256:02x}")
        registered = await parts.journal.register(mac, facts={"vendor": "QEMU"})
        said.send(registered.queue_id)
        happened = await parts.journal.record(registered.node.node_id, NodeEvent("", "hello"))
        said.send(happened.queue_id)
        item = QueueItem(id=f"{life}-{writer}-{n}", item_type="event", payload={"event": "e"}, created_at=EPOCH)
        said.send(await parts.queue.enqueue(item))
