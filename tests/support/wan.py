"""The network between a site and central, with a switch. Named for what it stands for; it fakes no part of ours."""

import asyncio
from typing import Literal

import httpx2

State = Literal["up", "down", "hangs"]


class Wan(httpx2.AsyncBaseTransport):
    """`down`: connections are refused, what central says to requests under way is lost. `hangs`: requests are taken,
    and nothing ever comes back; what waits longest is the client's own patience."""

    def __init__(self, far_end: httpx2.AsyncBaseTransport, state: State = "up") -> None:
        self._far_end = far_end
        self.state: State = state
        self.requests = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        if self._is_down():
            raise httpx2.ConnectError("the link is down", request=request)
        if self.state == "hangs":
            await asyncio.sleep(request.extensions["timeout"]["read"])
            raise httpx2.ReadTimeout("nothing came back", request=request)
        answer = await self._far_end.handle_async_request(request)
        if self._is_down():
            await answer.aclose()
            raise httpx2.ReadError("the link broke before the answer came", request=request)
        return answer

    def _is_down(self) -> bool:
        """By now: it is asked again after each wait."""
        return self.state == "down"
