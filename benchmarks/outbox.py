"""How fast reports are accepted and delivered: `.venv/bin/python -m benchmarks.outbox`.

Real processes on loopback. With central dead, 64 clients post events to the agent, each write durable before its
answer; then central starts, and the outbox drains into it.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.support.programs import Pair, running_pair

CLIENTS = 64


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running_pair(Path(folder)) as pair:
            await measure(pair, arguments.writes, arguments.nodes, Path(folder))


async def measure(pair: Pair, writes: int, count: int, folder: Path) -> None:
    macs = [f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(count)]
    nodes = [(await pair.import_node(mac, "active"))["id"] for mac in macs]
    await pair.caught_up(macs[-1], "active")
    await pair.central.kill()
    await pair.until("offline", is_online=False)
    idle = resident(pair)

    began = time.monotonic()
    parts = await asyncio.gather(*(client(pair, nodes, number, writes) for number in range(CLIENTS)))
    took = time.monotonic() - began
    times = sorted(time for part in parts for time in part)
    print(f"accept   {writes / took:8.0f} writes/s   p50 {statistics.median(times) * 1000:.1f} ms"
          f"   p99 {times[int(len(times) * 0.99)] * 1000:.1f} ms   ({writes} writes, {CLIENTS} clients)")  # fmt: skip
    size = sum(file.stat().st_size for file in (pair.agent.folder / "state").glob("agent.db*"))
    print(f"queued   {size / 1e6:8.1f} MB of file, {resident(pair) - idle:.0f} MB more memory than idle")

    waiting = (await pair.health())["pending_queue_items"]
    await pair.central.start()
    while (await pair.health())["pending_queue_items"] == waiting:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    await pair.until("drained", within=600, pending_queue_items=0)
    print(f"drain    {waiting / (time.monotonic() - began):8.0f} items/s   ({waiting} items, from the first push on)")


async def client(pair: Pair, nodes: list[str], number: int, writes: int) -> list[float]:
    """Its share of the writes, one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.agent.port)
    times = []
    for index in range(number, writes, CLIENTS):
        body = json.dumps({"event": "install_progress", "message": f"{index} of {writes}"}).encode()
        began = time.monotonic()
        writer.write(
            f"POST /api/v1/nodes/{nodes[index % len(nodes)]}/event HTTP/1.1\r\nHost: a\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        status = await answer(reader)
        times.append(time.monotonic() - began)
        assert status == 202, status
    writer.close()
    return times


async def answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if line)
    length = int(fields[b"content-length"])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


def resident(pair: Pair) -> float:
    """Of the agent, in MB."""
    status = Path(f"/proc/{pair.agent.pid}/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmRSS"))


if __name__ == "__main__":
    asyncio.run(main())
