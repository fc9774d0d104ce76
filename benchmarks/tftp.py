"""How fast files go out over TFTP, beside dnsmasq: `.venv/bin/python -m benchmarks.tftp`.

64 readers fetch 1 MiB with blksize 1432, over and over, from either server in turn. The server has one core, the
readers (benchmarks/tftp_client.c, built here) the other. Rounds alternate, so that what else the machine does meets
both; shown are the medians of the rounds, and the median of what each round's two come to. Where others share the
machine, begin with `chrt -r 1` (it then takes both cores, for seconds), and look at megabytes for a second of the
server's CPU too.

It needs root (dnsmasq knows no port but 69; it gets it on a loopback address of its own), dnsmasq and gcc.
"""

import argparse
import asyncio
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from pureboot.tftp.layout import Layouts
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
    every: int = 1
    """Measured in each of so many rounds; dnsmasq takes half a minute where datagrams are lost."""


@dataclass(frozen=True, slots=True)
class Speed:
    """MB/s by the clock, and by the server's CPU."""

    wall: float
    cpu: float


CASES = [
    Case("dnsmasq, windowsize 1", "dnsmasq", 1, 128),
    Case("ours, windowsize 1", "ours", 1, 128),
    Case("ours, windowsize 16", "ours", 16, 256),
    Case("dnsmasq, 1 % lost", "dnsmasq", 1, 64, 10_000, every=5),
    Case("ours, 1 % lost", "ours", 1, 128, 10_000, every=5),
    Case("ours, 1 % lost, windowsize 16", "ours", 16, 256, 10_000, every=5),
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
        transfer = Transfer(content, ReadRequest("", options=(("blksize", str(BLKSIZE)),)).options, 0.0, Layouts())
        transfer.start(0.0)
        began = time.perf_counter()
        for number, ack in enumerate(acks):
            transfer.received(ack, number * 0.001)
        best = min(best, time.perf_counter() - began)
        assert transfer.outcome is Outcome.DONE
    return best / len(acks) * 1e6


def show(rounds: list[dict[Case, Speed]]) -> None:
    for case in CASES:
        beside = CASES[3] if case.loss else CASES[0]
        taken = [round for round in rounds if case in round]
        wall, cpu = (statistics.median(getattr(round[case], clock) for round in taken) for clock in ("wall", "cpu"))
        wall_ratio, cpu_ratio = (
            statistics.median(getattr(round[case], clock) / getattr(round[beside], clock) for round in taken)
            for clock in ("wall", "cpu")
        )
        print(
            f"{case.title:32} {wall:7.1f} MB/s ({wall_ratio:5.2f} x)   "
            f"{cpu:7.1f} MB per second of CPU ({cpu_ratio:5.2f} x)"
        )
    print(f"a transfer's own step            {step_alone():7.2f} us a datagram")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
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
    measured: list[dict[Case, Speed]] = []
    with running([*dnsmasq, *tftp, "--quiet-tftp"]) as theirs_pid, running(ours) as ours_pid:
        servers = {"dnsmasq": (69, theirs_pid), "ours": (port, ours_pid)}
        for number in range(rounds):
            cases = [case for case in CASES if number % case.every == 0]
            measured.append({case: measure(case, client, root, *servers[case.server]) for case in cases})
    show(measured)


if __name__ == "__main__":
    main()
