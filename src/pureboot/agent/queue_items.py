"""One item of the outbox: as the agent keeps it, as it lies in the file, and as it goes to central."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import uuid_utils.compat as uuid
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from pureboot.agent import replay
from pureboot.agent.clock import Age, Stamp, age_of
from pureboot.core.errors import Invalid, Malformed
from pureboot.core.lifecycle import Autonomy, Edge
from pureboot.core.node import printable
from pureboot.wire.beats import ID_LENGTH
from pureboot.wire.messages import MESSAGE_LENGTH, Base, DiscardBody, PushItem, StateUpdateBody

# An age nobody can tell: a year, so that it never wins against a change whose age is known.
UNKNOWN_MS = 365 * 24 * 3600 * 1000
UNKNOWN = Age(0.0, float("inf"))


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


INSERT = """
INSERT INTO sync_queue (id, lane, item_type, payload, payload_hash, base_generation, base_state_rev, after, conflict_id,
                        epoch, autonomy, created_at, accepted, report_key, attempts, last_error, counted, replayed)
VALUES"""
# The items of an `id_list`.
THESE = "WHERE id IN (SELECT value FROM json_each(?))"
MOVE = f"""
INSERT OR IGNORE INTO sync_sent ({replay.COLUMNS}, outcome, settled_at)
SELECT {replay.COLUMNS}, ?, ? FROM sync_queue {THESE}
"""
# What moves or makes a node; as the index `sync_queue_changes` has it.
CHANGES = "item_type NOT IN ('event', 'discard', 'settlement')"
REGISTRATIONS = f"SELECT id FROM sync_queue WHERE lane = ? AND {CHANGES} AND item_type = 'registration'"
# Decisions that central has not confirmed. A payload that rotted is none, and is rejected when it comes to central.
DECISIONS = """
SELECT id, payload ->> '$.conflict_id' AS about, payload ->> '$.resolution' AS resolution FROM sync_queue
WHERE item_type = 'settlement' AND refused = 0 AND CASE WHEN json_valid(payload) THEN 1 END
"""
EDGES = f"""
SELECT * FROM sync_queue
WHERE lane IN (SELECT value FROM json_each(?)) AND {CHANGES} AND item_type = 'state_update' AND refused = 0
ORDER BY seq
"""
# A lane is stopped by an item that never got through, and waits behind one that is postponed. What comes back to it, or
# joins it, may stand before that, and goes.
HELD = """
SELECT lane, seq FROM sync_queue
WHERE (status = 'failed' OR next_at > 0) AND refused = 0 AND (status = 'failed' OR next_at > ?)
"""
BATCH = f"""
WITH held AS MATERIALIZED ({HELD})
SELECT * FROM sync_queue
WHERE status != 'failed' AND id NOT IN (SELECT value FROM json_each(?))
AND NOT EXISTS (SELECT 1 FROM held WHERE held.lane = sync_queue.lane AND held.seq <= sync_queue.seq)
ORDER BY seq LIMIT ?
"""
# When what is postponed may go. Nothing does behind what stops its lane.
DUE = """
SELECT min(next_at) AS due FROM sync_queue AS item
WHERE status = 'pending' AND next_at > 0 AND NOT EXISTS (
    SELECT 1 FROM sync_queue
    WHERE (status = 'failed' OR next_at > 0) AND status = 'failed' AND refused = 0 AND lane = item.lane
    AND seq < item.seq
)
"""
# What the machine of a lane reported, by `reported_by`.
REPORTED = "WHERE report_key >= ? AND report_key < ?"


def reported_by(lane: str) -> list[str]:
    """Between these are the keys of its reports, which begin with its name and a slash; the zero comes next to that."""
    return [f"{lane}/", f"{lane}0"]


def id_list(ids: Iterable[str]) -> str:
    """As one parameter, however many."""
    return json.dumps(list(ids))


def row_of(item: QueueItem, payload: str, accepted: str, counted: int, replayed: int) -> list[object]:
    """In the order of INSERT. `accepted` is a Stamp's dump."""
    return [
        *(item.id, item.lane, item.item_type, payload, digest(payload)),
        *(item.base_generation, item.base_state_rev, item.after, item.conflict_id),
        *(item.epoch, item.autonomy, item.created_at.isoformat(), accepted),
        *(item.report_key, item.attempts, item.last_error, counted, replayed),
    ]


def item_of(row: sqlite3.Row) -> QueueItem:
    fields = {name: row[name] for name in QueueItem.model_fields if name != "payload"}
    try:
        return QueueItem(payload=payload_of(row), **fields)
    except ValidationError:
        return _unreadable(row)


def _unreadable(row: sqlite3.Row) -> QueueItem:
    """One bit of the row rotted: what is sound of it still stands in its place in line, and can be sent."""
    return QueueItem(
        id=str(row["id"]),
        item_type=_name(row["item_type"]),
        payload={"unreadable": str(row["payload"])[:1000]},
        created_at=datetime.fromtimestamp(0, UTC),
        seq=max(0, row["seq"]),
        lane=_name(row["lane"]),
        epoch=_name(row["epoch"]),
        status=str(row["status"]),
    )


def _name(text: object) -> str:
    return str(text)[:ID_LENGTH] or "unknown"


def edge_of(item: QueueItem) -> Edge | None:
    """None for what is no edge, and for one that cannot be read: central rejects that."""
    if item.item_type != "state_update":
        return None
    try:
        return StateUpdateBody.model_validate(item.payload).edge()
    except ValidationError:
        return None


def digest(payload: str) -> bytes:
    """Tells a payload that rotted on the disk from the one that was accepted; eight bytes do for that."""
    return hashlib.blake2b(payload.encode("utf-8", "replace"), digest_size=8).digest()


def discard_of(row: sqlite3.Row, reason: str, person: str, epoch: str) -> QueueItem:
    """What tells central that a person gave that item up."""
    body = DiscardBody(
        item_id=_name(row["id"]),
        item_type=_name(row["item_type"]),
        lane=_name(row["lane"]),
        reason=printable(reason, MESSAGE_LENGTH),
        person=printable(person, 200),
    )
    return QueueItem(
        id=str(uuid.uuid7()),
        item_type="discard",
        payload=body.model_dump(),
        created_at=datetime.now(UTC),
        lane=body.lane,
        epoch=epoch,
    )


def place_of(item: QueueItem) -> str:
    """A cursor of the listing: the failed items stand before those that wait."""
    return f"{'failed' if item.status == 'failed' else 'waiting'}.{item.seq}"


def read_place(cursor: str) -> tuple[bool, int]:
    """Whether the page begins among the failed items, and behind which `seq`. Raises Malformed."""
    stage, _, after = (cursor or "failed.0").partition(".")
    if stage not in ("failed", "waiting") or not after.isdecimal() or len(after) > 18:
        raise Malformed("'cursor' is none of this listing.", hint="Hand next_cursor back as it was.")
    return stage == "failed", int(after)


def text_of(payload: dict[str, Any]) -> str:
    return to_json(payload).decode()


def payload_of(row: sqlite3.Row) -> dict[str, Any]:
    """What cannot be read any more, or is not what was accepted, goes to central as such, which rejects it: it is
    seen, and stops nothing."""
    text, expected = str(row["payload"]), row["payload_hash"]
    try:
        payload = json.loads(text) if expected in (None, digest(text)) else None
    except ValueError:
        payload = None
    return payload if isinstance(payload, dict) else {"unreadable": text[:1000]}


def lane_of(item: QueueItem) -> str:
    named = (item.payload.get(name) for name in ("node_id", "mac_address", "mac"))
    return item.lane or next((str(name) for name in named if name), item.id)


def check(item: QueueItem) -> None:
    """Raises Invalid for a name that could not be sent."""
    for field in ("id", "lane", "epoch", "item_type", "after", "conflict_id"):
        if len(getattr(item, field) or "") > ID_LENGTH:
            raise Invalid(f"{field}: it has more than {ID_LENGTH} characters.", hint="Central would take no such item.")


def offer_of(row: sqlite3.Row, now: Stamp, on_its_way: float) -> PushItem | None:
    """As it goes to central; one that cannot go as it stands is unreadable there, too. None: its very id cannot go, so
    central could never settle it."""
    accepted = Stamp.load(row["accepted"])
    age = age_of(accepted, now, on_its_way) if accepted else UNKNOWN
    for form in (item_of, _unreadable):
        with contextlib.suppress(ValidationError):
            return _push_item(form(row), age)
    return None


def _push_item(item: QueueItem, age: Age) -> PushItem:
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
