"""How offline work takes effect: each item once, in the order of its lane, or shown as a conflict (PROTOCOL 2 to 5)."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from pureboot.central import batch as batches
from pureboot.central import conflicts, epochs, node_rows, sessions, sites
from pureboot.central.accounts import Agent
from pureboot.central.batch import Batch, Offer, Receipt, Sender
from pureboot.central.disputes import base_generation
from pureboot.central.generation import check_generation
from pureboot.central.node_rows import StoredNode
from pureboot.central.rules import rule
from pureboot.core.changes import Registration, Settlement
from pureboot.core.reconcile import ABSENT
from pureboot.wire.messages import Outcome, PushAnswer, PushedNode, PushRequest, PushResult


def settle(conn: Connection, agent: Agent, request: PushRequest, now: datetime, lease: timedelta) -> PushAnswer:
    """All of it in this transaction, receipts included, and the session prolonged by `lease`.

    Raises Clash for another generation than central's, Fenced for a session that is over.
    """
    ours = check_generation(conn, request.generation)
    sessions.check_fence(conn, sessions.lock_site(conn, agent), request.fence, now, lease)
    epochs.keep(conn, agent, request.epoch, request.epoch_accounts, now)
    offers = [batches.read(item, now) for item in request.items]
    batch = batches.load(conn, _sender(conn, agent, request), offers, ours, now)
    results = [_settle(batch, offer) for offer in offers]
    batch.store(conn)
    return _answer(batch, offers, results)


def _sender(conn: Connection, agent: Agent, request: PushRequest) -> Sender:
    site = sites.find(conn, agent.site_id)
    claimed = {item.autonomy for item in request.items}
    had = {level for level in claimed if level is site.autonomy_level or sites.ever_had(conn, site.id, level)}
    return Sender(agent, site, frozenset(had))


def _settle(batch: Batch, offer: Offer) -> PushResult:
    if receipt := batch.receipts.get(offer.item.id):
        return _again(batch, offer, receipt)
    ruling = rule(batch, offer)
    node = ruling.node
    receipt = Receipt(
        item_id=offer.item.id,
        site_id=batch.site_id,
        payload_hash=offer.payload_hash,
        outcome=ruling.outcome,
        reason=ruling.reason,
        node_id=node.id if node else None,
        base_generation=base_generation(batch, offer.item),
        expected_rev=ruling.expected_rev,
        conflict_id=ruling.conflict.id if ruling.conflict else None,
    )
    batch.settle(offer, receipt, node.version if node else None)
    return _result(batch, offer, receipt)


def _again(batch: Batch, offer: Offer, receipt: Receipt) -> PushResult:
    if receipt.payload_hash != offer.payload_hash or receipt.site_id != batch.site_id:
        reason = "id_reuse: this item id was used for something else."
        return PushResult(id=offer.item.id, outcome=Outcome.REJECTED, reason=reason)
    first = _result(batch, offer, receipt)
    return first.model_copy(update={"outcome": Outcome.DUPLICATE, "first": receipt.outcome})


def _result(batch: Batch, offer: Offer, receipt: Receipt) -> PushResult:
    renamed = receipt.node_id != offer.item.lane or isinstance(offer.change, Registration)
    result = PushResult(
        id=offer.item.id,
        outcome=receipt.outcome,
        canonical_id=receipt.node_id if renamed else None,
        reason=receipt.reason,
    )
    if receipt.outcome is Outcome.CONFLICT and receipt.conflict_id:
        result.conflict_id = receipt.conflict_id
        result.resolution = batch.conflicts[receipt.conflict_id].resolution
    return result


def _answer(batch: Batch, offers: Sequence[Offer], results: list[PushResult]) -> PushAnswer:
    receipts = [batch.receipts[o.item.id] for o in offers]
    mine = [receipt for receipt in receipts if receipt.site_id == batch.site_id]
    touched = dict.fromkeys(receipt.node_id for receipt in mine if receipt.node_id)
    disputed = dict.fromkeys(result.conflict_id for result in results if result.conflict_id)
    decided = [offer.change.conflict_id for offer in offers if isinstance(offer.change, Settlement)]
    # Whoever still takes its node for disputed may not have heard what was decided.
    decided += [offer.item.conflict_id for offer in offers if offer.item.conflict_id]
    disputed |= dict.fromkeys(id for id in decided if id in batch.conflicts)
    return PushAnswer(
        generation=batch.generation,
        results=results,
        nodes=[_pushed(batch, batch.nodes[id]) for id in touched],
        conflicts=[conflicts.document(batch.conflicts[id]) for id in disputed],
    )


def _pushed(batch: Batch, node: StoredNode) -> PushedNode:
    return PushedNode(
        id=node.id,
        version=node.version,
        state_rev=node.state_rev,
        state=ABSENT if node.deleted_at else node.stage.state.value,
        doc=node_rows.document(node) if node.lives_at(batch.site_id) else None,
    )
