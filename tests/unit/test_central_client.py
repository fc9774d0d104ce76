"""What central's answers may be, however much or whatever somebody on the way says."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
import uvloop

from pureboot.agent.central_client import LARGEST_ANSWER, CentralClient, http_client
from pureboot.core.errors import CentralUnavailable, Malformed
from pureboot.wire.reading import read_json


def client(answer: httpx2.Response) -> CentralClient:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: answer), base_url="http://central")
    return CentralClient(http)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 1024 * 1024


async def test_an_endless_answer_is_given_up() -> None:
    with pytest.raises(CentralUnavailable, match=f"more than {LARGEST_ANSWER} bytes"):
        await client(httpx2.Response(200, content=endless())).healthy()


@pytest.mark.parametrize("body", [b"[" * 200_000, b"<html>", b'{"status":1e999}', b""])
async def test_what_is_not_centrals_answer_is_one_of_our_errors(body: bytes) -> None:
    with pytest.raises(CentralUnavailable):
        await client(httpx2.Response(200, content=body)).healthy()


async def test_a_gateways_refusal_is_not_centrals_word() -> None:
    with pytest.raises(CentralUnavailable):
        await client(httpx2.Response(400, json={"error": "bad gateway"})).healthy()


def test_a_connection_that_is_reset_as_soon_as_it_stands_is_one_of_our_errors() -> None:
    """On the event loop an agent runs on, while that has something else to do."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=reset_everyone, args=[listening], daemon=True).start()
        uvloop.run(ask_and_be_busy(listening.getsockname()[1]))


def reset_everyone(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


async def ask_and_be_busy(port: int) -> None:
    async def busy() -> None:
        while True:
            time.sleep(0.002)  # noqa: ASYNC251
            await asyncio.sleep(0)

    work = asyncio.create_task(busy())
    async with http_client(f"http://127.0.0.1:{port}", timeout=5) as http:
        for _ in range(20):
            with pytest.raises(CentralUnavailable):
                await CentralClient(http).healthy()
    work.cancel()


@pytest.mark.parametrize(
    ("url", "why"),
    [("http://127.0.0.1:9", "the connection is refused"), ("http://nowhere.invalid", "its host name is not found")],
)
def test_why_central_is_not_reached_is_said(url: str, why: str) -> None:
    async def ask() -> None:
        async with http_client(url, timeout=5) as http:
            with pytest.raises(CentralUnavailable, match=f"Central could not be reached: {why}"):
                await CentralClient(http).healthy()

    uvloop.run(ask())


@pytest.mark.parametrize("asked", ["\u00b2".encode(), b"9" * 400, b"soon"])
async def test_no_retry_after_stops_an_agent_for_good(asked: bytes) -> None:
    body = {"error": {"code": "busy", "message": "Later."}}
    with pytest.raises(Exception, match="Later") as refused:
        await client(httpx2.Response(503, json=body, headers=[(b"Retry-After", asked)])).healthy()
    assert getattr(refused.value, "retry_after", 0) <= 3600


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"a":1e999}', b"1e999", b'[[{"a":-1E+400}]]', b'{"a": 12.5e400}', b"[1,\n2e400]"),
        *(b"[" + b"9" * 400 + b".0]", b"[" + b"1" * 250 + b"e99]"),
    ],
)
def test_a_number_without_end_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="too large"):
        read_json(body)


def test_a_long_number_that_fits_is_none() -> None:
    assert read_json(b'{"a": 1e300, "b": "1e999"}') == {"a": 1e300, "b": "1e999"}
    assert read_json(b'{"id": "01a213e7-7e123", "b": " 1e999"}') == {"id": "01a213e7-7e123", "b": " 1e999"}
