"""Nodes, as administrators create, change and move them."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection

from pureboot.central import bulk, nodes, workflows
from pureboot.central.bodies import NodePatch
from pureboot.core.errors import Busy
from tests.support.central import RunningCentral, SetClock

MAC, OTHER_MAC = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02"


@pytest.fixture(autouse=True)
async def attic(central: RunningCentral) -> dict[str, Any]:
    return await central.new_site("attic")


async def new_node(central: RunningCentral, mac: str = MAC, **fields: Any) -> dict[str, Any]:
    body = {"mac_address": mac, "home_site_id": "attic", **fields}
    node: dict[str, Any] = await central.ask("POST", "/nodes", 201, json=body)
    return node


async def move(central: RunningCentral, node: dict[str, Any], status: int = 200, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await central.ask("PATCH", f"/nodes/{node['id']}/state", status, json=body)
    return answer


async def walk(central: RunningCentral, node: dict[str, Any], *states: str) -> None:
    for state in states:
        await move(central, node, state=state, force=True, comment="walk")


async def test_a_node_is_created_before_its_machine_is_seen(central: RunningCentral, attic: dict[str, Any]) -> None:
    await central.ask("POST", "/workflows", 201, json={"name": "debian", "kernel": "images/k"})
    node = await new_node(central, "5254.00AA.BB01", workflow_id="debian", state="active", tags=["db"], group_id="g")
    assert (node["mac_address"], node["state"], node["attempt"], node["version"]) == (MAC, "active", 0, 1)
    assert (node["home_site_id"], node["tags"], node["group_id"]) == (attic["id"], ["db"], "g")
    assert await central.ask("GET", f"/nodes/{node['id']}") == node


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"mac_address": "nonsense", "home_site_id": "attic"}, 400, "malformed_mac"),
        ({"mac_address": "00:00:00:00:00:00", "home_site_id": "attic"}, 400, "malformed_mac"),
        ({"mac_address": MAC, "home_site_id": "nowhere"}, 422, "unknown_site"),
        ({"mac_address": MAC, "home_site_id": "attic", "workflow_id": "none"}, 422, "unknown_workflow"),
        ({"mac_address": MAC, "home_site_id": "attic", "state": "asleep"}, 422, "invalid"),
        ({"mac_address": MAC, "home_site_id": "attic", "colour": "red"}, 422, "invalid"),
        ({"mac_address": MAC}, 422, "invalid"),
    ],
)
async def test_a_node_that_makes_no_sense_is_refused(
    central: RunningCentral, body: dict[str, Any], status: int, code: str
) -> None:
    assert (await central.ask("POST", "/nodes", status, json=body))["error"]["code"] == code


async def test_a_mac_belongs_to_one_node(central: RunningCentral) -> None:
    await new_node(central)
    body = {"mac_address": MAC, "home_site_id": "attic"}
    assert (await central.ask("POST", "/nodes", 409, json=body))["error"]["code"] == "mac_taken"


async def test_nodes_are_listed_by_mac_state_and_site(central: RunningCentral) -> None:
    await central.new_site("cellar")
    one = await new_node(central)
    two = await new_node(central, OTHER_MAC, state="active")
    three = await new_node(central, "52:54:00:aa:bb:03", home_site_id="cellar")

    async def ids(path: str = "/nodes", **query: Any) -> list[str]:
        return [node["id"] for node in (await central.ask("GET", path, params=query))["items"]]

    assert await ids() == [one["id"], two["id"], three["id"]]
    assert await ids(mac="525400AABB02") == [two["id"]]
    assert await ids(mac="52:54:00:aa:bb:99") == []
    assert await ids(state="active") == [two["id"]]
    assert await ids(site="cellar") == await ids("/sites/cellar/nodes") == [three["id"]]
    assert await ids(limit=2) == [one["id"], two["id"]]
    assert await ids(limit=2, cursor=two["id"]) == [three["id"]]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"mac": "x"}, 400, "malformed_mac"),
        ({"state": "asleep"}, 422, "unknown_state"),
        ({"site": "nowhere"}, 404, "unknown_site"),
        ({"limit": "many"}, 422, "invalid"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    central: RunningCentral, query: dict[str, str], status: int, code: str
) -> None:
    assert (await central.ask("GET", "/nodes", status, params=query))["error"]["code"] == code


async def test_a_workflow_is_assigned_by_id_or_name_and_taken_away(central: RunningCentral) -> None:
    workflow = await central.ask("POST", "/workflows", 201, json={"name": "debian", "kernel": "images/k"})
    node = await new_node(central)
    path = f"/nodes/{node['id']}"
    assert (await central.ask("PATCH", path, json={"workflow_id": "debian"}))["workflow_id"] == workflow["id"]
    assert (await central.ask("PATCH", path, json={"hostname": "x"}))["workflow_id"] == workflow["id"]
    assert (await central.ask("PATCH", path, json={"workflow_id": None}))["workflow_id"] is None
    assert (await central.ask("PATCH", path, 422, json={"workflow_id": "x"}))["error"]["code"] == "unknown_workflow"


def before_each_write(
    central: RunningCentral, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Connection], Any]
) -> None:
    write = central.db.write

    async def late(work: Callable[[Connection], Any]) -> Any:
        await write(meanwhile)
        return await write(work)

    monkeypatch.setattr(central.db, "write", late)


async def test_a_workflow_that_is_removed_while_it_is_assigned_is_refused_node_by_node(
    central: RunningCentral, monkeypatch: pytest.MonkeyPatch
) -> None:
    await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    node = await new_node(central)
    before_each_write(central, monkeypatch, lambda conn: workflows.remove(conn, "w"))
    outcome = await central.ask("POST", "/nodes/assign", json={"workflow_id": "w", "ids": [node["id"]]})
    assert (outcome["changed"], [each["code"] for each in outcome["refused"]]) == (0, ["unknown_workflow"])


@pytest.mark.parametrize(
    "meanwhile", [{"home_site_id": "cellar"}, {"workflow_id": None}, {"hostname": "mine"}], ids=str
)
async def test_a_bulk_change_leaves_alone_what_its_filter_finds_no_more(
    central: RunningCentral, clock: SetClock, monkeypatch: pytest.MonkeyPatch, meanwhile: dict[str, Any]
) -> None:
    await central.new_site("cellar")
    await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    stays, goes = [await new_node(central, mac, workflow_id="w", hostname="theirs") for mac in (MAC, OTHER_MAC)]
    patch = NodePatch.model_validate(meanwhile)
    before_each_write(central, monkeypatch, lambda conn: nodes.edit(conn, goes["id"], patch, clock.now()))
    wanted = {"site": "attic", "workflow": "w", "q": "theirs"}
    outcome = await central.ask("POST", "/nodes/move", json={"filter": wanted, "state": "pending"})
    told = [(each["node_id"], each["mac_address"], each["code"]) for each in outcome["refused"]]
    assert (outcome["changed"], told) == (1, [(goes["id"], OTHER_MAC, "moved_on")])
    states = {node["id"]: node["state"] for node in (await central.ask("GET", "/nodes"))["items"]}
    assert states == {stays["id"]: "pending", goes["id"]: "discovered"}


async def test_a_bulk_change_of_nodes_by_their_ids_takes_them_as_they_are(
    central: RunningCentral, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await new_node(central)
    patch = NodePatch(hostname="mine")
    before_each_write(central, monkeypatch, lambda conn: nodes.edit(conn, node["id"], patch, clock.now()))
    outcome = await central.ask("POST", "/nodes/move", json={"ids": [node["id"]], "state": "retired"})
    assert (outcome["changed"], outcome["refused"]) == (1, [])


@pytest.mark.parametrize("fails", [0, 1])
async def test_a_bulk_change_that_fails_half_way_tells_what_it_did(
    central: RunningCentral, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    ids = sorted([(await new_node(central, f"52:54:00:aa:bb:{number:02}"))["id"] for number in range(3)])
    turns = count()

    def meanwhile(conn: Connection) -> None:
        if next(turns) == fails:
            raise Busy("The database cannot do this now.", retry_after=5)

    monkeypatch.setattr(bulk, "AT_ONCE", 1)
    before_each_write(central, monkeypatch, meanwhile)
    outcome = await central.ask("POST", "/nodes/move", 200 if fails else 503, json={"filter": {}, "state": "pending"})
    monkeypatch.undo()
    states = {node["id"]: node["state"] for node in (await central.ask("GET", "/nodes"))["items"]}
    assert [states[id] for id in ids] == ["pending"] * fails + ["discovered"] * (3 - fails)
    if not fails:
        assert outcome["error"]["code"] == "busy"
        return
    assert (outcome["matched"], outcome["changed"]) == (3, 1)
    assert [(each["node_id"], each["code"]) for each in outcome["refused"]] == [(id, "busy") for id in ids[1:]]
    assert outcome["refused"][0]["message"] == "Nothing was done with it: The database cannot do this now."


async def test_a_stale_version_is_409_and_changes_nothing(central: RunningCentral) -> None:
    node = await new_node(central)
    path = f"/nodes/{node['id']}"
    await central.ask("PATCH", path, json={"hostname": "x", "version": 1})
    for attempt in (path, f"{path}/state"):
        body = {"state": "pending", "version": 1} if attempt.endswith("state") else {"hostname": "y", "version": 1}
        assert (await central.ask("PATCH", attempt, 409, json=body))["error"]["code"] == "stale_version"
    assert (await central.ask("GET", path))["hostname"] == "x"


async def test_a_deleted_node_is_gone_but_its_history_stays(central: RunningCentral) -> None:
    node = await new_node(central)
    await move(central, node, state="pending")
    await central.ask("DELETE", f"/nodes/{node['id']}", 204)
    assert (await central.ask("GET", f"/nodes/{node['id']}", 404))["error"]["code"] == "unknown_node"
    assert (await central.ask("GET", "/nodes", params={"mac": MAC}))["items"] == []
    assert len((await central.ask("GET", f"/nodes/{node['id']}/history"))["items"]) == 1
    await central.ask("DELETE", f"/nodes/{node['id']}", 404)
    assert (await new_node(central))["id"] != node["id"]


# Registering and reporting by hand


async def test_registering_a_known_machine_finds_its_node(central: RunningCentral) -> None:
    body = {"mac": MAC, "home_site_id": "attic", "serial_number": "S1", "whatever": 1}
    first = await central.ask("POST", "/nodes/register", 201, json=body)
    again = await central.ask("POST", "/nodes/register", json=body | {"model": "M"})
    assert (first["status"], first["state"], first["id"]) == ("applied", "discovered", again["id"])
    assert again["facts"] == {"serial_number": "S1", "model": "M"}
    assert (await central.ask("POST", "/nodes/register", json=body))["version"] == again["version"]


async def test_registering_a_machine_of_another_site_is_refused(central: RunningCentral) -> None:
    await central.new_site("cellar")
    await new_node(central)
    body = {"mac_address": MAC, "home_site_id": "cellar"}
    assert (await central.ask("POST", "/nodes/register", 409, json=body))["error"]["code"] == "mac_taken"


async def test_an_event_makes_the_edge_it_stands_for(central: RunningCentral) -> None:
    node = await new_node(central, state="installing")
    answer = await central.ask("POST", f"/nodes/{node['id']}/event", json={"event": "install_complete", "status": "ok"})
    assert (answer["edge"], answer["state"], answer["attempt"]) == ("applied", "installed", 1)
    [event] = (await central.ask("GET", f"/nodes/{node['id']}/events"))["items"]
    assert (event["event"], event["metadata"]) == ("install_complete", {"status": "ok"})
    answer = await central.ask("POST", "/report", json={"mac": MAC, "event": "first_boot"})
    assert (answer["edge"], answer["state"]) == ("applied", "active")


async def test_an_event_whose_edge_is_forbidden_is_kept(central: RunningCentral) -> None:
    node = await new_node(central)
    answer = await central.ask("POST", "/report", json={"mac_address": MAC, "event": "first_boot"})
    assert (answer["edge"], answer["state"]) == ("refused", "discovered")
    answer = await central.ask("POST", "/report", json={"mac_address": MAC, "event": "lunch"})
    assert answer["edge"] is None
    names = [event["event"] for event in (await central.ask("GET", f"/nodes/{node['id']}/events"))["items"]]
    assert names == ["first_boot", "lunch"]


async def test_a_report_with_the_same_id_is_kept_once(central: RunningCentral) -> None:
    node = await new_node(central, state="installing")
    body = {"mac_address": MAC, "event": "install_progress", "report_id": "r1"}
    ids = {(await central.ask("POST", "/report", json=body))["id"] for _ in range(2)}
    assert len(ids) == 1
    assert len((await central.ask("GET", f"/nodes/{node['id']}/events"))["items"]) == 1


async def test_a_report_of_a_machine_nobody_knows_is_404(central: RunningCentral) -> None:
    await central.ask("POST", "/report", 404, json={"mac_address": MAC, "event": "x"})
    await central.ask("POST", "/report", 400, json={"mac_address": "x", "event": "x"})
    await central.ask("POST", "/nodes/nobody/event", 404, json={"event": "x"})
    await central.ask("POST", "/nodes/nobody/event", 422, json={})


# States


async def test_an_approval_is_one_row_of_history(central: RunningCentral, attic: dict[str, Any]) -> None:
    node = await new_node(central)
    moved = await move(central, node, state="pending", comment="go")
    assert (moved["state"], moved["version"], moved["state_rev"]) == ("pending", 2, 2)
    [row] = (await central.ask("GET", f"/nodes/{node['id']}/history"))["items"]
    assert row == {
        "seq": row["seq"],
        "from_state": "discovered",
        "to_state": "pending",
        "attempt": 0,
        "triggered_by": "admin",
        "actor": "admin",
        "comment": "go",
        "occurred_at": "2026-01-28T12:00:00Z",
        "recorded_at": "2026-01-28T12:00:00Z",
        "site_id": attic["id"],
        "item_id": None,
        "forced": False,
    }


async def test_asked_for_the_state_it_has_a_node_stays_as_it_is(central: RunningCentral) -> None:
    node = await new_node(central, state="active")
    assert await move(central, node, state="active") == node


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"state": "installed"}, 409, "illegal_edge"),
        ({"state": "asleep"}, 422, "unknown_state"),
        ({"state": "installed", "force": True}, 409, "comment_required"),
        ({}, 422, "invalid"),
    ],
)
async def test_an_edge_that_is_not_to_be_is_refused(
    central: RunningCentral, body: dict[str, Any], status: int, code: str
) -> None:
    node = await new_node(central)
    assert (await move(central, node, status, **body))["error"]["code"] == code


async def test_a_person_may_force_an_edge_and_says_why(central: RunningCentral) -> None:
    node = await new_node(central)
    moved = await move(central, node, state="installed", force=True, comment="it is")
    assert (moved["state"], moved["attempt"]) == ("installed", 0)
    assert [row["forced"] for row in (await central.ask("GET", f"/nodes/{node['id']}/history"))["items"]] == [True]


async def test_nothing_leads_out_of_retired(central: RunningCentral) -> None:
    node = await new_node(central, state="retired")
    body = {"state": "active", "force": True, "comment": "please"}
    assert (await move(central, node, 409, **body))["error"]["code"] == "illegal_edge"


@pytest.mark.parametrize(
    ("way", "back"),
    [
        ([], "discovered"),
        (["installing", "install_failed"], "discovered"),
        (["active", "reprovision"], "active"),
    ],
)
async def test_a_cancelled_approval_leads_back_to_where_it_came_from(
    central: RunningCentral, way: list[str], back: str
) -> None:
    node = await new_node(central)
    await walk(central, node, *way, "pending")
    wrong = "active" if back == "discovered" else "discovered"
    assert (await move(central, node, 409, state=wrong))["error"]["code"] == "illegal_edge"
    assert (await move(central, node, state=back))["state"] == back


async def test_an_imported_approval_leads_back_to_discovered(central: RunningCentral) -> None:
    node = await new_node(central, state="pending")
    assert (await move(central, node, 409, state="active"))["error"]["code"] == "illegal_edge"
    assert (await move(central, node, state="discovered"))["state"] == "discovered"


async def test_history_has_pages_oldest_first(central: RunningCentral) -> None:
    node = await new_node(central)
    await walk(central, node, "pending", "installing", "installed")
    path = f"/nodes/{node['id']}/history"
    first = await central.ask("GET", path, params={"limit": 2})
    rest = await central.ask("GET", path, params={"limit": 2, "cursor": first["next_cursor"]})
    assert [row["to_state"] for row in first["items"] + rest["items"]] == ["pending", "installing", "installed"]
    assert rest["next_cursor"] is None
    assert (await central.ask("GET", path, 400, params={"cursor": "x"}))["error"]["code"] == "malformed_cursor"
    await central.ask("GET", "/nodes/nobody/history", 404)


async def test_the_time_line_has_pages_and_takes_no_other_cursor(central: RunningCentral) -> None:
    node = await new_node(central)
    await walk(central, node, "pending", "installing", "installed")
    path = f"/nodes/{node['id']}/timeline"
    first = await central.ask("GET", path, params={"limit": 2})
    rest = await central.ask("GET", path, params={"limit": 2, "cursor": first["next_cursor"]})
    assert [row["to_state"] for row in first["items"] + rest["items"]] == ["installed", "installing", "pending"]
    for cursor in ("x", "1", "1.0", "1.0.x", "1.0.-1", f"1.0.{10**30}", f"1.{10**30}.1", f"{10**30}.0.1", "1.0.1.1"):
        error = (await central.ask("GET", path, 400, params={"cursor": cursor}))["error"]
        assert error["code"] == "malformed_cursor", cursor


async def test_a_node_may_boot_its_disk_in_another_way_than_its_site(central: RunningCentral) -> None:
    node = await new_node(central, local_boot="exit")
    assert node["local_boot"] == "exit"
    path = f"/nodes/{node['id']}"
    assert (await central.ask("PATCH", path, json={"hostname": "x"}))["local_boot"] == "exit"
    assert (await central.ask("PATCH", path, json={"local_boot": None}))["local_boot"] is None
    await central.ask("PATCH", path, 422, json={"local_boot": "reboot"})
