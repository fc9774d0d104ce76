"""The line between a site and central: it copies bytes. Freeze its process, and nobody is told that it is down.

python -m pureboot.simulator.wan PORT TARGET_PORT
"""

import asyncio
import contextlib
import sys
from functools import partial

CHUNK = 64 * 1024


async def serve(port: int, target: int) -> None:
    server = await asyncio.start_server(partial(_connect, target), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


async def _connect(target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Nobody behind the line: the connection ends, as it would at central's closed port."""
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
