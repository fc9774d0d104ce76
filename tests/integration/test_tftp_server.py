"""The TFTP server over loopback sockets, under both event loops."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from pureboot.core.errors import Busy, SettingsError
from pureboot.tftp.packets import (
    Ack,
    Data,
    Error,
    ErrorCode,
    OptionsAck,
    Packet,
    ReadRequest,
    WriteRequest,
    dump,
)
from pureboot.tftp.served import Asked, OpenFile, Served, Text
from pureboot.tftp.server import Limits, TftpServer
from tests.support.tftp import Reader
from tests.support.tftp_client import Client, client_of, fetch

LOADER = random.Random(1).randbytes(300_001)


class Folder:
    """Two names, one of them a file on disk; what was asked is kept. `hold`: nothing is found until it is set."""

    def __init__(self, root: Path) -> None:
        self.path = root / "loader"
        self.path.write_bytes(LOADER)
        self.asked: list[Asked] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def find(self, asked: Asked) -> Served | None:
        self.asked.append(asked)
        await self.hold.wait()
        match asked.name:
            case "loader":
                return OpenFile(self.path)
            case "who":
                return Text(f"{asked.client} {asked.local}".encode())
            case "away":
                raise Busy("It has not come yet.")
            case "broken":
                raise RuntimeError("a mistake of ours")
        return None


@asynccontextmanager
async def serving(root: Path, host: str = "127.0.0.1", **limits: int) -> AsyncIterator[tuple[TftpServer, Folder]]:
    files = Folder(root)
    server = TftpServer(files, host, 0, limits=Limits(**limits))
    await server.start()
    try:
        yield server, files
    finally:
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def storm(root: Path) -> None:
    async with serving(root) as (server, _):
        kinds = [
            {},
            {"blksize": 1432, "tsize": 0},
            {"blksize": 1468, "windowsize": 16},
            {"blksize": 65464, "windowsize": 4},
        ]
        readers = await asyncio.gather(
            *(fetch(server.port, "loader", host="127.0.0.1", **kinds[index % 4]) for index in range(24))
        )
        assert all(reader.content == LOADER for reader in readers)
        await until(lambda: server.active == 0)
        assert server.transfers == 24
        assert server.bytes_sent == 24 * len(LOADER)
        assert server.errors == server.put_off == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_many_at_once_get_the_whole_file(tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(storm(tmp_path))


async def test_the_size_is_told_and_blocks_are_as_large_as_was_agreed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        reader = await fetch(server.port, "loader", tsize=0, blksize=1432, windowsize=4)
        assert reader.options == {"tsize": str(len(LOADER)), "blksize": "1432", "windowsize": "4"}


async def test_ipv6_is_served_too_and_whoever_asks_is_known_by_address(tmp_path: Path) -> None:
    async with serving(tmp_path, host="::1") as (server, _):
        assert (await fetch(server.port, "loader", host="::1", blksize=1432, windowsize=8)).content == LOADER
        assert (await fetch(server.port, "who", host="::1")).content == b"::1 ::1"


async def test_the_address_that_was_asked_is_the_one_that_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, host="0.0.0.0") as (server, _), client_of(server.port, "127.0.0.7") as client:
        client.server = ("127.0.0.9", server.port)
        client.say(ReadRequest("who"))
        packet, sender = await client.hear()
        assert packet == Data(1, b"127.0.0.7 127.0.0.9")
        assert sender[0] == "127.0.0.9"
        client.say(Ack(1), sender)
        client.say(ReadRequest("nothing"))
        _, sender = await client.hear()
        assert sender[0] == "127.0.0.9"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ReadRequest("nothing"), ErrorCode.NOT_FOUND),
        (ReadRequest(""), ErrorCode.NOT_FOUND),
        (ReadRequest("../loader"), ErrorCode.NOT_FOUND),
        (WriteRequest("loader"), ErrorCode.ACCESS_VIOLATION),
        (ReadRequest("loader", "netascii"), ErrorCode.ILLEGAL_OPERATION),
        (ReadRequest("away"), ErrorCode.UNDEFINED),
        (ReadRequest("broken"), ErrorCode.UNDEFINED),
        (b"\0\1loader", ErrorCode.ILLEGAL_OPERATION),
    ],
)
async def test_what_is_not_served_is_refused_at_once(tmp_path: Path, said: Packet | bytes, code: ErrorCode) -> None:
    async with serving(tmp_path) as (server, _), client_of(server.port) as client:
        client.say(said)
        packet, _ = await client.hear(within=2)
        assert isinstance(packet, Error)
        assert packet.code == code
        assert packet.message
        assert (server.errors, server.active) == (1, 0)


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\3\0\1x", b"\0\4\0\0", b"\0\5\0\0", b"\0\6", b"\xff" * 2000])
async def test_what_is_no_request_is_not_answered(tmp_path: Path, said: bytes) -> None:
    async with serving(tmp_path) as (server, _), client_of(server.port) as client:
        client.say(said)
        await client.silence()
        assert server.errors == 0


async def test_a_repeated_request_is_answered_by_the_same_transfer(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, files), client_of(server.port) as client:
        request = ReadRequest("loader", options=(("blksize", "1432"),))
        files.hold.clear()
        client.say(request)
        client.say(request)
        await until(lambda: len(files.asked) == 1)
        files.hold.set()
        first, sender = await client.hear()
        client.say(request)
        assert await client.hear() == (first, sender)
        assert server.active == 1
        assert len(files.asked) == 1
        client.say(Ack(0), sender)
        assert (await client.hear())[1] == sender
        client.say(request)  # a late copy; the client has its block
        await client.silence(0.04)
        assert len(files.asked) == 1


async def test_a_client_that_asks_for_something_else_from_the_same_port_has_begun_anew(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), client_of(server.port) as client:
        client.say(ReadRequest("loader", options=(("tsize", "0"),)))
        _, first = await client.hear()
        client.say(ReadRequest("loader", options=(("blksize", "1432"),)))
        packet, second = await client.hear()
        assert packet == OptionsAck((("blksize", "1432"),))
        assert second != first
        assert server.active == 1


async def test_a_stranger_gets_error_5_and_the_transfer_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), client_of(server.port) as client, client_of(server.port) as stranger:
        client.say(ReadRequest("loader", options=(("blksize", "1432"),)))
        _, port = await client.hear()
        stranger.say(Ack(0), port)
        packet, _ = await stranger.hear()
        assert isinstance(packet, Error)
        assert packet.code == ErrorCode.UNKNOWN_TID
        stranger.say(Error(0, "I end this."), port)
        await stranger.silence()
        client.say(Ack(0), port)
        while not isinstance(packet, Data):  # the OACK may have been sent again meanwhile
            packet, _ = await client.hear()
        assert packet == Data(1, LOADER[:1432])


async def test_what_is_lost_comes_again_within_a_fraction_of_a_second(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), client_of(server.port) as client:
        client.say(ReadRequest("loader", options=(("blksize", "1432"), ("windowsize", "2"))))
        _, port = await client.hear()
        client.say(Ack(0), port)
        window = [(await client.hear())[0] for _ in range(2)]
        assert [(await client.hear(within=1))[0] for _ in range(2)] == window
        client.say(Error(0, "enough"), port)
        await until(lambda: server.active == 0)
        assert server.resends >= 1


async def test_a_client_that_has_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        before = len(os.listdir("/proc/self/fd"))
        async with client_of(server.port) as client:
            client.say(ReadRequest("loader", options=(("blksize", "1432"),)))
            await client.hear()
        await until(lambda: server.active == 0)
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_beyond_the_limits_there_is_no_answer_until_there_is_room(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, per_client=1) as (server, _),
        client_of(server.port) as first,
        client_of(server.port) as second,
    ):
        first.say(ReadRequest("loader", options=(("tsize", "0"),)))
        _, port = await first.hear()
        second.say(ReadRequest("loader"))
        await second.silence()
        assert server.put_off == 1
        assert (await fetch_once(server, "127.0.0.2")).block == 1
        first.say(Error(0, "only the size was wanted"), port)
        await until(lambda: server.active == 0)
        second.say(ReadRequest("loader"))
        assert isinstance((await second.hear())[0], Data)


async def fetch_once(server: TftpServer, host: str) -> Data:
    """The whole of a small file by another client."""
    async with client_of(server.port, host) as client:
        client.server = ("127.0.0.1", server.port)
        client.say(ReadRequest("who"))
        packet, port = await client.hear()
        client.say(Ack(1), port)
    assert isinstance(packet, Data)
    return packet


async def test_the_total_is_bounded_too(tmp_path: Path) -> None:
    async with serving(tmp_path, total=2) as (server, files), contextlib.AsyncExitStack() as stack:
        files.hold.clear()
        clients = [await stack.enter_async_context(client_of(server.port)) for _ in range(5)]
        for client in clients:
            client.say(ReadRequest("loader"))
        await until(lambda: server.put_off == 3)
        assert server.active == 2


def shrink(path: Path) -> None:
    os.truncate(path, 1000)


def rewrite(path: Path) -> None:
    path.write_bytes(LOADER[::-1])


@pytest.mark.parametrize("change", [shrink, rewrite])
async def test_a_file_that_changes_ends_with_an_error_and_no_wrong_byte(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    async with serving(tmp_path) as (server, files), client_of(server.port) as client:
        client.say(ReadRequest("loader", options=(("blksize", "1432"),)))
        reader = Reader()
        while reader.error is None:
            packet, port = await client.hear()
            if isinstance(packet, Data) and packet.block == 10:
                await asyncio.sleep(0.02)  # a file's time moves in steps of some milliseconds
                change(files.path)
            for answer in reader.take(dump(packet)):
                client.say(answer, port)
        assert reader.error == Error(ErrorCode.UNDEFINED, "The file changed while it was sent.")
        assert LOADER.startswith(reader.content)
        assert not reader.whole
        assert server.errors == 1


async def test_a_file_that_is_replaced_is_sent_as_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, files), client_of(server.port) as client:
        client.say(ReadRequest("loader", options=(("blksize", "1432"),)))
        reader = Reader()
        while not reader.whole:
            packet, port = await client.hear()
            if isinstance(packet, OptionsAck):
                (tmp_path / "fresh").write_bytes(b"another")
                os.replace(tmp_path / "fresh", files.path)
            for answer in reader.take(dump(packet)):
                client.say(answer, port)
        assert reader.content == LOADER


async def test_two_servers_cannot_share_a_port(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, files):
        with pytest.raises(SettingsError, match=f"Cannot serve TFTP on 127.0.0.1, port {server.port}: Address already"):
            await TftpServer(files, "127.0.0.1", server.port).start()


async def test_a_host_that_is_not_this_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot serve TFTP on 192\.0\.2\.1"):
        await TftpServer(Folder(tmp_path), "192.0.2.1", 0).start()


async def stopped(act: Callable[[Client, TftpServer, Folder], Awaitable[None]], root: Path) -> Error | None:
    """What the client hears when the server stops after `act`."""
    files = Folder(root)
    server = TftpServer(files, "127.0.0.1", 0)
    await server.start()
    async with client_of(server.port) as client:
        await act(client, server, files)
        await server.stop()
        assert server.active == 0
        with contextlib.suppress(TimeoutError):
            packet, _ = await client.hear(within=0.2)
            assert isinstance(packet, Error)
            return packet
    return None


async def test_a_server_that_stops_tells_its_clients_and_frees_its_port(tmp_path: Path) -> None:
    async def begin(client: Client, server: TftpServer, files: Folder) -> None:
        client.say(ReadRequest("loader", options=(("tsize", "0"),)))
        await client.hear()

    assert await stopped(begin, tmp_path) == Error(0, "The server is stopping.")


async def test_a_server_stops_though_a_file_is_still_looked_for(tmp_path: Path) -> None:
    async def ask(client: Client, server: TftpServer, files: Folder) -> None:
        files.hold.clear()
        client.say(ReadRequest("loader"))
        await until(lambda: len(files.asked) == 1)

    assert await stopped(ask, tmp_path) is None
