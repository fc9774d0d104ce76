"""Which edge an event of a node stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.core.changes import implied_edge
from pureboot.core.lifecycle import By, Edge, NodeState, Stage, is_legal

# event | the node stands at | where the event leads; (refused): the lifecycle has no such edge, which the caller finds.
TABLE = """
install_started  | pending         | installing/1
install_started  | installing/1    | nothing new
install_started  | installing/3    | nothing new
install_started  | discovered      | installing/1 (refused)
install_started  | reprovision     | installing/1 (refused)
install_started  | active/1        | installing/1 (refused)
install_complete | installing/1    | installed/1
install_complete | installing/3    | installed/3
install_complete | cloning_target  | installed
install_complete | installed/2     | nothing new
install_complete | install_failed/3 | installed/3 (refused)
install_complete | pending         | installed (refused)
install_complete | retired         | installed (refused)
install_failed   | installing/1    | nothing new
install_failed   | installing/2    | nothing new
install_failed   | installing/3    | install_failed/3
install_failed   | install_failed/3 | nothing new
install_failed   | active/1        | install_failed/1 (refused)
first_boot       | installed/2     | active/2
first_boot       | migrating/1     | active/1
first_boot       | active/1        | nothing new
first_boot       | installing/1    | active/1 (refused)
first_boot       | pending         | active (refused)
boot_started     | pending         | nothing new
install_progress | installing/1    | nothing new
heartbeat        | active          | nothing new
raid_rebuilt     | active          | nothing new
"""

ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]


def stage(text: str) -> Stage:
    state, _, attempt = text.partition("/")
    return Stage(NodeState(state), int(attempt or 0))


@pytest.mark.parametrize(("event", "here", "leads"), ROWS, ids=[f"{event} at {here}" for event, here, _ in ROWS])
def test_an_event_stands_for_this_edge(event, here, leads):
    edge = implied_edge(event, stage(here))
    if leads == "nothing new":
        assert edge is None
    else:
        assert edge == Edge(stage(here), stage(leads.removesuffix(" (refused)")), By.NODE)
        assert is_legal(edge) == ("(refused)" not in leads)


stages = st.builds(Stage, st.sampled_from(NodeState), st.integers(0, 4))
events = st.sampled_from(["install_started", "install_complete", "install_failed", "first_boot"])


@given(events, stages)
def test_an_event_that_took_effect_says_nothing_new_when_it_is_repeated(event, here):
    edge = implied_edge(event, here)
    if edge is not None:
        assert implied_edge(event, edge.target) is None


@given(st.text(), stages)
def test_an_event_of_the_sites_own_moves_nothing(name, here):
    if name not in {"install_started", "install_complete", "install_failed", "first_boot"}:
        assert implied_edge(name, here) is None
