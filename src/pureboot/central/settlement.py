"""Settling conflicts: what a resolution does to the node, in a person's name or a policy's, and how it is taken back.

A resolution is an ordinary change of the node and comes to its site by the feed, whichever side wins.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from pureboot.central import conflicts, node_rows
from pureboot.central import tables as t
from pureboot.central.conflicts import Decision, StoredConflict
from pureboot.central.generation import is_same_count
from pureboot.central.node_log import Step, record_steps
from pureboot.central.node_rows import StoredNode
from pureboot.core.errors import Clash, NotFound, PureBootError, StaleVersion
from pureboot.core.lifecycle import By, Edge, NodeState, is_legal
from pureboot.core.reconcile import CLAIMS, ConflictType, Resolution, legal_prefix, may_keep_local, replay


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose word it is, and why."""

    resolution: Resolution
    by: str
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    conflict: StoredConflict
    node: StoredNode
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody had before their eyes when they decided; None: they do not say."""

    version: int | None = None
    state_rev: int | None = None


def settle(conflict: StoredConflict, node: StoredNode, verdict: Verdict) -> Settled:
    """Pure. Raises Clash where this resolution cannot be."""
    if verdict.resolution is not Resolution.KEEP_CENTRAL:
        _check_local_can_count(conflict, node, verdict.resolution)
    count = taken(conflict, node, verdict.resolution)
    after, steps = _replayed(conflict, count, node, verdict)
    whole = verdict.resolution is not Resolution.KEEP_CENTRAL and count == len(conflict.edges)
    return _settled(conflict, after, steps, verdict, whole=whole)


def taken(conflict: StoredConflict, node: StoredNode, how: Resolution) -> int:
    """How many of the site's edges take effect."""
    match how:
        case Resolution.KEEP_CENTRAL:
            return 0
        case Resolution.KEEP_LOCAL:
            return len(conflict.edges)
        case Resolution.MERGE:
            return legal_prefix(node.stage, [edge for _, edge in conflict.edges])


def _settled(
    conflict: StoredConflict, node: StoredNode, steps: tuple[Step, ...], verdict: Verdict, *, whole: bool
) -> Settled:
    before = steps[0].edge.origin if steps else node.stage
    if not steps:
        node = node.changed(verdict.at)
    decision = Decision(
        at=verdict.at,
        by=verdict.by,
        comment=verdict.comment,
        resolution=verdict.resolution,
        before=before,
        after=node.stage,
        state_rev=node.state_rev,
        chain=len(conflict.chain),
    )
    return Settled(conflict.decided(decision, node.state_rev if whole else None), node, steps)


def _check_local_can_count(conflict: StoredConflict, node: StoredNode, how: Resolution) -> None:
    if conflict.type is ConflictType.SITE_CLAIM:
        raise Clash(
            f"{how} cannot settle a site_claim.",
            code="not_available",
            hint="Move the node to the site that has it (PATCH /api/v1/nodes/{id}, field home_site_id), then use"
            " keep_central.",
        )
    if conflict.type in CLAIMS:
        raise Clash(
            f"{how} cannot settle a {conflict.type}.",
            code="not_available",
            hint="Delete the node that is no machine any more, then use keep_central.",
        )
    if node.deleted_at is not None:
        raise Clash("Central has deleted this node.", code="node_deleted", hint="Use keep_central; it registers anew.")
    if not may_keep_local(node.stage):
        raise Clash("This node is retired at central.", code="node_retired", hint="Use keep_central.")


def _replayed(
    conflict: StoredConflict, count: int, node: StoredNode, verdict: Verdict
) -> tuple[StoredNode, tuple[Step, ...]]:
    """The first `count` edges of the site's chain, on top of where central stands."""
    steps: list[Step] = []
    for link, made in conflict.edges[:count]:
        for edge, forced in replay(node.stage, [made]):
            node = node.moved(edge.target, verdict.at)
            steps.append(
                Step(
                    node_id=node.id,
                    edge=edge,
                    actor=verdict.by,
                    comment=verdict.comment or link.comment,
                    occurred_at=link.occurred_at,
                    recorded_at=verdict.at,
                    site_id=conflict.site_id,
                    item_id=link.item_id,
                    forced=forced,
                )
            )
    return node, tuple(steps)


def take_back(conflict: StoredConflict, node: StoredNode, by: str, comment: str, now: datetime) -> Settled:
    """The conflict is open again and the node where it was. Pure; raises Clash where that cannot be any more."""
    if why := why_final(conflict, node):
        raise Clash(f"This decision stands: {why}.", code="moved_on", hint="Move the node by an edge of its own.")
    last = conflict.decisions[-1]
    steps: tuple[Step, ...] = ()
    if last.before != last.after:
        edge = Edge(last.after, last.before, By.ADMIN)
        node = node.moved(edge.target, now)
        steps = (
            Step(
                node_id=node.id,
                edge=edge,
                actor=by,
                comment=comment or f"{last.resolution} of {last.by} is taken back",
                occurred_at=now,
                recorded_at=now,
                site_id=conflict.site_id,
                forced=not is_legal(edge),
            ),
        )
    else:
        node = node.changed(now)
    decision = Decision(
        at=now,
        by=by,
        comment=comment,
        resolution=None,
        before=last.after,
        after=node.stage,
        state_rev=node.state_rev,
        chain=last.chain,
    )
    return Settled(conflict.decided(decision, None), node, steps)


def why_final(conflict: StoredConflict, node: StoredNode) -> str:
    """Why its last decision cannot be taken back; empty where it can."""
    if conflict.status == "pending":
        return "the conflict is open"
    if not conflict.decisions:
        return "it is older than what was kept of decisions"
    last = conflict.decisions[-1]
    if not is_same_count(node.state_rev, last.state_rev):
        return f"the node has moved since, to {node.stage}"
    moved = last.before != last.after
    if node.deleted_at is not None and (moved or node.deleted_at > last.at):
        return "central has deleted the node since"
    if node.home_site_id != conflict.site_id and moved:
        return "the node has gone to another site since"
    if len(conflict.chain) != last.chain:
        return "the site has gone on since"
    if node.stage.state is NodeState.RETIRED and moved:
        return "nothing leads back from retired"
    return ""


def resolve(conn: Connection, site_id: str | None, id: str, verdict: Verdict, seen: Seen = Seen()) -> StoredConflict:
    """One conflict, of that site or (None) of any.

    Raises NotFound, Clash (settled already, or not this way) and StaleVersion (it has moved on).
    """
    conflict, node = _locked(conn, site_id, id)
    if conflict.status == "resolved":
        raise _already(conflict)
    _check_seen(conflict, node, seen)
    settled = settle(conflict, node, verdict)
    _store(conn, [settled])
    return settled.conflict


def undo(
    conn: Connection, site_id: str | None, id: str, by: str, comment: str, now: datetime, seen: Seen = Seen()
) -> StoredConflict:
    """As `resolve`. Raises NotFound, Clash and StaleVersion."""
    conflict, node = _locked(conn, site_id, id)
    _check_seen(conflict, node, seen)
    mine = (t.sync_conflict.c.node_id == node.id, t.sync_conflict.c.site_id == conflict.site_id)
    if conflict.status == "resolved" and conflicts.load(conn, *mine, t.sync_conflict.c.status == "pending"):
        raise Clash("A newer conflict about this node is open.", code="moved_on", hint="Settle that one.")
    settled = take_back(conflict, node, by, comment, now)
    _store(conn, [settled])
    return settled.conflict


@dataclass(frozen=True, slots=True)
class Refused:
    """`conflict`: None where there is no such conflict."""

    conflict: StoredConflict | None
    error: PureBootError


def resolve_many(
    conn: Connection, ids: Collection[str], verdict: Verdict, *, preview: bool = False
) -> dict[str, Settled | Refused]:
    """Each for itself, in one transaction: what became of it, or why nothing did. In the order of `ids`."""
    first = conflicts.load(conn, t.sync_conflict.c.id.in_(list(ids)))
    nodes = node_rows.load(conn, {conflict.node_id for conflict in first.values()}, lock=not preview)
    # Again, under the nodes' locks: somebody else may have been quicker.
    known = conflicts.load(conn, t.sync_conflict.c.id.in_(list(ids)))
    outcomes: dict[str, Settled | Refused] = {}
    for id in dict.fromkeys(ids):
        try:
            outcomes[id] = settled = _settle_known(known, nodes, id, verdict)
            nodes[settled.node.id] = settled.node
        except PureBootError as error:
            outcomes[id] = Refused(known.get(id), error)
    if not preview:
        _store(conn, [outcome for outcome in outcomes.values() if isinstance(outcome, Settled)])
    return outcomes


def _settle_known(
    known: Mapping[str, StoredConflict], nodes: Mapping[str, StoredNode], id: str, verdict: Verdict
) -> Settled:
    if (conflict := known.get(id)) is None:
        raise _unknown(id)
    if conflict.status == "resolved":
        raise _already(conflict)
    return settle(conflict, nodes[conflict.node_id], verdict)


def _locked(conn: Connection, site_id: str | None, id: str) -> tuple[StoredConflict, StoredNode]:
    node_id = _find(conn, site_id, id).node_id
    node = node_rows.load(conn, [node_id], lock=True)[node_id]
    # Again, under the node's lock: somebody else may have been quicker.
    return _find(conn, site_id, id), node


def _find(conn: Connection, site_id: str | None, id: str) -> StoredConflict:
    conflict = conflicts.load(conn, t.sync_conflict.c.id == id).get(id)
    if conflict is None or site_id not in (None, conflict.site_id):
        raise _unknown(id)
    return conflict


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no conflict {id[:64]!r} here.", code="unknown_conflict")


def _already(conflict: StoredConflict) -> Clash:
    return Clash(
        f"This conflict is resolved already: {conflict.resolution}, by {conflict.resolved_by}.",
        code="already_resolved",
        hint="Look at it again; what was decided can be taken back while nothing has happened since.",
    )


def _check_seen(conflict: StoredConflict, node: StoredNode, seen: Seen) -> None:
    if seen.version in (None, conflict.version) and seen.state_rev in (None, node.state_rev):
        return
    central = "deleted" if node.deleted_at else node.stage
    raise StaleVersion(
        f"This conflict has moved on: the site has the node {conflict.local_state}, central {central} by now.",
        hint="Look at it again, then decide.",
    )


def _store(conn: Connection, done: Collection[Settled]) -> None:
    nodes = {settled.node.id: settled.node for settled in done}  # of a node twice, the last word
    node_rows.save(conn, nodes.values())
    record_steps(conn, [step for settled in done for step in settled.steps])
    for node in nodes.values():
        if node.deleted_at is None:
            node_rows.announce(conn, node)
    conflicts.save(conn, [settled.conflict for settled in done])
