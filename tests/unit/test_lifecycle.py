"""The lifecycle against the table of the specification, edge by edge: nothing more, nothing less."""

import functools
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.core.errors import Clash, IllegalEdge, Invalid
from pureboot.core.lifecycle import (
    MAX_ATTEMPTS,
    Autonomy,
    By,
    Edge,
    NodeState,
    Stage,
    check,
    check_forced,
    destination,
    is_legal,
    site_may,
)

# As foundations.md has it, word for word, but for the line marked (+): an install that reports nothing is finished by
# the system when the machine comes back (DESIGN 4, `done_when: next_boot`).
SPECIFICATION = """
| discovered | pending, cloning_target | admin |
| pending | installing, attempt 1 | system at the boot request (`install_started` then only confirms), or the node |
| pending | discovered, active | admin: cancels the approval, back to where it came from |
| installing | installing, next attempt | system, when a begun attempt came back unfinished |
| installing | installed, install_failed | node; install_failed also by system after attempt 3 |
| installing | installed | system (+) |
| install_failed | pending | admin (counters reset) |
| installed | active | node (first boot), admin |
| installed | reprovision, retired | admin |
| active | reprovision, deprovisioning, migrating, serving_source, cloning_target | admin |
| reprovision | pending | system, at the next boot |
| reprovision | active | admin: cancels |
| deprovisioning | retired | node |
| migrating, serving_source | active | node |
| cloning_target | installed | node |
| any but retired | retired | admin |
"""

ATTEMPTS = range(5)
STAGES = [Stage(state, attempt) for state in NodeState for attempt in ATTEMPTS]


@functools.cache
def specified() -> frozenset[tuple[NodeState, NodeState, By]]:
    """Who may go from where to where, read from the text above."""
    edges: set[tuple[NodeState, NodeState, By]] = set()
    for line in SPECIFICATION.strip().splitlines():
        origins, targets, makers = (cell.strip() for cell in line.strip("|").split("|"))
        froms = set(NodeState) - {NodeState.RETIRED} if origins == "any but retired" else names(origins)
        by = {By(word) for word in re.findall(r"admin|system|node", makers.partition(";")[0])}
        edges |= set(itertools.product(froms, names(targets), by))
        if also := re.search(r"; (\w+) also by (\w+)", makers):
            edges |= set(itertools.product(froms, names(also[1]), {By(also[2])}))
    return frozenset(edges)


def names(cell: str) -> set[NodeState]:
    return {NodeState(word) for word in cell.replace("attempt 1", "").replace("next attempt", "").split(", ") if word}


def edge(origin: str, target: str, by: str) -> Edge:
    """`edge("installing/1", "installing/2", "system")`"""
    return Edge(stage(origin), stage(target), By(by))


def stage(text: str) -> Stage:
    state, _, attempt = text.partition("/")
    return Stage(NodeState(state), int(attempt or 0))


stages = st.builds(Stage, st.sampled_from(NodeState), st.integers(0, 5))


@pytest.mark.parametrize("by", By)
@pytest.mark.parametrize("target", NodeState)
@pytest.mark.parametrize("origin", NodeState)
def test_exactly_the_edges_of_the_specification_are_legal(origin, target, by):
    """An origin as it is when the node has gone the ordinary way, at the last attempt where attempts are counted."""
    last = Stage(origin, MAX_ATTEMPTS - 1 if target is NodeState.INSTALLING else MAX_ATTEMPTS)
    assert is_legal(Edge(last, destination(last, target), by)) == ((origin, target, by) in specified())


def test_the_specification_was_read_whole():
    assert {origin for origin, _, _ in specified()} == set(NodeState) - {NodeState.RETIRED}
    assert {target for _, target, _ in specified()} == set(NodeState)
    assert len(specified()) == 37


@pytest.mark.parametrize("origin", STAGES, ids=lambda s: f"{s.state}/{s.attempt}")
def test_an_edge_is_legal_with_one_count_of_attempts_only(origin):
    for target, by in itertools.product(STAGES, By):
        too_many = target.attempt > 3
        too_soon = by == "system" and target.state == "install_failed" and origin.attempt < 3
        expected = (
            (origin.state, target.state, by) in specified()
            and target.attempt == counted(origin, target.state)
            and not too_many
            and not too_soon
        )
        assert is_legal(Edge(origin, target, by)) == expected


def counted(origin: Stage, state: NodeState) -> int:
    if state == "installing":
        return origin.attempt + 1 if origin.state == "installing" else 1
    return 0 if state in {"pending", "reprovision", "discovered"} else origin.attempt


def test_an_install_begins_with_attempt_1_whatever_was_counted_before():
    assert is_legal(edge("pending/0", "installing/1", "system"))
    assert is_legal(edge("pending/3", "installing/1", "system"))
    assert not is_legal(edge("pending/0", "installing/0", "system"))
    assert not is_legal(edge("pending/0", "installing/2", "system"))


def test_a_further_attempt_is_the_next_one_and_the_third_is_the_last():
    assert is_legal(edge("installing/1", "installing/2", "system"))
    assert is_legal(edge("installing/2", "installing/3", "system"))
    assert not is_legal(edge("installing/3", "installing/4", "system"))
    assert not is_legal(edge("installing/1", "installing/1", "system"))
    assert not is_legal(edge("installing/1", "installing/3", "system"))
    assert not is_legal(edge("installing/2", "installing/1", "system"))
    assert not is_legal(edge("installing/1", "installing/2", "node"))
    assert not is_legal(edge("installing/1", "installing/2", "admin"))


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_system_gives_an_install_up_after_the_third_attempt_only_but_a_node_may_at_once(attempt):
    assert not is_legal(edge(f"installing/{attempt}", f"install_failed/{attempt}", "system"))
    assert is_legal(edge(f"installing/{attempt}", f"install_failed/{attempt}", "node"))
    assert is_legal(edge("installing/3", "install_failed/3", "system"))


@pytest.mark.parametrize("state", ["pending", "reprovision", "discovered"])
@given(origin=stages)
def test_a_new_approval_starts_the_count_over(state, origin):
    assert destination(origin, NodeState(state)) == Stage(NodeState(state), 0)


@given(origin=stages, state=st.sampled_from(NodeState))
def test_every_other_edge_keeps_the_count(origin, state):
    if state not in {NodeState.PENDING, NodeState.REPROVISION, NodeState.DISCOVERED, NodeState.INSTALLING}:
        assert destination(origin, state) == Stage(state, origin.attempt)


@given(origin=stages, path=st.lists(st.tuples(st.sampled_from(NodeState), st.sampled_from(By)), max_size=30))
def test_no_walk_over_legal_edges_ever_counts_beyond_the_third_attempt(origin, path):
    here = Stage(origin.state, min(origin.attempt, MAX_ATTEMPTS))
    for state, by in path:
        step = Edge(here, destination(here, state), by)
        if is_legal(step):
            here = step.target
        assert here.attempt <= MAX_ATTEMPTS


def test_a_legal_edge_passes_the_check_without_a_word():
    check(edge("active", "reprovision", "admin"))


@given(origin=stages, target=stages, by=st.sampled_from(By))
def test_a_refused_edge_names_exactly_the_ways_there_are(origin, target, by):
    if is_legal(Edge(origin, target, by)):
        return
    with pytest.raises(IllegalEdge) as refusal:
        check(Edge(origin, target, by))
    ways = {state for state in NodeState if is_legal(Edge(origin, destination(origin, state), by))}
    named = refusal.value.hint.partition("can make it: ")[2].rstrip(".")
    assert named == (", ".join(state for state in NodeState if state in ways) or "nothing else")


def test_a_refused_edge_reads_as_a_sentence():
    with pytest.raises(IllegalEdge) as refusal:
        check(edge("installed/1", "pending", "admin"))
    assert refusal.value.message == "A node that is installed cannot become pending by admin."
    assert refusal.value.hint == "From installed, admin can make it: active, reprovision, retired."


@pytest.mark.parametrize("state", sorted(set(NodeState) - {NodeState.RETIRED}))
def test_a_person_who_says_why_may_force_any_edge_but_one_out_of_retired(state):
    check_forced(Stage(state, 1), "the disk was replaced")


@pytest.mark.parametrize("comment", ["", "   ", "\n"])
def test_a_forced_edge_without_a_comment_is_refused(comment):
    with pytest.raises(Clash) as refusal:
        check_forced(stage("active"), comment)
    assert refusal.value.code == "comment_required"


def test_nobody_forces_a_node_out_of_retired():
    with pytest.raises(IllegalEdge, match="stays retired"):
        check_forced(stage("retired"), "it is needed again")


@pytest.mark.parametrize("autonomy", Autonomy)
def test_a_site_of_any_level_may_report_what_nodes_and_the_system_do(autonomy):
    for origin, target, by in specified():
        if by is not By.ADMIN:
            assert site_may(autonomy, Edge(Stage(origin), destination(Stage(origin), target), by))


@pytest.mark.parametrize("autonomy", Autonomy)
@pytest.mark.parametrize("target", NodeState)
def test_only_a_full_site_may_send_an_admins_edge_and_never_into_retired_or_deprovisioning(autonomy, target):
    allowed = site_may(autonomy, Edge(stage("active"), Stage(target), By.ADMIN))
    assert allowed == (autonomy == "full" and target not in {"retired", "deprovisioning"})


def test_a_state_is_read_by_its_name():
    assert NodeState.parse("install_failed") is NodeState.INSTALL_FAILED


@pytest.mark.parametrize("text", ["", "Installed", "installed ", "gone", "x" * 100_000])
def test_an_unknown_state_is_invalid_in_one_short_message_that_lists_the_states(text):
    with pytest.raises(Invalid) as refusal:
        NodeState.parse(text)
    assert refusal.value.code == "unknown_state"
    assert len(refusal.value.message) < 100
    assert "install_failed" in refusal.value.hint


def test_a_stage_shows_its_attempt_only_while_it_counts():
    assert str(stage("installing/2")) == "installing, attempt 2"
    assert str(stage("installed/2")) == "installed"
