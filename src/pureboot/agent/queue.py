"""The outbox: what this site accepted and central has not yet settled.

An item's `id` is its identity for ever; `seq` is its place in line. A lane is a node: what belongs to one lane leaves
in order, and only as a prefix of what waits there, so that a repeated or late request is a settled prefix again.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import uuid_utils.compat as uuid
from pydantic import BaseModel

from pureboot.agent.clock import Clock, Stamp, SystemClock, age_of
from pureboot.agent.database import Database
from pureboot.core.lifecycle import Autonomy
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import Base, Outcome, PushItem, PushResult

# An age nobody can tell: a year, so that it never wins against a change whose age is known.
UNKNOWN_MS = 365 * 24 * 3600 * 1000


class QueueItem(BaseModel):
    """The first seven fields are the user's contract. `lane` is the node; left empty, it is read from the payload.

    `after` names the item whose result this one was made on; where it is None, `base_…` says which of central's
    revisions it was made on.
    """

    id: str
    item_type: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int = 0
    last_error: str | None = None
    status: str = "pending"

    seq: int = 0
    lane: str = ""
    after: str | None = None
    base_generation: int | None = None
    base_state_rev: int | None = None
    conflict_id: str | None = None
    epoch: str = ""
    autonomy: Autonomy = Autonomy.LIMITED
    report_key: str | None = None


class SyncQueue:
    """`epoch` names this process' life; `wake` is called (in the event loop) whenever something was queued."""

    def __init__(self, db_path: Path | str | Database, *, clock: Clock | None = None) -> None:
        self.database = Database(db_path)
        self.clock = clock or SystemClock()
        self.epoch = str(uuid.uuid7())
        self._listeners: list[Callable[[], None]] = []
        self._discard_listeners: list[Callable[[Transaction, str], None]] = []
        self._waiting: dict[str, list[asyncio.Future[PushResult]]] = {}
        self._pending = 0
        self._failed = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def initialize(self) -> None:
        """Idempotent. Items that were on their way when the process ended wait again."""
        self._loop = asyncio.get_running_loop()
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

    async def clear_failed(self) -> int:
        """Discards the failed items; what they were stays readable in sync_sent, as discarded."""

        def work(tx: Transaction) -> int:
            lanes = tx.execute("SELECT DISTINCT lane FROM sync_queue WHERE status = 'failed'").fetchall()
            tx.execute(
                _MOVE + "SELECT " + _MOVED + " 'discarded', ? FROM sync_queue WHERE status = 'failed'", [_text()]
            )
            gone = tx.execute("DELETE FROM sync_queue WHERE status = 'failed'").rowcount
            tx.after_commit(lambda: self._count(failed=-gone))
            for lane, listener in product(lanes, self._discard_listeners):
                listener(tx, lane["lane"])
            return gone

        return await self.database.store.write(work)

    # For the agent: counts without waiting, and the steps of a transaction.

    @property
    def pending_count(self) -> int:
        return self._pending

    @property
    def failed_count(self) -> int:
        return self._failed

    def append(self, tx: Transaction, item: QueueItem) -> str:
        """Raises sqlite3.IntegrityError for an id that was queued before."""
        tx.execute(_INSERT, self._row(item))
        tx.after_commit(self._arrived)
        return item.id

    def previous(self, tx: Transaction, lane: str) -> str | None:
        """The last unsettled item of the lane that moves or makes the node: what the next change is made on."""
        row = tx.execute(
            "SELECT id FROM sync_queue WHERE lane = ? AND item_type != 'event' AND refused = 0"
            " ORDER BY seq DESC LIMIT 1",
            [lane],
        ).fetchone()
        return None if row is None else str(row["id"])

    def reported(self, tx: Transaction, report_key: str) -> str | None:
        """The id of the item an earlier, equal report of the machine made."""
        for table in ("sync_queue", "sync_sent"):
            row = tx.execute(f"SELECT id FROM {table} WHERE report_key = ?", [report_key]).fetchone()
            if row is not None:
                return str(row["id"])
        return None

    def unsettled(self, tx: Transaction, lane: str) -> list[QueueItem]:
        rows = tx.execute("SELECT * FROM sync_queue WHERE lane = ? AND refused = 0 ORDER BY seq", [lane])
        return [_item(row) for row in rows]

    def outcome(self, connection: sqlite3.Connection, queue_id: str) -> Outcome | None:
        """How an item was settled; None while it waits."""
        row = connection.execute("SELECT outcome FROM sync_sent WHERE id = ?", [queue_id]).fetchone()
        if row is not None:
            return Outcome(row["outcome"]) if row["outcome"] in set(Outcome) else Outcome.REJECTED
        refused = connection.execute("SELECT 1 FROM sync_queue WHERE id = ? AND refused = 1", [queue_id]).fetchone()
        return Outcome.REJECTED if refused else None

    def batch(self, connection: sqlite3.Connection, limit: int) -> list[PushItem]:
        """The next items to offer: of each lane a prefix, none of a lane that is stopped or waits."""
        now = self.clock.stamp()
        rows = connection.execute(_BATCH, [now.boottime, limit]).fetchall()
        return [_push_item(_item(row), Stamp.load(row["accepted"]), now) for row in rows]

    def settle(self, tx: Transaction, result: PushResult) -> bool:
        """Central has it. A rejected item stays to be seen, but stops nothing."""
        if result.effect is Outcome.REJECTED:
            return self.fail(tx, result.id, result.reason or "rejected", refused=True, result=result)
        tx.execute(
            _MOVE + "SELECT " + _MOVED + " ?, ? FROM sync_queue WHERE id = ?", [result.effect, _text(), result.id]
        )
        row = tx.execute("DELETE FROM sync_queue WHERE id = ? RETURNING status", [result.id]).fetchone()
        if row is None:
            return False
        failed = row["status"] == "failed"
        tx.after_commit(lambda: self._count(pending=failed - 1, failed=-failed))
        self._tell(tx, result)
        return True

    def fail(
        self, tx: Transaction, queue_id: str, error: str, *, refused: bool, result: PushResult | None = None
    ) -> bool:
        """`refused`: central settled it as rejected. Otherwise it never got through, and its lane stops here."""
        row = tx.execute("SELECT status FROM sync_queue WHERE id = ?", [queue_id]).fetchone()
        if row is None:
            return False
        tx.execute(
            "UPDATE sync_queue SET status = 'failed', attempts = attempts + 1, last_error = ?, refused = ?"
            " WHERE id = ?",
            [error, refused, queue_id],
        )
        if row["status"] != "failed":
            tx.after_commit(lambda: self._count(pending=-1, failed=1))
        if result is not None:
            self._tell(tx, result)
        return True

    def postpone(self, tx: Transaction, queue_id: str, error: str, delay: float) -> None:
        tx.execute(
            "UPDATE sync_queue SET attempts = attempts + 1, last_error = ?, next_at = ? WHERE id = ?",
            [error, self.clock.stamp().boottime + delay, queue_id],
        )

    def rename_lane(self, tx: Transaction, old: str, new: str) -> None:
        tx.execute("UPDATE sync_queue SET lane = ? WHERE lane = ?", [new, old])

    def forget_sent(self, tx: Transaction, before: datetime) -> int:
        return tx.execute("DELETE FROM sync_sent WHERE settled_at < ?", [before.isoformat()]).rowcount

    async def settled(self, queue_id: str) -> PushResult:
        """Waits until central has settled the item; the caller bounds the wait."""
        future: asyncio.Future[PushResult] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(queue_id, []).append(future)
        try:
            # It may have been settled between its commit and this call.
            if (outcome := self.database.store.read_now(lambda c: self.outcome(c, queue_id))) is not None:
                await self.database.store.write(lambda tx: None)  # the views follow their commit by a moment
                return PushResult(id=queue_id, outcome=outcome)
            return await future
        finally:
            waiting = self._waiting.get(queue_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(queue_id, None)

    def is_held(self, connection: sqlite3.Connection, lane: str) -> bool:
        """Whether something before it keeps the lane from moving."""
        row = connection.execute(_HELD + " AND lane = ? LIMIT 1", [self.clock.stamp().boottime, lane]).fetchone()
        return row is not None

    def next_due(self, connection: sqlite3.Connection) -> float | None:
        """Seconds until the first postponed item may go; None if none is postponed."""
        row = connection.execute(
            "SELECT min(next_at) AS due FROM sync_queue WHERE status = 'pending' AND next_at > 0"
        ).fetchone()
        return None if row["due"] is None else max(0.0, row["due"] - self.clock.stamp().boottime)

    def _recover(self, tx: Transaction) -> None:
        # next_at counts on the boot-time clock of one boot of the host; after a restart everything may go at once.
        tx.execute("UPDATE sync_queue SET status = iif(status = 'failed', 'failed', 'pending'), next_at = 0")
        failed, count = tx.execute(
            "SELECT count(*) FILTER (WHERE status = 'failed'), count(*) FROM sync_queue"
        ).fetchone()
        tx.after_commit(lambda: self._count(count - failed - self._pending, failed - self._failed))

    def _row(self, item: QueueItem) -> list[object]:
        return [
            *(item.id, item.lane or _lane(item), item.item_type, json.dumps(item.payload)),
            *(item.base_generation, item.base_state_rev, item.after, item.conflict_id),
            *(item.epoch or self.epoch, item.autonomy, item.created_at.isoformat(), self.clock.stamp().dump()),
            *(item.report_key, item.attempts, item.last_error),
        ]

    def _count(self, pending: int = 0, failed: int = 0) -> None:
        self._pending += pending
        self._failed += failed

    def _arrived(self) -> None:
        self._count(pending=1)
        self._in_loop(self._call_listeners)

    def _call_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def _tell(self, tx: Transaction, result: PushResult) -> None:
        # Behind every other hook, those of statements still to come too: who is woken finds all views up to date.
        tx.after_commit(lambda: tx.after_commit(lambda: self._settled(result)))

    def _settled(self, result: PushResult) -> None:
        if result.id in self._waiting:
            self._in_loop(lambda: self._release(result))

    def _release(self, result: PushResult) -> None:
        for future in self._waiting.get(result.id, []):
            if not future.done():
                future.set_result(result)

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(call)

    async def _items(self, where: str, *parameters: object) -> list[QueueItem]:
        def work(connection: sqlite3.Connection) -> list[QueueItem]:
            rows: Iterable[sqlite3.Row] = connection.execute(f"SELECT * FROM sync_queue WHERE {where}", parameters)
            return [_item(row) for row in rows]

        return await self.database.store.read(work)


_INSERT = """
INSERT INTO sync_queue (id, lane, item_type, payload, base_generation, base_state_rev, after, conflict_id,
                        epoch, autonomy, created_at, accepted, report_key, attempts, last_error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_MOVED = "seq, id, lane, item_type, payload, epoch, report_key,"
_MOVE = f"INSERT OR REPLACE INTO sync_sent ({_MOVED} outcome, settled_at) "
# A lane is stopped by an item that never got through, and waits behind one that is postponed.
_HELD = """
SELECT lane FROM sync_queue
WHERE (status = 'failed' OR next_at > 0) AND refused = 0 AND (status = 'failed' OR next_at > ?)
"""
_BATCH = f"SELECT * FROM sync_queue WHERE status != 'failed' AND lane NOT IN ({_HELD}) ORDER BY seq LIMIT ?"


def _item(row: sqlite3.Row) -> QueueItem:
    fields = {name: row[name] for name in QueueItem.model_fields if name != "payload"}
    return QueueItem(payload=_payload(row["payload"]), **fields)


def _payload(text: str) -> dict[str, Any]:
    """What cannot be read any more goes to central as such, which rejects it: it is seen, and stops nothing."""
    try:
        payload = json.loads(text)
    except ValueError:
        payload = None
    return payload if isinstance(payload, dict) else {"unreadable": text[:1000]}


def _lane(item: QueueItem) -> str:
    named = (item.payload.get(name) for name in ("node_id", "mac_address", "mac"))
    return next((str(name) for name in named if name), item.id)


def _push_item(item: QueueItem, accepted: Stamp | None, now: Stamp) -> PushItem:
    age = age_of(accepted or now, now)
    base = None
    if item.base_generation is not None:
        base = Base(generation=item.base_generation, state_rev=item.base_state_rev)
    return PushItem(
        id=item.id,
        epoch=item.epoch,
        seq=item.seq,
        lane=item.lane,
        item_type=item.item_type,
        autonomy=item.autonomy,
        age_ms=int(age.seconds * 1000),
        u_ms=min(UNKNOWN_MS, int(min(age.uncertainty, 1e9) * 1000)),
        after=item.after,
        conflict_id=item.conflict_id,
        base=base,
        body=item.payload,
    )


def _text() -> str:
    return datetime.now(UTC).isoformat()
