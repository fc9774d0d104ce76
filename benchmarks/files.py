"""How fast files go out over HTTP, beside nginx: `.venv/bin/python -m benchmarks.files`.

Real processes on loopback: central, agent, and an nginx of Debian's that serves the same bytes with sendfile. Clients
throw away what they receive without looking (MSG_TRUNC), so that they cost next to nothing. Rounds alternate between
the two servers, so that what else the machine does meets both; shown are the medians, and the median of each round's
ratio. Then 64 clients read slowly: what memory the agent takes for them, and how long boot scripts take meanwhile.

Where there is no nginx, its package is unpacked into a folder of the run's own; nothing is installed or started.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.load import Load
from benchmarks.machine import describe
from benchmarks.outbox import cpu, resident
from pureboot.simulator.program import free_port
from tests.support.programs import Pair, running_pair

MB = 1_000_000
NAME = "images/big"
MAC = "52:54:00:00:00:01"
SLOW_CLIENTS = 64
BOOTS = 500

CONFIG = """
daemon off; worker_processes 1; {user} error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  sendfile on; tcp_nopush on; access_log off; keepalive_timeout 75;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=500, help="MB of the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dawdle", type=int, metavar="PORT", help="be the slow clients")
    arguments = parser.parse_args()
    if arguments.dawdle:
        await asyncio.to_thread(dawdle, arguments.dawdle)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        print(describe(folder))
        async with running_pair(folder) as pair:
            await fill(pair, folder, arguments.size * MB)
            with nginx(folder) as port:
                for clients in (1, 16):
                    await compare(pair, port, clients, arguments.rounds)
            await slow(pair)


async def fill(pair: Pair, folder: Path, size: int) -> None:
    """The file is at central, at the site, and where nginx looks."""
    root = folder / "www"
    root.mkdir()
    block = random.Random(1).randbytes(MB)
    with (root / "big").open("wb") as file:
        for _ in range(size // MB):
            file.write(block)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(size // MB):
            yield block

    answer = await pair.admin.put(f"/api/v1/content/{NAME}", content=blocks(), timeout=600)
    assert answer.is_success, answer.text
    await pair.until_served(f"/files/{NAME}")
    took = await asyncio.to_thread(receive, pair.agent.port, f"/files/{NAME}", 1)
    print(f"first    {size / MB / took:8.0f} MB/s while it comes from central ({took:.1f} s)")
    took = await asyncio.to_thread(receive, pair.agent.port, f"/files/{NAME}", 1)


async def compare(pair: Pair, port: int, clients: int, rounds: int) -> None:
    size = int((await pair.machine.head(f"/files/{NAME}")).headers["content-length"]) * clients
    ours, theirs, spent = [], [], []
    for _ in range(rounds):
        before = cpu(pair.agent.pid)
        ours.append(size / MB / await asyncio.to_thread(receive, pair.agent.port, f"/files/{NAME}", clients))
        spent.append((cpu(pair.agent.pid) - before) / (size / MB) * 1e6)
        theirs.append(size / MB / await asyncio.to_thread(receive, port, "/big", clients))
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    print(
        f"{clients:2} client{'s' if clients > 1 else ' '} ours {statistics.median(ours):6.0f} MB/s,"
        f" nginx {statistics.median(theirs):6.0f} MB/s, ratio {ratio:.2f};"
        f" {statistics.median(spent):.0f} µs of a core for an MB"
    )


def receive(port: int, path: str, clients: int) -> float:
    """Seconds until all have it, whole."""
    with ThreadPoolExecutor(clients) as threads:
        began = time.monotonic()
        for done in [threads.submit(_receive, port, path) for _ in range(clients)]:
            done.result()
        return time.monotonic() - began


def _receive(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        left = _ask(sock, path)
        waste = bytearray(1024 * 1024)
        while left > 0 and (got := sock.recv_into(waste, 0, socket.MSG_TRUNC)):
            left -= got
        assert left == 0, f"{left} bytes are missing"


def _ask(sock: socket.socket, path: str) -> int:
    """Bytes of the body that are still to come."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    head, _, body = head.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return int(fields[b"content-length"]) - len(body)


async def slow(pair: Pair) -> None:
    await _boots(pair)  # warm
    alone = await _boots(pair)
    idle = resident(pair)
    with dawdlers(pair.agent.port):
        await asyncio.sleep(2)
        meanwhile = await _boots(pair)
        taken = resident(pair)
    print(f"memory   {taken:.0f} MB with {SLOW_CLIENTS} slow clients, {idle:.0f} MB before")
    print(f"boots    {alone}   (nobody else)\n         {meanwhile}   (with the slow clients)")


@contextmanager
def dawdlers(port: int) -> Iterator[None]:
    """In a process of their own, which shares nothing with whoever takes the times."""
    command = [sys.executable, "-m", "benchmarks.files", "--dawdle", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def dawdle(port: int) -> None:
    """Until it is killed: each client takes 128 KiB twenty times a second."""
    socks = []
    for _ in range(SLOW_CLIENTS):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.connect(("127.0.0.1", port))
        _ask(sock, f"/files/{NAME}")
        sock.setblocking(False)
        socks.append(sock)
    print("they read", flush=True)
    waste = bytearray(128 * 1024)
    while True:
        for sock in socks:
            with contextlib.suppress(BlockingIOError):
                sock.recv_into(waste, 0, socket.MSG_TRUNC)
        time.sleep(0.05)


async def _boots(pair: Pair) -> Load:
    times = []
    began = time.monotonic()
    for _ in range(BOOTS):
        asked = time.monotonic()
        answer = await pair.machine.get(f"/boot/{MAC}")
        times.append(time.monotonic() - asked)
        assert answer.status_code == 200
    return Load(time.monotonic() - began, sorted(times))


@contextmanager
def nginx(folder: Path) -> Iterator[int]:
    port, own = free_port(), folder / "nginx"
    own.mkdir()
    config = own / "nginx.conf"
    config.write_text(
        CONFIG.format(user="user root;" if os.geteuid() == 0 else "", folder=own, port=port, root=folder / "www")
    )
    server = subprocess.Popen([_nginx(own), "-c", str(config), "-p", str(own)], stderr=subprocess.DEVNULL)
    try:
        while not _listens(port):
            assert server.poll() is None, (own / "error.log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def _nginx(folder: Path) -> str:
    if found := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        return found
    subprocess.run(["apt-get", "-q", "download", "nginx"], cwd=folder, check=True, capture_output=True)
    [package] = folder.glob("nginx_*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return str(folder / "usr/sbin/nginx")


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
