"""The stream of the site's page over a real socket: it tells at once, and holds up no stop."""

import asyncio

from pureboot.wire.http import bind, serve_http
from tests.support.agent import RunningAgent

ASK = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
# A chunk of nothing: the answer was brought to its end, not cut off.
END = b"\r\n0\r\n\r\n"


async def test_a_page_hears_of_a_boot_and_the_agent_stops_at_once(site: RunningAgent) -> None:
    stop = asyncio.Event()
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        serving = asyncio.create_task(serve_http(site.agent.app, sock, stop=stop))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK % port)
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"event: change\ndata: now\n\n")
            assert b"text/event-stream" in head
            await site.script("52:54:00:aa:bb:77")
            await reader.readuntil(b"event: change\ndata: now\n\n")
            site.agent.live.close()
            stop.set()
            rest = await reader.read()
            await serving
        writer.close()
    assert rest.endswith(END)
    assert site.agent.live.open == 0


async def test_a_page_that_goes_away_makes_room(site: RunningAgent) -> None:
    stop = asyncio.Event()
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        serving = asyncio.create_task(serve_http(site.agent.app, sock, stop=stop))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK % port)
        async with asyncio.timeout(30):
            await reader.readuntil(b"event: change")
            assert site.agent.live.open == 1
            writer.close()
            await site.until(lambda: site.agent.live.open == 0, "free again")
            stop.set()
            await serving
