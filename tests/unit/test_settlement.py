"""Settling a conflict and taking it back, as values: what holds for any chain, any stage and any resolution."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.central.conflicts import Link, StoredConflict
from pureboot.central.node_rows import StoredNode
from pureboot.central.settlement import Verdict, settle, take_back, why_final
from pureboot.core.errors import Clash
from pureboot.core.lifecycle import By, Edge, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.reconcile import CLAIMS, ConflictType, Resolution, Strategy

NOON = datetime(2026, 1, 28, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)

stages = st.builds(Stage, st.sampled_from(NodeState), st.integers(0, 3))
edges = st.builds(Edge, stages, stages, st.sampled_from(By))
resolutions = st.sampled_from(Resolution)


def node(stage: Stage) -> StoredNode:
    mac = MacAddress.parse("52:54:00:aa:bb:01")
    return StoredNode(
        id="n1",
        mac_addresses=(mac,),
        home_site_id="attic",
        stage=stage,
        version=7,
        state_rev=3,
        created_at=NOON,
        updated_at=NOON,
        stage_at=NOON,
    )


def conflict(chain: list[Edge], kind: ConflictType = ConflictType.STATE_MISMATCH) -> StoredConflict:
    links = tuple(Link(f"i{number}", edge, "", NOON) for number, edge in enumerate(chain))
    return StoredConflict(
        id="c1",
        site_id="attic",
        node_id="n1",
        node_mac="52:54:00:aa:bb:01",
        agent_id="a1",
        type=kind,
        base_state="pending",
        local_state=chain[-1].target.state.value if chain else "discovered",
        central_state="discovered",
        base_rev=2,
        central_rev=3,
        chain=links,
        strategy=Strategy.MANUAL,
        status="pending",
        local_updated_at=NOON,
        local_uncertainty_ms=0,
        central_updated_at=NOON,
        created_at=NOON,
        updated_at=NOON,
    )


conflicts = st.lists(edges, min_size=1, max_size=4).map(conflict)


def verdict(how: Resolution) -> Verdict:
    return Verdict(how, "ada", "because", LATER)


def is_refused(of: StoredConflict, at: Stage, how: Resolution) -> bool:
    try:
        settle(of, node(at), verdict(how))
    except Clash:
        return True
    return False


@given(conflicts, stages, resolutions)
def test_nobody_drops_the_loser(of: StoredConflict, at: Stage, how: Resolution) -> None:
    """Base, chain and both states stay, and who decided is kept beside them."""
    if is_refused(of, at, how):
        return
    after = settle(of, node(at), verdict(how)).conflict
    kept = ("base_state", "local_state", "central_state", "base_rev", "central_rev", "chain")
    assert [getattr(after, name) for name in kept] == [getattr(of, name) for name in kept]
    [decision] = after.decisions
    assert (decision.by, decision.comment, decision.resolution, decision.before) == ("ada", "because", how, at)
    assert (after.status, after.resolved_by, after.resolved_at) == ("resolved", "ada", LATER)


@given(conflicts, stages, resolutions)
def test_the_steps_lead_from_where_central_stands_to_where_the_node_is_then(
    of: StoredConflict, at: Stage, how: Resolution
) -> None:
    if is_refused(of, at, how):
        return
    before = node(at)
    settled = settle(of, before, verdict(how))
    here = at
    for step in settled.steps:
        assert step.edge.origin == here
        assert (step.actor, step.site_id, step.recorded_at) == ("ada", "attic", LATER)
        here = step.edge.target
    assert settled.node.stage == here
    assert settled.node.state_rev == before.state_rev + len(settled.steps)
    assert settled.node.version > before.version


@given(conflicts, stages)
def test_keeping_centrals_moves_nothing(of: StoredConflict, at: Stage) -> None:
    settled = settle(of, node(at), verdict(Resolution.KEEP_CENTRAL))
    assert (settled.node.stage, settled.steps, settled.conflict.expected_rev) == (at, (), None)


@given(conflicts, stages)
def test_keeping_the_sites_ends_where_the_site_ended(of: StoredConflict, at: Stage) -> None:
    if at.state is NodeState.RETIRED:
        assert is_refused(of, at, Resolution.KEEP_LOCAL)
        return
    settled = settle(of, node(at), verdict(Resolution.KEEP_LOCAL))
    assert settled.node.stage == of.local_stage
    assert settled.conflict.expected_rev == settled.node.state_rev


@given(conflicts, stages)
def test_merging_forces_nothing(of: StoredConflict, at: Stage) -> None:
    if is_refused(of, at, Resolution.MERGE):
        return
    settled = settle(of, node(at), verdict(Resolution.MERGE))
    assert not any(step.forced for step in settled.steps)
    whole = settled.node.stage == of.local_stage and settled.conflict.expected_rev is not None
    assert whole or settled.conflict.takes_part


@given(st.sampled_from(sorted(CLAIMS)), stages, resolutions)
def test_whose_machine_it_is_is_no_question_of_edges(kind: ConflictType, at: Stage, how: Resolution) -> None:
    refused = is_refused(conflict([], kind), at, how)
    assert refused is (how is not Resolution.KEEP_CENTRAL)


@given(conflicts, stages, resolutions)
def test_what_is_taken_back_is_as_it_was_and_its_story_is_kept(of: StoredConflict, at: Stage, how: Resolution) -> None:
    if is_refused(of, at, how):
        return
    settled = settle(of, node(at), verdict(how))
    if settled.node.stage.state is NodeState.RETIRED and settled.steps:
        assert why_final(settled.conflict, settled.node) == "nothing leads back from retired"
        return
    back = take_back(settled.conflict, settled.node, "grace", "rather not", LATER)
    assert (back.node.stage, back.conflict.status, back.conflict.resolution) == (at, "pending", None)
    assert back.conflict.takes_part
    assert [decision.by for decision in back.conflict.decisions] == ["ada", "grace"]
    assert back.node.version > settled.node.version
    again = settle(back.conflict, back.node, verdict(how))
    assert again.node.stage == settled.node.stage


@given(conflicts, stages, edges)
def test_once_the_node_has_moved_a_decision_stands(of: StoredConflict, at: Stage, move: Edge) -> None:
    settled = settle(of, node(at), verdict(Resolution.KEEP_CENTRAL))
    moved = settled.node.moved(move.target, LATER)
    assert "has moved since" in why_final(settled.conflict, moved)
    with pytest.raises(Clash):
        take_back(settled.conflict, moved, "grace", "", LATER)


@given(conflicts, stages, edges)
def test_once_the_site_has_gone_on_a_decision_stands(of: StoredConflict, at: Stage, more: Edge) -> None:
    settled = settle(of, node(at), verdict(Resolution.KEEP_CENTRAL))
    joined = settled.conflict.joined(Link("later", more, "", LATER), LATER)
    assert why_final(joined, settled.node) == "the site has gone on since"


@given(conflicts, stages)
def test_facts_that_arrive_keep_no_decision_from_being_taken_back(of: StoredConflict, at: Stage) -> None:
    settled = settle(of, node(at), verdict(Resolution.KEEP_CENTRAL))
    assert why_final(settled.conflict, settled.node.changed(LATER, facts={"model": "M"})) == ""
