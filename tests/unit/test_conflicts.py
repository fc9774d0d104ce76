"""Where site and central disagree, as the site previews it (user's contract, task 7)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.conflicts import Conflict, ConflictDetector
from pureboot.core.errors import Clash, Forbidden, Invalid, Malformed
from pureboot.core.lifecycle import Autonomy, NodeState
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import FeedItem
from tests.support.parts import EPOCH, MAC, OTHER_MAC, Parts, conflict_document, node_document, opened, page

S = NodeState
LATER = EPOCH + timedelta(hours=1)


@pytest.fixture
async def cache(tmp_path: Path) -> Any:
    cache = NodeStateCache(tmp_path / "cache.db")
    await cache.initialize()
    yield cache
    cache.database.close()


@pytest.fixture
def detector(cache: NodeStateCache) -> ConflictDetector:
    """Built as the contract builds it."""
    return ConflictDetector(cache)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


def document(mac: str = MAC, state: NodeState = S.ACTIVE, **fields: Any) -> dict[str, Any]:
    values = {"mac_addresses": [mac], "state": state, "updated_at": LATER}
    return node_document("n1", mac, **(values | fields)).model_dump(mode="json")


async def cached(cache: NodeStateCache, state: NodeState = S.INSTALLED, **fields: Any) -> None:
    """A row without sync data: whatever central says of it is compared as it is."""
    await cache.cache_node(CachedNode(fields.pop("node_id", "n1"), MAC, state, updated_at=EPOCH, **fields))


# The user's contract


async def test_detect_state_mismatch(cache: NodeStateCache, detector: ConflictDetector) -> None:
    await cached(cache, S.INSTALLED)
    (conflict,) = await detector.check_conflicts([document(state=S.REPROVISION)])
    assert (conflict.node_mac, conflict.conflict_type) == (MAC, "state_mismatch")
    assert (conflict.local_state, conflict.central_state) == ("installed", "reprovision")
    assert (conflict.local_updated_at, conflict.central_updated_at) == (EPOCH, LATER)
    assert (conflict.resolved, conflict.resolution) == (False, None)
    assert await detector.get_pending_conflicts() == [conflict]


async def test_detect_missing_local(detector: ConflictDetector) -> None:
    """It comes by the feed: shown, but nobody has to settle it."""
    (conflict,) = await detector.check_conflicts([document(state=S.ACTIVE)])
    assert (conflict.conflict_type, conflict.local_state, conflict.central_state) == (
        "missing_local",
        "absent",
        "active",
    )
    assert await detector.get_pending_conflicts() == []


async def test_detect_missing_central(cache: NodeStateCache, detector: ConflictDetector) -> None:
    await cached(cache, S.ACTIVE)
    (conflict,) = await detector.check_conflicts([])
    assert (conflict.conflict_type, conflict.local_state, conflict.central_state) == (
        "missing_central",
        "active",
        "absent",
    )
    assert await detector.get_pending_conflicts() == [conflict]


async def test_mark_conflict(detector: ConflictDetector) -> None:
    now = datetime.now(UTC)
    conflict = Conflict(
        id="c1",
        node_mac=MAC,
        local_state="active",
        central_state="retired",
        local_updated_at=now,
        central_updated_at=now,
        conflict_type="state_mismatch",
    )
    await detector.mark_conflict(conflict)
    await detector.mark_conflict(conflict)
    assert await detector.get_pending_conflicts() == [conflict]


@pytest.mark.parametrize("resolution", ["keep_local", "keep_central", "merge"])
async def test_resolve_conflict(cache: NodeStateCache, detector: ConflictDetector, resolution: str) -> None:
    await cached(cache)
    (conflict,) = await detector.check_conflicts([document()])
    assert await detector.resolve_conflict(conflict.id, resolution)
    assert not await detector.resolve_conflict(conflict.id, resolution)
    assert not await detector.resolve_conflict("there is none such", resolution)
    assert await detector.get_pending_conflicts() == []


async def test_a_resolution_nobody_knows_is_refused(cache: NodeStateCache, detector: ConflictDetector) -> None:
    await cached(cache)
    (conflict,) = await detector.check_conflicts([document()])
    with pytest.raises(Invalid):
        await detector.resolve_conflict(conflict.id, "flip a coin")
    assert await detector.get_pending_conflicts() == [conflict]


# What is none


@pytest.mark.parametrize("attempt", [None, 1])
async def test_sides_that_agree_have_none(
    cache: NodeStateCache, detector: ConflictDetector, attempt: int | None
) -> None:
    await cached(cache, S.INSTALLED, attempt=1)
    theirs = document(state=S.INSTALLED, attempt=1)
    if attempt is None:
        del theirs["attempt"]
    assert await detector.check_conflicts([theirs]) == []


async def test_another_attempt_is_another_state(cache: NodeStateCache, detector: ConflictDetector) -> None:
    await cached(cache, S.INSTALLING, attempt=1)
    (conflict,) = await detector.check_conflicts([document(state=S.INSTALLING, attempt=2)])
    assert (conflict.local_state, conflict.central_state) == ("installing", "installing")


async def test_a_second_look_finds_the_same_and_adds_nothing(cache: NodeStateCache, detector: ConflictDetector) -> None:
    await cached(cache)
    first = await detector.check_conflicts([document()])
    again = await detector.check_conflicts([document()])
    assert [conflict.id for conflict in first] == [conflict.id for conflict in again]
    await detector.resolve_conflict(first[0].id, "keep_central")
    await detector.check_conflicts([document()])
    assert await detector.get_pending_conflicts() == []
    (another,) = await detector.check_conflicts([document(state=S.RETIRED)])
    assert another.id != first[0].id


async def test_a_machine_is_one_node_by_whichever_of_its_macs_it_is_named(
    cache: NodeStateCache, detector: ConflictDetector
) -> None:
    await cached(cache, S.ACTIVE, more_macs=(OTHER_MAC,))
    both = document(OTHER_MAC, S.ACTIVE, mac_addresses=[OTHER_MAC, MAC])
    assert await detector.check_conflicts([both]) == []
    assert await detector.check_conflicts([document(OTHER_MAC, S.ACTIVE)]) == []
    (conflict,) = await detector.check_conflicts([])
    assert (conflict.node_mac, conflict.conflict_type) == (MAC, "missing_central")


async def test_only_the_fields_that_are_compared_are_asked_for(
    cache: NodeStateCache, detector: ConflictDetector
) -> None:
    await cached(cache)
    (conflict,) = await detector.check_conflicts([{"mac_address": MAC.upper(), "state": "retired"}])
    assert conflict.central_state == "retired"
    with pytest.raises(Malformed):
        await detector.check_conflicts([{"mac_address": "nonsense", "state": "retired"}])


async def test_a_row_on_centrals_base_is_refreshed_and_never_reported(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    assert await parts.detector.check_conflicts([document(state=S.RETIRED)]) == []
    assert await parts.detector.check_conflicts([]) == []


async def test_what_is_still_queued_is_no_difference_yet(parts: Parts) -> None:
    accepted = await parts.journal.register(MacAddress.parse(MAC), facts={})
    assert await parts.detector.check_conflicts([]) == []
    await parts.queue.dequeue(str(accepted.queue_id))
    assert [c.conflict_type for c in await parts.detector.check_conflicts([])] == ["missing_central"]


# Central's own


async def test_what_central_found_is_shown_and_is_over_when_central_says_so(parts: Parts) -> None:
    await parts.knows()
    await parts.hears(conflict_document("c1", "n1"))
    (conflict,) = await parts.detector.get_pending_conflicts()
    assert (conflict.id, conflict.local_state) == ("c1", "active")
    await parts.reads(page(FeedItem(pos=3, type="conflict", op="delete", id="c1")))
    assert (await parts.detector.get_pending_conflicts(), parts.conflicts.pending_count) == ([], 0)


async def test_what_is_decided_here_waits_in_line_and_counts_once_central_confirms_it(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    await parts.hears(conflict_document("c1", "n1"))
    assert await parts.detector.resolve_conflict("c1", "keep_local") is True
    (item,) = await parts.waiting()
    assert (item.item_type, item.lane, item.after, item.payload["resolution"]) == (
        "settlement",
        "n1",
        None,
        "keep_local",
    )
    (conflict,) = await parts.detector.get_pending_conflicts()
    assert (conflict.resolved, conflict.resolution, parts.conflicts.pending_count) == (False, "keep_local", 1)
    assert parts.node().disputed
    resolved: dict[str, Any] = {
        "status": "resolved",
        "resolved": True,
        "resolution": "keep_local",
        "resolved_by": "somebody",
    }
    await parts.hears(conflict_document("c1", "n1", **resolved), version=2)
    assert (await parts.detector.get_pending_conflicts(), parts.node().disputed) == ([], False)
    assert await parts.detector.resolve_conflict("c1", "keep_local") is False


async def test_a_decision_said_again_is_the_same_and_another_is_refused(parts: Parts) -> None:
    await parts.knows()
    await parts.hears(conflict_document("c1", "n1"))
    first = await parts.detector.settle("c1", "keep_local", person="Ada", comment="I stand beside it")
    again = await parts.detector.settle("c1", "keep_local")
    assert first is not None
    assert again is not None
    assert first.queue_id == again.queue_id
    with pytest.raises(Clash) as refused:
        await parts.detector.settle("c1", "keep_central")
    assert (refused.value.code, str(first.queue_id) in str(refused.value.hint)) == ("decided", True)
    await parts.queue.discard(str(first.queue_id), "rather not", "Ada")
    assert (await parts.detector.settle("c1", "keep_central")) is not None


async def test_the_next_report_is_made_on_the_machines_last_and_not_on_a_decision(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    moved = await parts.journal.move("n1", S.ACTIVE, report_id=None, boot_token=None)
    await parts.hears(conflict_document("c1", "n1"))
    await parts.detector.settle("c1", "keep_local")
    await parts.has_autonomy(Autonomy.FULL)
    (first, decision) = await parts.waiting()
    assert (first.id, decision.after) == (moved.queue_id, None)


async def test_a_readonly_site_decides_nothing(parts: Parts) -> None:
    await parts.knows()
    await parts.hears(conflict_document("c1", "n1"))
    await parts.has_autonomy(Autonomy.READONLY)
    with pytest.raises(Forbidden):
        await parts.detector.resolve_conflict("c1", "keep_local")
    assert await parts.waiting() == []


async def test_a_decision_that_rotted_on_the_disk_is_none(parts: Parts) -> None:
    await parts.knows()
    await parts.hears(conflict_document("c1", "n1"))
    await parts.detector.settle("c1", "keep_local")
    await parts.database.store.write(lambda tx: tx.execute("UPDATE sync_queue SET payload = '{rot'"))
    (conflict,) = await parts.detector.get_pending_conflicts()
    assert conflict.resolution is None
    assert (await parts.detector.settle("c1", "keep_central")) is not None


async def test_a_conflict_that_is_open_again_brings_the_sites_side_back(parts: Parts) -> None:
    """A decision for central was taken back: until somebody decides anew, the machine's reports are judged by where it
    stood here, and it boots its own disk."""
    await parts.knows(state=S.REPROVISION)
    await parts.hears(conflict_document("c1", "n1", local_state="active", local_attempt=1))
    assert (parts.node().state, parts.node().attempt, parts.node().base_state) == (S.ACTIVE, 1, S.REPROVISION)
    assert parts.node().disputed


async def test_conflicts_and_their_count_survive_a_restart(parts: Parts, tmp_path: Path) -> None:
    await cached(parts.cache)
    (conflict,) = await parts.detector.check_conflicts([document()])
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert again.conflicts.pending_count == 1
        assert await again.detector.get_pending_conflicts() == [conflict]


async def test_what_the_site_suspected_of_a_node_is_over_once_central_has_told_of_it(parts: Parts) -> None:
    await cached(parts.cache, S.INSTALLED)
    await parts.detector.check_conflicts([])
    assert parts.conflicts.pending_count == 1
    await parts.knows(state=S.INSTALLED)
    assert await parts.detector.check_conflicts([document(state=S.INSTALLED)]) == []
    assert (await parts.detector.get_pending_conflicts(), parts.conflicts.pending_count) == ([], 0)
