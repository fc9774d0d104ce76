"""Where site and central disagree about a node, as the site shows it.

Central finds conflicts inside a push and owns them; they come back by the feed. `ConflictDetector` is the site's own
preview by the same comparison, for what no push has told yet.
"""

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ValidationError

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.database import Database
from pureboot.agent.journal import Accepted
from pureboot.agent.queue_items import DECISIONS
from pureboot.core.changes import Settlement
from pureboot.core.errors import Clash, Invalid, NotFound
from pureboot.core.lifecycle import NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import printable
from pureboot.core.reconcile import ABSENT, ConflictType, Diverged, Resolution, compare
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import MESSAGE_LENGTH, ConflictDocument

SOMEBODY = "somebody at the site"

_PREVIEWS = uuid.UUID("6ba28a4e-6d0e-5f0b-9a3d-1d0c6e1f7b10")


class Conflict(BaseModel):
    """The absent side's state is `"absent"`. A `resolution` of one that is not `resolved` was decided here, and waits
    for central to confirm it."""

    id: str
    node_mac: str
    local_state: str
    central_state: str
    local_updated_at: datetime
    central_updated_at: datetime
    conflict_type: str
    resolved: bool = False
    resolution: str | None = None


class Which(StrEnum):
    PENDING = "pending"
    RESOLVED = "resolved"
    ALL = "all"


class ConflictView(Conflict):
    """With what central says of it; of a preview it says nothing."""

    status: Which
    node_id: str | None = None
    base_state: str | None = None
    local_chain: list[str] = []
    strategy: str | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    comment: str = ""


class ConflictTable:
    """Rows of agent.db: central's conflicts of this site, and the site's previews."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.pending_count = 0

    def load(self) -> None:
        self.pending_count = self.database.store.read_now(_count)

    def store(self, tx: Transaction, document: ConflictDocument) -> bool:
        """False: a newer one is here already, for the answer to a push and the feed may overtake each other."""
        row = tx.execute("SELECT version FROM conflict WHERE id = ?", [document.id]).fetchone()
        if row is not None and document.version < row["version"]:
            return False
        conflict = Conflict.model_validate(document, from_attributes=True)
        self._put(tx, conflict, node_id=document.node_id, preview=False, version=document.version)
        values = [document.model_dump_json(), document.id]
        tx.execute("UPDATE conflict SET document = ? WHERE id = ?", values)
        # What central has found replaces what the site suspected of the same node.
        tx.execute("DELETE FROM conflict WHERE preview = 1 AND node_mac = ?", [document.node_mac])
        self._recount(tx)
        return True

    def is_resolved(self, tx: Transaction, conflict_id: str) -> bool:
        row = tx.execute("SELECT resolved FROM conflict WHERE id = ?", [conflict_id]).fetchone()
        return row is not None and bool(row["resolved"])

    def open_about(self, tx: Transaction, node_id: str) -> ConflictDocument | None:
        """Central's, about this node."""
        sql = "SELECT document FROM conflict WHERE node_id = ? AND resolved = 0 AND document IS NOT NULL"
        row = tx.execute(sql, [node_id]).fetchone()
        return None if row is None else ConflictDocument.model_validate_json(row["document"])

    def preview(self, tx: Transaction, conflict: Conflict) -> None:
        """Once: a preview that stands, resolved or not, is left as it is."""
        if tx.execute("SELECT 1 FROM conflict WHERE id = ?", [conflict.id]).fetchone() is None:
            self._put(tx, conflict, node_id=None, preview=True, version=0)
            self._recount(tx)

    def told(self, tx: Transaction, macs: Iterable[str]) -> None:
        """Central has told of the node: what the site suspected of it is over."""
        for mac in macs:
            if tx.execute("DELETE FROM conflict WHERE preview = 1 AND resolved = 0 AND node_mac = ?", [mac]).rowcount:
                self._recount(tx)

    def drop(self, tx: Transaction, conflict_id: str) -> None:
        tx.execute("DELETE FROM conflict WHERE id = ?", [conflict_id])
        self._recount(tx)

    def resolve(self, tx: Transaction, conflict_id: str, resolution: Resolution) -> str | None:
        """Settles a preview, which is the site's own; the node of one that is central's to settle. Raises NotFound, and
        Clash where it is settled."""
        row = tx.execute("SELECT preview, resolved, node_id FROM conflict WHERE id = ?", [conflict_id]).fetchone()
        if row is None:
            raise NotFound(f"There is no conflict {conflict_id[:64]!r} here.", code="unknown_conflict")
        if row["resolved"]:
            raise Clash("This conflict is resolved already.", code="already_resolved")
        if not row["preview"]:
            return str(row["node_id"])
        tx.execute("UPDATE conflict SET resolved = 1, resolution = ? WHERE id = ?", [resolution, conflict_id])
        self._recount(tx)
        return None

    async def pending(self) -> list[Conflict]:
        return await self.database.store.read(_pending)

    async def page(self, status: Which, limit: int, after: str = "") -> tuple[list[ConflictView], str | None]:
        """In the order of their ids, and where the next page begins."""
        views = await self.database.store.read(lambda connection: _views(connection, status, limit + 1, after))
        return views[:limit], views[limit - 1].id if len(views) > limit else None

    def _put(self, tx: Transaction, conflict: Conflict, *, node_id: str | None, preview: bool, version: int) -> None:
        fields = conflict.model_dump(mode="json") | {"node_id": node_id, "preview": preview, "version": version}
        names = ", ".join(fields)
        marks = ", ".join(f":{name}" for name in fields)
        tx.execute(f"INSERT OR REPLACE INTO conflict ({names}) VALUES ({marks})", fields)

    def _recount(self, tx: Transaction) -> None:
        count = tx.execute("SELECT count(*) FROM conflict WHERE resolved = 0").fetchone()[0]
        tx.after_commit(lambda: setattr(self, "pending_count", count))


Decide = Callable[[Transaction, Settlement], Accepted]


def _is_centrals(_: Transaction, __: Settlement) -> Accepted:
    raise Clash(
        "This conflict is central's to settle.",
        hint="Resolve it there: pureboot conflict resolve, or POST …/conflicts/{id}/resolve.",
    )


class ConflictDetector:
    """Compares what the site has with what central has, node by node. `decide`: how a decision of a conflict that
    central found gets there (`Journal.decide`)."""

    def __init__(
        self, state_cache: NodeStateCache, *, table: ConflictTable | None = None, decide: Decide = _is_centrals
    ) -> None:
        self.state_cache = state_cache
        self.table = table or ConflictTable(state_cache.database)
        self._decide = decide

    async def check_conflicts(self, central_nodes: list[dict[str, Any]]) -> list[Conflict]:
        """All differences, of which only those that nothing else will mend are marked: a node that only central has
        (`missing_local`) comes by the feed. A row whose change is still queued is not a difference yet.

        `central_nodes` are node documents; of each `mac_address`, `state`, `attempt` and `updated_at` are read.
        """
        unsettled = await self.state_cache.database.store.read(_unsettled_lanes)
        found = [
            conflict
            for mac, node, document in _paired(await self.state_cache.list_nodes(), central_nodes)
            if (conflict := _difference(mac, node, document, unsettled)) is not None
        ]
        for conflict in found:
            if conflict.conflict_type != ConflictType.MISSING_LOCAL:
                await self.mark_conflict(conflict)
        return found

    async def mark_conflict(self, conflict: Conflict) -> None:
        await self.state_cache.database.store.write(lambda tx: self.table.preview(tx, conflict))

    async def get_pending_conflicts(self) -> list[Conflict]:
        return await self.table.pending()

    async def resolve_conflict(self, conflict_id: str, resolution: str) -> bool:
        """Settles a preview, or queues what is decided of one that central found. False: there is none such, or it is
        settled. Raises Invalid, Forbidden and Clash as `settle` does."""
        try:
            await self.settle(conflict_id, resolution)
        except NotFound:
            return False
        except Clash as error:
            if error.code != "already_resolved":
                raise
            return False
        return True

    async def settle(
        self, conflict_id: str, resolution: str, *, comment: str = "", person: str = SOMEBODY
    ) -> Accepted | None:
        """None: it was a preview, and is settled. Else it is an item on its way to central, whose word counts.

        Raises Invalid, NotFound, Forbidden (readonly), and Clash: settled already, or decided otherwise.
        """
        try:
            chosen = Resolution(resolution)
        except ValueError:
            raise Invalid(
                f"{resolution[:40]!r} is no resolution.", hint=f"Use one of: {', '.join(Resolution)}."
            ) from None

        def work(tx: Transaction) -> Accepted | None:
            node_id = self.table.resolve(tx, conflict_id, chosen)
            if node_id is None:
                return None
            said = printable(comment, MESSAGE_LENGTH), printable(person, 200)
            return self._decide(tx, Settlement(node_id, conflict_id, chosen, *said))

        return await self.state_cache.database.store.write(work)


def _paired(
    nodes: list[CachedNode], documents: list[dict[str, Any]]
) -> list[tuple[str, CachedNode | None, dict[str, Any] | None]]:
    """Each machine once, by a MAC of it, with what either side has of it; they may name it by different MACs."""
    by_mac = {mac: document for document in documents for mac in _macs(document)}
    paired: list[tuple[str, CachedNode | None, dict[str, Any] | None]] = []
    for node in nodes:
        document = next((by_mac[mac] for mac in node.macs if mac in by_mac), None)
        paired.append((node.mac_address, node, document))
    here = {mac for node in nodes for mac in node.macs}
    only_there = (document for document in documents if here.isdisjoint(_macs(document)))
    return [*paired, *((_macs(document)[0], None, document) for document in only_there)]


def _macs(document: dict[str, Any]) -> list[str]:
    named = [document["mac_address"], *document.get("mac_addresses", [])]
    return [str(MacAddress.parse(str(mac))) for mac in named]


def _difference(
    mac: str, node: CachedNode | None, document: dict[str, Any] | None, unsettled: frozenset[str]
) -> Conflict | None:
    if node is not None and (node.node_id in unsettled or node.conflict_id is not None):
        return None
    if node is not None and node.base_version is not None:
        return None  # it is refreshed by the feed; a stale clean row is never a conflict
    local = node.stage if node else None
    central = _stage(document, local) if document else None
    verdict = compare(None, local, central)
    if not isinstance(verdict, Diverged):
        return None
    now = datetime.now(UTC)
    sides = (local.state if local else ABSENT, central.state if central else ABSENT)
    return Conflict(
        id=str(uuid.uuid5(_PREVIEWS, f"{mac}|{local}|{central}")),
        node_mac=mac,
        local_state=sides[0],
        central_state=sides[1],
        local_updated_at=node.updated_at if node else now,
        central_updated_at=_when(document) or now,
        conflict_type=verdict.kind,
    )


def _stage(document: dict[str, Any], local: Stage | None) -> Stage:
    """A document without an attempt is compared by its state alone."""
    attempt = document.get("attempt", local.attempt if local else 0)
    return Stage(NodeState.parse(str(document["state"])), int(attempt))


def _when(document: dict[str, Any] | None) -> datetime | None:
    value = document.get("updated_at") if document else None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value if isinstance(value, datetime) else None


def _unsettled_lanes(connection: sqlite3.Connection) -> frozenset[str]:
    rows: Iterable[Sequence[str]] = connection.execute("SELECT DISTINCT lane FROM sync_queue WHERE refused = 0")
    return frozenset(row[0] for row in rows)


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM conflict WHERE resolved = 0").fetchone()[0])


_NAMES = ", ".join(Conflict.model_fields)


def _pending(connection: sqlite3.Connection) -> list[Conflict]:
    decided = _decided(connection)
    rows = connection.execute(f"SELECT {_NAMES} FROM conflict WHERE resolved = 0 ORDER BY rowid")
    return [Conflict.model_validate(dict(row) | {"resolution": decided.get(row["id"])}) for row in rows]


def _decided(connection: sqlite3.Connection) -> dict[str, str]:
    """By conflict, what was decided here and waits for central."""
    return {row["about"]: row["resolution"] for row in connection.execute(DECISIONS)}


def _views(connection: sqlite3.Connection, status: Which, limit: int, after: str) -> list[ConflictView]:
    decided = _decided(connection)
    wanted = {Which.PENDING: "resolved = 0", Which.RESOLVED: "resolved = 1", Which.ALL: "true"}[status]
    sql = f"SELECT {_NAMES}, node_id, document FROM conflict WHERE {wanted} AND id > ? ORDER BY id LIMIT ?"
    return [_view(dict(row), decided) for row in connection.execute(sql, [after, limit])]


def _view(row: dict[str, Any], decided: dict[str, str]) -> ConflictView:
    row["status"] = Which.RESOLVED if row["resolved"] else Which.PENDING
    if not row["resolved"]:
        row["resolution"] = decided.get(row["id"])
    try:
        document = ConflictDocument.model_validate_json(row.pop("document") or "").model_dump()
    except ValidationError:  # a preview; or it rotted, and the rest of the list is worth more
        document = {}
    return ConflictView.model_validate(document | row)
