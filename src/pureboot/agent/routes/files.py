"""`GET|HEAD /files/{category}/{path}`: boot content for machines, whole or a range of it.

A machine's install attempt has begun once it has each file whole under its boot token. So what is handed over is
counted byte by byte: firmware that only looks at the end of an image, or goes away in the middle, has not begun.
"""

import asyncio
import logging
import os
import re
from asyncio import to_thread
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pureboot.agent.cache.content_index import category_of
from pureboot.agent.content import ContentFetcher
from pureboot.agent.landing import Readable
from pureboot.core.errors import Malformed, PureBootError
from pureboot.wire.errors import body_of
from pureboot.wire.sendfile import EXTENSION

log = logging.getLogger(__name__)

# 64 KiB is half as fast; 1 MiB costs 254 MB with 64 slow clients.
CHUNK_SIZE = 256 * 1024
# What the kernel is asked to send before we look whether the client is still there.
ZERO_COPY_SIZE = 2 * 1024 * 1024
TOKEN_LENGTH = 200
# Files that are being handed over in pieces, and pieces of each. What is forgotten beyond that only means that an
# attempt is not seen to begin by it.
MAX_PARTIAL_FILES = 1024
MAX_PIECES = 1024

Served = Callable[[str, str], Awaitable[None]]


def file_routes(fetcher: ContentFetcher, *, served: Served) -> list[Route]:
    """`served(token, name)` is awaited when a machine has the whole file, each time it has it anew.

    Errors are raised as PureBootErrors, which the app answers.
    """
    return [Route("/files/{name:path}", Files(fetcher, served).answer, methods=["GET", "HEAD"])]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` to before `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range lies outside of the file."""


def requested_span(header: str, size: int) -> Span | None:
    """None where the whole file is the answer: several ranges, other units, nonsense (RFC 9110, 14.2).

    Raises Unsatisfiable.
    """
    match = re.fullmatch("bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip(), re.IGNORECASE)
    if not match or match[1] == match[2] == "":
        return None
    if match[1] == "":
        span = Span(max(0, size - int(match[2])), size)
    else:
        last = int(match[2] or size)
        if last < int(match[1]) and match[2]:
            return None
        span = Span(int(match[1]), min(last + 1, size))
    if span.start >= span.end:
        raise Unsatisfiable
    return span


def with_piece(pieces: list[Span], piece: Span) -> list[Span]:
    """In order, and none touches the next."""
    result: list[Span] = []
    for span in sorted([*pieces, piece], key=lambda span: span.start):
        if result and span.start <= result[-1].end:
            result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
        else:
            result.append(span)
    return result


class Handed:
    """What of each file has been handed over under which token, in memory: after a restart a file counts anew."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[tuple[str, str, str], list[Span]] = OrderedDict()

    def add(self, token: str, file: Readable, piece: Span) -> bool:
        """Whether the file is whole with it."""
        key = token, file.name, file.digest
        pieces = with_piece(self._pieces.pop(key, []), piece)
        if pieces == [Span(0, file.size)]:
            return True
        self._pieces[key] = pieces[:MAX_PIECES]
        if len(self._pieces) > MAX_PARTIAL_FILES:
            self._pieces.popitem(last=False)
        return False


class Files:
    def __init__(self, fetcher: ContentFetcher, served: Served) -> None:
        self._fetcher = fetcher
        self._served = served
        self._handed = Handed()

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        category_of(name)
        token = request.query_params.get("token", "")
        if len(token) > TOKEN_LENGTH:
            raise Malformed("This is no boot token.")
        document = self._fetcher.document(name)
        if _is_known(request.headers.get("if-none-match", ""), document.digest):
            return Response(status_code=304, headers=_headers(document.digest))
        if request.method == "HEAD":
            return Response(headers={**_headers(document.digest), "content-length": str(document.size)})
        return self._content(await self._fetcher.open(name), request.headers, token)

    def _content(self, file: Readable, headers: Mapping[str, str], token: str) -> Response:
        span = None
        if headers.get("if-range", _etag(file.digest)) == _etag(file.digest):
            try:
                span = requested_span(headers.get("range", ""), file.size)
            except Unsatisfiable:
                return _unsatisfiable(file)

        async def handed(piece: Span) -> None:
            if token and self._handed.add(token, file, piece):
                await self._tell(token, file.name)

        return FileAnswer(file, span, handed)

    async def _tell(self, token: str, name: str) -> None:
        try:
            await self._served(token, name)
        except PureBootError as error:
            # The machine has its file; there is nobody left to answer.
            log.error("a file was served, and could not be noted: %s: %s", name, error)


class FileAnswer(Response):
    """The bytes, to a connection, as they come in. `handed` gets what it took. Of an answer cut short that may be all
    but the last byte of the file: that counts only once the buffers have drained to a client that is still there."""

    def __init__(self, file: Readable, span: Span | None, handed: Callable[[Span], Awaitable[None]]) -> None:
        self._file = file
        self._span = span or Span(0, file.size)
        self._handed = handed
        headers = {**_headers(file.digest), "content-length": str(self._span.end - self._span.start)}
        if span:
            headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{file.size}"
        super().__init__(status_code=206 if span else 200, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source = self._file.open()
        try:
            async with _departure(receive) as gone:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                zero_copy = EXTENSION in scope.get("extensions", {})
                whole, end = await self._send_body(source, send, gone, zero_copy)
        finally:
            await to_thread(os.close, source)
        if whole or end > self._span.start:
            await self._handed(Span(self._span.start, end))

    async def _send_body(self, source: int, send: Send, gone: asyncio.Event, zero_copy: bool) -> tuple[bool, int]:
        """Whether the client took the whole span, and up to which byte it took it. What cannot be finished is left
        unfinished, so that the server breaks the connection: the machine must not take it for whole."""
        position, end = self._span.start, self._span.end
        version = _version(source)
        while position < end and not gone.is_set():
            try:
                edge = min(end, await self._file.readable(position))
                # The last bytes are looked at after they are read: until then it must be the file that was opened.
                if zero_copy and position < (free := min(edge, end - CHUNK_SIZE)):
                    position = await _send_file(send, source, position, min(free, position + ZERO_COPY_SIZE))
                else:
                    chunk = await to_thread(_read, source, position, min(CHUNK_SIZE, edge - position))
                    self._file.check(version, _version(source))
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    position += len(chunk)
            except PureBootError as error:
                log.warning("a file was cut short while it was served: %s: %s", self._file.name, error)
                return False, self._span.start
            except ConnectionError:
                return False, position
            except EOFError:
                log.error("a file shrank while it was served: %s", self._file.name)
                return False, self._span.start
        await send({"type": "http.response.body", "body": b"", "more_body": True})  # returns when the rest has drained
        if gone.is_set():
            return False, min(position, self._file.size - 1)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True, position


async def _send_file(send: Send, source: int, position: int, end: int) -> int:
    await send({"type": EXTENSION, "file": source, "offset": position, "count": end - position, "more_body": True})
    return end


def _read(source: int, position: int, length: int) -> bytes:
    """Raises EOFError."""
    chunk = os.pread(source, length, position)
    if not chunk:
        raise EOFError
    return chunk


def _version(source: int) -> tuple[int, int]:
    found = os.fstat(source)
    return found.st_size, found.st_mtime_ns


@asynccontextmanager
async def _departure(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """Set when the client is gone, or sends what is refused. The server tells nobody who sends: it drops what is sent
    after that."""
    gone = asyncio.Event()

    async def watch() -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            gone.set()

    watching = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _etag(digest: str) -> str:
    return f'"{digest}"'


def _headers(digest: str) -> dict[str, str]:
    return {"etag": _etag(digest), "accept-ranges": "bytes", "content-type": "application/octet-stream"}


def _is_known(if_none_match: str, digest: str) -> bool:
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in known or _etag(digest) in known


def _unsatisfiable(file: Readable) -> Response:
    error = PureBootError(
        f"{file.name} has {file.size} bytes; the range lies outside of them.",
        code="range_not_satisfiable",
        hint="Ask for a range inside, or for the whole file.",
    )
    return JSONResponse(body_of(error), status_code=416, headers={"content-range": f"bytes */{file.size}"})
