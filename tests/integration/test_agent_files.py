"""The agent's file routes over real sockets, behind the server that carries them."""

import asyncio
import hashlib
import itertools
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.content import ContentFetcher
from pureboot.agent.routes.files import CHUNK_SIZE, Span, Unsatisfiable, file_routes, requested_span, with_piece
from pureboot.core.errors import PureBootError, StorageFull, TooLarge
from pureboot.wire.errors import body_of, headers_of, status_of
from pureboot.wire.http import bind, serve_http
from pureboot.wire.messages import ContentCategory, ContentDocument
from pureboot.wire.sendfile import with_sendfile
from tests.fakes import FolderSource

KERNEL = "images/debian 12/linux"
IMAGE = "images/disk.img"
EMPTY = "scripts/empty"
# Larger than what the kernel buffers for a connection, so that a client that does not read holds the server up.
FILES = {KERNEL: random.Random(1).randbytes(700_001), IMAGE: random.Random(2).randbytes(24 << 20), EMPTY: b""}
SECRET = b"not for machines"
TOKEN = "boot-token"


def document(name: str, content: bytes) -> ContentDocument:
    category, _, path = name.partition("/")
    return ContentDocument(
        category=ContentCategory(category),
        path=path,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size=len(content),
        version=1,
        updated_at=datetime(2026, 1, 28, tzinfo=UTC),
    )


DOCUMENTS = {name: document(name, content) for name, content in FILES.items()}


def etag(name: str) -> str:
    return f'"{DOCUMENTS[name].digest}"'


async def refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PureBootError)
    return JSONResponse(body_of(error), status_of(error), headers_of(error))


@dataclass
class Agent:
    """A site's agent, as far as it serves files; `served` is what it was told that machines have."""

    root: Path
    max_bytes: int = 100_000_000
    served: list[tuple[str, str]] = field(default_factory=list)
    disk_is_full: bool = False

    def __post_init__(self) -> None:
        self.source = FolderSource(FILES)
        self.cache = ContentCache(self.root / "cache", self.max_bytes)
        self.fetcher = ContentFetcher(self.cache, self.source, wanted=DOCUMENTS.get)
        self.app = Starlette(
            routes=file_routes(self.fetcher, served=self.note), exception_handlers={PureBootError: refuse}
        )
        self.under_way = 0

    async def note(self, token: str, name: str) -> None:
        if self.disk_is_full:
            raise StorageFull("There is no space left.")
        self.served.append((token, name))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            self.under_way += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.under_way -= 1

        stop = asyncio.Event()
        with bind("127.0.0.1", 0) as sock:
            self.port = sock.getsockname()[1]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve_http(with_sendfile(counted), sock, stop=stop))
                try:
                    yield
                finally:
                    stop.set()

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    @asynccontextmanager
    async def asked(self, target: str, *headers: str) -> AsyncIterator[asyncio.StreamReader]:
        """As firmware would: the path as it is, and little room for bytes that nobody reads. Left early, it is gone
        without a word."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=64 * 1024)
        lines = [f"GET {target} HTTP/1.1", "Host: agent", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        try:
            yield reader
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def settle(self) -> None:
        """Returns when no request is under way any more."""
        while self.under_way:
            await asyncio.sleep(0.002)


@pytest.fixture
async def agent(tmp_path: Path):
    (tmp_path / "secret").write_bytes(SECRET)
    agent = Agent(tmp_path)
    async with aclosing(agent.fetcher):
        yield agent


@pytest.fixture(scope="module")
def bare_agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return Agent(tmp_path_factory.mktemp("bare"))


@pytest.fixture
async def http(agent: Agent):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(agent.app), base_url="http://agent") as http:
        yield http


@pytest.fixture
async def server(agent: Agent):
    """The same agent behind the server that carries it."""
    async with agent.serving():
        yield agent


class TestWholeFiles:
    async def test_a_file_is_served_whole_with_its_digest_as_its_tag(self, http: httpx2.AsyncClient):
        answer = await http.get(f"/files/{KERNEL}")
        assert (answer.status_code, answer.content) == (200, FILES[KERNEL])
        assert answer.headers["etag"] == etag(KERNEL)
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-length"] == str(len(FILES[KERNEL]))

    async def test_what_is_here_is_served_while_central_is_away(self, agent: Agent, http: httpx2.AsyncClient):
        await http.get(f"/files/{KERNEL}")
        agent.source.away = True
        assert (await http.get(f"/files/{KERNEL}")).content == FILES[KERNEL]
        assert (agent.cache.hits, agent.cache.misses) == (1, 1)

    async def test_an_empty_file_is_served(self, agent: Agent, http: httpx2.AsyncClient):
        answer = await http.get(f"/files/{EMPTY}", params={"token": TOKEN})
        assert (answer.status_code, answer.content) == (200, b"")
        assert agent.served == [(TOKEN, EMPTY)]

    async def test_many_machines_that_ask_for_a_new_file_cause_one_download(self, agent: Agent, http):
        agent.source.hold()
        asking = [asyncio.create_task(http.get(f"/files/{KERNEL}")) for _ in range(32)]
        for _ in range(20):
            await asyncio.sleep(0)
        agent.source.release()
        assert {answer.content for answer in await asyncio.gather(*asking)} == {FILES[KERNEL]}
        assert agent.source.downloads == {KERNEL: 1}

    async def test_head_tells_size_and_tag_and_fetches_nothing(self, agent: Agent, http: httpx2.AsyncClient):
        answer = await http.head(f"/files/{KERNEL}", params={"token": TOKEN}, headers={"Range": "bytes=0-1"})
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == str(len(FILES[KERNEL]))
        assert answer.headers["etag"] == etag(KERNEL)
        assert agent.source.downloads == {}
        assert agent.served == []

    @pytest.mark.parametrize("tag", [etag(KERNEL), f"W/{etag(KERNEL)}", f'"other", {etag(KERNEL)}', "*"])
    async def test_what_the_client_has_is_not_sent_again(self, agent: Agent, http: httpx2.AsyncClient, tag: str):
        answer = await http.get(f"/files/{KERNEL}", params={"token": TOKEN}, headers={"If-None-Match": tag})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag(KERNEL)
        assert agent.source.downloads == {}
        assert agent.served == []

    async def test_another_tag_gets_the_file(self, http: httpx2.AsyncClient):
        assert (await http.get(f"/files/{KERNEL}", headers={"If-None-Match": '"other"'})).status_code == 200

    async def test_a_file_evicted_while_it_is_served_arrives_whole(self, server: Agent):
        await server.fetcher.fetch(IMAGE)
        async with server.client() as http, http.stream("GET", f"/files/{IMAGE}") as answer:
            chunks = answer.aiter_bytes(1000)
            content = bytearray(await anext(chunks))
            assert await server.cache.evict(IMAGE)
            async for chunk in chunks:
                content += chunk
        assert bytes(content) == FILES[IMAGE]

    async def test_a_connection_carries_one_answer_after_the_other(self, server: Agent):
        async with server.client() as http:
            for name in (KERNEL, EMPTY, IMAGE, KERNEL):
                answer = await http.get(f"/files/{name}", params={"token": TOKEN})
                assert answer.content == FILES[name]
        await server.settle()
        assert [name for _, name in server.served] == [KERNEL, EMPTY, IMAGE, KERNEL]


class TestReadingAlong:
    """Machines that ask for a file while it comes from central."""

    async def test_it_is_streamed_as_it_lands_and_whole_once_it_is_verified(self, server: Agent):
        server.source.pause(after=10_000_000)
        async with server.asked(f"/files/{IMAGE}?token={TOKEN}") as connection:
            await connection.readuntil(b"\r\n\r\n")
            body = await connection.readexactly(9_000_000)
            assert server.cache.files() == ()
            assert server.served == []
            server.source.release()
            body += await connection.read()
        await server.settle()
        assert body == FILES[IMAGE]
        assert server.served == [(TOKEN, IMAGE)]
        assert server.source.downloads == {IMAGE: 1}

    async def test_a_slow_and_a_gone_machine_hold_up_neither_the_download_nor_the_others(self, server: Agent):
        async with server.asked(f"/files/{IMAGE}") as slow:
            await slow.readuntil(b"\r\n\r\n")
            body = await slow.readexactly(1000)
            async with server.asked(f"/files/{IMAGE}") as gone:
                await gone.readexactly(1000)
            async with server.client() as http:
                assert (await http.get(f"/files/{IMAGE}")).content == FILES[IMAGE]
            assert [file.name for file in server.cache.files()] == [IMAGE]
            assert body + await slow.read() == FILES[IMAGE]
        assert server.source.downloads == {IMAGE: 1}

    @pytest.mark.parametrize("wish", ["0-99", "20000000-20000099", "-100"])
    async def test_a_range_waits_until_its_bytes_are_there(self, server: Agent, wish: str):
        server.source.pause(after=1_000_000)
        async with server.client() as http:
            asking = asyncio.create_task(http.get(f"/files/{IMAGE}", headers={"Range": f"bytes={wish}"}))
            while not server.source.asked:
                await asyncio.sleep(0.002)
            server.source.release()
            answer = await asking
        span = requested_span(f"bytes={wish}", len(FILES[IMAGE]))
        assert span is not None
        assert (answer.status_code, answer.content) == (206, FILES[IMAGE][span.start : span.end])

    async def test_a_cut_of_the_wan_is_not_noticed_by_who_reads_along(self, server: Agent):
        server.source.cut_after, server.source.cuts = 5_000_000, 1
        async with server.client() as http:
            assert (await http.get(f"/files/{IMAGE}")).content == FILES[IMAGE]
        assert server.source.asked == [(IMAGE, 0), (IMAGE, 5_000_000)]

    async def test_a_central_that_dies_ends_the_connection_short_and_the_next_goes_on_there(self, server: Agent):
        server.source.cut_after, server.source.cuts = 5_000_000, 2
        async with server.asked(f"/files/{IMAGE}?token={TOKEN}") as connection:
            await connection.readuntil(b"\r\n\r\n")
            await connection.readexactly(1_000_000)
            server.source.away = True
            body = await connection.read()
        assert len(body) < len(FILES[IMAGE]) - 1_000_000
        await server.settle()
        assert server.served == []
        server.source.away = False
        async with server.client() as http:
            assert (await http.get(f"/files/{IMAGE}")).content == FILES[IMAGE]
        assert server.source.asked[-1][1] >= 5_000_000


class TestZeroCopy:
    """Whole files go from the page cache to the socket; on the loop that agents run on, and on that of the tests."""

    @pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
    @pytest.mark.parametrize("is_cold", [False, True])
    def test_what_arrives_is_what_is_kept(self, tmp_path: Path, factory, is_cold: bool, monkeypatch):
        if is_cold:
            monkeypatch.setattr(os, "preadv", lambda *_: 0)

        async def ask() -> None:
            agent = Agent(tmp_path)
            async with aclosing(agent.fetcher), agent.serving(), agent.client() as http:
                await agent.fetcher.fetch(IMAGE)
                for _ in range(2):  # on one connection
                    answer = await http.get(f"/files/{IMAGE}", params={"token": TOKEN})
                    assert answer.content == FILES[IMAGE]
                answer = await http.get(f"/files/{IMAGE}", headers={"Range": "bytes=7-9000000"})
                assert answer.content == FILES[IMAGE][7:9_000_001]
                slow = [self.slowly(agent) for _ in range(4)]
                assert all(await asyncio.gather(*slow))
            assert agent.served == [(TOKEN, IMAGE)] * 2

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.sleep(0))  # what a loop keeps for all that come after it
        before = len(os.listdir("/proc/self/fd"))
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(ask())
        assert len(os.listdir("/proc/self/fd")) == before

    async def slowly(self, agent: Agent) -> bool:
        content = bytearray()
        async with agent.asked(f"/files/{IMAGE}") as connection:
            await connection.readuntil(b"\r\n\r\n")
            while chunk := await connection.read(200_000):
                content += chunk
                await asyncio.sleep(0.001)
        return bytes(content) == FILES[IMAGE]

    async def test_python_sees_none_of_the_bytes_but_the_last(self, server: Agent, monkeypatch):
        await server.fetcher.fetch(IMAGE)
        read = 0
        pread = os.pread

        def counted(source: int, length: int, position: int) -> bytes:
            nonlocal read
            read += length
            return pread(source, length, position)

        monkeypatch.setattr(os, "pread", counted)
        monkeypatch.setattr(os, "preadv", lambda *_: 1)
        async with server.client() as http:
            assert (await http.get(f"/files/{IMAGE}")).content == FILES[IMAGE]
        assert read == CHUNK_SIZE


class TestErrors:
    async def test_central_away_is_503_with_a_time_to_come_back(self, agent: Agent, http: httpx2.AsyncClient):
        agent.source.away = True
        answer = await http.get(f"/files/{KERNEL}", params={"token": TOKEN})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["error"]["code"] == "central_unavailable"
        assert agent.served == []

    async def test_wrong_bytes_are_whole_at_no_machine(self, server: Agent, caplog):
        server.source.corrupt = True
        for name in (KERNEL, IMAGE):
            async with server.asked(f"/files/{quote(name)}?token={TOKEN}") as connection:
                head = await connection.readuntil(b"\r\n\r\n")
                body = await connection.read()
            assert b"content-length: %d\r\n" % len(FILES[name]) in head
            assert len(body) < len(FILES[name])
        await server.settle()
        assert server.served == []
        assert server.cache.files() == ()
        assert "Traceback" not in caplog.text

    async def test_what_does_not_fit_is_507(self, tmp_path: Path):
        agent = Agent(tmp_path, max_bytes=1000)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(agent.app), base_url="http://agent") as http:
            answer = await http.get(f"/files/{KERNEL}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")

    async def test_an_unknown_name_is_404(self, http: httpx2.AsyncClient):
        answer = await http.get("/files/images/nothing")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")

    @pytest.mark.parametrize("path", ["images", "images/", "secrets/a", "images//a", "/images/a", "", "images/%00"])
    async def test_what_is_no_name_is_400_and_never_a_redirect(self, http: httpx2.AsyncClient, path: str):
        answer = await http.get(f"/files/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")

    async def test_a_token_that_cannot_be_one_is_400(self, http: httpx2.AsyncClient):
        assert (await http.get(f"/files/{KERNEL}", params={"token": "x" * 1000})).status_code == 400

    async def test_no_spelling_of_a_path_leads_out(self, server: Agent):
        await server.fetcher.fetch(KERNEL)
        for path in (
            "../secret",
            "images/../../secret",
            "images/%2e%2e/%2e%2e/secret",
            "images/..%2f..%2fsecret",
            "images%2f..%2f..%2fsecret",
            "images/..%5c..%5csecret",
            "images/..\\..\\secret",
            "images/%252e%252e/%252e%252e/secret",
            "images/%00/../../secret",
            "images/....//....//secret",
            "%c0%ae%c0%ae/secret",
            "images/..;/..;/secret",
            f"images/{(await server.fetcher.fetch(KERNEL)).path.name}",
        ):
            async with server.asked(f"/files/{path}") as connection:
                answer = await connection.read()
            assert (path, answer.split()[1]) in [(path, b"400"), (path, b"404")]
            assert SECRET not in answer

    @given(st.text() | st.from_regex(r"(images|/|\\|\.|%2e|%2f|%00|\0|secret)*", fullmatch=True))
    def test_no_path_at_all_leads_out_or_breaks_the_agent(self, bare_agent: Agent, path: str):
        scope = {"type": "http", "method": "GET", "path": f"/files/{path}", "query_string": b"", "headers": []}
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            messages.append(message)

        asyncio.run(bare_agent.app(scope, receive, send))
        assert messages[0]["status"] in (400, 404)


class TestRanges:
    SIZE = len(FILES[KERNEL])

    @pytest.mark.parametrize(
        ("wish", "start", "end"),
        [("0-0", 0, 1), ("5-99", 5, 100), ("700000-", 700_000, 700_001), ("-7", SIZE - 7, SIZE),
         ("1000-9999999", 1000, SIZE), ("-9999999", 0, SIZE)],
    )  # fmt: skip
    async def test_a_range_is_served_as_such(self, http: httpx2.AsyncClient, wish: str, start: int, end: int):
        answer = await http.get(f"/files/{KERNEL}", headers={"Range": f"bytes={wish}"})
        assert (answer.status_code, answer.content) == (206, FILES[KERNEL][start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{self.SIZE}"
        assert answer.headers["content-length"] == str(end - start)

    @pytest.mark.parametrize("wish", ["bytes=0-1,5-6", "lines=1-2", "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "5"])
    async def test_what_is_not_one_range_of_bytes_gets_the_whole_file(self, http: httpx2.AsyncClient, wish: str):
        answer = await http.get(f"/files/{KERNEL}", headers={"Range": wish})
        assert (answer.status_code, answer.content) == (200, FILES[KERNEL])

    @pytest.mark.parametrize("wish", [f"{SIZE}-", f"{SIZE}-{SIZE + 5}", "-0"])
    async def test_a_range_outside_is_416_with_the_size(self, http: httpx2.AsyncClient, wish: str):
        answer = await http.get(f"/files/{KERNEL}", headers={"Range": f"bytes={wish}"})
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{self.SIZE}"
        assert answer.json()["error"]["code"] == "range_not_satisfiable"

    @pytest.mark.parametrize(
        ("condition", "status"),
        [(etag(KERNEL), 206), ('"other"', 200), (f"W/{etag(KERNEL)}", 200), ("Wed, 28 Jan 2026 00:00:00 GMT", 200)],
    )
    async def test_a_range_of_another_version_gets_the_whole_file(self, http, condition: str, status: int):
        headers = {"Range": "bytes=5-", "If-Range": condition}
        assert (await http.get(f"/files/{KERNEL}", headers=headers)).status_code == status

    @given(size=st.integers(0, 300), first=st.none() | st.integers(0, 320), last=st.none() | st.integers(0, 320))
    def test_a_span_is_what_the_standard_says(self, size: int, first: int | None, last: int | None):
        header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
        positions = range(size)
        if first is None:
            asked = positions[-last:] if last else positions[:0]
        else:
            asked = positions[first : None if last is None else last + 1]
        if (first is None and last is None) or (first is not None and last is not None and last < first):
            assert requested_span(header, size) is None
        elif not asked:
            with pytest.raises(Unsatisfiable):
                requested_span(header, size)
        else:
            assert requested_span(header, size) == Span(asked[0], asked[-1] + 1)

    @given(st.text() | st.from_regex("bytes=[0-9,-]*"), st.integers(0, 100))
    def test_no_header_gives_a_span_outside_of_the_file(self, header: str, size: int):
        with suppress(Unsatisfiable):
            span = requested_span(header, size)
            assert span is None or 0 <= span.start < span.end <= size


class TestServed:
    """What counts as: the machine has the file, so its attempt has begun."""

    @pytest.fixture
    def get(self, http: httpx2.AsyncClient):
        async def get(name: str = KERNEL, wish: str = "", token: str = TOKEN) -> None:
            headers = {"Range": f"bytes={wish}"} if wish else {}
            await http.get(f"/files/{name}", params={"token": token}, headers=headers)

        return get

    async def test_a_whole_file_under_its_token(self, agent: Agent, get):
        await get()
        assert agent.served == [(TOKEN, KERNEL)]

    async def test_nothing_without_a_token(self, agent: Agent, get):
        await get(token="")
        assert agent.served == []

    async def test_each_whole_file_anew(self, agent: Agent, get):
        await get()
        await get()
        assert agent.served == [(TOKEN, KERNEL)] * 2

    async def test_not_a_look_at_the_end_of_an_image(self, agent: Agent, get):
        await get(wish="-1")
        await get(wish="650000-")
        assert agent.served == []

    async def test_pieces_once_they_cover_the_file(self, agent: Agent, get):
        for wish in ("500000-", "0-99", "90-300000", "300002-499999"):
            await get(wish=wish)
        assert agent.served == []
        await get(wish="300001-300001")
        assert agent.served == [(TOKEN, KERNEL)]

    async def test_not_pieces_under_different_tokens(self, agent: Agent, get):
        await get(wish="0-500000", token="one")
        await get(wish="500001-", token="two")
        assert agent.served == []

    @pytest.fixture
    def cut(self, server: Agent):
        """A client that reads so many bytes and is gone."""

        async def cut(after: int, *headers: str) -> None:
            async with server.asked(f"/files/{IMAGE}?token={TOKEN}", *headers) as connection:
                await connection.readexactly(after)
            await server.settle()

        return cut

    async def test_not_a_client_that_goes_away_in_the_middle(self, agent: Agent, cut):
        await cut(1_000_000)
        assert agent.served == []

    async def test_a_client_that_comes_back_for_the_rest(self, agent: Agent, cut, get):
        await cut(1_000_000)
        await get(IMAGE, "900000-")
        assert agent.served == [(TOKEN, IMAGE)]

    async def test_not_a_client_that_goes_away_while_it_fetches_the_rest(self, agent: Agent, cut, get):
        await get(IMAGE, "0-8000000")
        await cut(1_000_000, "Range: bytes=8000001-")
        assert agent.served == []

    @pytest.mark.parametrize(("leaves_after", "served"), [(0, []), (len(FILES[KERNEL]), []), (None, [(TOKEN, KERNEL)])])
    async def test_not_a_client_that_left_with_bytes_still_in_the_buffers(
        self, agent: Agent, leaves_after: int | None, served: list
    ):
        scope: Scope = {"type": "http", "method": "GET", "path": f"/files/{KERNEL}", "headers": []}
        scope["query_string"] = f"token={TOKEN}".encode()
        left = asyncio.Event()
        sent = 0

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal sent
            if sent == leaves_after:  # while the sender waits for the buffers to drain
                left.set()
                await asyncio.sleep(0)
            sent += len(message.get("body", b""))

        await agent.app(scope, receive, send)
        assert agent.served == served
        assert (sent == 0) == (leaves_after == 0)

    async def test_not_a_client_whose_body_is_refused_under_way(self, agent: Agent):
        scope: Scope = {"type": "http", "method": "GET", "path": f"/files/{KERNEL}", "headers": []}
        scope["query_string"] = f"token={TOKEN}".encode()
        types: list[str] = []

        async def receive() -> Message:
            raise TooLarge("The body is too large.")

        async def send(message: Message) -> None:
            types.append(message["type"])

        await agent.app(scope, receive, send)
        assert types.count("http.response.start") == 1
        assert agent.served == []

    async def test_a_note_that_fails_costs_the_machine_nothing(self, agent: Agent, http, caplog):
        agent.disk_is_full = True
        answer = await http.get(f"/files/{KERNEL}", params={"token": TOKEN})
        assert answer.content == FILES[KERNEL]
        assert "could not be noted" in caplog.text

    async def test_not_a_file_that_shrinks_under_way_which_is_never_taken_for_whole(self, server: Agent, caplog):
        file = await server.fetcher.fetch(IMAGE)
        async with server.asked(f"/files/{IMAGE}?token={TOKEN}") as connection:
            received = len(await connection.readexactly(1_000_000))
            os.truncate(file.path, 23 << 20)
            received += len(await connection.read())
        assert received < len(FILES[IMAGE])
        assert server.served == []
        assert "shrank" in caplog.text
        assert "Exception" not in caplog.text
        async with server.client() as http:
            assert (await http.get(f"/files/{IMAGE}")).content == FILES[IMAGE]

    @pytest.mark.parametrize("position", [5_000_000, len(FILES[IMAGE]) - 1])
    async def test_not_a_file_that_changes_under_way(self, server: Agent, caplog, position: int):
        file = await server.fetcher.fetch(IMAGE)
        async with server.asked(f"/files/{IMAGE}?token={TOKEN}") as connection:
            await connection.readuntil(b"\r\n\r\n")
            received = len(await connection.readexactly(1_000_000))
            with file.path.open("r+b") as spoilt:
                spoilt.seek(position)
                spoilt.write(bytes([FILES[IMAGE][position] ^ 1]))
            received += len(await connection.read())
        await server.settle()
        assert received < len(FILES[IMAGE])
        assert server.served == []
        assert "changed while it was served" in caplog.text

    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20))))
    def test_pieces_add_up_to_the_bytes_they_cover(self, pieces: list[tuple[int, int]]):
        spans: list[Span] = []
        covered: set[int] = set()
        for start, length in pieces:
            spans = with_piece(spans, Span(start, start + length))
            covered |= set(range(start, start + length))
        assert [position for span in spans for position in range(span.start, span.end)] == sorted(covered)
        assert all(one.end < other.start for one, other in itertools.pairwise(spans))
