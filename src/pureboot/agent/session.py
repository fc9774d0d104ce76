"""The right to write: one process at a time pushes for an agent, however often its file was copied (PROTOCOL 7).

Ids already make a copy harmless to the data. The fence keeps two copies from speaking in turns, and shows that there
are two.
"""

import logging

from pureboot.agent import accounts
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue import SyncQueue
from pureboot.core.errors import Clash, Fenced, NotFound
from pureboot.wire.messages import SessionRequest

log = logging.getLogger(__name__)

# Central says how long its lease is; until it has, this.
LEASE = 90.0
REFUSED = "Another copy of this agent is writing; this one serves and keeps everything until it may write again."


class Session:
    """`fence` is shown with each push; None where this central knows no sessions. `spread` is in seconds."""

    def __init__(self, proxy: CentralProxy, queue: SyncQueue) -> None:
        self._proxy, self._queue = proxy, queue
        self._lease = LEASE
        self._renew_at = 0.0
        self._refused_until = 0.0
        self.fence: int | None = None
        self.spread = 0.0
        self.problem = ""

    async def ready(self) -> None:
        """A lease that holds for the next push, be it long until there is one. Raises Fenced, and what else central
        answers."""
        now = self._now()
        if now < self._refused_until:
            raise Fenced(REFUSED)
        if now >= self._renew_at:
            await self._ask()

    def prolonged(self) -> None:
        """Central took a push: the lease runs anew."""
        self._renew_at = self._now() + self._lease / 2
        self.problem = ""

    def doubt(self) -> None:
        """Central is asked anew before the next push."""
        self._renew_at = 0.0

    def refused(self) -> None:
        """Another copy holds the lease; it is asked for again when that may have run out."""
        if self.retry_in:
            return
        if not self.problem:
            log.error("central refuses the pushes of this agent: another copy of it is writing")
        self.problem = REFUSED
        self.fence = None
        self._renew_at = 0.0
        self._refused_until = self._now() + self._lease

    @property
    def renew_in(self) -> float:
        """Seconds until central is to be asked anew, with or without something to push."""
        return max(0.0, self._renew_at - self._now())

    @property
    def retry_in(self) -> float:
        return max(0.0, self._refused_until - self._now())

    async def _ask(self) -> None:
        epoch = self._queue.epoch
        before = await self._queue.database.store.write(lambda tx: accounts.begin(tx, epoch))
        request = SessionRequest(agent_id=self._proxy.agent_id, epoch=epoch, previous_epochs=before)
        try:
            grant = await self._proxy.open_session(request)
        except NotFound:  # a central of before there were sessions
            self.fence = None
            self.prolonged()
            return
        except Clash as error:
            if error.code == Fenced.code:
                raise Fenced(REFUSED) from None
            raise
        self.fence, self._lease, self.spread = grant.fence, float(grant.lease_seconds), grant.spread_ms / 1000
        self.prolonged()

    def _now(self) -> float:
        return self._queue.clock.stamp().boottime
