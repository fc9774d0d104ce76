"""What a push touches: read in a handful of queries, changed in memory, written in a handful of statements."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, union

from pureboot.central import alerts, conflicts, node_log, node_rows
from pureboot.central import tables as t
from pureboot.central.accounts import Agent
from pureboot.central.conflicts import StoredConflict
from pureboot.central.node_log import Happening, Step
from pureboot.central.node_rows import StoredNode
from pureboot.central.positions import publish
from pureboot.central.sql import insert_all, many, rows_of
from pureboot.core.changes import Change, Registration, Settlement
from pureboot.core.errors import PureBootError
from pureboot.core.lifecycle import Autonomy
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import Outcome, PushItem, SiteDocument, to_change

# An age is believed up to this; a clock that claims more says nothing.
OLDEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Sender:
    """`levels`: those its items claim that the site is of or was at any time; they may have been accepted so."""

    agent: Agent
    site: SiteDocument
    levels: frozenset[Autonomy]


@dataclass(frozen=True, slots=True)
class Offer:
    """An item as it was offered; `change` is the error where it cannot be read. It happened at `occurred_at`, give or
    take `uncertainty`."""

    item: PushItem
    payload_hash: str
    change: Change | PureBootError
    occurred_at: datetime
    uncertainty: timedelta


def read(item: PushItem, now: datetime) -> Offer:
    try:
        change: Change | PureBootError = to_change(item)
    except PureBootError as error:
        change = error
    return Offer(item, _hash(item), change, now - _span(item.age_ms), _span(item.u_ms))


def _span(milliseconds: int) -> timedelta:
    return min(timedelta(milliseconds=min(milliseconds, 10**15)), OLDEST)


def _hash(item: PushItem) -> str:
    """Of what the item says. Its lane may be renamed to the canonical node and its base set aside between two tries."""
    payload = json.dumps([item.item_type, item.body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(payload.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """That an item was settled, and how; committed together with its effect. `expected_rev` and `base_generation`: see
    tables."""

    item_id: str
    site_id: str
    payload_hash: str
    outcome: Outcome
    reason: str | None
    node_id: str | None
    base_generation: int | None
    expected_rev: int | None
    conflict_id: str | None


@dataclass(slots=True)
class Batch:
    sender: Sender
    now: datetime
    generation: int
    receipts: dict[str, Receipt]
    aliases: dict[str, str]
    owners: dict[str, str]
    nodes: dict[str, StoredNode]
    conflicts: dict[str, StoredConflict]
    # Nodes of other sites that this one never had to do with: it is told no more of them than of none.
    strangers: set[str]

    receipt_rows: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    events: list[Happening] = field(default_factory=list)
    # Items that somebody gave up, of nodes this central does not know.
    discards: list[Happening] = field(default_factory=list)
    _new_nodes: dict[str, None] = field(default_factory=dict)
    _new_aliases: dict[str, str] = field(default_factory=dict)
    _dirty_nodes: dict[str, None] = field(default_factory=dict)
    _seen_nodes: dict[str, None] = field(default_factory=dict)
    _news: dict[str, None] = field(default_factory=dict)
    _dirty_conflicts: dict[str, None] = field(default_factory=dict)

    @property
    def site_id(self) -> str:
        return self.sender.site.id

    def canonical(self, ref: str) -> str:
        return self.aliases.get(ref, ref)

    def node(self, ref: str) -> StoredNode | None:
        id = self.canonical(ref)
        return None if id in self.strangers else self.nodes.get(id)

    def open_conflict(self, node_id: str) -> StoredConflict | None:
        mine = (c for c in self.conflicts.values() if c.node_id == node_id and c.site_id == self.site_id)
        return next((conflict for conflict in mine if conflict.status == "pending"), None)

    def add_node(self, node: StoredNode) -> None:
        self._own(node)
        self._new_nodes[node.id] = None
        self._news[node.id] = None

    def put_node(self, node: StoredNode) -> None:
        """A new version is news for its site; that it was seen is not, for the site told it."""
        if node.version != self.nodes[node.id].version:
            self._news[node.id] = None
            self._dirty_nodes[node.id] = None
        else:
            self._seen_nodes[node.id] = None
        self._own(node)

    def _own(self, node: StoredNode) -> None:
        self.nodes[node.id] = node
        self.owners.update((mac.value, node.id) for mac in node.mac_addresses)

    def add_alias(self, alias: str, node_id: str) -> None:
        self.aliases[alias] = node_id
        self._new_aliases[alias] = node_id

    def put_conflict(self, conflict: StoredConflict) -> None:
        self.strangers.discard(conflict.node_id)
        self.conflicts[conflict.id] = conflict
        self._dirty_conflicts[conflict.id] = None

    def settle(self, offer: Offer, receipt: Receipt, result_version: int | None) -> None:
        item = offer.item
        self.receipts[item.id] = receipt
        self.receipt_rows.append(
            {
                "item_id": item.id,
                "agent_id": self.sender.agent.id,
                "site_id": self.site_id,
                "epoch": item.epoch,
                "seq": item.seq,
                "lane": item.lane,
                "item_type": item.item_type,
                "payload_hash": receipt.payload_hash,
                "autonomy": item.autonomy.value,
                "after": item.after,
                "base_generation": receipt.base_generation,
                "base_state_rev": item.base.state_rev if item.base else None,
                "outcome": receipt.outcome.value,
                "reason": receipt.reason,
                "node_id": receipt.node_id,
                "result_version": result_version,
                "expected_rev": receipt.expected_rev,
                "conflict_id": receipt.conflict_id,
                "received_at": self.now,
            }
        )

    def store(self, conn: Connection) -> None:
        node_rows.add(conn, [self.nodes[id] for id in self._new_nodes])
        node_rows.save(conn, [self.nodes[id] for id in self._dirty_nodes if id not in self._new_nodes])
        node_rows.saw(conn, [self.nodes[id] for id in self._seen_nodes if id not in self._news])
        self._store_aliases(conn)
        node_log.record_steps(conn, self.steps)
        node_log.record_events(conn, self.events)
        for given_up in self.discards:
            detail = given_up.metadata | {"reason": given_up.message}
            item_id = given_up.metadata["item_id"]
            alerts.happened(conn, self.site_id, "sync_discarded", self.now, subject=item_id, **detail)
        conflicts.save(conn, [self.conflicts[id] for id in self._dirty_conflicts])
        insert_all(conn, insert(t.sync_receipt), self.receipt_rows)
        for node in (self.nodes[id] for id in self._news):
            # Its site heard of a deletion when it was deleted, and may be gone itself by now.
            if node.deleted_at is None:
                node_rows.announce(conn, node)

    def _store_aliases(self, conn: Connection) -> None:
        rows = [
            {"alias": alias, "node_id": node_id, "site_id": self.site_id, "created_at": self.now}
            for alias, node_id in self._new_aliases.items()
        ]
        insert_all(conn, insert(t.node_alias), rows)
        for alias in self._new_aliases:
            publish(conn, self.site_id, "alias", alias, 1)


def load(conn: Connection, sender: Sender, offers: Sequence[Offer], generation: int, now: datetime) -> Batch:
    """Under the lock of the sender's site (`sessions.lock_site`)."""
    receipts = _receipts(conn, [ref for o in offers for ref in (o.item.id, o.item.after) if ref])
    registrations = [o.change for o in offers if isinstance(o.change, Registration)]
    refs = {o.item.lane for o in offers} | {r.node_id for r in registrations}
    refs |= {r.node_id for r in receipts.values() if r.node_id}
    aliases = node_rows.canonical(conn, refs)
    owners = node_rows.owners(conn, {mac.value for r in registrations for mac in r.mac_addresses})
    nodes = node_rows.load(conn, {aliases.get(ref, ref) for ref in refs} | set(owners.values()), lock=True)
    known = {o.item.conflict_id for o in offers} | {r.conflict_id for r in receipts.values()}
    known |= {o.change.conflict_id for o in offers if isinstance(o.change, Settlement)}
    return Batch(
        sender=sender,
        now=now,
        generation=generation,
        receipts=receipts,
        aliases=aliases,
        owners=owners,
        nodes=nodes,
        conflicts=conflicts.concerning(conn, sender.site.id, nodes, {id for id in known if id}),
        strangers=_strangers(conn, sender.site.id, nodes),
    )


def _strangers(conn: Connection, site_id: str, nodes: dict[str, StoredNode]) -> set[str]:
    """Of the nodes that live elsewhere, those that never lived here, were claimed or disputed from here."""
    foreign = [node.id for node in nodes.values() if node.home_site_id != site_id]
    if not foreign:
        return set()
    feed, alias, conflict = t.feed.c, t.node_alias.c, t.sync_conflict.c
    known = union(
        select(feed.id).where(feed.site == site_id, feed.type == "node", feed.id.in_(foreign)),
        select(alias.node_id).where(alias.site_id == site_id, alias.node_id.in_(foreign)),
        select(conflict.node_id).where(conflict.site_id == site_id, conflict.node_id.in_(foreign)),
    )
    return set(foreign) - set(conn.execute(known).scalars())


_RECEIPTS = select(*(t.sync_receipt.c[name] for name in Receipt.__dataclass_fields__))
_RECEIPTS = _RECEIPTS.where(t.sync_receipt.c.item_id.in_(many("ids")))


def _receipts(conn: Connection, ids: Collection[str]) -> dict[str, Receipt]:
    rows = rows_of(conn, _RECEIPTS, ids=set(ids))
    return {row.item_id: Receipt(**row._asdict() | {"outcome": Outcome(row.outcome)}) for row in rows}


def macs_united(node: StoredNode, macs: Sequence[MacAddress]) -> tuple[MacAddress, ...]:
    return tuple(dict.fromkeys((*node.mac_addresses, *macs)))
