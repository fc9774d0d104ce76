"""Where central's word lands: answers to pushes and pages of the feed, each as a whole."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.conflicts import Conflict
from pureboot.agent.journal import Moved
from pureboot.agent.mirror import fold
from pureboot.agent.queue import QueueItem
from pureboot.agent.site import Position
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import PureBootError
from pureboot.core.lifecycle import Autonomy, By, Edge, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import (
    Base,
    ConflictDocument,
    FeedItem,
    NodeDocument,
    Outcome,
    PushAnswer,
    PushedNode,
    PushItem,
    PushResult,
)
from tests.support.parts import EPOCH, MAC, OTHER_MAC, Parts, conflict_document, node_document, node_item, opened, page

HERE, HERE_TOO = MacAddress.parse(MAC), MacAddress.parse(OTHER_MAC)
S = NodeState


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


def answer(
    *results: PushResult,
    nodes: list[NodeDocument] | None = None,
    gone: list[str] | None = None,
    conflicts: list[ConflictDocument] | None = None,
    generation: int = 1,
) -> PushAnswer:
    here = [PushedNode(id=n.id, version=n.version, state_rev=n.state_rev, state=n.state, doc=n) for n in nodes or []]
    away = [PushedNode(id=id, version=9, state_rev=9, state="absent", doc=None) for id in gone or []]
    return PushAnswer(generation=generation, results=list(results), nodes=[*here, *away], conflicts=conflicts or [])


def said(outcome: Outcome, id: str, **fields: Any) -> PushResult:
    return PushResult(id=id, outcome=outcome, **fields)


def offered(parts: Parts) -> list[PushItem]:
    return parts.database.store.read_now(lambda c: parts.queue.batch(c, 100))


async def settle(parts: Parts, given: PushAnswer, items: list[PushItem] | None = None) -> list[str]:
    """The ids central could not settle."""
    put_off: list[str] = []
    await parts.mirror.settle(items or offered(parts), given, lambda _, result: put_off.append(result.id))
    return put_off


async def moves(parts: Parts, state: NodeState, node_id: str = "n1") -> str:
    accepted = await parts.journal.move(node_id, state, report_id=None, boot_token=None)
    assert accepted.queue_id is not None
    return accepted.queue_id


def sent(parts: Parts) -> list[tuple[Any, ...]]:
    return parts.rows("SELECT id, outcome FROM sync_sent ORDER BY seq")


# Answers to a push


async def test_an_applied_item_leaves_and_its_node_stands_on_centrals_word(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    after = node_document("n1", MAC, state=S.ACTIVE, version=2, state_rev=2)
    await settle(parts, answer(said(Outcome.APPLIED, item), nodes=[after]))
    node = parts.node()
    assert (node.state, node.base, node.base_version, node.base_state_rev) == (S.ACTIVE, Stage(S.ACTIVE), 2, 2)
    assert (parts.queue.pending_count, sent(parts)) == (0, [(item, "applied")])


async def test_the_items_and_the_nodes_of_an_answer_are_stored_together(parts: Parts, tmp_path: Path) -> None:
    """Without that, a crash between the two leaves a site that believes what central does not."""
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    trigger = "CREATE TRIGGER refuse BEFORE UPDATE ON node BEGIN SELECT RAISE (ABORT, 'refused'); END"
    await parts.database.store.write(lambda tx: tx.execute(trigger))
    after = node_document("n1", MAC, state=S.ACTIVE, version=2, state_rev=2)
    with pytest.raises(Exception, match="refused"):
        await settle(parts, answer(said(Outcome.APPLIED, item), nodes=[after]))
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert [i.id for i in await again.waiting()] == [item]
        assert (again.node().base_version, sent(again)) == (1, [])


async def test_a_duplicate_counts_as_what_it_was_the_first_time(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    first = await moves(parts, S.ACTIVE)
    event = await parts.journal.record("n1", NodeEvent("n1", "e"))
    await settle(
        parts,
        answer(
            said(Outcome.DUPLICATE, first, first=Outcome.APPLIED),
            said(Outcome.DUPLICATE, str(event.queue_id), first=Outcome.REJECTED, reason="no"),
        ),
    )
    assert sent(parts) == [(first, "applied")]
    (failed,) = await parts.queue.get_failed_items()
    assert (failed.id, failed.last_error) == (event.queue_id, "no")


async def test_an_answer_to_a_request_that_was_repeated_changes_nothing_more(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    items = offered(parts)
    after = node_document("n1", MAC, state=S.ACTIVE, version=2, state_rev=2)
    for outcome in (Outcome.APPLIED, Outcome.DUPLICATE):
        result = said(outcome, item, first=Outcome.APPLIED if outcome is Outcome.DUPLICATE else None)
        await settle(parts, answer(result, nodes=[after]), items)
    assert (parts.queue.pending_count, parts.queue.failed_count, sent(parts)) == (0, 0, [(item, "applied")])


async def test_a_conflict_that_central_won_leaves_the_node_where_central_has_it(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    theirs = node_document("n1", MAC, state=S.REPROVISION, version=2, state_rev=2)
    resolved = conflict_document("c1", "n1", status="resolved", resolved=True, resolution="keep_central")
    result = said(Outcome.CONFLICT, item, conflict_id="c1", resolution="keep_central")
    await settle(parts, answer(result, nodes=[theirs], conflicts=[resolved]))
    assert (parts.node().state, parts.node().conflict_id) == (S.REPROVISION, None)
    assert (parts.conflicts.pending_count, sent(parts)) == (0, [(item, "conflict")])


async def pending_conflict(parts: Parts) -> None:
    """Local active, central reprovision; a person has to settle it."""
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    theirs = node_document("n1", MAC, state=S.REPROVISION, version=2, state_rev=2)
    result = said(Outcome.CONFLICT, item, conflict_id="c1")
    await settle(parts, answer(result, nodes=[theirs], conflicts=[conflict_document("c1", "n1")]))


async def test_a_pending_conflict_keeps_the_local_state_beside_the_base(parts: Parts) -> None:
    await pending_conflict(parts)
    node = parts.node()
    assert (node.state, node.base, node.conflict_id) == (S.ACTIVE, Stage(S.REPROVISION), "c1")
    assert parts.conflicts.pending_count == 1
    (conflict,) = await parts.detector.get_pending_conflicts()
    assert (conflict.id, conflict.local_state, conflict.central_state) == ("c1", "active", "reprovision")


async def test_the_end_of_an_older_conflict_leaves_the_newer_one_open(parts: Parts) -> None:
    await parts.knows(state=S.ACTIVE)
    await parts.hears(conflict_document("c2", "n1"))
    await parts.hears(conflict_document("c1", "n1", status="resolved", resolved=True, resolution="keep_central"))
    assert (parts.node().conflict_id, parts.conflicts.pending_count) == ("c2", 1)


@pytest.mark.parametrize("first", ["answer", "feed"])
async def test_what_the_feed_tells_of_the_node_before_its_conflict_is_known_takes_nothing_from_the_site(
    parts: Parts, first: str
) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    sent = offered(parts)
    note = await parts.journal.record("n1", NodeEvent("n1", "e"))
    theirs = node_item("n1", MAC, state=S.REPROVISION, version=2, state_rev=2)
    await parts.reads(page(theirs, next="5.0"))
    assert parts.node().state is S.REPROVISION
    document = conflict_document("c1", "n1", local_attempt=0, local_chain=[item])
    if first == "feed":
        about = FeedItem(pos=6, type="conflict", op="upsert", id="c1", doc=document.model_dump(mode="json"))
        await parts.reads(page(about, next="6.0"))
        assert parts.node().state is S.ACTIVE
    await settle(parts, answer(said(Outcome.CONFLICT, item, conflict_id="c1"), conflicts=[document]), sent)
    assert (parts.node().state, parts.node().conflict_id) == (S.ACTIVE, "c1")
    assert [waiting.id for waiting in await parts.waiting()] == [note.queue_id]


async def test_what_goes_on_from_the_conflict_and_is_not_delivered_stands_too(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLING, attempt=1)
    item = await moves(parts, S.INSTALLED)
    known: dict[str, Any] = {"local_state": "installed", "local_attempt": 1, "local_chain": [item]}
    first = conflict_document("c1", "n1", **known)
    theirs = node_document("n1", MAC, state=S.DISCOVERED, version=2, state_rev=2)
    await settle(parts, answer(said(Outcome.CONFLICT, item, conflict_id="c1"), nodes=[theirs], conflicts=[first]))
    await moves(parts, S.ACTIVE)
    later = conflict_document("c1", "n1", version=2, **known)
    about = FeedItem(pos=6, type="conflict", op="upsert", id="c1", doc=later.model_dump(mode="json"))
    await parts.reads(page(about, next="6.0"))
    assert parts.node().stage == Stage(S.ACTIVE, 1)


async def test_what_the_site_did_on_centrals_side_stands_when_the_conflict_is_opened_again(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLING, attempt=1)
    item = await moves(parts, S.INSTALLED)
    known: dict[str, Any] = {"local_state": "installed", "local_attempt": 1, "local_chain": [item]}
    theirs = node_document("n1", MAC, state=S.INSTALLING, attempt=2, version=2, state_rev=2)
    settled = conflict_document("c1", "n1", **known, status="resolved", resolved=True, resolution="keep_central")
    result = said(Outcome.CONFLICT, item, conflict_id="c1", resolution="keep_central")
    await settle(parts, answer(result, nodes=[theirs], conflicts=[settled]))
    await moves(parts, S.INSTALLED)
    again = conflict_document("c1", "n1", version=3, **known)
    about = FeedItem(pos=6, type="conflict", op="upsert", id="c1", doc=again.model_dump(mode="json"))
    await parts.reads(page(about, next="6.0"))
    assert (parts.node().stage, parts.node().conflict_id) == (Stage(S.INSTALLED, 2), "c1")


async def test_what_the_machine_reports_meanwhile_belongs_to_the_conflict(parts: Parts) -> None:
    await pending_conflict(parts)
    await parts.journal.record("n1", NodeEvent("n1", "heartbeat"))
    (item,) = offered(parts)
    assert item.conflict_id == "c1"


async def test_news_of_a_disputed_node_change_its_base_and_not_what_the_site_holds(parts: Parts) -> None:
    await pending_conflict(parts)
    await parts.knows(state=S.PENDING, version=3, state_rev=3)
    assert (parts.node().state, parts.node().base) == (S.ACTIVE, Stage(S.PENDING))


@pytest.mark.parametrize(("resolution", "state"), [("keep_central", S.REPROVISION), ("keep_local", S.ACTIVE)])
@pytest.mark.parametrize("conflict_first", [True, False])
async def test_a_person_settles_it_at_central_and_the_site_follows(
    parts: Parts, resolution: str, state: NodeState, conflict_first: bool
) -> None:
    await pending_conflict(parts)
    resolved = conflict_document("c1", "n1", status="resolved", resolved=True, resolution=resolution)
    items = [
        FeedItem(pos=2, type="conflict", op="upsert", id="c1", doc=resolved.model_dump(mode="json")),
        node_item("n1", MAC, state=state, version=3, state_rev=3),
    ]
    await parts.reads(page(*(items if conflict_first else reversed(items))))
    node = parts.node()
    assert (node.stage, node.base, node.conflict_id) == (Stage(state), Stage(state), None)
    assert (parts.conflicts.pending_count, await parts.detector.get_pending_conflicts()) == (0, [])


async def test_a_rejected_item_is_shown_and_its_edge_undone(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await settle(parts, answer(said(Outcome.REJECTED, item, reason="forbidden: no")))
    assert parts.node().state is S.INSTALLED
    (failed,) = await parts.queue.get_failed_items()
    assert (failed.id, failed.last_error) == (item, "forbidden: no")
    assert (parts.queue.pending_count, parts.queue.failed_count) == (0, 1)


async def test_an_item_put_off_stays_and_is_handed_back(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    assert await settle(parts, answer(said(Outcome.RETRY_LATER, item))) == [item]
    assert (parts.node().state, parts.queue.pending_count) == (S.ACTIVE, 1)


async def test_what_was_said_after_the_push_was_sent_stays_on_top(parts: Parts) -> None:
    await parts.knows(state=S.PENDING)
    begun = await parts.journal.begin("n1", (Edge(Stage(S.PENDING), Stage(S.INSTALLING, 1), By.SYSTEM),))
    items = offered(parts)
    token = begun.node.boot_token
    later = await parts.journal.move("n1", S.INSTALLED, report_id=None, boot_token=token)
    after = node_document("n1", MAC, state=S.INSTALLING, attempt=1, version=2, state_rev=2)
    await settle(parts, answer(said(Outcome.APPLIED, str(begun.queue_id)), nodes=[after]), items)
    assert (parts.node().stage, parts.node().base) == (Stage(S.INSTALLED, 1), Stage(S.INSTALLING, 1))
    (item,) = await parts.waiting()
    assert (item.id, item.after) == (later.queue_id, begun.queue_id)


async def test_an_install_confirmed_by_central_keeps_its_token(parts: Parts) -> None:
    await parts.knows(state=S.PENDING)
    begun = await parts.journal.begin("n1", (Edge(Stage(S.PENDING), Stage(S.INSTALLING, 1), By.SYSTEM),))
    await parts.journal.mark_begun(begun.node.boot_token)
    after = node_document("n1", MAC, state=S.INSTALLING, attempt=1, version=2, state_rev=2)
    await settle(parts, answer(said(Outcome.APPLIED, str(begun.queue_id)), nodes=[after]))
    assert (parts.node().boot_token, parts.node().begun) == (begun.node.boot_token, True)


async def test_a_readonly_site_moves_when_central_has_confirmed(parts: Parts) -> None:
    await parts.has_autonomy(Autonomy.READONLY)
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await parts.knows(state=S.INSTALLED, version=2, facts={"vendor": "QEMU"})
    assert parts.node().state is S.INSTALLED
    after = node_document("n1", MAC, state=S.ACTIVE, version=3, state_rev=2)
    await settle(parts, answer(said(Outcome.APPLIED, item), nodes=[after]))
    assert parts.node().state is S.ACTIVE


async def test_a_node_made_here_that_central_knew_takes_centrals_name(parts: Parts) -> None:
    local = (await parts.journal.register(HERE, facts={"vendor": "QEMU"})).node.node_id
    (registration,) = offered(parts)
    event = await parts.journal.record(local, NodeEvent(local, "hello"))
    theirs = node_document("n1", MAC, state=S.ACTIVE, version=4, state_rev=2)
    result = said(Outcome.APPLIED, registration.id, canonical_id="n1")
    await settle(parts, answer(result, nodes=[theirs]), [registration])
    assert parts.node("n1") == parts.node(local) == parts.cache.by_mac(HERE)
    assert (parts.node().state, parts.cache.count()) == (S.ACTIVE, 1)
    (waiting,) = offered(parts)
    assert (waiting.id, waiting.lane) == (event.queue_id, "n1")
    await parts.journal.record(local, NodeEvent(local, "by its old name"))
    assert {item.lane for item in offered(parts)} == {"n1"}


async def test_a_node_central_has_deleted_leaves_with_its_last_item(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await parts.reads(page(FeedItem(pos=2, type="node", op="delete", id="n1", version=2)))
    assert parts.node().state is S.ACTIVE  # it still has something to deliver
    resolved = conflict_document("c1", "n1", status="resolved", resolved=True, resolution="keep_central")
    result = said(Outcome.CONFLICT, item, conflict_id="c1", resolution="keep_central")
    await settle(parts, answer(result, gone=["n1"], conflicts=[resolved]))
    assert parts.cache.by_id("n1") is None
    assert parts.cache.last_state(HERE) is not None


async def test_a_deleted_node_in_dispute_leaves_when_a_person_lets_it_go(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    fields = {"conflict_type": "missing_central", "central_state": "absent"}
    pending = conflict_document("c1", "n1", **fields)
    await settle(parts, answer(said(Outcome.CONFLICT, item, conflict_id="c1"), gone=["n1"], conflicts=[pending]))
    assert parts.node().conflict_id == "c1"
    resolved = conflict_document("c1", "n1", **fields, status="resolved", resolved=True, resolution="keep_central")
    await parts.reads(
        page(FeedItem(pos=2, type="conflict", op="upsert", id="c1", doc=resolved.model_dump(mode="json")))
    )
    assert parts.cache.by_id("n1") is None


async def test_what_is_discarded_is_undone_here_too(parts: Parts) -> None:
    """Else the site would show for ever what central was never told."""
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await parts.queue.mark_failed(item, "it never got through")
    assert parts.node().state is S.ACTIVE
    assert await parts.queue.clear_failed() == 1
    assert (parts.node().state, parts.node().base) == (S.INSTALLED, Stage(S.INSTALLED))


async def test_an_answer_of_another_generation_is_noted(parts: Parts) -> None:
    await settle(parts, answer(generation=3))
    assert parts.site.position.generation == 3


# The feed


async def test_a_page_and_its_cursor_are_stored_together(parts: Parts, tmp_path: Path) -> None:
    await parts.reads(page(node_item("n1", MAC), next="7.1", more=True))
    assert parts.site.position == Position(1, "7.1")
    broken = FeedItem(pos=9, type="node", op="upsert", id="n2", doc={"id": "n2"})
    with pytest.raises(PureBootError):
        await parts.reads(page(node_item("n3", OTHER_MAC), broken, next="9.1"))
    assert parts.site.position == Position(1, "7.1")
    assert parts.cache.by_id("n3") is None
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert (again.site.position, again.cache.count()) == (Position(1, "7.1"), 1)


async def test_a_page_that_cannot_be_read_is_one_of_our_errors(parts: Parts) -> None:
    """The loop that follows the feed goes on after those, and after no others."""
    broken = FeedItem(pos=9, type="node", op="upsert", id="n2", doc={"id": "n2"})
    with pytest.raises(PureBootError):
        await parts.reads(page(broken))


async def test_only_the_last_page_of_a_pass_says_how_fresh_everything_is(parts: Parts) -> None:
    await parts.reads(page(node_item("n1", MAC), more=True))
    assert (parts.site.last_pass, parts.site.knowledge_age()) == (None, None)
    await parts.reads(page(more=False))
    parts.clock.advance(42)
    assert parts.site.knowledge_age() == 42


async def test_a_document_older_than_what_is_here_is_ignored(parts: Parts) -> None:
    await parts.knows(state=S.ACTIVE, version=5, state_rev=3)
    await parts.knows(state=S.INSTALLED, version=4, state_rev=2)
    assert (parts.node().state, parts.node().base_version) == (S.ACTIVE, 5)


async def test_what_a_site_has_not_delivered_stays_on_top_of_news(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    await moves(parts, S.ACTIVE)
    await parts.knows(state=S.INSTALLED, version=2, workflow_id="w2")
    node = parts.node()
    assert (node.state, node.base, node.workflow_id) == (S.ACTIVE, Stage(S.INSTALLED), "w2")


async def test_an_edge_that_no_longer_fits_moves_nothing_until_central_has_judged_it(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await parts.knows(state=S.REPROVISION, version=2, state_rev=2)
    assert parts.node().state is S.REPROVISION
    assert [i.id for i in await parts.waiting()] == [item]


async def test_an_item_nobody_can_read_stops_no_news(parts: Parts) -> None:
    """Made for a node this site did not know; central will reject it."""
    payload = {"node_id": "n1", "to_state": "active"}
    await parts.queue.enqueue(QueueItem(id="i1", item_type="state_update", payload=payload, created_at=EPOCH))
    await parts.knows(state=S.INSTALLED)
    assert parts.node().state is S.INSTALLED
    assert [(item.id, item.lane) for item in offered(parts)] == [("i1", "n1")]


async def test_a_node_of_another_id_takes_over_a_mac_made_here(parts: Parts) -> None:
    local = (await parts.journal.register(HERE, facts={})).node.node_id
    await parts.knows("n1", MAC, state=S.ACTIVE)
    assert parts.node(local) == parts.node("n1")
    assert [item.lane for item in offered(parts)] == ["n1"]


async def test_a_new_node_on_a_deleted_ones_mac_does_not_inherit_its_items(parts: Parts) -> None:
    """Central deleted n1 and made n2 for the machine; what the site still says of n1 is for n1 to be judged by."""
    await parts.knows("n1", MAC, state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await parts.reads(
        page(FeedItem(pos=2, type="node", op="delete", id="n1", version=2), node_item("n2", MAC, state=S.INSTALLED))
    )
    assert [(i.id, i.lane) for i in offered(parts)] == [(item, "n1")]
    owner = parts.cache.by_mac(HERE)
    assert owner is not None
    assert (owner.node_id, owner.state) == ("n2", S.INSTALLED)
    resolved = conflict_document("c1", "n1", status="resolved", resolved=True, resolution="keep_central")
    result = said(Outcome.CONFLICT, item, conflict_id="c1", resolution="keep_central")
    await settle(parts, answer(result, gone=["n1"], conflicts=[resolved]))
    assert [node.node_id for node in parts.cache.nodes()] == ["n2"]
    assert parts.cache.last_state(HERE) is None


@pytest.mark.parametrize("op", ["delete", "moved_out"])
async def test_a_node_that_left_is_gone_and_remembered(parts: Parts, op: Any) -> None:
    await parts.knows(state=S.ACTIVE)
    await parts.reads(page(FeedItem(pos=2, type="node", op=op, id="n1", version=2)))
    assert parts.cache.by_id("n1") is None
    assert parts.cache.last_state(HERE) is S.ACTIVE


@pytest.mark.parametrize("op", ["delete", "moved_out"])
async def test_a_node_that_left_with_something_to_say_is_not_touched_and_goes_once_it_has_said_it(
    parts: Parts, op: Any
) -> None:
    await parts.knows(state=S.PENDING)
    event = await parts.journal.record("n1", NodeEvent("", "note"))
    items = offered(parts)
    await parts.reads(page(FeedItem(pos=2, type="node", op=op, id="n1", version=2), next="2.1"))
    assert parts.node().disputed
    with pytest.raises(Moved):
        await parts.journal.begin("n1", (Edge(Stage(S.PENDING), Stage(S.INSTALLING, 1), By.SYSTEM),))
    await settle(parts, answer(said(Outcome.APPLIED, event.queue_id or "")), items)
    assert parts.cache.by_id("n1") is None


async def test_a_node_that_left_and_came_back_is_one_as_any_other(parts: Parts) -> None:
    await parts.knows(state=S.ACTIVE)
    await parts.journal.record("n1", NodeEvent("", "note"))
    await parts.reads(page(FeedItem(pos=2, type="node", op="moved_out", id="n1", version=2), next="2.1"))
    await parts.knows(state=S.ACTIVE, version=3)
    assert not parts.node().disputed


async def test_a_registration_that_made_a_node_of_its_own_is_not_the_deleted_one(parts: Parts) -> None:
    """Made here under its own name, then taken for the one central had; which central deleted before it heard of it."""
    made = await parts.journal.register(HERE, facts={})
    await parts.knows("theirs", MAC)
    assert parts.cache.canonical(made.node.node_id) == "theirs"
    anew = said(Outcome.APPLIED, made.queue_id or "", canonical_id=made.node.node_id)
    document = node_document(made.node.node_id, MAC, state=S.DISCOVERED)
    await settle(parts, answer(anew, nodes=[document], gone=["theirs"]))
    assert parts.rows("SELECT id, state FROM node") == [(made.node.node_id, "discovered")]
    assert parts.rows("SELECT * FROM node_alias") == []
    assert [parts.cache.canonical(name) for name in (made.node.node_id, "theirs")] == [made.node.node_id, "theirs"]


async def test_a_conflict_about_another_node_is_not_that_of_the_one_that_spoke(parts: Parts) -> None:
    """Central has deleted the node, and another site's has its MAC: the registration claims that one."""
    await parts.knows()
    accepted = await parts.journal.register(HERE, facts={"model": "R650"})
    claim = said(Outcome.CONFLICT, accepted.queue_id or "", canonical_id="theirs", conflict_id="c1")
    about = conflict_document("c1", "theirs", conflict_type="site_claim")
    await settle(parts, answer(claim, gone=["n1", "theirs"], conflicts=[about]))
    assert parts.cache.by_id("n1") is None
    assert parts.conflicts.pending_count == 1


async def test_of_a_node_that_central_forgot_with_its_backup_another_pass_decides(parts: Parts) -> None:
    await parts.knows()
    event = await parts.journal.record("n1", NodeEvent("", "note"))
    assert parts.site.position.cursor != "0"
    refused = said(Outcome.REJECTED, event.queue_id or "", reason="unknown_node: Central knows no such node.")
    await settle(parts, answer(refused))
    assert parts.site.position.cursor == "0"
    await parts.reads(page(next="4.1"))
    assert parts.cache.by_id("n1") is None


async def test_a_node_that_only_this_site_knows_stays_when_central_refuses_what_it_says(parts: Parts) -> None:
    made = await parts.journal.register(HERE, facts={})
    await parts.queue.discard(made.queue_id or "", "", "")
    await parts.knows("other", OTHER_MAC)
    event = await parts.journal.record(made.node.node_id, NodeEvent("", "note"))
    refused = said(Outcome.REJECTED, event.queue_id or "", reason="unknown_node: Central knows no such node.")
    await settle(parts, answer(refused))
    assert parts.site.position.cursor == "1.1"


async def test_an_alias_on_the_feed_holds_for_ever(parts: Parts, tmp_path: Path) -> None:
    await parts.knows()
    await parts.reads(page(FeedItem(pos=2, type="alias", op="upsert", id="old", doc={"node_id": "n1"})))
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert again.node("old") == again.node("n1")


async def test_facts_of_the_site_stay_and_those_of_central_join_them(parts: Parts) -> None:
    await parts.knows(facts={"vendor": "QEMU"})
    await parts.journal.register(HERE, facts={"ip_address": "10.0.0.9"})
    await parts.knows(version=2, facts={"vendor": "QEMU", "ip_address": "10.0.0.1", "model": "pc"})

    def facts(tx: Transaction) -> dict[str, str]:
        return parts.cache.facts(tx, "n1")

    known = await parts.database.store.write(facts)
    assert known == {"vendor": "QEMU", "ip_address": "10.0.0.9", "model": "pc"}


@pytest.mark.parametrize("rot", ['{"vendor": "QEMU}', '["vendor"]'])
async def test_facts_that_rotted_keep_no_answer_and_no_page_out_and_come_again(parts: Parts, rot: str) -> None:
    await parts.knows(facts={"vendor": "QEMU"})
    item = (await parts.journal.record("n1", NodeEvent("n1", "e"))).queue_id
    rots = "UPDATE node SET facts = ?"
    await parts.database.store.write(lambda tx: tx.execute(rots, [rot]))
    document = node_document("n1", MAC, version=2, facts={"vendor": "QEMU"})
    await settle(parts, answer(said(Outcome.APPLIED, str(item)), nodes=[document]))
    assert parts.rows("SELECT facts FROM node") == [('{"vendor": "QEMU"}',)]
    await parts.database.store.write(lambda tx: tx.execute(rots, [rot]))
    await parts.knows(version=3, facts={"vendor": "KVM"})
    assert parts.rows("SELECT facts FROM node") == [('{"vendor": "KVM"}',)]


async def test_centrals_conflict_replaces_what_the_site_suspected(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    await parts.detector.mark_conflict((await suspected(parts, "preview")).model_copy(update={"node_mac": MAC}))
    assert parts.conflicts.pending_count == 1
    document = conflict_document("c1", "n1")
    await parts.reads(
        page(FeedItem(pos=2, type="conflict", op="upsert", id="c1", doc=document.model_dump(mode="json")))
    )
    assert [conflict.id for conflict in await parts.detector.get_pending_conflicts()] == ["c1"]


async def suspected(parts: Parts, id: str) -> Any:
    return Conflict.model_validate(conflict_document(id, "n1"), from_attributes=True)


# A pass over everything


def start_over(parts: Parts) -> Any:
    return parts.mirror.begin_pass()


async def test_what_a_whole_pass_did_not_meet_is_gone(parts: Parts) -> None:
    await parts.knows("n1", MAC)
    await parts.knows("n2", OTHER_MAC)
    await start_over(parts)
    await parts.reads(page(node_item("n2", OTHER_MAC), next="3.0", more=True))
    assert parts.cache.by_id("n1") is not None
    await parts.reads(page(next="4.0"))
    assert [node.node_id for node in parts.cache.nodes()] == ["n2"]
    assert parts.cache.last_state(HERE) is not None


async def test_a_node_with_something_to_say_survives_the_pass(parts: Parts) -> None:
    await parts.knows("n1", MAC)
    await parts.journal.record("n1", NodeEvent("n1", "e"))
    local = (await parts.journal.register(MacAddress.parse(OTHER_MAC), facts={})).node.node_id
    await start_over(parts)
    await parts.reads(page(next="4.0"))
    assert {node.node_id for node in parts.cache.nodes()} == {"n1", local}


async def test_a_restart_in_the_middle_of_a_pass_forgets_nothing_it_met(parts: Parts, tmp_path: Path) -> None:
    await parts.knows("n1", MAC)
    await parts.knows("n2", OTHER_MAC)
    await start_over(parts)
    await parts.reads(page(node_item("n1", MAC), next="3.0", more=True))
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        await again.reads(page(next="4.0"))
        assert [node.node_id for node in again.cache.nodes()] == ["n1"]


async def test_an_ordinary_page_sweeps_nothing(parts: Parts) -> None:
    await parts.knows("n1", MAC)
    await parts.knows("n2", OTHER_MAC)
    assert parts.cache.count() == 2


async def test_a_conflict_central_no_longer_knows_lets_its_node_go(parts: Parts) -> None:
    await pending_conflict(parts)
    await start_over(parts)
    await parts.reads(page(node_item("n1", MAC, state=S.REPROVISION, version=2, state_rev=2)))
    assert (parts.node().conflict_id, parts.node().state) == (None, S.REPROVISION)
    assert parts.conflicts.pending_count == 0


async def test_a_conflict_is_of_its_node_also_where_the_feed_tells_of_that_later(parts: Parts) -> None:
    """A new file, or one that was set aside: the node was changed at central after it was disputed."""
    await parts.hears(conflict_document("c1", "n1", local_attempt=0))
    await parts.knows(state=S.PENDING)
    node = parts.node()
    assert (node.conflict_id, node.state, node.base) == ("c1", S.ACTIVE, Stage(S.PENDING))


async def test_a_conflict_finds_its_node_where_that_is_renamed_later(parts: Parts) -> None:
    local = (await parts.journal.register(HERE, facts={})).node.node_id
    await parts.hears(conflict_document("c1", "n1", local_attempt=0))
    await parts.reads(page(FeedItem(pos=3, type="alias", op="upsert", id=local, doc={"node_id": "n1"})))
    assert parts.node("n1").conflict_id == "c1"


async def test_an_answer_disputes_a_node_whose_row_was_lost_with_a_damaged_file(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await parts.database.store.write(lambda tx: parts.cache.forget(tx, "n1"))
    theirs = node_document("n1", MAC, state=S.REPROVISION, version=2, state_rev=2)
    document = conflict_document("c1", "n1", local_attempt=0, local_chain=[item])
    await settle(parts, answer(said(Outcome.CONFLICT, item, conflict_id="c1"), nodes=[theirs], conflicts=[document]))
    assert (parts.node().conflict_id, parts.node().state) == ("c1", S.ACTIVE)


async def test_an_alias_brings_what_is_not_delivered_of_the_node_with_it(parts: Parts) -> None:
    local = (await parts.journal.register(HERE, facts={})).node.node_id
    await parts.has_autonomy(Autonomy.FULL)
    await parts.journal.decree(local, S.PENDING, comment="", person="Ada")
    await parts.knows("n1", OTHER_MAC, state=S.DISCOVERED)
    await parts.reads(page(FeedItem(pos=3, type="alias", op="upsert", id=local, doc={"node_id": "n1"})))
    assert parts.node("n1").state is S.PENDING


# The feed and the answer to a push overtake each other


@pytest.mark.parametrize("first_start", [True, False])
async def test_what_an_answer_brings_while_a_pass_is_asked_for_is_not_swept_away(
    parts: Parts, first_start: bool
) -> None:
    if not first_start:
        await parts.knows("n2", OTHER_MAC)
        await start_over(parts)
    since = parts.site.position
    accepted = await parts.journal.register(HERE, facts={})
    items, id = offered(parts), accepted.node.node_id
    await parts.journal.record(id, NodeEvent(id, "e"))
    made = node_document(id, MAC)
    await settle(parts, answer(said(Outcome.APPLIED, str(accepted.queue_id), canonical_id=id), nodes=[made]), items)
    await start_over(parts)  # once more, before the first page is here
    assert await parts.reads(page(next="3.0"), since)
    assert [(node.node_id, node.gone) for node in parts.cache.nodes()] == [(id, False)]


async def test_a_conflict_that_an_answer_opens_while_a_pass_is_asked_for_stands(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    await start_over(parts)
    since = parts.site.position
    await pending_conflict(parts)
    await parts.reads(page(node_item("n1", MAC, state=S.INSTALLED), next="3.0"), since)
    assert (parts.node().conflict_id, parts.node().state) == ("c1", S.ACTIVE)


@pytest.mark.parametrize("by", ["feed", "answer"])
async def test_what_a_pass_did_not_meet_is_back_once_central_tells_of_it(parts: Parts, by: str) -> None:
    await parts.knows("n1", MAC)
    await parts.journal.record("n1", NodeEvent("n1", "e"))
    await start_over(parts)
    await parts.reads(page(next="4.0"))
    assert parts.node().gone
    if by == "feed":
        await parts.knows("n1", MAC)
    else:
        await settle(parts, answer(nodes=[node_document("n1", MAC)]))
    assert not parts.node().gone


async def test_a_page_that_was_asked_for_before_a_pass_began_is_not_its_first(parts: Parts) -> None:
    """All that such a pass had not met would be swept away."""
    await parts.knows("n1", MAC)
    since = parts.site.position
    await start_over(parts)
    assert not await parts.reads(page(node_item("n2", OTHER_MAC), next="3.0"), since)
    assert [node.node_id for node in parts.cache.nodes()] == ["n1"]
    assert parts.site.position.cursor == "0"


async def test_nor_if_the_pass_begins_in_the_same_transaction(parts: Parts) -> None:
    await parts.knows("n1", MAC)
    since = parts.site.position
    _, stored = await asyncio.gather(start_over(parts), parts.reads(page(next="3.0"), since))
    assert not stored
    assert (parts.cache.count(), parts.site.position.cursor) == (1, "0")


async def test_a_conflict_that_the_feed_has_closed_is_not_opened_by_an_older_answer(parts: Parts) -> None:
    await pending_conflict(parts)
    event = str((await parts.journal.record("n1", NodeEvent("n1", "e"))).queue_id)
    items = offered(parts)
    closed = conflict_document("c1", "n1", status="resolved", resolved=True, resolution="keep_central")
    await parts.hears(closed, version=3)
    late = conflict_document("c1", "n1", version=2)
    await settle(parts, answer(said(Outcome.CONFLICT, event, conflict_id="c1"), conflicts=[late]), items)
    assert (parts.node().conflict_id, parts.node().state) == (None, S.REPROVISION)
    assert parts.conflicts.pending_count == 0
    await parts.hears(conflict_document("c1", "n1"), version=4)
    assert (parts.node().conflict_id, parts.conflicts.pending_count) == ("c1", 1)


@pytest.mark.parametrize("made_here", [False, True])
async def test_a_node_that_the_feed_took_away_is_not_brought_back_by_an_older_answer(
    parts: Parts, made_here: bool
) -> None:
    if made_here:
        accepted = await parts.journal.register(HERE, facts={})
    else:
        await parts.knows()
        accepted = await parts.journal.record("n1", NodeEvent("n1", "e"))
    node_id, items = accepted.node.node_id, offered(parts)
    await parts.reads(page(FeedItem(pos=2, type="node", op="delete", id=node_id, version=3), next="2.1"))
    late = node_document(node_id, MAC, version=2)
    await settle(parts, answer(said(Outcome.APPLIED, accepted.queue_id or ""), nodes=[late]), items)
    assert parts.cache.nodes() == []


async def test_nor_if_it_stands_on_another_generation(parts: Parts) -> None:
    await parts.knows()
    await parts.mirror.begin_generation(2)
    event = str((await parts.journal.record("n1", NodeEvent("n1", "e"))).queue_id)
    items = offered(parts)
    away = FeedItem(pos=2, type="node", op="moved_out", id="n1", version=3)
    await parts.reads(page(away, next="2.1", generation=2))
    assert parts.node().gone
    late = node_document("n1", MAC, version=2)
    await settle(parts, answer(said(Outcome.APPLIED, event), nodes=[late], generation=2), items)
    assert parts.cache.nodes() == []


async def test_nor_if_the_feed_took_it_away_while_it_was_another_node_here(parts: Parts) -> None:
    """Central had made the machine a node of the name that the site gave it, after it deleted the one that it had; and
    deleted that one too."""
    local = (await parts.journal.register(HERE, facts={})).node.node_id
    await parts.knows("n1", MAC)
    assert parts.node(local).node_id == "n1"
    items = offered(parts)
    gone = [FeedItem(pos=pos, type="node", op="delete", id=id, version=2) for pos, id in enumerate(("n1", local), 2)]
    await parts.reads(page(*gone, next="3.1"))
    late = node_document(local, MAC, version=1)
    await settle(parts, answer(said(Outcome.APPLIED, items[0].id, canonical_id=local), nodes=[late]), items)
    assert parts.cache.nodes() == []


async def test_nor_if_it_was_forgotten_and_the_answer_names_another_one_after_it(parts: Parts) -> None:
    accepted = await parts.journal.register(HERE, facts={})
    items = offered(parts)
    await parts.knows("n1", OTHER_MAC)
    await parts.reads(page(FeedItem(pos=2, type="node", op="delete", id="n1", version=2), next="2.1"))
    late = node_document("n1", MAC, mac_addresses=[MAC, OTHER_MAC], version=1)
    await settle(parts, answer(said(Outcome.APPLIED, str(accepted.queue_id), canonical_id="n1"), nodes=[late]), items)
    assert parts.cache.nodes() == []
    await parts.knows("n1", MAC, version=3)
    assert parts.node("n1").base_version == 3


async def test_a_node_that_the_feed_brought_back_is_not_taken_away_by_an_older_answer(parts: Parts) -> None:
    await parts.knows()
    event = str((await parts.journal.record("n1", NodeEvent("n1", "e"))).queue_id)
    items = offered(parts)
    await parts.knows(version=12)
    await settle(parts, answer(said(Outcome.APPLIED, event), gone=["n1"]), items)
    assert (parts.node().base_version, parts.node().gone) == (12, False)


# Another generation


async def test_versions_of_another_generation_are_not_compared(parts: Parts) -> None:
    await parts.knows(state=S.ACTIVE, version=9, state_rev=5)
    await parts.mirror.begin_generation(2)
    restored = node_item("n1", MAC, state=S.INSTALLED, version=3, state_rev=2)
    assert await parts.reads(page(restored, generation=2))
    assert (parts.node().base_version, parts.node().base_generation, parts.node().state) == (3, 2, S.INSTALLED)


async def test_what_a_restored_central_does_not_know_is_gone_after_the_pass(parts: Parts) -> None:
    await parts.knows("n1", MAC)
    await parts.knows("n2", OTHER_MAC)
    await parts.mirror.begin_generation(2)
    await parts.reads(page(node_item("n2", OTHER_MAC), next="3.0", generation=2))
    assert [node.node_id for node in parts.cache.nodes()] == ["n2"]


async def test_a_page_of_another_generation_is_not_stored(parts: Parts) -> None:
    await parts.knows("n1", MAC)
    assert not await parts.reads(page(node_item("n2", OTHER_MAC), next="9.0", generation=2))
    assert (parts.cache.by_id("n2"), parts.site.position) == (None, Position(2, "0"))


async def test_what_was_sent_waits_again_in_its_place_and_what_was_given_up_does_not(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    given_up = (await parts.journal.record("n1", NodeEvent("n1", "never"))).queue_id
    moved = await moves(parts, S.ACTIVE)
    refused = (await parts.journal.record("n1", NodeEvent("n1", "refused"))).queue_id
    await parts.queue.discard(str(given_up), "", "ada")
    after = node_document("n1", MAC, state=S.ACTIVE, version=2, state_rev=2)
    results = [said(Outcome.APPLIED, moved), said(Outcome.REJECTED, str(refused), reason="no")]
    await settle(parts, answer(*results, nodes=[after]))
    waiting = [item.id for item in await parts.waiting()]
    assert await parts.mirror.begin_generation(2)
    assert not await parts.mirror.begin_generation(2)
    assert [item.id for item in offered(parts)] == [moved, refused, *waiting]
    assert (parts.queue.pending_count, parts.queue.failed_count) == (2 + len(waiting), 0)
    assert sent(parts) == [(given_up, "discarded")]
    (replayed, *_) = offered(parts)
    assert (replayed.base, replayed.age_ms) == (Base(generation=1, state_rev=1), 0)


async def test_what_was_sent_under_an_older_name_of_its_node_goes_out_in_the_lane_of_the_new_one(
    parts: Parts,
) -> None:
    local = (await parts.journal.register(HERE, facts={})).node.node_id
    await settle(parts, answer(said(Outcome.APPLIED, offered(parts)[0].id, canonical_id=local)))
    await parts.knows("n1", MAC)
    event = str((await parts.journal.record("n1", NodeEvent("n1", "e"))).queue_id)
    await parts.mirror.begin_generation(2)
    assert [(item.item_type, item.lane) for item in offered(parts)] == [("registration", "n1"), ("event", "n1")]
    assert offered(parts)[1].id == event


async def test_a_generation_and_what_it_brings_back_are_one_step(parts: Parts, tmp_path: Path) -> None:
    await parts.knows(state=S.INSTALLED)
    item = await moves(parts, S.ACTIVE)
    await settle(parts, answer(said(Outcome.APPLIED, item)))
    trigger = "CREATE TRIGGER refuse BEFORE DELETE ON sync_sent BEGIN SELECT RAISE (ABORT, 'refused'); END"
    await parts.database.store.write(lambda tx: tx.execute(trigger))
    with pytest.raises(Exception, match="refused"):
        await parts.mirror.begin_generation(2)
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert (again.site.position.generation, await again.waiting()) == (1, [])


# The fold


def edge_item(origin: Stage, target: Stage, **fields: Any) -> QueueItem:
    payload = {
        "from_state": origin.state,
        "to_state": target.state,
        "attempt": target.attempt,
        "from_attempt": origin.attempt,
        "triggered_by": "node",
    }
    return QueueItem(id="i", item_type="state_update", payload=payload, created_at=EPOCH, **fields)


PENDING, FIRST, SECOND = Stage(S.PENDING), Stage(S.INSTALLING, 1), Stage(S.INSTALLING, 2)
DONE = Stage(S.INSTALLED, 1)


@pytest.mark.parametrize(
    ("base", "edges", "stage"),
    [
        (PENDING, [], PENDING),
        (PENDING, [(PENDING, FIRST), (FIRST, DONE)], DONE),
        (FIRST, [(PENDING, FIRST), (FIRST, DONE)], DONE),
        (DONE, [(PENDING, FIRST), (FIRST, DONE)], DONE),
        (SECOND, [(FIRST, DONE)], SECOND),
        (Stage(S.RETIRED), [(PENDING, FIRST), (FIRST, DONE)], Stage(S.RETIRED)),
        (PENDING, [(FIRST, DONE), (PENDING, FIRST)], PENDING),
    ],
    ids=["nothing", "both", "one is there", "all is there", "another attempt", "elsewhere", "stops at a misfit"],
)
def test_undelivered_edges_apply_to_the_base_they_fit(
    base: Stage, edges: list[tuple[Stage, Stage]], stage: Stage
) -> None:
    items = [edge_item(*edge) for edge in edges]
    assert fold(base, items) == stage


def test_what_a_readonly_site_reports_is_not_folded() -> None:
    assert fold(PENDING, [edge_item(PENDING, FIRST, autonomy=Autonomy.READONLY)]) == PENDING


def test_events_and_registrations_move_nothing() -> None:
    others = [QueueItem(id="i", item_type=kind, payload={}, created_at=EPOCH) for kind in ("event", "registration")]
    assert fold(PENDING, others) == PENDING


# An answer that changes no node


async def test_an_answer_with_nodes_as_they_were_stores_none_of_them_again(parts: Parts) -> None:
    known = await parts.knows(state=S.ACTIVE, version=3)
    item = await parts.journal.record("n1", NodeEvent("n1", "heartbeat"))
    assert item.queue_id is not None
    document = node_document("n1", MAC, state=S.ACTIVE, version=3)
    await settle(parts, answer(said(Outcome.APPLIED, item.queue_id), nodes=[document]))
    assert sent(parts) == [(item.queue_id, "applied")]
    assert parts.node() == known


async def test_a_node_central_named_otherwise_is_joined_to_one_that_has_not_changed(parts: Parts) -> None:
    """Its MAC is on a document of a version that this site has; that document still says whose it is."""
    await parts.knows("n1", MAC, version=3)
    made_here = await parts.journal.register(HERE_TOO, facts={})
    assert made_here.queue_id is not None
    document = node_document("n1", MAC, version=3).model_copy(update={"mac_addresses": [MAC, OTHER_MAC]})
    await settle(parts, answer(said(Outcome.APPLIED, made_here.queue_id), nodes=[document]))
    assert parts.node(made_here.node.node_id).node_id == "n1"
    assert parts.node("n1").macs == (MAC, OTHER_MAC)


async def test_what_still_waits_is_folded_over_nodes_that_have_not_changed(parts: Parts) -> None:
    await parts.knows("n1", MAC, state=S.INSTALLED, attempt=1, version=3)
    first = await parts.journal.record("n1", NodeEvent("n1", "heartbeat"))
    offer = offered(parts)
    await moves(parts, S.ACTIVE)
    document = node_document("n1", MAC, state=S.INSTALLED, attempt=1, version=3)
    assert first.queue_id is not None
    await settle(parts, answer(said(Outcome.APPLIED, first.queue_id), nodes=[document]), offer)
    assert (parts.node().state, parts.node().base) == (S.ACTIVE, Stage(S.INSTALLED, 1))
