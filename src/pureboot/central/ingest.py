"""A push from its arrival to its answer: one transaction, and where that fails, the bad item alone waits."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby

from sqlalchemy import Connection

from pureboot.central import push, sessions
from pureboot.central.accounts import Agent
from pureboot.central.clock import Clock
from pureboot.central.db import Database
from pureboot.core.errors import Fenced, PureBootError
from pureboot.wire.messages import Outcome, PushAnswer, PushItem, PushRequest, PushResult

log = logging.getLogger(__name__)


class Ingest:
    """`lease`: how long each push prolongs its session.

    Pushes take no more than half of the database's writers, and one of one: a herd of sites may wait for a while, but a
    person or a session that writes one row has no row of batches before it.
    """

    def __init__(self, db: Database, clock: Clock, lease: timedelta) -> None:
        self.db, self.clock, self.lease = db, clock, lease
        self._turns = asyncio.Semaphore(max(1, db.writers // 2))

    async def push(self, agent: Agent, request: PushRequest) -> PushAnswer:
        """Results in the order of the items. Trouble that is nobody's item (a full disk) is raised: it counts against
        none of them."""
        try:
            answer = await self._settle(agent, request)
        except Fenced:
            log.warning("a second copy of an agent tries to write: site=%s epoch=%s", agent.site_id, request.epoch)
            now = self.clock.now()
            await self.db.write(lambda conn: sessions.alarm_of_push(conn, agent, request.epoch, now))
            raise
        return answer.model_copy(update={"results": _in_order(request.items, answer.results)})

    async def _settle(self, agent: Agent, request: PushRequest) -> PushAnswer:
        try:
            return await self._commit(agent, request)
        except PureBootError:
            raise
        except Exception as error:  # whatever an item made it stumble over, the other items go on
            log.exception("a push was rolled back: site=%s items=%d", agent.site_id, len(request.items))
            return await self._by_parts(agent, request, error)

    async def _by_parts(self, agent: Agent, request: PushRequest, error: Exception) -> PushAnswer:
        """Lane by lane; in a lane item by item, up to the first that cannot be settled: what follows it waits."""
        items, generation = request.items, request.generation
        lanes = _lanes(items)
        if len(lanes) > 1:
            return _united([await self._settle(agent, _only(request, lane)) for lane in lanes], generation)
        if len(items) == 1:
            log.error("an item is put off: item=%s lane=%s: %s", items[0].id, items[0].lane, error)
            return _put_off(items, "error: central stumbled over this item; its log says more.", generation)
        parts: list[PushAnswer] = []
        for done, item in enumerate(items, start=1):
            parts.append(await self._settle(agent, _only(request, [item])))
            if parts[-1].results[0].outcome is Outcome.RETRY_LATER:
                parts.append(_put_off(items[done:], f"blocked: waits for {item.id} of its lane.", generation))
                break
        return _united(parts, generation)

    async def _commit(self, agent: Agent, request: PushRequest) -> PushAnswer:
        now = self.clock.now()

        def work(conn: Connection) -> PushAnswer:
            return push.settle(conn, agent, request, now, self.lease)

        async with self._turns:
            return await self.db.write(work)


def _only(request: PushRequest, items: Sequence[PushItem]) -> PushRequest:
    return request.model_copy(update={"items": items})


def _lanes(items: Sequence[PushItem]) -> list[list[PushItem]]:
    # sorted keeps the order inside a lane
    return [list(lane) for _, lane in groupby(sorted(items, key=lambda item: item.lane), lambda item: item.lane)]


def _in_order(items: Sequence[PushItem], results: Sequence[PushResult]) -> list[PushResult]:
    """An id may stand twice in one push; then its first result was the first to be made."""
    by_id: defaultdict[str, deque[PushResult]] = defaultdict(deque)
    for result in results:
        by_id[result.id].append(result)
    return [by_id[item.id].popleft() for item in items]


def _put_off(items: Sequence[PushItem], reason: str, generation: int) -> PushAnswer:
    results = [PushResult(id=item.id, outcome=Outcome.RETRY_LATER, reason=reason) for item in items]
    return PushAnswer(generation=generation, results=results)


def _united(parts: Sequence[PushAnswer], generation: int) -> PushAnswer:
    """Of a node or a conflict that several parts touched, the last word counts."""
    return PushAnswer(
        generation=generation,
        results=[result for part in parts for result in part.results],
        nodes=list({node.id: node for part in parts for node in part.nodes}.values()),
        conflicts=list({conflict.id: conflict for part in parts for conflict in part.conflicts}.values()),
    )
