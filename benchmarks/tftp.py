"""How fast files go out over TFTP, beside dnsmasq: `.venv/bin/python -m benchmarks.tftp`.

64 readers fetch 1 MiB with blksize 1432, over and over, from either server in turn. The server has one core, the
readers (benchmarks/tftp_client.c, built here) the other. Rounds alternate, so that what else the machine does meets
both; of each the best round counts. Where others share the machine, megabytes for a second of the server's CPU say more
than megabytes for a second of the clock.

It needs root (dnsmasq knows no port but 69; it gets it on a loopback address of its own), dnsmasq and gcc.
"""

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from pureboot.tftp.packets import Ack, ReadRequest, dump
from pureboot.tftp.served import Asked, OpenFile, Served, Text
from pureboot.tftp.server import TftpServer
from pureboot.tftp.transfer import Outcome, Transfer
from tests.support.programs import free_udp_port

SIZE = 1024 * 1024
BLKSIZE = 1432
READERS = 64
# Nothing else on this machine listens there.
HOST = "127.69.0.1"
SOURCE = Path(__file__).with_name("tftp_client.c")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    server: str
    window: int
    transfers: int
    loss: int = 0
    """Of a million."""


@dataclass(frozen=True, slots=True)
class Speed:
    """MB/s by the clock, and by the server's CPU."""

    wall: float
    cpu: float


CASES = [
    Case("dnsmasq, windowsize 1", "dnsmasq", 1, 256),
    Case("ours, windowsize 1", "ours", 1, 256),
    Case("ours, windowsize 16", "ours", 16, 256),
    Case("dnsmasq, 1 % lost", "dnsmasq", 1, 64, 10_000),
    Case("ours, 1 % lost", "ours", 1, 128, 10_000),
    Case("ours, 1 % lost, windowsize 16", "ours", 16, 256, 10_000),
]


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    async def find(self, asked: Asked) -> Served | None:
        return OpenFile(self._root / "file") if asked.name == "file" else None


async def serve(root: Path, port: int) -> None:
    server = TftpServer(Folder(root), HOST, port)
    await server.start()
    await asyncio.Event().wait()


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """On the first core; its pid."""
    process = subprocess.Popen(["taskset", "-c", "0", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    assert process.poll() is None, command
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def measure(case: Case, client: Path, root: Path, port: int, pid: int) -> Speed:
    before = cpu_of(pid)
    words = [HOST, port, "file", root / "file", READERS, case.transfers, BLKSIZE, case.window, case.loss, 1]
    command = ["taskset", "-c", "1", str(client), *map(str, words)]
    seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])
    megabytes = case.transfers * SIZE / 1e6
    return Speed(megabytes / seconds, megabytes / max(cpu_of(pid) - before, 1 / TICKS))


def cpu_of(pid: int) -> float:
    """Seconds, its own and the kernel's on its behalf."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def step_alone() -> float:
    """Microseconds that a transfer itself takes for a datagram, without any socket."""
    content = Text(bytes(SIZE))
    acks = [dump(Ack(block)) for block in range(SIZE // BLKSIZE + 2)]
    best = 1e9
    for _ in range(200):
        transfer = Transfer(content, ReadRequest("", options=(("blksize", str(BLKSIZE)),)).options, 0.0)
        transfer.start(0.0)
        began = time.perf_counter()
        for number, ack in enumerate(acks):
            transfer.received(ack, number * 0.001)
        best = min(best, time.perf_counter() - began)
        assert transfer.outcome is Outcome.DONE
    return best / len(acks) * 1e6


def show(best: dict[Case, Speed]) -> None:
    plain = best[CASES[0]]
    lossy = best[CASES[3]]
    for case, speed in best.items():
        beside = lossy if case.loss else plain
        print(
            f"{case.title:32} {speed.wall:7.1f} MB/s ({speed.wall / beside.wall:5.2f} x)   "
            f"{speed.cpu:7.1f} MB per second of CPU ({speed.cpu / beside.cpu:5.2f} x)"
        )
    print(f"a transfer's own step            {step_alone():7.2f} us a datagram")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=2, metavar=("DIR", "PORT"), help="only serve; what this starts for itself")
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(Path(arguments.serve[0]), int(arguments.serve[1])))
        return
    if missing := [need for need in ("gcc", "dnsmasq", "taskset") if shutil.which(need) is None]:
        sys.exit(f"It needs {', '.join(missing)}.")
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.rounds)


def compare(root: Path, rounds: int) -> None:
    client = root / "client"
    subprocess.run(["gcc", "-O2", "-o", client, SOURCE], check=True)
    (root / "file").write_bytes(random.Random(1).randbytes(SIZE))
    port = free_udp_port()
    dnsmasq = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--port=0", "--user=root"]
    tftp = ["--enable-tftp", f"--tftp-root={root}", f"--listen-address={HOST}", "--bind-interfaces", "--tftp-max=500"]
    ours = [sys.executable, "-m", "benchmarks.tftp", "--serve", str(root), str(port)]
    best: dict[Case, Speed] = {}
    with running([*dnsmasq, *tftp, "--quiet-tftp"]) as theirs_pid, running(ours) as ours_pid:
        servers = {"dnsmasq": (69, theirs_pid), "ours": (port, ours_pid)}
        for _ in range(rounds):
            for case in CASES:
                speed = measure(case, client, root, *servers[case.server])
                so_far = best.get(case, speed)
                best[case] = Speed(max(speed.wall, so_far.wall), max(speed.cpu, so_far.cpu))
    show(best)


if __name__ == "__main__":
    main()
