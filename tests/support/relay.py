"""A TCP port in front of the tests' PostgreSQL, which may have a Unix socket only."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from sqlalchemy import make_url


@contextmanager
def tcp_to(address: str) -> Iterator[str]:
    """The same database, at an address by TCP. It is carried in a thread of its own."""
    with psycopg.connect(address) as connection:
        host, port = connection.info.host, connection.info.port
    loop = asyncio.new_event_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.transport.abort()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            far_reader, far_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    async def end() -> None:
        server.close()
        ours = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not ours]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next round

    thread = threading.Thread(target=loop.run_forever, name="relay")
    thread.start()
    opening = asyncio.start_server(connected, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(opening, loop).result()
    try:
        own_port = server.sockets[0].getsockname()[1]
        url = make_url(address).difference_update_query(["host", "port"]).set(host="127.0.0.1", port=own_port)
        yield url.render_as_string(hide_password=False)
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
