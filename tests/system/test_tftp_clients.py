"""TFTP clients that others have written, from the command line to iPXE, against ours."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pureboot.tftp.served import Asked, OpenFile, Served
from pureboot.tftp.server import TftpServer
from tests.support.programs import Agent, Central, free_udp_port, running_pair_of
from tests.system.machine import DISK_REACHED, NEEDS, Machine

MAC = "52:54:00:aa:00:01"
# Ends inside of a block, at the end of one, is empty, and is longer than the 65,535 blocks of 512 bytes.
SIZES = {"loader": 1_000_001, "even": 512 * 1432 * 2, "empty": 0, "long": 512 * 65_700 + 7}
Command = Callable[[int, str, Path], list[str]]


class Folder:
    """Exactly the files of `SIZES`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def find(self, asked: Asked) -> Served | None:
        return OpenFile(self.root / asked.name) if asked.name in SIZES else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    for name, size in SIZES.items():
        (root / name).write_bytes(random.Random(name).randbytes(size))
    return root


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[TftpServer]:
    serving = TftpServer(Folder(folder), "127.0.0.1", 0)
    await serving.start()
    yield serving
    await serving.stop()


def tftp_hpa(*options: str) -> Command:
    return lambda port, name, target: [
        *("tftp", "-m", "binary", *options, "127.0.0.1", str(port)),
        *("-c", "get", name, str(target)),
    ]


def atftp(*options: str) -> Command:
    return lambda port, name, target: [
        *("atftp", "--get", "--remote-file", name, "--local-file", str(target)),
        *(word for option in options for word in ("--option", option)),
        *("127.0.0.1", str(port)),
    ]


def curl(*options: str) -> Command:
    return lambda port, name, target: [
        *("curl", "--silent", "--show-error", "--noproxy", "*", *options),
        *("--output", str(target), f"tftp://127.0.0.1:{port}/{name}"),
    ]


async def run(command: list[str], within: float = 45) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
    )
    async with asyncio.timeout(within):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


CLIENTS = {
    "tftp-hpa": (tftp_hpa(), "tftp"),
    "atftp": (atftp(), "atftp"),
    "atftp blksize tsize timeout": (atftp("blksize 1432", "tsize enable", "timeout 3"), "atftp"),
    "atftp windowsize 16": (atftp("blksize 1432", "windowsize 16"), "atftp"),
    "curl": (curl(), "curl"),
    "curl blksize 1432": (curl("--tftp-blksize", "1432"), "curl"),
    "curl blksize 65464": (curl("--tftp-blksize", "65464"), "curl"),
    "curl no options": (curl("--tftp-no-options"), "curl"),
}
# Told that a file has no bytes (`tsize` 0), curl 7.88 gives up.
UNFIT = {("curl", "empty"), ("curl blksize 1432", "empty"), ("curl blksize 65464", "empty")}
# In larger blocks `long` has fewer than 65,535, and is only long.
UNFIT |= {(client, "long") for client in CLIENTS if "blksize" in client}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        pytest.param(command, name, id=f"{client}-{name}", marks=pytest.mark.requires(need))
        for client, (command, need) in CLIENTS.items()
        for name in SIZES
        if (client, name) not in UNFIT
    ],
)
async def test_a_foreign_client_gets_the_whole_file(
    server: TftpServer, folder: Path, tmp_path: Path, command: Command, name: str
) -> None:
    target = tmp_path / "got"
    status, output = await run(command(server.port, name, target))
    assert status == 0, output
    got = target.read_bytes() if target.exists() else b""  # curl writes no empty file
    assert got == (folder / name).read_bytes()


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, id=client, marks=pytest.mark.requires(need)) for client, (command, need) in CLIENTS.items()],
)
async def test_a_foreign_client_is_told_at_once_what_is_missing(
    server: TftpServer, tmp_path: Path, command: Command
) -> None:
    status, output = await run(command(server.port, "nothing", tmp_path / "got"), within=4)
    assert status != 0 or "no such file" in output.lower()
    assert server.errors == 1


@pytest.mark.requires(*NEEDS)
@pytest.mark.timeout(240)
async def test_a_real_machine_gets_from_the_script_over_tftp_to_its_disk(tmp_path: Path, disk: Path) -> None:
    agent = Agent(tmp_path, tftp_port=free_udp_port())
    # The agent knows itself as 127.0.0.1; to this machine that is 10.0.2.2.
    agent.advertise(f"http://10.0.2.2:{agent.port}")
    async with running_pair_of(Central(tmp_path), agent) as pair:
        await pair.import_node(MAC, "active")
        await pair.caught_up(MAC, "active")
        bootfile = f"tftp://10.0.2.2:{agent.tftp_port}/autoexec.ipxe"
        async with Machine(port=agent.port, mac=MAC, disk=disk, bootfile=bootfile) as machine:
            await machine.wait_for("PureBoot: local disk (node state: active)", within=90)
            await machine.wait_for("LOCAL-DISK-OK", within=60)
            assert await machine.exited(within=60) == DISK_REACHED
