"""The outbox: what this site accepted and central has not yet settled.

An item's `id` is its identity for ever; `seq` is its place in line. A lane is a node: what belongs to one lane leaves
in order, and only as a prefix of what waits there, so that a repeated or late request is a settled prefix again.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path

import uuid_utils.compat as uuid

from pureboot.agent import accounts, counting, replay
from pureboot.agent.bounds import Bounds, Usage
from pureboot.agent.clock import ON_ITS_WAY, Clock, SystemClock
from pureboot.agent.database import Database
from pureboot.agent.queue_items import (
    BATCH,
    CHANGES,
    DECISIONS,
    DUE,
    EDGES,
    HELD,
    INSERT,
    MOVE,
    REGISTRATIONS,
    REPORTED,
    THESE,
    UNKNOWN_MS,
    QueueItem,
    check,
    discard_of,
    id_list,
    item_of,
    lane_of,
    offer_of,
    place_of,
    read_place,
    reported_by,
    row_of,
    text_of,
)
from pureboot.agent.waiting import Waiters
from pureboot.core.errors import Clash, NotFound
from pureboot.core.reconcile import Resolution
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import Outcome, PushItem, PushResult

__all__ = ["UNKNOWN_MS", "QueueItem", "SyncQueue"]

# Of what a transaction knows: how full the outbox is by now, or fuller.
_USAGE = "usage"
# And when what it takes in was accepted.
_NOW = "now"


class SyncQueue:
    """`epoch` names this process' life. `on_its_way`: seconds after which a push is given up."""

    def __init__(
        self,
        db_path: Path | str | Database,
        *,
        clock: Clock | None = None,
        bounds: Bounds | None = None,
        on_its_way: float = ON_ITS_WAY,
    ) -> None:
        self.database = Database(db_path)
        self.clock = clock or SystemClock()
        self.bounds = bounds or Bounds()
        self._on_its_way = on_its_way
        self.epoch = str(uuid.uuid7())
        self._listeners: list[Callable[[], None]] = []
        self._discard_listeners: list[Callable[[Transaction, str], None]] = []
        self._waiters = Waiters()
        self._on_their_way: frozenset[str] = frozenset()
        self._told = False
        self._pending = 0
        self._failed = 0

    async def initialize(self) -> None:
        """Idempotent. Items that were on their way when the process ended wait again."""
        self._waiters.bind()
        await self.database.store.write(self._recover)

    def on_arrival(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def on_discard(self, listener: Callable[[Transaction, str], None]) -> None:
        """Called in the transaction that discards items, with each lane that lost one."""
        self._discard_listeners.append(listener)

    # The user's contract

    async def enqueue(self, item: QueueItem) -> str:
        return await self.database.store.write(lambda tx: self.append(tx, item))

    async def peek(self, limit: int = 10) -> list[QueueItem]:
        """The oldest items that wait, in order."""
        return await self._items("status != 'failed' ORDER BY seq LIMIT ?", limit)

    async def dequeue(self, queue_id: str) -> bool:
        """Takes an item out that central has settled. False: it is not in the queue (any more)."""
        result = PushResult(id=queue_id, outcome=Outcome.APPLIED)
        return await self.database.store.write(lambda tx: self.settle(tx, result))

    async def mark_failed(self, queue_id: str, error: str) -> None:
        await self.database.store.write(lambda tx: self.fail(tx, queue_id, error, refused=False))

    async def get_pending_count(self) -> int:
        return self._pending

    async def get_failed_items(self) -> list[QueueItem]:
        return await self._items("status = 'failed' ORDER BY seq")

    async def clear_failed(self, *, reason: str = "", person: str = "") -> int:
        """Discards the failed items; what they were stays readable in sync_sent. Where a `person` is named, central is
        told of each that it never settled."""

        def work(tx: Transaction) -> int:
            rows = tx.execute("SELECT * FROM sync_queue WHERE status = 'failed' ORDER BY seq").fetchall()
            for row in rows:
                self.give_up(tx, row["id"], reason, person)
            return len(rows)

        return await self.database.store.write(work)

    # For people

    async def requeue(self, queue_id: str) -> None:
        """A failed item goes out again, under its id and from its place in line. Raises NotFound, and Clash for one
        that central has refused: it would answer the same."""
        await self.database.store.write(lambda tx: self.again(tx, queue_id))

    async def discard(self, queue_id: str, reason: str, person: str) -> None:
        """Gives an item up for good; central is told by an item of its own. Raises NotFound, and Clash for one that is
        on its way: central may have it already."""
        await self.database.store.write(lambda tx: self.give_up(tx, queue_id, reason, person))

    async def page(self, limit: int, cursor: str = "") -> tuple[list[QueueItem], str | None]:
        """The failed items, then those that wait, each in order; and where the next page begins."""
        among_failed, after = read_place(cursor)
        items: list[QueueItem] = []
        if among_failed:
            items = await self._items("status = 'failed' AND seq > ? ORDER BY seq LIMIT ?", after, limit)
        if room := limit - len(items):
            begin = 0 if among_failed else after
            items += await self._items("status != 'failed' AND seq > ? ORDER BY seq LIMIT ?", begin, room)
        last = items[-1] if len(items) == limit else None
        return items, None if last is None else place_of(last)

    # For the agent: counts without waiting, and the steps of a transaction.

    @property
    def pending_count(self) -> int:
        return self._pending

    @property
    def failed_count(self) -> int:
        return self._failed

    def append(self, tx: Transaction, item: QueueItem, *, with_edge: bool = False) -> str:
        """The id of the item that carries it: its own, or in a crowded outbox that of the one it is counted in. Raises
        StorageFull, Invalid, and sqlite3.IntegrityError for an id that was queued before. `with_edge`: its edge
        follows."""
        if not (item.lane and item.epoch):
            item = item.model_copy(update={"lane": lane_of(item), "epoch": item.epoch or self.epoch})
        check(item)
        payload = text_of(item.payload)
        size = len(payload.encode())
        usage = tx.once(_USAGE, lambda: self.usage(tx))
        tx.once("disk", lambda: self.bounds.check_disk(self.database.path))
        self.bounds.check(item.item_type, item.payload, usage, size, with_edge=with_edge)
        tx.known[_USAGE] = usage.plus(size)
        if not self.bounds.counts_only(item.item_type, item.payload, usage):
            return self._insert(tx, item, payload)
        if counted_in := counting.add(tx, item):
            return counted_in
        return self._insert(tx, item, text_of(counting.first(item.payload)), counted=1)

    def usage(self, connection: sqlite3.Connection | Transaction) -> Usage:
        """Of what its bounds are about: all that waits, but for what came back from what was settled."""
        row = connection.execute("SELECT items, bytes FROM queue_usage WHERE what = 'queue'").fetchone()
        return Usage(row["items"], row["bytes"])

    def crowded(self) -> str:
        """What a person should know of the room that is left; empty while there is plenty."""
        return self.bounds.problem(self.database.path, self.database.store.read_now(self.usage))

    def take(self, tx: Transaction, limit: int, *, beyond: Collection[str] = ()) -> list[PushItem]:
        """The next items to offer. From now on they are on their way, until `came_back`, and so are those `beyond`
        which they are taken: they may go once central has settled all of those."""
        items = self.batch(tx, limit, beyond)
        offered = frozenset(item.id for item in items)
        self._on_their_way = offered.union(beyond)
        counting.close(tx, offered)
        return items

    def came_back(self) -> None:
        """Nothing is on its way any more: what was taken has come back, one way or the other, or was not sent."""
        self._on_their_way = frozenset()

    def previous(self, tx: Transaction, lane: str, *, known: bool = False) -> str | None:
        """The last unsettled item of the lane that moves or makes the node: what the next change is made on. `known`:
        central has told of the node, so what registered it without knowing that says nothing of where it is."""
        row = tx.execute(
            f"SELECT id FROM sync_queue WHERE lane = ? AND {CHANGES} AND refused = 0"
            " AND NOT (? AND item_type = 'registration' AND base_state_rev IS NULL) ORDER BY seq DESC LIMIT 1",
            [lane, known],
        ).fetchone()
        return None if row is None else str(row["id"])

    def decision(self, tx: Transaction, conflict_id: str) -> tuple[str, Resolution] | None:
        """The item by which a person here decided that conflict, while central has not confirmed it."""
        row = tx.execute(f"{DECISIONS} AND about = ?", [conflict_id]).fetchone()
        return (str(row["id"]), Resolution(row["resolution"])) if row else None

    def newest(self, tx: Transaction) -> int:
        """The place in line of what was accepted last."""
        return int(tx.execute("SELECT coalesce(max(seq), 0) FROM sync_queue").fetchone()[0])

    def has_registration(self, tx: Transaction, lane: str) -> bool:
        """Whether one waits here, be it for a person."""
        return tx.execute(f"{REGISTRATIONS} LIMIT 1", [lane]).fetchone() is not None

    def registration(self, tx: Transaction, lane: str) -> str | None:
        """The last one of which central has said nothing yet."""
        row = tx.execute(f"{REGISTRATIONS} AND refused = 0 ORDER BY seq DESC LIMIT 1", [lane]).fetchone()
        return None if row is None else str(row["id"])

    def reported(self, tx: Transaction, report_key: str) -> str | None:
        """The id of the item an earlier, equal report of the machine made."""
        for table in ("sync_queue", "sync_sent"):
            row = tx.execute(f"SELECT id FROM {table} WHERE report_key = ?", [report_key]).fetchone()
            if row is not None:
                return str(row["id"])
        return None

    def unsettled_edges(self, tx: Transaction, lanes: Collection[str]) -> dict[str, list[QueueItem]]:
        """Of each lane, in order. It may hold thousands of events, of which none moves its node."""
        edges: dict[str, list[QueueItem]] = {lane: [] for lane in lanes}
        for row in tx.execute(EDGES, [id_list(lanes)]):
            edges[row["lane"]].append(item_of(row))
        return edges

    def has_unsettled(self, tx: Transaction, lane: str) -> bool:
        row = tx.execute("SELECT 1 FROM sync_queue WHERE lane = ? AND refused = 0 LIMIT 1", [lane]).fetchone()
        return row is not None

    def outcome(self, connection: sqlite3.Connection, queue_id: str) -> Outcome | None:
        """How an item was settled; None while it waits."""
        row = connection.execute("SELECT outcome FROM sync_sent WHERE id = ?", [queue_id]).fetchone()
        if row is not None:
            return Outcome(row["outcome"]) if row["outcome"] in set(Outcome) else Outcome.REJECTED
        refused = connection.execute("SELECT 1 FROM sync_queue WHERE id = ? AND refused = 1", [queue_id]).fetchone()
        return Outcome.REJECTED if refused else None

    def batch(
        self, connection: sqlite3.Connection | Transaction, limit: int, beyond: Collection[str] = ()
    ) -> list[PushItem]:
        """The next items to offer: of each lane a prefix, once those `beyond` are settled; none of a lane that is
        stopped or waits."""
        now = self.clock.stamp()
        rows = connection.execute(BATCH, [now.boottime, id_list(beyond), limit]).fetchall()
        offers = (offer_of(row, now, self._on_its_way) for row in rows)
        return [offer for offer in offers if offer is not None]

    def settle(self, tx: Transaction, result: PushResult) -> bool:
        """Central has it; whether it was here. A rejected item stays to be seen, but stops nothing."""
        return self.settle_all(tx, [result]) > 0

    def settle_all(self, tx: Transaction, results: Iterable[PushResult]) -> int:
        """How many of them were here."""
        taken: dict[Outcome, dict[str, PushResult]] = {}
        refused = []
        for result in results:
            if result.effect is Outcome.REJECTED:
                refused.append(result)
            else:
                taken.setdefault(result.effect, {}).setdefault(result.id, result)
        found = sum(self._take_out(tx, outcome, by_id) for outcome, by_id in taken.items())
        return found + sum(
            self.fail(tx, result.id, result.reason or "rejected", refused=True, result=result) for result in refused
        )

    def _take_out(self, tx: Transaction, outcome: Outcome, results: dict[str, PushResult]) -> int:
        """As a set: a drain settles hundreds at once, and a statement costs more than a row."""
        rows = tx.execute(f"SELECT id, status, epoch, refused FROM sync_queue {THESE}", [id_list(results)]).fetchall()
        self._move(tx, results, outcome)
        for epoch, count in Counter(row["epoch"] for row in rows if not row["refused"]).items():
            accounts.settled(tx, epoch, by=count)
        failed = sum(row["status"] == "failed" for row in rows)
        tx.after_commit(lambda: self._count(pending=failed - len(rows), failed=-failed))
        self._tell(tx, [results[row["id"]] for row in rows])
        return len(rows)

    def fail(
        self, tx: Transaction, queue_id: str, error: str, *, refused: bool, result: PushResult | None = None
    ) -> bool:
        """`refused`: central settled it as rejected. Otherwise it never got through, and its lane stops here."""
        row = tx.execute("SELECT status, epoch, refused FROM sync_queue WHERE id = ?", [queue_id]).fetchone()
        if row is None:
            return False
        if refused and not row["refused"]:
            accounts.settled(tx, row["epoch"])
        tx.execute(
            "UPDATE sync_queue SET status = 'failed', attempts = attempts + 1, last_error = ?,"
            " refused = max(refused, ?)"
            " WHERE id = ?",
            [error, refused, queue_id],
        )
        if row["status"] != "failed":
            tx.after_commit(lambda: self._count(pending=-1, failed=1))
        if result is not None:
            self._tell(tx, [result])
        return True

    def postpone(self, tx: Transaction, queue_id: str, error: str, delay: float) -> None:
        tx.execute(
            "UPDATE sync_queue SET attempts = attempts + 1, last_error = ?, next_at = ? WHERE id = ?",
            [error, self.clock.stamp().boottime + delay, queue_id],
        )

    def again(self, tx: Transaction, queue_id: str) -> None:
        """`requeue`, within a transaction."""
        row = self._held(tx, queue_id)
        if row["refused"]:
            raise Clash(
                "Central has refused this item for good, and would answer the same again.",
                code="refused",
                hint="Discard it, and let the machine report anew.",
            )
        tx.execute("UPDATE sync_queue SET status = 'pending', attempts = 0, next_at = 0 WHERE id = ?", [queue_id])
        failed = row["status"] == "failed"
        tx.after_commit(lambda: self._count(pending=failed, failed=-failed))
        tx.after_commit(self._tell_listeners)

    def give_up(self, tx: Transaction, queue_id: str, reason: str, person: str) -> None:
        """`discard`, within a transaction."""
        row = self._held(tx, queue_id)
        if queue_id in self._on_their_way:
            raise Clash(
                "This item is on its way: central may have it already.",
                code="on_its_way",
                hint="Try again in a moment.",
            )
        # What central refused is settled there, and here only put away.
        self._move(tx, [queue_id], Outcome.REJECTED if row["refused"] else replay.DISCARDED)
        tx.execute(replay.RELINK_WAITING, dict(row))
        failed = row["status"] == "failed"
        tx.after_commit(lambda: self._count(pending=failed - 1, failed=-failed))
        if not row["refused"]:
            accounts.discarded(tx, row["epoch"])
            if person:
                self._record_discard(tx, row, reason, person)
        self._tell(tx, [PushResult(id=queue_id, outcome=Outcome.REJECTED, reason="discarded by a person")])
        for listener in self._discard_listeners:
            listener(tx, row["lane"])

    def rename_lane(self, tx: Transaction, old: str, new: str) -> None:
        """What the machine reported under the old name is found under the new one, when it says it again."""
        if old == new:
            return
        tx.execute("UPDATE sync_queue SET lane = ? WHERE lane = ?", [new, old])
        for table in ("sync_queue", "sync_sent"):
            rows = tx.execute(f"SELECT id, report_key FROM {table} {REPORTED}", reported_by(old)).fetchall()
            for row in rows:
                key = new + row["report_key"].removeprefix(old)
                # Both names may have said it. Two items never have one key: where central forgets them they come back
                # into one table, and the second would be left out.
                found = self.reported(tx, key)
                tx.execute(f"UPDATE {table} SET report_key = ? WHERE id = ?", [None if found else key, row["id"]])

    def forget_reports(self, tx: Transaction, lane: str) -> None:
        """A new install is a new story: `report_id`s are written into installers once and come again with each."""
        for table in ("sync_queue", "sync_sent"):
            tx.execute(f"UPDATE {table} SET report_key = NULL {REPORTED}", reported_by(lane))

    def forget_sent(self, tx: Transaction, before: datetime) -> int:
        """Settled items older than that, and the oldest of those beyond the bound."""
        gone = tx.execute("DELETE FROM sync_sent WHERE settled_at < ?", [before.isoformat()]).rowcount
        return gone + replay.trim(tx, self.bounds.sent_bytes)

    def bring_back(self, tx: Transaction) -> int:
        """What was settled waits again, before all that waits: central may have forgotten it."""
        back = replay.bring_back(tx)
        self._recount(tx)
        tx.after_commit(self._tell_listeners)
        return back

    async def settled(self, queue_id: str) -> PushResult:
        """Waits until central has settled the item; the caller bounds the wait."""
        with self._waiters.expecting(queue_id) as future:
            # It may have been settled between its commit and this call.
            if (outcome := self.database.store.read_now(lambda c: self.outcome(c, queue_id))) is not None:
                await self.database.store.write(lambda tx: None)  # the views follow their commit by a moment
                return PushResult(id=queue_id, outcome=outcome)
            return await future

    def is_held(self, connection: sqlite3.Connection, lane: str) -> bool:
        """Whether something before it keeps the lane from moving."""
        row = connection.execute(HELD + " AND lane = ? LIMIT 1", [self.clock.stamp().boottime, lane]).fetchone()
        return row is not None

    def next_due(self, connection: sqlite3.Connection) -> float | None:
        """Seconds until the first postponed item may go; None if none is postponed."""
        row = connection.execute(DUE).fetchone()
        return None if row["due"] is None else max(0.0, row["due"] - self.clock.stamp().boottime)

    def _recover(self, tx: Transaction) -> None:
        # next_at counts on the boot-time clock of one boot of the host; after a restart everything may go at once.
        tx.execute("UPDATE sync_queue SET status = iif(status = 'failed', 'failed', 'pending'), next_at = 0")
        self._recount(tx)

    def _recount(self, tx: Transaction) -> None:
        failed, count = tx.execute(
            "SELECT count(*) FILTER (WHERE status = 'failed'), count(*) FROM sync_queue"
        ).fetchone()
        tx.after_commit(lambda: self._count(count - failed - self._pending, failed - self._failed))

    def _insert(self, tx: Transaction, item: QueueItem, payload: str, counted: int = 0, replayed: int = 0) -> str:
        accepted = tx.once(_NOW, lambda: self.clock.stamp().dump())
        tx.insert(INSERT, row_of(item, payload, accepted, counted, replayed))
        tx.after_commit(self._arrived)
        return item.id

    def _move(self, tx: Transaction, queue_ids: Iterable[str], outcome: str) -> None:
        ids = id_list(queue_ids)
        tx.known.pop(_USAGE, None)
        tx.execute(MOVE, [outcome, self.clock.stamp().when.isoformat(), ids])
        tx.execute(f"DELETE FROM sync_queue {THESE}", [ids])

    def _held(self, tx: Transaction, queue_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = tx.execute("SELECT * FROM sync_queue WHERE id = ?", [queue_id]).fetchone()
        if row is None:
            raise NotFound("There is no such item in the queue.", hint="Central may have settled it meanwhile.")
        return row

    def _record_discard(self, tx: Transaction, row: sqlite3.Row, reason: str, person: str) -> None:
        item = discard_of(row, reason, person, self.epoch)
        # It takes the place of what it gives up, so that even a full outbox can be cleared.
        self._insert(tx, item, text_of(item.payload), replayed=row["replayed"])

    def _count(self, pending: int = 0, failed: int = 0) -> None:
        self._pending += pending
        self._failed += failed

    def _arrived(self) -> None:
        self._count(pending=1)
        self._tell_listeners()

    def _tell_listeners(self) -> None:
        """Once for all that is committed before they have heard of it."""
        if not self._told:
            self._told = True  # before the call: the event loop may be quicker than this thread
            if not self._waiters.call(self._call_listeners):
                self._told = False

    def _call_listeners(self) -> None:
        self._told = False
        for listener in self._listeners:
            listener()

    def _tell(self, tx: Transaction, results: Sequence[PushResult]) -> None:
        def tell() -> None:
            for result in results:
                self._waiters.settled(result)

        # Behind every other hook, those of statements still to come too: who is woken finds all views up to date.
        tx.after_commit(lambda: tx.after_commit(tell))

    async def _items(self, where: str, *parameters: object) -> list[QueueItem]:
        def work(connection: sqlite3.Connection) -> list[QueueItem]:
            rows: Iterable[sqlite3.Row] = connection.execute(f"SELECT * FROM sync_queue WHERE {where}", parameters)
            return [item_of(row) for row in rows]

        return await self.database.store.read(work)
