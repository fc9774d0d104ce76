"""Where a site's change meets what central did meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.core.lifecycle import By, Edge, NodeState, Stage, is_legal
from pureboot.core.reconcile import (
    CLAIMS,
    Apply,
    ConflictType,
    Converged,
    Diverged,
    Illegal,
    InSync,
    Interval,
    Resolution,
    Strategy,
    automatic,
    compare,
    judge,
    legal_prefix,
    may_keep_local,
    policy_may_keep,
    replay,
)

MISMATCH = Diverged(ConflictType.STATE_MISMATCH)

stages = st.builds(Stage, st.sampled_from(NodeState), st.integers(0, 3))
edges = st.builds(Edge, stages, stages, st.sampled_from(By))
revisions = st.integers(0, 3)


def stage(text: str) -> Stage:
    state, _, attempt = text.partition("/")
    return Stage(NodeState(state), int(attempt or 0))


def some(text: str) -> Stage | None:
    return None if text == "-" else stage(text)


def edge(text: str) -> Edge:
    """`edge("installing/1 > installed/1 node")`"""
    path, by = text.rsplit(" ", 1)
    origin, target = path.split(" > ")
    return Edge(stage(origin), stage(target), By(by))


# base (what central last confirmed to the site) | at the site | at central | what that is
COMPARED = """
active       | active       | active       | in sync            | nothing changed
active       | active       | reprovision  | in sync            | central moved a clean node: a refresh, no conflict
installing/1 | installed/1  | installing/1 | in sync            | the site moved: its change is on the way
pending      | installing/1 | installing/1 | in sync            | both moved, to the same end
installing/1 | installed/1  | retired      | state_mismatch     | both moved, to different ends
installing/1 | installing/2 | installing/3 | state_mismatch     | the attempt is part of what is compared
active       | active       | -            | in sync            | central deleted a clean node: it leaves here too
installing/1 | installed/1  | -            | missing_central    | central deleted what the site changed
-            | discovered   | -            | missing_central    | central never heard of it
-            | -            | active       | missing_local      | the site lost it, or never had it
active       | -            | active       | missing_local      | the site lost its row
-            | -            | -            | in sync            | nobody has it
-            | active       | active       | in sync            | no base, and they agree
-            | active       | installed    | state_mismatch     | no base, and they disagree
"""
COMPARISONS = [[cell.strip() for cell in line.split("|")] for line in COMPARED.strip().splitlines()]


@pytest.mark.parametrize(("base", "local", "central", "kind", "why"), COMPARISONS, ids=[row[4] for row in COMPARISONS])
def test_the_three_sides_are_compared(base, local, central, kind, why):
    expected = InSync() if kind == "in sync" else Diverged(ConflictType(kind))
    assert compare(some(base), some(local), some(central)) == expected


@given(local=stages, central=st.none() | stages)
def test_a_clean_node_is_never_a_conflict(local, central):
    assert compare(local, local, central) == InSync()


@given(base=stages, local=stages)
def test_a_base_that_central_did_not_move_is_never_a_conflict(base, local):
    assert compare(base, local, base) == InSync()


# the site's edge, made on revision 4 | central stands at | at revision | verdict
JUDGED = """
installing/1 > installed/1 node    | installing/1   | 4 | applied    | nobody else moved the node
pending > installing/1 system      | pending        | 4 | applied    | the boot request of an approval
installing/1 > installing/2 system | installing/1   | 4 | applied    | the next attempt
installing/1 > installed/1 node    | installed/1    | 5 | converged  | somebody was faster, to the same end
installing/1 > installed/1 node    | installed/1    | 4 | converged  | it is there already
installing/1 > installed/1 node    | retired        | 5 | diverged   | central retired it meanwhile
installing/1 > installed/1 node    | installing/2   | 5 | diverged   | attempt 1's late report cannot close attempt 2
installing/1 > installed/1 node    | installed/2    | 7 | diverged   | nor claim what attempt 2 did
installing/1 > installed/1 node    | installing/1   | 6 | diverged   | it came back to the same stage another way
pending > installed node           | pending        | 4 | illegal    | the lifecycle has no such edge
installing/1 > installed/1 admin   | installing/1   | 4 | illegal    | not for whoever makes it
installing/3 > installing/4 system | installing/3   | 4 | illegal    | no fourth attempt
installed/1 > active/1 node        | installing/1   | 4 | illegal    | made on a change that was rejected
installing/1 > installed/1 node    | installing/2   | 4 | illegal    | the same, at another attempt
"""
JUDGEMENTS = [[cell.strip() for cell in line.split("|")] for line in JUDGED.strip().splitlines()]
VERDICTS = {"applied": Apply(), "converged": Converged(), "illegal": Illegal(), "diverged": MISMATCH}


@pytest.mark.parametrize(("made", "central", "rev", "verdict", "why"), JUDGEMENTS, ids=[row[4] for row in JUDGEMENTS])
def test_a_sites_edge_is_judged_at_central(made, central, rev, verdict, why):
    assert judge(edge(made), stage(central), int(rev), expected=4) == VERDICTS[verdict]


@given(edges, stages, revisions)
def test_a_change_on_a_node_that_central_never_confirmed_is_never_applied_over_it(made, central, rev):
    assert judge(made, central, rev, expected=None) == (Converged() if central == made.target else MISMATCH)


@given(edges, stages, revisions, revisions)
def test_only_a_legal_edge_from_where_the_node_stands_on_an_unmoved_node_is_applied(made, central, rev, expected):
    if judge(made, central, rev, expected) == Apply():
        assert rev == expected
        assert made.origin == central
        assert is_legal(made)


@given(edges, stages, revisions, revisions)
def test_an_unmoved_node_never_makes_a_conflict(made, central, rev, expected):
    assert (judge(made, central, rev, expected) == MISMATCH) == (rev != expected and central != made.target)


# strategy | type | the site's change is certainly later | the safety rules allow it | what it is settled by
SETTLED = """
central_wins | state_mismatch  | yes | yes | keep_central
central_wins | state_mismatch  | no  | no  | keep_central
central_wins | missing_central | yes | yes | keep_central
last_write   | state_mismatch  | yes | yes | keep_local
last_write   | state_mismatch  | yes | no  | pending
last_write   | state_mismatch  | no  | yes | keep_central
last_write   | missing_central | yes | yes | keep_central
site_wins    | state_mismatch  | no  | yes | keep_local
site_wins    | state_mismatch  | yes | no  | pending
site_wins    | missing_central | yes | yes | pending
manual       | state_mismatch  | yes | yes | pending
manual       | missing_central | no  | no  | pending
"""
POLICIES = [[cell.strip() for cell in line.split("|")] for line in SETTLED.strip().splitlines()]


@pytest.mark.parametrize(("strategy", "kind", "later", "may", "how"), POLICIES, ids=["-".join(row) for row in POLICIES])
def test_a_policy_settles_what_it_may(strategy, kind, later, may, how):
    expected = None if how == "pending" else Resolution(how)
    settled = automatic(Strategy(strategy), ConflictType(kind), is_later=later == "yes", may_keep=may == "yes")
    assert settled == expected


@given(st.sampled_from(Strategy), st.sampled_from(ConflictType), st.booleans(), st.booleans())
def test_no_policy_keeps_a_sites_word_where_the_safety_rules_do_not(strategy, kind, later, may):
    how = automatic(strategy, kind, is_later=later, may_keep=may)
    assert how is not Resolution.MERGE
    if how is Resolution.KEEP_LOCAL:
        assert may
        assert kind not in CLAIMS


@given(st.sampled_from(Strategy), st.sampled_from(sorted(CLAIMS)), st.booleans(), st.booleans())
def test_whose_machine_it_is_is_always_a_persons_to_say(strategy, kind, later, may):
    assert automatic(strategy, kind, is_later=later, may_keep=may) is None


@given(stages, edges)
def test_no_policy_overwrites_deprovisioning_retired_or_migrating(central, made):
    if central.state in ("deprovisioning", "retired", "migrating"):
        assert not policy_may_keep(central, made)


@given(stages, edges)
def test_no_policy_moves_a_node_into_what_only_people_decide(central, made):
    if made.target.state in ("pending", "reprovision", "deprovisioning", "retired"):
        assert not policy_may_keep(central, made)


@given(edges, st.integers(1, 3))
def test_no_policy_lets_a_late_report_close_another_attempt(made, attempt):
    central = Stage(NodeState.INSTALLING, attempt)
    if made.origin.state == "installing" and made.origin.attempt != attempt:
        assert not policy_may_keep(central, made)


def test_a_policy_may_keep_what_a_machine_went_through():
    assert policy_may_keep(stage("discovered"), edge("pending > installing/1 system"))
    assert policy_may_keep(stage("installing/1"), edge("installing/1 > installed/1 node"))


NOON = datetime(2026, 1, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ahead", "uncertainty", "later"),
    [(10, 0, True), (0, 0, False), (-10, 0, False), (10, 9, True), (10, 10, False), (10, 3600, False)],
)
def test_one_thing_is_after_another_only_where_the_clocks_leave_no_doubt(ahead, uncertainty, later):
    made = Interval.around(NOON + timedelta(seconds=ahead), timedelta(seconds=uncertainty))
    assert made.is_after(Interval.around(NOON, timedelta(0))) is later


@given(stages, st.lists(edges, max_size=5))
def test_merging_takes_the_longest_part_of_the_chain_that_needs_no_force(central, chain):
    count = legal_prefix(central, chain)
    assert not any(forced for _, forced in replay(central, chain[:count]))
    if count < len(chain):
        assert replay(central, chain[: count + 1])[-1][1]


def replayed(central: str, *chain: str) -> list[str]:
    steps = replay(stage(central), [edge(link) for link in chain])
    return [f"{show(step.origin)} > {show(step.target)}{' forced' if forced else ''}" for step, forced in steps]


def show(here: Stage) -> str:
    return f"{here.state}/{here.attempt}" if here.attempt else str(here.state)


def test_keeping_the_sites_chain_replays_it_where_central_stands():
    chain = ("installing/1 > installing/2 system", "installing/2 > installed/2 node")
    assert replayed("installing/1", *chain) == ["installing/1 > installing/2", "installing/2 > installed/2"]


def test_a_step_that_has_no_edge_from_where_central_stands_is_forced_and_the_rest_is_not():
    chain = ("installing/1 > installed/1 node", "installed/1 > active/1 node")
    assert replayed("reprovision", *chain) == ["reprovision > installed/1 forced", "installed/1 > active/1"]


def test_a_step_that_leads_where_central_already_stands_falls_away():
    chain = ("installing/1 > installed/1 node", "installed/1 > active/1 node")
    assert replayed("installed/1", *chain) == ["installed/1 > active/1"]
    assert replayed("active/1", chain[1]) == []


@given(stages, st.lists(edges, max_size=6))
def test_a_replayed_chain_hangs_together_and_ends_where_the_site_ended(central, chain):
    steps = replay(central, chain)
    here = central
    for step, forced in steps:
        assert step.origin == here
        assert forced == (not is_legal(step))
        here = step.target
    assert here == (chain[-1].target if chain else central)


@pytest.mark.parametrize("state", NodeState)
def test_a_sites_word_may_be_kept_over_anything_but_retired(state):
    assert may_keep_local(Stage(state)) == (state != "retired")
