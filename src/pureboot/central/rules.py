"""What becomes of one item (PROTOCOL 5): registrations, state updates and events, each by its own rules."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from pureboot.central import batch as batches
from pureboot.central.batch import Batch, Offer
from pureboot.central.conflicts import StoredConflict
from pureboot.central.disputes import (
    Ruling,
    base_generation,
    chained_conflict,
    disputed,
    expected_rev,
    joined,
    rejected,
    site_may_keep,
    unknown,
)
from pureboot.central.generation import first_number
from pureboot.central.node_log import Happening, Step
from pureboot.central.node_rows import StoredNode
from pureboot.central.settlement import Verdict, settle
from pureboot.core.changes import NodeEvent, Registration, Settlement, StateUpdate
from pureboot.core.errors import PureBootError
from pureboot.core.lifecycle import Autonomy, By, Edge, NodeState, Stage, site_may, site_may_settle
from pureboot.core.reconcile import (
    CLAIMS,
    Apply,
    ConflictType,
    Converged,
    Diverged,
    Illegal,
    Resolution,
    judge,
)
from pureboot.wire.messages import Outcome, PushItem

# Events that a machine sends itself: it was there.
SIGHTINGS = frozenset(
    {"boot_started", "install_started", "install_progress", "install_complete", "install_failed", "first_boot"}
    | {"heartbeat"}
)
NEW = Stage(NodeState.DISCOVERED)


def rule(batch: Batch, offer: Offer) -> Ruling:
    match offer.change:
        case PureBootError() as error:
            return rejected(batch, offer, batch.node(offer.item.lane), error.code, error.message)
        case Registration() as registration:
            return _registration(batch, offer, registration)
        case StateUpdate() as update:
            return _state_update(batch, offer, update)
        case NodeEvent() as event:
            return _event(batch, offer, event)
        case Settlement() as settlement:
            return _settlement(batch, offer, settlement)


# Registrations


def _registration(batch: Batch, offer: Offer, change: Registration) -> Ruling:
    me = batch.nodes.get(batch.canonical(change.node_id))
    mine = [me.id] if me and me.deleted_at is None else []
    owned = [batch.owners[mac.value] for mac in change.mac_addresses if mac.value in batch.owners]
    parties = [node for id in dict.fromkeys(mine + owned) if (node := batch.nodes[id]).deleted_at is None]
    if not parties and me:
        return disputed(batch, offer, me, ConflictType.MISSING_CENTRAL, None)
    if not parties:
        return _discovered(batch, offer, change)
    node = parties[0]
    _name(batch, offer, change, node)
    if len(parties) > 1:
        return disputed(batch, offer, node, ConflictType.MAC_COLLISION, None)
    if not node.lives_at(batch.site_id):
        return disputed(batch, offer, node, ConflictType.SITE_CLAIM, None)
    node = _learn(batch, node, change.facts, offer.occurred_at, change)
    rev = expected_rev(batch, offer.item)
    rev = node.state_rev if rev is None and node.stage == NEW else rev
    return Ruling(Outcome.APPLIED, node, rev, chained_conflict(batch, offer.item, node))


def _discovered(batch: Batch, offer: Offer, change: Registration) -> Ruling:
    node = StoredNode(
        id=change.node_id,
        mac_addresses=change.mac_addresses,
        home_site_id=batch.site_id,
        stage=NEW,
        version=first_number(batch.generation),
        state_rev=first_number(batch.generation),
        hostname=change.hostname,
        facts=change.facts,
        created_at=batch.now,
        updated_at=batch.now,
        stage_at=batch.now,
        last_seen=offer.occurred_at,
    )
    batch.add_node(node)
    _name(batch, offer, change, node)
    return Ruling(Outcome.APPLIED, node, node.state_rev)


def _name(batch: Batch, offer: Offer, change: Registration, node: StoredNode) -> None:
    """What the site calls it. A lane has another name than was registered where a central that was restored since knew
    the machine as another node: all that waits in it is about this one."""
    for ref in (change.node_id, offer.item.lane):
        if batch.canonical(ref) not in batch.nodes:
            batch.add_alias(ref, node.id)


def _learn(
    batch: Batch, node: StoredNode, facts: dict[str, str], seen: datetime, also: Registration | None = None
) -> StoredNode:
    """The site owns facts: what it says of the machine holds, whatever becomes of the state."""
    known = node
    if facts or also:
        known = replace(
            node,
            facts=node.facts | facts,
            mac_addresses=batches.macs_united(node, also.mac_addresses if also else ()),
            # The name is central's; a machine's own is taken where there is none.
            hostname=node.hostname or (also.hostname if also else ""),
        )
    if known != node:
        known = known.changed(batch.now)
    if node.last_seen is None or seen > node.last_seen:
        known = replace(known, last_seen=seen)
    if known != node:
        batch.put_node(known)
    return known


# State updates


def _state_update(batch: Batch, offer: Offer, change: StateUpdate) -> Ruling:
    node, edge = batch.node(offer.item.lane), change.edge
    if node is None:
        return unknown(batch, offer)
    if why := _why_not(batch, offer, lambda level: site_may(level, edge)):
        moves = f"make {edge.origin.state} {edge.target.state} by {edge.by}"
        return rejected(batch, offer, node, "forbidden", f"{why} may not {moves}.")
    chained = chained_conflict(batch, offer.item, node)
    if chained and chained.takes_part:
        return joined(batch, offer, _heard(batch, offer, node, change), chained, edge)
    if not node.lives_at(batch.site_id):
        kind = ConflictType.MISSING_CENTRAL if node.deleted_at else ConflictType.STATE_MISMATCH
        return disputed(batch, offer, node, kind, edge)
    match judge(edge, node.stage, node.state_rev, _expected(batch, offer.item, node, edge, chained)):
        case Apply():
            return _applied(batch, offer, _heard(batch, offer, node, change), change)
        case Converged():
            node = _heard(batch, offer, node, change)
            return Ruling(Outcome.APPLIED, node, node.state_rev)
        case Illegal() if not batch.open_conflict(node.id):
            why = f"A node that is {node.stage} cannot become {edge.target} by {edge.by}."
            return rejected(batch, offer, node, "illegal_edge", why)
        case Illegal() | Diverged():
            return disputed(batch, offer, _heard(batch, offer, node, change), ConflictType.STATE_MISMATCH, edge)


def _expected(batch: Batch, item: PushItem, node: StoredNode, edge: Edge, chained: StoredConflict | None) -> int | None:
    """The revision that the item is made on. Two say nothing of it: a base of another generation (central was
    restored), and a decision of a conflict that the site has gone on from without hearing of it. There the item counts
    as made on where central has the node, if that is as the item says it was."""
    rev = chained.expected_rev if chained else expected_rev(batch, item)
    if node.stage != edge.origin:
        return rev
    foreign = base_generation(batch, item) not in (None, batch.generation)
    went_on = chained is not None and item.base is not None and item.base.state_rev == node.state_rev
    return node.state_rev if went_on or (rev is None and foreign) else rev


def _why_not(batch: Batch, offer: Offer, may: Callable[[Autonomy], bool]) -> str:
    """Whose word it was, if that may not; empty if it may. A level that the site never had is worth no more than the
    one it has."""
    claimed = offer.item.autonomy
    if not may(claimed):
        return f"A site of level {claimed}"
    if claimed not in batch.sender.levels and not may(batch.sender.site.autonomy_level):
        return f"This site, which never had the level {claimed},"
    return ""


def _heard(batch: Batch, offer: Offer, node: StoredNode, change: StateUpdate) -> StoredNode:
    return _learn(batch, node, change.facts, offer.occurred_at) if node.lives_at(batch.site_id) else node


def _applied(batch: Batch, offer: Offer, node: StoredNode, change: StateUpdate) -> Ruling:
    node = node.moved(change.edge.target, batch.now)
    batch.put_node(node)
    batch.steps.append(
        Step(
            node_id=node.id,
            edge=change.edge,
            actor="node" if change.edge.by is By.NODE else batch.sender.site.name,
            comment=change.comment,
            occurred_at=offer.occurred_at,
            recorded_at=batch.now,
            site_id=batch.site_id,
            item_id=offer.item.id,
        )
    )
    return Ruling(Outcome.APPLIED, node, node.state_rev)


# Events


def _event(batch: Batch, offer: Offer, change: NodeEvent) -> Ruling:
    """They always apply, also to a deleted, retired or disputed node; they never move it."""
    node = batch.node(offer.item.lane)
    happening = Happening(
        id=offer.item.id,
        node_id=node.id if node else "",
        event=change.event,
        message=change.message,
        metadata=change.metadata,
        attempt=change.attempt,
        occurred_at=offer.occurred_at,
        recorded_at=batch.now,
        site_id=batch.site_id,
        item_id=offer.item.id,
    )
    if node is None and offer.item.item_type != "discard":
        return unknown(batch, offer)
    if node is None:
        batch.discards.append(happening)
        return Ruling(Outcome.APPLIED)
    batch.events.append(happening)
    if change.event in SIGHTINGS and node.lives_at(batch.site_id):
        node = _learn(batch, node, {}, offer.occurred_at)
    return Ruling(Outcome.APPLIED, node, expected_rev(batch, offer.item), chained_conflict(batch, offer.item, node))


# Settlements


def _settlement(batch: Batch, offer: Offer, change: Settlement) -> Ruling:
    """What a person at the site decided of a conflict, maybe long ago: it counts if nobody was quicker."""
    conflict, node = batch.conflicts.get(change.conflict_id), batch.nodes.get(batch.canonical(offer.item.lane))
    if conflict is None or node is None or conflict.node_id != node.id:
        why = "Central knows no such conflict of this site about this node."
        return rejected(batch, offer, batch.node(offer.item.lane), "unknown_conflict", why)
    if conflict.status == "resolved":
        if conflict.resolution is change.resolution:
            return Ruling(Outcome.APPLIED, node, None)
        why = f"{conflict.resolved_by} decided {conflict.resolution} meanwhile."
        return rejected(batch, offer, node, "already_resolved", why)
    if why := _may_not_settle(batch, offer, conflict, node, change.resolution):
        return rejected(batch, offer, node, "forbidden", why)
    by = f"{change.person or 'somebody'} at {batch.sender.site.name}"[:200]
    try:
        settled = settle(conflict, node, Verdict(change.resolution, by, change.comment, batch.now))
    except PureBootError as error:
        return rejected(batch, offer, node, error.code, error.message)
    batch.put_conflict(settled.conflict)
    batch.put_node(settled.node)
    batch.steps.extend(settled.steps)
    return Ruling(Outcome.APPLIED, settled.node, None)


def _may_not_settle(batch: Batch, offer: Offer, conflict: StoredConflict, node: StoredNode, how: Resolution) -> str:
    if why := _why_not(batch, offer, site_may_settle):
        return f"{why} settles no conflicts; a person at central does."
    by_edges = how is not Resolution.KEEP_CENTRAL and conflict.type not in CLAIMS and not node.deleted_at
    if by_edges and not site_may_keep(conflict, node):
        return "To keep the site's word against what central did takes a person there."
    return ""
