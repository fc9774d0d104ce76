"""How a change at a site becomes a push item, and a push item a change at central."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pureboot.core.changes import Change, NodeEvent, Registration, StateUpdate
from pureboot.core.errors import Invalid, Malformed, PureBootError
from pureboot.core.lifecycle import Autonomy, By, Edge, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import FACT_LENGTH, FACT_NAMES
from pureboot.wire.messages import (
    MESSAGE_LENGTH,
    Base,
    FeedPage,
    Outcome,
    PushAnswer,
    PushItem,
    PushRequest,
    PushResult,
    StateBody,
    explain,
    to_body,
    to_change,
)


def item(item_type: str, body: dict[str, Any], **fields: Any) -> PushItem:
    return PushItem(
        **{"id": "i1", "epoch": "E1", "seq": 1, "lane": "n1", "item_type": item_type, "body": body, **fields}
    )


def sent(change: Change) -> Change:
    """There and back: over the wire as JSON, in the lane of its node."""
    item_type, body = to_body(change)
    return to_change(item(item_type, json.loads(json.dumps(body)), lane=change.node_id))


# What an agent accepts is printable, without blanks around it, and not longer than this.


def lines(most: int, least: int = 0) -> st.SearchStrategy[str]:
    text = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=least, max_size=most)
    return text.map(str.strip).filter(lambda line: len(line) >= least)


ids = st.uuids().map(str)
macs = st.binary(min_size=6, max_size=6).map(bytes.hex).filter(lambda raw: len(set(raw)) > 1).map(MacAddress.parse)
facts = st.dictionaries(st.sampled_from(FACT_NAMES), lines(FACT_LENGTH, least=1))
stages = st.builds(Stage, st.sampled_from(NodeState), st.integers(0, 1000))
edges = st.builds(Edge, stages, stages, st.sampled_from(By))
metadata = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
registrations = st.builds(
    Registration, ids, st.lists(macs, min_size=1, max_size=32, unique=True).map(tuple), lines(255), facts
)
state_updates = st.builds(StateUpdate, ids, edges, lines(MESSAGE_LENGTH), facts)
node_events = st.builds(
    NodeEvent,
    ids,
    lines(100, least=1),
    lines(MESSAGE_LENGTH),
    st.dictionaries(st.text(), metadata, max_size=4),
    st.integers(0, 1000),
)


@given(registrations)
def test_a_registration_arrives_as_it_was_made(change):
    assert sent(change) == change


@given(state_updates)
def test_a_state_update_arrives_as_it_was_made(change):
    assert sent(change) == change


@given(node_events)
def test_an_event_arrives_as_it_was_made(change):
    assert sent(change) == change


# PROTOCOL.md, section 2, with its dots filled in as far as a program needs it.

REQUEST = """
{"agent_id":"…","epoch":"E9","generation":1,
 "items":[
  {"id":"…01","epoch":"E8","seq":9001,"lane":"n1","item_type":"registration","autonomy":"limited","age_ms":5000,"u_ms":100,
   "body":{"node_id":"n1","mac_addresses":["52:54:00:aa:bb:01"],"facts":{"system_uuid":"…","serial_number":"…"}}},
  {"id":"…02","epoch":"E9","seq":9002,"lane":"n1","item_type":"state_update","autonomy":"limited","age_ms":4000,"u_ms":100,
   "after":"…01","base":{"generation":1,"state_rev":null},
   "body":{"from_state":"installing","to_state":"installed","attempt":2,
           "facts":{"ip_address":{"from":"10.0.0.5","to":"10.0.0.9"}}}},
  {"id":"…03","epoch":"E9","seq":9003,"lane":"n1","item_type":"event","age_ms":3900,"u_ms":100,
   "body":{"event":"install_progress","message":"…","metadata":{}}}]}
"""
ANSWER = """
{"generation":1,
 "results":[{"id":"…01","outcome":"applied","canonical_id":"n1"},
            {"id":"…02","outcome":"conflict","conflict_id":"c9","resolution":"keep_central","reason":"…"},
            {"id":"…03","outcome":"applied"}],
 "nodes":[{"id":"n1","version":12,"state_rev":7,"state":"retired","doc":null}],
 "backpressure":{"after_ms":0}}
"""
PAGE = """
{"generation":1,"items":[{"pos":5,"type":"node","op":"moved_out","id":"n1","version":3,"doc":{}}],
 "next":"CURSOR","more":false}
"""


def test_the_request_of_the_protocol_is_read_as_three_changes_of_one_node():
    request = PushRequest.model_validate_json(REQUEST)
    registration, update, event = map(to_change, request.items)
    assert registration == Registration(
        "n1", (MacAddress.parse("52:54:00:aa:bb:01"),), facts={"serial_number": "…", "system_uuid": "…"}
    )
    edge = Edge(Stage(NodeState.INSTALLING, 2), Stage(NodeState.INSTALLED, 2), By.NODE)
    assert update == StateUpdate("n1", edge, facts={"ip_address": "10.0.0.9"})
    assert event == NodeEvent("n1", "install_progress", "…")


def test_the_request_of_the_protocol_keeps_what_the_items_were_accepted_under():
    first, second, third = PushRequest.model_validate_json(REQUEST).items
    assert (first.epoch, second.epoch) == ("E8", "E9")
    assert (first.base, second.base) == (None, Base(generation=1, state_rev=None))
    assert (first.after, second.after) == (None, "…01")
    assert third.autonomy is Autonomy.LIMITED


def test_the_answer_of_the_protocol_is_read():
    answer = PushAnswer.model_validate_json(ANSWER)
    assert [result.outcome for result in answer.results] == ["applied", "conflict", "applied"]
    assert answer.nodes[0].doc is None
    assert answer.backpressure.after_ms == 0


def test_a_page_of_the_feed_is_read():
    page = FeedPage.model_validate_json(PAGE)
    assert (page.items[0].op, page.next, page.more) == ("moved_out", "CURSOR", False)


@pytest.mark.parametrize(
    ("outcome", "first", "settled", "effect"),
    [
        (Outcome.APPLIED, None, True, Outcome.APPLIED),
        (Outcome.CONFLICT, None, True, Outcome.CONFLICT),
        (Outcome.REJECTED, None, True, Outcome.REJECTED),
        (Outcome.RETRY_LATER, None, False, Outcome.RETRY_LATER),
        (Outcome.DUPLICATE, Outcome.APPLIED, True, Outcome.APPLIED),
        (Outcome.DUPLICATE, Outcome.CONFLICT, True, Outcome.CONFLICT),
    ],
)
def test_an_item_is_settled_by_every_outcome_but_retry_later_and_a_duplicate_by_its_first(
    outcome, first, settled, effect
):
    result = PushResult(id="i1", outcome=outcome, first=first)
    assert (result.settled, result.effect) == (settled, effect)


# `from_state to_state attempt` -> the edge that is meant where a sender leaves the rest out.
SHORT = """
pending installing 1      | pending/0 > installing/1 node
installing installing 2   | installing/1 > installing/2 system
installing installed 3    | installing/3 > installed/3 node
installing install_failed 3 | installing/3 > install_failed/3 node
installed active 2        | installed/2 > active/2 node
reprovision pending 0     | reprovision/0 > pending/0 system
active reprovision 0      | active/0 > reprovision/0 admin
deprovisioning retired 1  | deprovisioning/1 > retired/1 node
installed discovered 0    | installed/0 > discovered/0 node
"""
SHORT_FORMS = [[cell.strip() for cell in line.split("|")] for line in SHORT.strip().splitlines()]


@pytest.mark.parametrize(("short", "meant"), SHORT_FORMS, ids=[row[0] for row in SHORT_FORMS])
def test_what_a_state_update_leaves_out_is_what_the_lifecycle_leaves_open(short, meant):
    origin, target, attempt = short.split()
    change = to_change(item("state_update", {"from_state": origin, "to_state": target, "attempt": int(attempt)}))
    assert isinstance(change, StateUpdate)
    edge = change.edge
    assert f"{show(edge.origin)} > {show(edge.target)} {edge.by}" == meant


def show(stage: Stage) -> str:
    return f"{stage.state}/{stage.attempt}"


REGISTRATION = {"node_id": "n1", "mac_addresses": ["52:54:00:aa:bb:01"]}
UPDATE = {"from_state": "installing", "to_state": "installed", "attempt": 1}
EVENT = {"event": "heartbeat"}


@pytest.mark.parametrize(
    ("item_type", "body", "kind", "names"),
    [
        pytest.param("registration", {}, Invalid, "node_id", id="a registration of nothing"),
        pytest.param("registration", {"node_id": "n1"}, Invalid, "mac_addresses", id="no address"),
        pytest.param("registration", {**REGISTRATION, "mac_addresses": []}, Invalid, "mac_addresses", id="none at all"),
        pytest.param("registration", {**REGISTRATION, "mac_addresses": "52"}, Invalid, "mac_addresses", id="no list"),
        pytest.param("registration", {**REGISTRATION, "mac_addresses": ["52"]}, Malformed, "'52'", id="a bad address"),
        pytest.param("registration", {**REGISTRATION, "mac_addresses": ["0" * 12]}, Malformed, "000", id="nobody's"),
        pytest.param("registration", {**REGISTRATION, "node_id": "n" * 65}, Invalid, "node_id", id="a long id"),
        pytest.param("registration", {**REGISTRATION, "facts": {"model": 7}}, Invalid, "facts.model", id="a number"),
        pytest.param("registration", {**REGISTRATION, "hostname": "h" * 256}, Invalid, "hostname", id="a long name"),
        pytest.param("registration", {**REGISTRATION, "state": "active"}, Invalid, "state", id="a field too many"),
        pytest.param("state_update", {}, Invalid, "from_state", id="an update of nothing"),
        pytest.param("state_update", {**UPDATE, "to_state": "done"}, Invalid, "to_state", id="an unknown state"),
        pytest.param("state_update", {**UPDATE, "attempt": -1}, Invalid, "attempt", id="attempt -1"),
        pytest.param("state_update", {**UPDATE, "attempt": 10**30}, Invalid, "attempt", id="too many attempts"),
        pytest.param("state_update", {**UPDATE, "attempt": "second"}, Invalid, "attempt", id="an attempt in words"),
        pytest.param("state_update", {**UPDATE, "triggered_by": "root"}, Invalid, "triggered_by", id="by nobody known"),
        pytest.param("state_update", {**UPDATE, "comment": "c" * 2001}, Invalid, "comment", id="a long comment"),
        pytest.param("state_update", {**UPDATE, "facts": {"model": "x"}}, Invalid, "facts.model", id="a bare fact"),
        pytest.param("state_update", {**UPDATE, "force": True}, Invalid, "force", id="an update with force"),
        pytest.param("event", {}, Invalid, "event", id="an event of nothing"),
        pytest.param("event", {**EVENT, "event": ""}, Invalid, "event", id="no name"),
        pytest.param("event", {**EVENT, "event": "e" * 101}, Invalid, "event", id="a long name of an event"),
        pytest.param("event", {**EVENT, "metadata": []}, Invalid, "metadata", id="metadata that are a list"),
        pytest.param("event", {**EVENT, "message": None}, Invalid, "message", id="no message"),
        pytest.param("event", {**EVENT, "x" * 10_000: 1}, Invalid, "xxx", id="an endless field too many"),
        pytest.param("deletion", {}, Invalid, "'deletion'", id="an unknown type"),
        pytest.param("", {}, Invalid, "''", id="no type"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_one_sentence_that_names_what_is_wrong(item_type, body, kind, names):
    with pytest.raises(PureBootError) as refusal:
        to_change(item(item_type, body))
    assert type(refusal.value) is kind
    assert names in refusal.value.message
    assert len(refusal.value.message) < 300
    assert "\n" not in refusal.value.message
    assert refusal.value.message.endswith(".")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ["node_id", "mac_addresses", "hostname", "facts", "from_state", "to_state", "attempt", "event", "metadata"]


@given(
    st.sampled_from(["registration", "state_update", "event"]) | st.text(max_size=64),
    st.dictionaries(st.sampled_from(FIELDS) | st.text(), json_values, max_size=6),
)
def test_no_body_whatever_raises_anything_but_an_error_of_ours(item_type, body):
    with contextlib.suppress(PureBootError):
        assert isinstance(to_change(item(item_type, body)), (Registration, StateUpdate, NodeEvent))


@given(st.text(min_size=1, max_size=100), st.text(max_size=2000))
def test_no_text_of_a_machine_brings_a_control_character_to_central(event, message):
    """A NUL is more than PostgreSQL can store: its item would be put off for ever, and stop its lane."""
    registration = to_change(
        item("registration", {**REGISTRATION, "hostname": message[:255], "facts": {"model": message}})
    )
    update = to_change(item("state_update", {**UPDATE, "comment": message}))
    happened = to_change(item("event", {"event": event, "message": message}))
    assert isinstance(registration, Registration)
    assert isinstance(update, StateUpdate)
    assert isinstance(happened, NodeEvent)
    texts = [registration.hostname, *registration.facts.values(), update.comment, happened.event, happened.message]
    assert all(text.isprintable() for text in texts)


def test_facts_that_central_does_not_know_are_left_out():
    change = to_change(
        item("registration", {**REGISTRATION, "facts": {"model": "R740", "weight": "heavy", "vendor": " "}})
    )
    assert isinstance(change, Registration)
    assert change.facts == {"model": "R740"}


def test_an_address_in_two_spellings_is_one_address():
    change = to_change(item("registration", {**REGISTRATION, "mac_addresses": ["525400AABB01", "52-54-00-aa-bb-01"]}))
    assert isinstance(change, Registration)
    assert change.mac_addresses == (MacAddress.parse("52:54:00:aa:bb:01"),)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""},
        {"id": "i" * 65},
        {"seq": -1},
        {"seq": 2**63},
        {"age_ms": 2**63},
        {"lane": ""},
        {"autonomy": "total"},
        {"base": {"state_rev": 4}},
        {"wipe": True},
    ],
    ids=str,
)
def test_an_item_that_cannot_be_filed_is_no_item(fields):
    with pytest.raises(ValidationError):
        item("event", EVENT, **fields)


def test_a_foreign_validation_error_becomes_the_first_bad_field_and_their_number():
    with pytest.raises(ValidationError) as foreign:
        PushItem.model_validate({"id": "", "body": {}})
    error = explain(foreign.value)
    assert isinstance(error, Invalid)
    assert error.message.startswith("id: ")
    assert error.hint == "5 field(s) to mend."


def test_what_machines_send_is_read_with_unknown_fields_ignored():
    assert StateBody.model_validate({"state": "installed", "firmware": "odd"}).state == "installed"
