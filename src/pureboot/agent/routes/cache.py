"""The content on this site's disk, for people: what is there, and what they may do about it."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.content_index import category_of
from pureboot.agent.people import People
from pureboot.agent.verification import Verifier
from pureboot.agent.wants import Wants
from pureboot.core.errors import NotFound


class CacheDesk:
    """`fetch` begins to fetch what the site wants and does not hold."""

    def __init__(
        self, people: People, cache: ContentCache, wants: Wants, verifier: Verifier, *, fetch: Callable[[], None]
    ) -> None:
        self._people, self._cache, self._wants, self._verifier = people, cache, wants, verifier
        self._fetch = fetch

    def routes(self) -> list[Route]:
        return [
            Route("/api/v1/agent/cache", self.list, methods=["GET"]),
            Route("/api/v1/agent/cache", self.clear, methods=["DELETE"]),
            Route("/api/v1/agent/cache/evict", self.evict, methods=["POST"]),
            Route("/api/v1/agent/cache/verify", self.verify, methods=["POST"]),
            Route("/api/v1/agent/cache/{name:path}", self.remove, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        """Least recently used first."""
        self._people.admit(request)
        wanted, pressing = set(self._wants.ahead()), set(self._wants.pressing())
        items = [
            {
                "name": file.name,
                "digest": file.digest,
                "size": file.size,
                "wanted": "pressing" if file.name in pressing else "ahead" if file.name in wanted else "no",
            }
            for file in self._cache.files()
        ]
        return JSONResponse({"items": items, "next_cursor": None})

    async def remove(self, request: Request) -> Response:
        """One file, whoever needs it; what the policy asks for is fetched again."""
        self._people.admit(request)
        name = request.path_params["name"]
        category_of(name)
        if not await self._cache.evict(name):
            raise NotFound(f"{name} is not in the cache.", hint="`pureboot agent cache` lists what is.")
        self._fetch()
        return Response(status_code=204)

    async def evict(self, request: Request) -> Response:
        """All that the site's policy does not ask for."""
        self._people.admit(request)
        return await self._without(frozenset(self._wants.ahead()))

    async def clear(self, request: Request) -> Response:
        """All but what boot ROMs and approved installs need; what the policy asks for is fetched again."""
        self._people.admit(request)
        answer = await self._without(frozenset(self._wants.pressing()))
        self._fetch()
        return answer

    async def verify(self, request: Request) -> Response:
        """A round begins; it takes its time, and what it finds shows in the agent's health."""
        self._people.admit(request)
        return JSONResponse({"files": self._verifier.request()}, 202)

    async def _without(self, keep: frozenset[str]) -> Response:
        before = self._cache.usage
        gone = await self._cache.clear(keep=keep)
        return JSONResponse({"evicted": list(gone), "freed": before - self._cache.usage})
