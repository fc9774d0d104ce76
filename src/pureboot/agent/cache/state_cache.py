"""What the site knows of its nodes: rows in agent.db, and a view of them in memory that answers boots.

The view is changed in the writer thread after the commit (`Transaction.after_commit`), so it shows exactly what is on
disk. Reads of a dict entry are atomic; the values are immutable.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pureboot.agent.database import Database
from pureboot.core.lifecycle import NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import LocalBoot
from pureboot.storage.sqlite import Transaction


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class CachedNode:
    """`state` and `attempt` are the effective ones: central's, folded with what this site has not yet delivered.
    The `base_…` fields are central's own; None until central confirmed the node.

    `begun`: the current attempt has taken hold of the machine. `boot_token` belongs to the current attempt. `gone`:
    central has deleted the node or moved it away, and the row stays only for what it still has to deliver.
    """

    node_id: str
    mac_address: str
    state: NodeState
    attempt: int = 0
    workflow_id: str | None = None
    base_version: int | None = None
    base_state_rev: int | None = None
    updated_at: datetime = field(default_factory=_now)
    cached_at: datetime = field(default_factory=_now)
    base_state: NodeState | None = None
    base_attempt: int = 0
    more_macs: tuple[str, ...] = ()
    hostname: str = ""
    boot_token: str = ""
    begun: bool = False
    conflict_id: str | None = None
    base_generation: int | None = None
    gone: bool = False
    local_boot: LocalBoot | None = None

    @property
    def stage(self) -> Stage:
        return Stage(self.state, self.attempt)

    @property
    def base(self) -> Stage | None:
        return None if self.base_state is None else Stage(self.base_state, self.base_attempt)

    @property
    def disputed(self) -> bool:
        """Site and central disagree about the machine: it is not touched."""
        return self.gone or self.conflict_id is not None

    @property
    def macs(self) -> tuple[str, ...]:
        """Empty only for a node whose last MAC is another's by now."""
        return (self.mac_address, *self.more_macs) if self.mac_address else ()

    def at(self, stage: Stage, when: datetime) -> "CachedNode":
        """The node moved to `stage`: what belonged to the attempt it left is gone."""
        if stage == self.stage:
            return self
        return replace(self, state=stage.state, attempt=stage.attempt, boot_token="", begun=False, updated_at=when)


class NodeStateCache:
    """`db_path` takes a path, or the database that other parts of the agent share."""

    def __init__(self, db_path: Path | str | Database) -> None:
        self.database = Database(db_path)
        self._by_id: dict[str, CachedNode] = {}
        self._by_mac: dict[str, CachedNode] = {}
        self._by_token: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._departed: dict[str, NodeState] = {}
        self._loaded = False

    async def initialize(self) -> None:
        self.load()

    def load(self) -> None:
        """Reads the file; a second call reads the same again."""
        self.database.store.read_now(self._load)
        self._loaded = True

    async def get_node(self, mac: str) -> CachedNode | None:
        return self.by_mac(MacAddress.parse(mac))

    async def get_node_by_id(self, node_id: str) -> CachedNode | None:
        return self.by_id(node_id)

    async def cache_node(self, node: CachedNode) -> None:
        await self.database.store.write(lambda tx: self.save(tx, normalised(node)))

    async def list_nodes(self) -> list[CachedNode]:
        return sorted(self.nodes(), key=lambda node: node.mac_address)

    async def remove(self, mac: str) -> bool:
        """Forgets a node that central deleted or moved away; its last state stays for `last_known`."""
        node = self.by_mac(MacAddress.parse(mac))
        if node is None:
            return False
        await self.database.store.write(lambda tx: self.forget(tx, node.node_id))
        return True

    # The view: no waiting, never behind an acknowledged write.

    def by_written_mac(self, mac: str) -> CachedNode | None:
        """As MacAddress writes it; no other text finds anything."""
        return self._by_mac.get(mac)

    def by_mac(self, mac: MacAddress) -> CachedNode | None:
        return self.by_written_mac(str(mac))

    def by_id(self, node_id: str) -> CachedNode | None:
        name = self.canonical(node_id)
        found = self._by_id.get(name)
        while found is None and (renamed := self.canonical(node_id)) != name:  # between the two looks
            name, found = renamed, self._by_id.get(renamed)
        return found

    def by_token(self, token: str) -> CachedNode | None:
        return self.by_id(self._by_token.get(token, "")) if token else None

    def nodes(self) -> list[CachedNode]:
        return list(self._by_id.values())

    def last_state(self, mac: MacAddress) -> NodeState | None:
        return self._departed.get(str(mac))

    def canonical(self, node_id: str) -> str:
        return self._aliases.get(node_id, node_id)

    def count(self) -> int:
        return len(self._by_id)

    # Inside a transaction.

    def find(self, tx: Transaction, node_id: str) -> CachedNode | None:
        if self._shows(tx) and (node := self.by_id(node_id)) is not None:
            return node
        row = tx.execute(_FIND, {"name": node_id}).fetchone()
        return None if row is None else _node(row)

    def _shows(self, tx: Transaction) -> bool:
        """Whether the view is what the transaction reads, too: it follows each commit, and nothing of it was changed
        since."""
        return self._loaded and _CHANGED not in tx.known

    def _changes(self, tx: Transaction) -> None:
        tx.known[_CHANGED] = True

    def find_all(self, tx: Transaction, node_ids: Iterable[str]) -> dict[str, CachedNode]:
        """Those of the nodes that are here, by the names they are asked for."""
        rows = tx.execute(_FIND_ALL, [json.dumps(list(node_ids))])
        return {row["name"]: _node(row) for row in rows}

    def unconfirmed(self, tx: Transaction, macs: Iterable[str]) -> set[str]:
        """Those of the MACs that belong to a node central never confirmed."""
        return {row["mac"] for row in tx.execute(_UNCONFIRMED, [json.dumps(list(macs))])}

    def is_confirmed(self, tx: Transaction, node_id: str) -> bool:
        """Whether central has ever told of the node."""
        node = self.find(tx, node_id)
        return node is not None and node.base is not None

    def owner(self, tx: Transaction, mac: str) -> CachedNode | None:
        if self._shows(tx) and (node := self.by_written_mac(mac)) is not None:
            return node
        owner = _owner(tx, mac)
        return self.find(tx, owner) if owner else None

    def save(self, tx: Transaction, node: CachedNode) -> None:
        """The row, its MACs, and the view once this is committed. A MAC another node had is this node's from now on."""
        self._changes(tx)
        tx.execute(_UPSERT, _values(node))
        losers = {owner for mac in node.macs if (owner := _owner(tx, mac)) not in (None, node.node_id)}
        tx.execute("DELETE FROM node_mac WHERE node_id = ?", [node.node_id])
        for mac in node.macs:
            tx.execute("INSERT OR REPLACE INTO node_mac VALUES (?, ?)", [mac, node.node_id])
            tx.execute("DELETE FROM departed WHERE mac = ?", [mac])
        tx.after_commit(lambda: self._show(node))
        for loser in losers:
            self._show_row(tx, loser)

    def facts(self, tx: Transaction | sqlite3.Connection, node_id: str) -> dict[str, str]:
        """None where they rotted: those of central come with its next word of the node, the machine's with its next
        boot."""
        row = tx.execute("SELECT facts FROM node WHERE id = ?", [node_id]).fetchone()
        return _facts(row["facts"]) if row else {}

    def set_facts(self, tx: Transaction, node_id: str, facts: dict[str, str]) -> None:
        tx.execute("UPDATE node SET facts = ? WHERE id = ?", [json.dumps(facts), node_id])

    def set_document(self, tx: Transaction, node_id: str, document: str, facts: dict[str, str]) -> None:
        tx.execute("UPDATE node SET document = ?, facts = ? WHERE id = ?", [document, json.dumps(facts), node_id])

    def forget(self, tx: Transaction, node_id: str) -> None:
        node = self.find(tx, node_id)
        if node is None:
            return
        self._changes(tx)
        for mac in node.macs:
            tx.execute("INSERT OR REPLACE INTO departed VALUES (?, ?)", [mac, node.state])
        tx.execute("DELETE FROM node WHERE id = ?", [node.node_id])
        tx.after_commit(lambda: self._hide(node))

    def rename(self, tx: Transaction, old: str, new: str) -> None:
        """Central knows the node `old` as `new`. Where the site has both, the row of `new` stays, with all the MACs."""
        self._changes(tx)
        self.unalias(tx, new)
        tx.execute("INSERT OR REPLACE INTO node_alias VALUES (?, ?)", [old, new])
        tx.execute("UPDATE node_alias SET node_id = ? WHERE node_id = ?", [new, old])
        was = self._row(tx, old)
        if was is not None:
            facts = self.facts(tx, old) | self.facts(tx, new)
            tx.execute("DELETE FROM node WHERE id = ?", [old])
            here = self._row(tx, new)
            self.save(tx, replace(here, more_macs=_union(here, was)) if here else replace(was, node_id=new))
            self.set_facts(tx, new, facts)
        # The alias after the row it leads to, and before the row it leads away from goes.
        tx.after_commit(lambda: self._aliases.update(_chase(self._aliases, old, new)))
        tx.after_commit(lambda: self._drop(old))

    def unalias(self, tx: Transaction, node_id: str) -> None:
        """Central has a node of this very name."""
        if tx.execute("DELETE FROM node_alias WHERE alias = ?", [node_id]).rowcount:
            self._changes(tx)
            tx.after_commit(lambda: _forget(self._aliases, node_id))

    def _row(self, tx: Transaction, node_id: str) -> CachedNode | None:
        row = tx.execute(f"{_ALL} WHERE id = ?", [node_id]).fetchone()
        return None if row is None else _node(row)

    def _show_row(self, tx: Transaction, node_id: str) -> None:
        if (row := self._row(tx, node_id)) is not None:
            tx.after_commit(lambda: self._show(row))

    def _load(self, connection: sqlite3.Connection) -> None:
        for row in connection.execute(_ALL):
            self._show(_node(row))
        self._aliases = dict(connection.execute("SELECT alias, node_id FROM node_alias").fetchall())
        departed = connection.execute("SELECT mac, last_state FROM departed").fetchall()
        self._departed = {mac: NodeState(state) for mac, state in departed}

    # A boot reads the view at any moment, from another thread: what is new is put in before what is old is taken out.

    def _show(self, node: CachedNode) -> None:
        before = self._by_id.get(node.node_id)
        self._by_id[node.node_id] = node
        for mac in node.macs:
            self._by_mac[mac] = node
            self._departed.pop(mac, None)
        if node.boot_token:
            self._by_token[node.boot_token] = node.node_id
        if before is not None:
            self._clear(before, kept=node)

    def _hide(self, node: CachedNode) -> None:
        for mac in node.macs:
            self._departed[mac] = node.state
        self._clear(node, kept=None)
        self._by_id.pop(node.node_id, None)

    def _drop(self, node_id: str) -> None:
        self._by_id.pop(node_id, None)

    def _clear(self, gone: CachedNode, kept: CachedNode | None) -> None:
        for mac in gone.macs:
            shown = self._by_mac.get(mac)
            if shown is not None and shown.node_id == gone.node_id and (kept is None or mac not in kept.macs):
                del self._by_mac[mac]
        if kept is None or kept.boot_token != gone.boot_token:
            self._by_token.pop(gone.boot_token, None)


# Of what a transaction knows: that a row, a MAC or an alias in it is no longer as the view shows it.
_CHANGED = "nodes changed"

_COLUMNS = [
    "id",
    "state",
    "attempt",
    "base_version",
    "base_state_rev",
    "base_state",
    "base_attempt",
    "workflow_id",
    "hostname",
    "boot_token",
    "begun",
    "conflict_id",
    "updated_at",
    "cached_at",
    "base_generation",
    "gone",
    "local_boot",
]
_UPSERT = (
    f"INSERT INTO node ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (id) DO UPDATE SET " + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
)

# In their order: a group keeps the order in which its rows come.
_MACS = "(SELECT group_concat(mac, ' ') FROM (SELECT mac FROM node_mac WHERE node_id = node.id ORDER BY rowid)) AS macs"
_ALL = f"SELECT node.*, {_MACS} FROM node"
_FIND = f"{_ALL} WHERE id = coalesce((SELECT node_id FROM node_alias WHERE alias = :name), :name)"
_FIND_ALL = f"""
SELECT asked.value AS name, node.*, {_MACS}
FROM json_each(?) AS asked
JOIN node ON node.id = coalesce((SELECT node_id FROM node_alias WHERE alias = asked.value), asked.value)
"""
_UNCONFIRMED = """
SELECT mac FROM node_mac JOIN node ON node.id = node_id
WHERE mac IN (SELECT value FROM json_each(?)) AND base_version IS NULL
"""


def _values(node: CachedNode) -> list[object]:
    return [
        *(node.node_id, node.state, node.attempt),
        *(node.base_version, node.base_state_rev, node.base_state, node.base_attempt),
        *(node.workflow_id, node.hostname, node.boot_token or None, node.begun, node.conflict_id),
        *(node.updated_at.isoformat(), node.cached_at.isoformat()),
        *(node.base_generation, node.gone, node.local_boot),
    ]


def _node(row: sqlite3.Row) -> CachedNode:
    macs = (row["macs"] or "").split()
    return CachedNode(
        node_id=row["id"],
        mac_address=macs[0] if macs else "",
        more_macs=tuple(macs[1:]),
        state=NodeState(row["state"]),
        attempt=row["attempt"],
        workflow_id=row["workflow_id"],
        base_version=row["base_version"],
        base_state_rev=row["base_state_rev"],
        base_state=NodeState(row["base_state"]) if row["base_state"] else None,
        base_attempt=row["base_attempt"] or 0,
        hostname=row["hostname"],
        boot_token=row["boot_token"] or "",
        begun=bool(row["begun"]),
        conflict_id=row["conflict_id"],
        updated_at=datetime.fromisoformat(row["updated_at"]),
        cached_at=datetime.fromisoformat(row["cached_at"]),
        base_generation=row["base_generation"],
        gone=bool(row["gone"]),
        local_boot=LocalBoot(row["local_boot"]) if row["local_boot"] else None,
    )


def _facts(text: str) -> dict[str, str]:
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def normalised(node: CachedNode) -> CachedNode:
    macs = tuple(str(MacAddress.parse(mac)) for mac in (node.mac_address, *node.more_macs))
    return replace(node, mac_address=macs[0], more_macs=macs[1:], state=NodeState.parse(node.state))


def _owner(tx: Transaction, mac: str) -> str | None:
    row = tx.execute("SELECT node_id FROM node_mac WHERE mac = ?", [mac]).fetchone()
    return None if row is None else str(row["node_id"])


def _union(kept: CachedNode, gone: CachedNode) -> tuple[str, ...]:
    return (*kept.more_macs, *(mac for mac in gone.macs if mac not in kept.macs))


def _forget(aliases: dict[str, str], node_id: str) -> None:
    aliases.pop(node_id, None)


def _chase(aliases: dict[str, str], old: str, new: str) -> dict[str, str]:
    return {old: new} | {alias: new for alias, node_id in aliases.items() if node_id == old}
