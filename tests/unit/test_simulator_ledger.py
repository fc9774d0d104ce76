"""The checker finds what it is for: each of its complaints has a run that earns it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.simulator.ledger import (
    Account,
    Acknowledged,
    EventRow,
    HistoryRow,
    InstallServed,
    Kind,
    Ledger,
    compare,
)

MAC = MacAddress.parse("52:54:00:aa:bb:01")
S = NodeState


def event(seq: int, name: str, item: str) -> EventRow:
    return EventRow(seq=seq, event=name, item_id=item)


def edge(seq: int, origin: NodeState, target: NodeState, item: str | None = None, attempt: int = 1) -> HistoryRow:
    return HistoryRow(
        seq=seq,
        from_state=origin,
        to_state=target,
        attempt=attempt,
        triggered_by="node",
        item_id=item,
        occurred_at=datetime.now(UTC),
    )


GOOD = Account(
    MAC,
    history=(edge(1, S.PENDING, S.INSTALLING, "i1"), edge(2, S.INSTALLING, S.INSTALLED, "i5")),
    events=(event(1, "install_started", "i2"), event(2, "install_complete", "i3"), event(3, "heartbeat", "i4")),
)


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.note_install(InstallServed(MAC, 1, "token"))
    for item, what in (("i2", "install_started"), ("i3", "install_complete"), ("i4", "heartbeat")):
        ledger.note(Acknowledged(item, MAC, what, "queued"))
    ledger.note(Acknowledged("i5", MAC, "install_complete", "queued", Kind.EDGE))
    return ledger


def test_a_good_run_holds(ledger):
    comparison = compare(ledger, [GOOD])
    assert comparison.holds
    assert (comparison.acknowledged, comparison.found) == (5, 5)


def test_the_same_answer_twice_is_one_promise(ledger):
    ledger.note(Acknowledged("i4", MAC, "heartbeat", "queued"))
    ledger.note_install(InstallServed(MAC, 1, "token"))
    assert compare(ledger, [GOOD]).acknowledged == 5


def test_a_lost_event_is_missing(ledger):
    comparison = compare(ledger, [replace(GOOD, events=GOOD.events[:-1])])
    assert comparison.missing == (f"{MAC}: heartbeat (event i4)",)
    assert comparison.found == 4


def test_an_edge_that_only_its_event_arrived_of_is_missing(ledger):
    comparison = compare(ledger, [replace(GOOD, history=GOOD.history[:1])])
    assert comparison.missing == (f"{MAC}: install_complete (edge i5)",)


def test_a_node_that_central_does_not_know_is_missing(ledger):
    assert len(compare(ledger, []).missing) == 5


def test_an_install_that_no_edge_began_is_missing(ledger):
    ledger.note_install(InstallServed(MAC, 2, "other"))
    assert compare(ledger, [GOOD]).missing == (f"{MAC}: install, attempt 2",)


def test_an_item_with_two_effects_is_twice(ledger):
    again = replace(GOOD, events=(*GOOD.events, event(4, "heartbeat", "i4")))
    assert f"{MAC}: i4" in compare(ledger, [again]).twice


def test_a_report_repeated_under_a_new_id_is_twice(ledger):
    again = replace(GOOD, events=(*GOOD.events, event(4, "heartbeat", "i6")))
    assert compare(ledger, [again]).twice == (f"{MAC}: heartbeat, 1 times too often",)


def test_an_attempt_that_no_machine_was_served_is_twice(ledger):
    again = replace(GOOD, history=(*GOOD.history, edge(3, S.INSTALLED, S.INSTALLING, attempt=1)))
    assert f"{MAC}: install, attempt 1" in compare(ledger, [again]).twice


def test_swapped_events_are_out_of_order(ledger):
    first, second, third = GOOD.events
    assert compare(ledger, [replace(GOOD, events=(second, first, third))]).out_of_order


def test_an_edge_that_does_not_follow_the_one_before_is_out_of_order(ledger):
    first, second = GOOD.history
    assert compare(ledger, [replace(GOOD, history=(second, first))]).out_of_order == (
        f"{MAC}: installed, then from pending",
    )
