"""Central over HTTP. Whatever goes wrong on the way leaves here as one of our errors; nothing else knows HTTP.

An answer counts only if it is central's: HTML with status 200 from a captive portal is `CentralUnavailable` too, so the
same items go again.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from pureboot.core.errors import CentralUnavailable, Invalid, Malformed, SettingsError
from pureboot.wire.causes import cause_of
from pureboot.wire.errors import from_answer
from pureboot.wire.messages import (
    AgentCredential,
    AgentRegistration,
    FeedPage,
    Heartbeat,
    HeartbeatAnswer,
    PushAnswer,
    PushRequest,
    SessionGrant,
    SessionRequest,
)
from pureboot.wire.reading import read_json

# A request may take this many times the wait for one byte: a batch over a slow WAN is long, but not without end.
PATIENCE_FACTOR = 6
# Bytes. A page of 500 nodes with all their facts has less than two million.
LARGEST_ANSWER = 64 * 1024 * 1024
# Where an operator names the CA that central's certificate is from.
CA_SETTING = "`ca_file`"

Answer = TypeVar("Answer", bound=BaseModel)


class Network(httpx2.AsyncHTTPTransport):
    """On uvloop httpx2 stumbles over a connection that is reset as soon as it stands: it asks for the peer of a socket
    that is gone. A gateway whose central is dead does just that."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as error:
            raise httpx2.ConnectError(str(error), request=request) from error


def http_client(
    central_url: str,
    *,
    timeout: float,
    ca_file: Path | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> httpx2.AsyncClient:
    """Raises SettingsError for a CA file that cannot be read. Proxy variables of the host are not meant for us."""
    try:
        verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
    except OSError as error:
        raise SettingsError(f"ca_file {ca_file} cannot be read: {error}.") from None
    return httpx2.AsyncClient(
        base_url=central_url,
        timeout=timeout,
        transport=transport or Network(verify=verify, trust_env=False),
        trust_env=False,
        follow_redirects=False,
    )


class CentralClient:
    """`timeout` is in seconds, for connecting and for each wait for bytes. Closed by whoever made `http`."""

    def __init__(self, http: httpx2.AsyncClient, *, timeout: float = 5.0, credential: str = "") -> None:
        self._http = http
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {credential}"} if credential else {}

    async def healthy(self) -> bool:
        """Raises CentralUnavailable unless central itself says it is well."""
        answer = await self._send("GET", "/health", Health)
        return answer.status == "ok"

    async def generation(self) -> int:
        """Central's, as it is now."""
        answer = await self._send("GET", "/health", Health)
        return answer.generation

    async def open_session(self, request: SessionRequest) -> SessionGrant:
        return await self._send("POST", "/api/v1/sync/session", SessionGrant, body=request)

    async def register(self, registration: AgentRegistration) -> AgentCredential:
        return await self._send("POST", "/api/v1/agents/register", AgentCredential, body=registration)

    async def push(self, request: PushRequest) -> PushAnswer:
        return await self._send("POST", "/api/v1/sync/push", PushAnswer, body=request)

    async def changes(self, since: str, *, limit: int = 500, wait: float = 0) -> FeedPage:
        query = {"since": since, "limit": str(limit), "wait": f"{wait:g}", "beats": "true"}
        return await self._send("GET", "/api/v1/sync/changes", FeedPage, query=query, patience=wait)

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        return await self._send("POST", "/api/v1/agents/heartbeat", HeartbeatAnswer, body=heartbeat)

    @asynccontextmanager
    async def download(self, name: str, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of content `category/path` from `offset` on. Raises Invalid where central does not begin there."""
        headers = self._headers | ({"Range": f"bytes={offset}-"} if offset else {})
        path = f"/api/v1/content/{quote(name)}"
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=self._timeout) as response:
                if offset and not _begins_at(response, offset):
                    raise Invalid(f"it does not go on at byte {offset}.")
                if response.status_code not in (200, 206):
                    refusal = _json(await _bounded(response))
                    raise from_answer(response.status_code, refusal, _retry_after(response))
                yield response.aiter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            raise _unavailable(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        kind: type[Answer],
        *,
        body: BaseModel | None = None,
        query: dict[str, str] | None = None,
        patience: float = 0,
    ) -> Answer:
        content = None if body is None else body.model_dump_json(by_alias=True).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if content else {})
        timeout = httpx2.Timeout(self._timeout, read=self._timeout + patience)
        try:
            # A byte now and then keeps each wait short and the whole without end.
            async with asyncio.timeout(PATIENCE_FACTOR * self._timeout + patience):
                async with self._http.stream(
                    method, path, params=query, content=content, headers=headers, timeout=timeout
                ) as response:
                    answer = await _bounded(response)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            raise _unavailable(error) from error
        return _read(response, answer, kind)


def _begins_at(response: httpx2.Response, offset: int) -> bool:
    """False: it is there and sends something else (the whole file, or 416 for one that has become shorter)."""
    if response.status_code == 206:
        return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    return response.status_code not in (200, 416)


class Health(BaseModel):
    status: str
    generation: int = 1


async def _bounded(response: httpx2.Response) -> bytes:
    """The body, of a size that central's answers have: an endless one would take all the memory there is."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            raise CentralUnavailable(f"It answers with more than {LARGEST_ANSWER} bytes, which central does not.")
    return b"".join(parts)


def _read(response: httpx2.Response, answer: bytes, kind: type[Answer]) -> Answer:
    body = _json(answer)
    if response.status_code >= 300:
        error = from_answer(response.status_code, body, _retry_after(response))
        if not _is_ours(body):  # somebody on the way answered, not central
            raise CentralUnavailable(error.message)
        raise error
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise CentralUnavailable(
            f"It answered, but not as central: {error.error_count()} field(s) are wrong."
        ) from None


def _is_ours(body: object) -> bool:
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and {"code", "message"} <= error.keys()


def _json(answer: bytes) -> object:
    try:
        parsed: object = read_json(answer)
        return parsed
    except Malformed:
        return None


def _retry_after(response: httpx2.Response) -> float | None:
    """In seconds, at most an hour: whoever asks for more is asked again all the same."""
    text = response.headers.get("Retry-After", "")
    return min(3600.0, float(text[:9])) if text.isascii() and text.isdigit() else None


def _unavailable(error: Exception) -> CentralUnavailable:
    if isinstance(error, (httpx2.TimeoutException, TimeoutError)):
        return CentralUnavailable(f"Central did not answer in time ({type(error).__name__}).")
    cause = cause_of(error, CA_SETTING)
    why = f": {cause.words}" if cause else f" ({type(error).__name__})"
    return CentralUnavailable(f"Central could not be reached{why}.", hint=cause.hint if cause else None)
