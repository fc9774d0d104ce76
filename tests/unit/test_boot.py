"""What a machine that asks for a boot script is told: the whole table of decisions, and what no decision ever does."""

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.core.boot import (
    Decision,
    DefaultAction,
    Discover,
    Halt,
    Install,
    KnownNode,
    LocalDisk,
    Site,
    UnknownNode,
    decide,
)
from pureboot.core.lifecycle import MAX_ATTEMPTS, Autonomy, By, Edge, NodeState, Stage, is_legal
from pureboot.core.node import DoneWhen, InstallMethod, Workflow

NOW = 1_000_000.0
HOUR = 3600.0

DEBIAN = Workflow("w1", "debian-13", InstallMethod.KERNEL, kernel="images/vmlinuz", initrd=("images/initrd.img",))
SILENT = replace(DEBIAN, done_when=DoneWhen.NEXT_BOOT)

# What is known of the node, in words (`known` below reads them), and what it gets online, or offline at each level.
# What it gets: the attempt that is installed, or the disk, or a halt; `> stage` for each edge that is committed first;
# what the reason has to mention. `same`: as online.
TABLE = """
node                                  | online                          | readonly       | limited       | full
discovered                            | disk: approved                  | same           | same          | same
pending                               | 1 > installing/1                | disk: readonly | same          | same
pending, no files                     | 1 > installing/1                | disk: readonly | disk: missing | disk: missing
pending, old approval                 | 1 > installing/1                | disk: readonly | disk: 24 h    | same
pending, no clock                     | 1 > installing/1                | disk: readonly | disk: clock   | same
pending, no workflow                  | disk: workflow                  | same           | same          | same
reprovision                           | 1 > pending > installing/1      | disk: readonly | same          | same
reprovision, no files                 | 1 > pending > installing/1      | disk: readonly | disk: missing | disk: missing
reprovision, old approval             | 1 > pending > installing/1      | disk: readonly | disk: 24 h    | same
reprovision, no clock                 | 1 > pending > installing/1      | disk: readonly | disk: clock   | same
reprovision, no workflow              | disk: workflow                  | same           | same          | same
installing/1                          | 1                               | same           | same          | same
installing/2                          | 2                               | same           | same          | same
installing/3                          | 3                               | same           | same          | same
installing/1, no clock                | 1                               | same           | same          | same
installing/1, old approval            | 1                               | same           | same          | same
installing/2, no files                | 2                               | disk: missing  | disk: missing | disk: missing
installing/1, no workflow             | disk: workflow                  | same           | same          | same
installing/1, begun                   | 2 > installing/2                | disk: readonly | same          | same
installing/2, begun                   | 3 > installing/3                | disk: readonly | same          | same
installing/2, begun, old approval     | 3 > installing/3                | disk: readonly | same          | same
installing/3, begun                   | disk > install_failed/3: failed | disk: failed   | same          | same
installing/1, begun, no files         | 2 > installing/2                | disk: missing  | disk: missing | disk: missing
installing/3, begun, no files         | disk > install_failed/3: failed | disk: failed   | same          | same
installing/2, begun, no workflow      | disk: workflow                  | same           | same          | same
installing/1, silent                  | 1                               | same           | same          | same
installing/1, silent, begun           | disk > installed/1: done        | disk: done     | same          | same
installing/3, silent, begun           | disk > installed/3: done        | disk: done     | same          | same
installing/1, silent, begun, no files | disk > installed/1: done        | disk: done     | same          | same
install_failed/3                      | disk: somebody                  | same           | same          | same
installed/1                           | disk                            | same           | same          | same
active/1                              | disk                            | same           | same          | same
migrating                             | disk: migrating                 | same           | same          | same
serving_source                        | disk: source                    | same           | same          | same
cloning_target                        | disk: target                    | same           | same          | same
deprovisioning                        | disk: out of service            | same           | same          | same
retired                               | halt: retired                   | same           | same          | same
pending, disputed                     | disk: disagree                  | same           | same          | same
reprovision, disputed                 | disk: disagree                  | same           | same          | same
installing/1, disputed                | disk: disagree                  | same           | same          | same
installing/1, begun, disputed         | disk: disagree                  | same           | same          | same
installing/1, silent, begun, disputed | disk: disagree                  | same           | same          | same
active/1, disputed                    | disk: disagree                  | same           | same          | same
retired, disputed                     | disk: disagree                  | same           | same          | same
"""

# `last_state` of a machine that no node has, and what it gets.
STRANGERS = """
last state  | online        | local, offline    | discovery, offline | last_known, offline
-           | discover: new | disk: not known   | discover: new      | disk: not known
active      | discover: new | disk: not known   | discover: new      | disk: It was active
installed   | discover: new | disk: not known   | discover: new      | disk: It was installed
pending     | discover: new | disk: not known   | discover: new      | disk: It was pending
reprovision | discover: new | disk: not known   | discover: new      | disk: It was reprovision
installing  | discover: new | disk: not known   | discover: new      | disk: It was installing
retired     | discover: new | disk: not known   | discover: new      | halt: retired
"""


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()[1:]]


def each_cell(table: str, columns: list[list[Site]]) -> list:
    """One parameter set per row and site: (what is known, the site, what is expected)."""
    return [
        pytest.param(known, site, cells[0] if cell == "same" else cell, id=f"{known}, {name(site)}")
        for known, *cells in rows(table)
        for sites, cell in zip(columns, cells, strict=True)
        for site in sites
    ]


def name(site: Site) -> str:
    return f"{site.autonomy} {site.default_action} {'online' if site.online else 'offline'}"


KNOWN_AT = [
    [Site(autonomy, online=True) for autonomy in Autonomy],
    *([Site(autonomy, online=False)] for autonomy in Autonomy),
]
UNKNOWN_AT = [
    [Site(autonomy, online=True, default_action=action) for autonomy in Autonomy for action in DefaultAction],
    *([Site(autonomy, online=False, default_action=action) for autonomy in Autonomy] for action in DefaultAction),
]


def known(words: str) -> KnownNode:
    stage, *rest = words.split(", ")
    assert set(rest) <= {"begun", "silent", "disputed", "no files", "old approval", "no clock", "no workflow"}
    workflow = SILENT if "silent" in rest else DEBIAN
    age = 24 * HOUR + 1 if "old approval" in rest else HOUR
    return KnownNode(
        stage=at(stage),
        workflow=None if "no workflow" in rest else workflow,
        missing=("images/initrd.img",) if "no files" in rest else (),
        begun="begun" in rest,
        disputed="disputed" in rest,
        approved_at=None if "no clock" in rest else NOW - age,
    )


def at(text: str) -> Stage:
    state, _, attempt = text.partition("/")
    return Stage(NodeState(state), int(attempt or 0))


@dataclass(frozen=True)
class Expected:
    kind: str
    stages: list[Stage]
    mentions: str

    @classmethod
    def read(cls, cell: str) -> "Expected":
        head, _, mentions = cell.partition(": ")
        kind, *stages = head.split(" > ")
        return cls(kind, [at(text) for text in stages], mentions)


def kind_of(decision: Decision) -> str:
    match decision:
        case Install(_, attempt):
            return str(attempt)
        case LocalDisk():
            return "disk"
        case Halt():
            return "halt"
        case Discover():
            return "discover"


def edges_of(decision: Decision) -> tuple[Edge, ...]:
    return decision.edges if isinstance(decision, (LocalDisk, Install)) else ()


def reason_of(decision: Decision) -> str:
    return "" if isinstance(decision, Install) else decision.reason


def check(decision: Decision, origin: Stage | None, expected: Expected) -> None:
    assert kind_of(decision) == expected.kind
    path = [edge.target for edge in edges_of(decision)]
    assert path == expected.stages
    assert expected.mentions.lower() in reason_of(decision).lower()
    assert bool(reason_of(decision)) == bool(expected.mentions)
    if path:
        assert edges_of(decision)[0].origin == origin
        assert {edge.by for edge in edges_of(decision)} == {By.SYSTEM}


@pytest.mark.parametrize(("words", "site", "cell"), each_cell(TABLE, KNOWN_AT))
def test_a_known_node_gets(words, site, cell):
    node = known(words)
    check(decide(node, site, NOW), node.stage, Expected.read(cell))


@pytest.mark.parametrize(("last_state", "site", "cell"), each_cell(STRANGERS, UNKNOWN_AT))
def test_an_unknown_machine_gets(last_state, site, cell):
    stranger = UnknownNode(None if last_state == "-" else NodeState(last_state))
    check(decide(stranger, site, NOW), None, Expected.read(cell))


def test_the_table_speaks_of_every_state():
    assert {at(row[0].split(", ")[0]).state for row in rows(TABLE)} == set(NodeState)


def test_an_install_is_of_the_nodes_own_workflow():
    assert decide(known("pending"), Site(Autonomy.LIMITED, online=True), NOW) == Install(
        DEBIAN, 1, (Edge(at("pending"), at("installing/1"), By.SYSTEM),)
    )


LIMITED_OFFLINE = Site(Autonomy.LIMITED, online=False)


@pytest.mark.parametrize(
    ("age", "installs"),
    [
        pytest.param(0, True, id="said this moment"),
        pytest.param(24 * HOUR, True, id="exactly at the limit"),
        pytest.param(24 * HOUR + 0.001, False, id="just beyond it"),
        pytest.param(-5, True, id="the clock stepped back a little"),
    ],
)
def test_an_approval_starts_an_offline_install_until_it_is_a_day_old(age, installs):
    node = replace(known("pending"), approved_at=NOW - age)
    assert isinstance(decide(node, LIMITED_OFFLINE, NOW), Install) == installs


LIMITED_STALE = Site(Autonomy.LIMITED, online=True, stale=True)


@pytest.mark.parametrize(
    ("words", "mentions"), [("pending", ""), ("pending, old approval", "24 h"), ("pending, no clock", "not heard out")]
)
def test_that_central_answers_makes_no_approval_younger(words, mentions):
    """Its feed has not been read to its end: an approval may have been withdrawn since long."""
    decision = decide(known(words), LIMITED_STALE, NOW)
    assert isinstance(decision, Install) == (not mentions)
    assert mentions in reason_of(decision)


@pytest.mark.parametrize("words", [words for words, *_ in rows(TABLE) if "old approval" not in words])
@pytest.mark.parametrize("autonomy", Autonomy)
def test_nothing_else_is_otherwise_where_central_answers_but_was_not_heard_out(words, autonomy):
    if words not in ("pending, no clock", "reprovision, no clock"):
        site = Site(autonomy, online=True)
        assert decide(known(words), replace(site, stale=True), NOW) == decide(known(words), site, NOW)


def test_a_site_may_set_its_own_limit_and_the_reason_tells_both_ages():
    node = replace(known("pending"), approved_at=NOW - 2.5 * HOUR)
    decision = decide(node, replace(LIMITED_OFFLINE, install_max_age=1.5 * HOUR), NOW)
    assert "2.5 h ago" in reason_of(decision)
    assert "limit is 1.5 h" in reason_of(decision)


def test_a_list_of_missing_content_is_told_by_its_first_and_their_number():
    node = replace(known("pending"), missing=tuple(f"images/{i}" for i in range(12)))
    assert reason_of(decide(node, LIMITED_OFFLINE, NOW)).endswith("missing here: images/0 and 11 more.")


# What no decision ever does, whatever is known.

stages = st.builds(Stage, st.sampled_from(NodeState), st.integers(0, MAX_ATTEMPTS))
nodes = st.builds(
    KnownNode,
    stage=stages,
    workflow=st.sampled_from([None, DEBIAN, SILENT]),
    missing=st.lists(st.text(max_size=8), max_size=5).map(tuple),
    begun=st.booleans(),
    disputed=st.booleans(),
    approved_at=st.none() | st.floats(0, 2 * NOW),
)
sites = st.builds(
    Site,
    autonomy=st.sampled_from(Autonomy),
    online=st.booleans(),
    default_action=st.sampled_from(DefaultAction),
    install_max_age=st.floats(1, 1e7),
    stale=st.booleans(),
)
moments = st.floats(0, 2 * NOW)


@given(nodes, sites, moments)
def test_every_edge_of_a_decision_is_legal_and_they_hang_together_from_where_the_node_stands(node, site, now):
    here = node.stage
    for edge in edges_of(decide(node, site, now)):
        assert edge.origin == here
        assert is_legal(edge)
        here = edge.target


@given(nodes, sites, moments)
def test_an_install_is_given_only_where_one_was_approved_or_is_in_progress(node, site, now):
    decision = decide(node, site, now)
    if isinstance(decision, Install):
        assert node.stage.state in {NodeState.PENDING, NodeState.REPROVISION, NodeState.INSTALLING}
        assert not node.disputed
        assert decision.workflow is node.workflow
        end = decision.edges[-1].target if decision.edges else node.stage
        assert end == Stage(NodeState.INSTALLING, decision.attempt)


@given(nodes, sites, moments)
def test_an_offline_install_has_all_it_needs_on_disk(node, site, now):
    if not site.online and isinstance(decide(node, site, now), Install):
        assert not node.missing


@given(nodes, sites, moments)
def test_a_readonly_site_that_is_offline_begins_nothing_and_moves_nothing(node, site, now):
    if site.online or site.autonomy is not Autonomy.READONLY:
        return
    decision = decide(node, site, now)
    assert not edges_of(decision)
    if isinstance(decision, Install):
        assert node.stage.state is NodeState.INSTALLING
        assert not node.begun


@given(nodes, sites, moments)
def test_an_attempt_that_has_begun_is_never_served_again(node, site, now):
    decision = decide(node, site, now)
    if node.begun and node.stage.state is NodeState.INSTALLING and isinstance(decision, Install):
        assert decision.attempt == node.stage.attempt + 1


@given(nodes, sites, moments)
def test_whatever_is_not_an_install_says_why_but_for_a_machine_in_service(node, site, now):
    decision = decide(node, site, now)
    in_service = node.stage.state in {NodeState.INSTALLED, NodeState.ACTIVE} and not node.disputed
    if not isinstance(decision, Install):
        assert bool(reason_of(decision)) != in_service


@given(st.none() | st.sampled_from(NodeState), sites, moments)
def test_an_unknown_machine_is_never_installed(last_state, site, now):
    assert isinstance(decide(UnknownNode(last_state), site, now), (LocalDisk, Discover, Halt))


@given(stages, sites)
def test_reasons_are_whole_sentences(stage, site):
    for node in (KnownNode(stage), KnownNode(stage, DEBIAN, ("images/x",)), KnownNode(stage, DEBIAN, begun=True)):
        reason = reason_of(decide(node, site, NOW))
        assert re.fullmatch(r"|[A-Z].*\.", reason)


# Machines that ask again and again. `after` is the node once the decision's edges are committed.


def after(node: KnownNode, decision: Decision) -> KnownNode:
    edges = edges_of(decision)
    return replace(node, stage=edges[-1].target, begun=False) if edges else node


@given(nodes, st.lists(st.tuples(sites, moments), min_size=2, max_size=8))
def test_a_machine_that_only_asks_and_asks_begins_one_attempt_at_most(node, requests):
    """HEAD, firmware that asks twice, power that flickers: none of them gets hold of a kernel."""
    begun = 0
    for site, now in requests:
        decision = decide(node, site, now)
        begun += sum(edge.target.state is NodeState.INSTALLING for edge in edges_of(decision))
        node = after(node, decision)
    assert begun <= 1


@given(nodes, st.lists(st.tuples(sites, moments, st.booleans()), max_size=30))
def test_one_approval_wipes_a_disk_three_times_at_most(node, requests):
    """An attempt that gets its kernel may wipe the disk; the machine then comes back without a word, for ever."""
    if node.stage.state is NodeState.INSTALLING:
        node = replace(node, stage=Stage(NodeState.INSTALLING, max(node.stage.attempt, 1)))
    wiped = 0
    for site, now, takes_hold in requests:
        decision = decide(node, site, now)
        node = after(node, decision)
        if isinstance(decision, Install) and takes_hold:
            assert not node.begun
            wiped += 1
            node = replace(node, begun=True)
    assert wiped <= MAX_ATTEMPTS


@pytest.mark.parametrize("autonomy", Autonomy)
def test_an_installer_that_never_finishes_gets_three_attempts_and_then_the_disk(autonomy):
    site, node, seen = Site(autonomy, online=True), known("pending"), []
    for _ in range(6):
        decision = decide(node, site, NOW)
        node = replace(after(node, decision), begun=True)
        seen.append(kind_of(decision))
    assert seen == ["1", "2", "3", "disk", "disk", "disk"]
    assert node.stage == at("install_failed/3")


def test_an_installer_that_does_not_report_is_done_when_the_machine_comes_back():
    site, node = Site(Autonomy.LIMITED, online=False), replace(known("pending"), workflow=SILENT)
    node = replace(after(node, decide(node, site, NOW)), begun=True)
    node = after(node, decide(node, site, NOW))
    assert node.stage == at("installed/1")
    assert decide(node, site, NOW) == LocalDisk()
