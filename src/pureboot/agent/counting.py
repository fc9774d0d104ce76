"""Progress in a crowded outbox: one item a lane that counts, for as long as nothing else follows it there.

A counted item changes only until it is offered for the first time: under one id central accepts one payload.
"""

from collections.abc import Iterable
from typing import Any

from pureboot.agent.queue_items import QueueItem, digest, payload_of, text_of
from pureboot.storage.sqlite import Transaction


def first(payload: dict[str, Any]) -> dict[str, Any]:
    return _with(payload, {str(payload["event"]): 1})


def add(tx: Transaction, item: QueueItem) -> str | None:
    """The id of the lane's last item, where it counts and this one is in it now. It says what was said last, and how
    often each was said."""
    row = tx.execute(_OPEN, [item.lane, item.lane]).fetchone()
    if row is None or (counts := payload_of(row).get("metadata")) is None:  # it rotted: what follows counts anew
        return None
    said = dict(counts["counted"])
    name = str(item.payload["event"])
    said[name] = said.get(name, 0) + 1
    payload = text_of(_with(item.payload, said))
    tx.execute(
        "UPDATE sync_queue SET payload = ?, payload_hash = ?, counted = counted + 1 WHERE id = ?",
        [payload, digest(payload), row["id"]],
    )
    return str(row["id"])


def close(tx: Transaction, offered: Iterable[str]) -> None:
    """What is offered counts no more."""
    counting = {row["id"] for row in tx.execute("SELECT id FROM sync_queue WHERE counted > 0")}
    for queue_id in counting.intersection(offered):
        tx.execute("UPDATE sync_queue SET counted = -counted WHERE id = ?", [queue_id])


def _with(payload: dict[str, Any], counted: dict[str, int]) -> dict[str, Any]:
    return payload | {"metadata": payload.get("metadata", {}) | {"counted": counted}}


_OPEN = """
SELECT id, payload, payload_hash FROM sync_queue
WHERE lane = ? AND counted > 0 AND seq = (SELECT max(seq) FROM sync_queue WHERE lane = ?)
"""
