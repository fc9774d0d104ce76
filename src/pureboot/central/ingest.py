"""A push from its arrival to its answer: one transaction, and where that fails, the bad item alone waits."""

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Connection

from pureboot.central import push
from pureboot.central.accounts import Agent
from pureboot.central.clock import Clock
from pureboot.central.db import Database
from pureboot.core.errors import PureBootError
from pureboot.wire.messages import Outcome, PushAnswer, PushItem, PushResult

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingest:
    db: Database
    clock: Clock

    async def push(self, agent: Agent, items: Sequence[PushItem], generation: int) -> PushAnswer:
        """Results in the order of `items`. Trouble that is nobody's item (a full disk) is raised: it counts against
        none of them."""
        answer = await self._settle(agent, items, generation)
        return answer.model_copy(update={"results": _in_order(items, answer.results)})

    async def _settle(self, agent: Agent, items: Sequence[PushItem], generation: int) -> PushAnswer:
        try:
            return await self._commit(agent, items, generation)
        except PureBootError:
            raise
        except Exception as error:  # whatever an item made it stumble over, the other items go on
            log.exception("a push was rolled back: site=%s items=%d", agent.site_id, len(items))
            return await self._by_parts(agent, items, generation, error)

    async def _by_parts(self, agent: Agent, items: Sequence[PushItem], generation: int, error: Exception) -> PushAnswer:
        """Lane by lane; in a lane item by item, up to the first that cannot be settled: what follows it waits."""
        lanes = _lanes(items)
        if len(lanes) > 1:
            return _united([await self._settle(agent, lane, generation) for lane in lanes], generation)
        if len(items) == 1:
            log.error("an item is put off: item=%s lane=%s: %s", items[0].id, items[0].lane, error)
            return _put_off(items, "error: central stumbled over this item; its log says more.", generation)
        parts: list[PushAnswer] = []
        for done, item in enumerate(items, start=1):
            parts.append(await self._settle(agent, [item], generation))
            if parts[-1].results[0].outcome is Outcome.RETRY_LATER:
                parts.append(_put_off(items[done:], f"blocked: waits for {item.id} of its lane.", generation))
                break
        return _united(parts, generation)

    async def _commit(self, agent: Agent, items: Sequence[PushItem], generation: int) -> PushAnswer:
        now = self.clock.now()

        def work(conn: Connection) -> PushAnswer:
            return push.settle(conn, agent, items, generation, now)

        return await self.db.write(work)


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
