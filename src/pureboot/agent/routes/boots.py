"""The last boots, for people and their commands."""

import asyncio
import math
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.agent.boots import BootLog
from pureboot.agent.people import People
from pureboot.agent.routes.bodies import read_limit
from pureboot.core.errors import Malformed

# Seconds that an answer may be held back for the next boot: whoever follows asks again.
LONGEST_WAIT = 25.0


class BootDesk:
    def __init__(self, people: People, boots: BootLog) -> None:
        self._people, self._boots = people, boots

    def routes(self) -> list[Route]:
        return [Route("/api/v1/agent/boots", self.list, methods=["GET"])]

    async def list(self, request: Request) -> Response:
        """The oldest first. `after`: the `last` of the answer before; `wait`: seconds to wait where nothing came
        since."""
        self._people.admit(request)
        after, wait = int(_number(request, "after")), min(_number(request, "wait"), LONGEST_WAIT)
        limit = read_limit(request)
        with self._boots.waiting() as news:
            if wait and not self._boots.after(after, 1):
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), wait)
        items = [boot.model_dump(mode="json") for boot in self._boots.after(after, limit)]
        return JSONResponse({"items": items, "next_cursor": None, "last": self._boots.seq})


def _number(request: Request, name: str) -> float:
    """Raises Malformed."""
    try:
        number = float(request.query_params.get(name, "0"))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1e15:
        raise Malformed(f"{name!r} is no number of this listing.")
    return number
