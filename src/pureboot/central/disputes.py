"""What did not take effect as it came: rejected, or a conflict that keeps it for a person or for the site's policy."""

from dataclasses import dataclass
from datetime import timedelta

from pureboot.central.batch import Batch, Offer
from pureboot.central.clock import new_id
from pureboot.central.conflicts import Link, StoredConflict
from pureboot.central.node_rows import StoredNode
from pureboot.central.settlement import Verdict, settle
from pureboot.core.changes import StateUpdate
from pureboot.core.lifecycle import Edge, NodeState
from pureboot.core.reconcile import ABSENT, ConflictType, Interval, Resolution, automatic, policy_may_keep
from pureboot.wire.messages import UNKNOWN_NODE, Outcome, PushItem


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of one item. `expected_rev`: what the next of its chain is made on; `conflict`: the one it is part
    of, or that its chain is part of."""

    outcome: Outcome
    node: StoredNode | None = None
    expected_rev: int | None = None
    conflict: StoredConflict | None = None
    reason: str | None = None


def expected_rev(batch: Batch, item: PushItem) -> int | None:
    """The revision the item is made on; None: one that this central never had."""
    if item.after and (before := batch.receipts.get(item.after)):
        return before.expected_rev
    return item.base.state_rev if item.base and item.base.generation == batch.generation else None


def base_generation(batch: Batch, item: PushItem) -> int | None:
    """Of the base that the item's chain began on; None: it began with a node that was made at the site."""
    if item.after and (before := batch.receipts.get(item.after)):
        return before.base_generation
    return item.base.generation if item.base else None


def chained_conflict(batch: Batch, item: PushItem, node: StoredNode | None) -> StoredConflict | None:
    """The conflict about this node that the item's chain ended in."""
    before = batch.receipts.get(item.after) if item.after else None
    id = before.conflict_id if before else item.conflict_id
    conflict = batch.conflicts.get(id) if id else None
    # Where it is about another (that has this one's MAC address now), that one's row is not locked here.
    return conflict if conflict and node and conflict.node_id == node.id else None


def unknown(batch: Batch, offer: Offer) -> Ruling:
    return rejected(batch, offer, None, UNKNOWN_NODE, "Central knows no such node; register it first.")


def rejected(batch: Batch, offer: Offer, node: StoredNode | None, code: str, why: str) -> Ruling:
    item = offer.item
    chained = chained_conflict(batch, item, node)
    return Ruling(Outcome.REJECTED, node, expected_rev(batch, item), chained, f"{code}: {why}")


def disputed(batch: Batch, offer: Offer, node: StoredNode, kind: ConflictType, edge: Edge | None) -> Ruling:
    """A new conflict, or the one that is open already."""
    if standing := batch.open_conflict(node.id):
        return joined(batch, offer, node, standing, edge)
    link = Link(offer.item.id, edge, _comment(offer), offer.occurred_at)
    conflict = StoredConflict(
        id=new_id(),
        site_id=batch.site_id,
        node_id=node.id,
        node_mac=node.mac_addresses[0].value,
        agent_id=batch.sender.agent.id,
        type=kind,
        base_state=edge.origin.state.value if edge else None,
        # A registration says only that the machine is there.
        local_state=(edge.target.state if edge else NodeState.DISCOVERED).value,
        central_state=ABSENT if node.deleted_at else node.stage.state.value,
        base_rev=expected_rev(batch, offer.item),
        central_rev=node.state_rev,
        chain=(link,),
        strategy=batch.sender.site.conflict_resolution,
        status="pending",
        local_updated_at=link.occurred_at,
        local_uncertainty_ms=offer.uncertainty // timedelta(milliseconds=1),
        central_updated_at=node.deleted_at or node.stage_at,
        created_at=batch.now,
        updated_at=batch.now,
    )
    how = _policy(conflict, node)
    if how is None:
        batch.put_conflict(conflict)
        return Ruling(Outcome.CONFLICT, node, None, conflict, _because(conflict))
    settled = settle(conflict, node, Verdict(how, f"strategy {conflict.strategy}", "", batch.now))
    batch.put_conflict(settled.conflict)
    if how is Resolution.KEEP_LOCAL:
        node = settled.node
        batch.put_node(node)
        batch.steps.extend(settled.steps)
    return Ruling(Outcome.CONFLICT, node, settled.conflict.expected_rev, settled.conflict, _because(conflict))


def _policy(conflict: StoredConflict, node: StoredNode) -> Resolution | None:
    """What the site's strategy makes of it; None: a person has to look."""
    uncertainty = timedelta(milliseconds=conflict.local_uncertainty_ms)
    local = Interval.around(conflict.local_updated_at, uncertainty)
    central = Interval.around(conflict.central_updated_at, timedelta(0))
    may_keep = site_may_keep(conflict, node)
    return automatic(conflict.strategy, conflict.type, is_later=local.is_after(central), may_keep=may_keep)


def site_may_keep(conflict: StoredConflict, node: StoredNode) -> bool:
    """Whether the site's word may count without a person at central: by its policy, or by its own people."""
    return node.lives_at(conflict.site_id) and all(policy_may_keep(node.stage, edge) for _, edge in conflict.edges)


def joined(batch: Batch, offer: Offer, node: StoredNode, conflict: StoredConflict, edge: Edge | None) -> Ruling:
    conflict = conflict.joined(Link(offer.item.id, edge, _comment(offer), offer.occurred_at), batch.now)
    batch.put_conflict(conflict)
    return Ruling(Outcome.CONFLICT, node, None, conflict, _because(conflict))


def _comment(offer: Offer) -> str:
    return offer.change.comment if isinstance(offer.change, StateUpdate) else ""


def _because(conflict: StoredConflict) -> str:
    match conflict.type:
        case ConflictType.SITE_CLAIM:
            return "site_claim: this machine belongs to another site."
        case ConflictType.MAC_COLLISION:
            return "mac_collision: these MAC addresses belong to different nodes."
        case ConflictType.MISSING_CENTRAL:
            return "missing_central: central has deleted this node."
        case kind:
            return f"{kind}: the site has it {conflict.local_state}, central {conflict.central_state}."
