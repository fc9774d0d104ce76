"""How conflicts are settled: one and many, by people at central and at the site, and how that is taken back."""

import asyncio
from typing import Any

import pytest

from tests.support.central import RunningCentral, SpeakingAgent

MAC = "52:54:00:aa:bb:{:02x}"


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    """An agent of a site where a person settles conflicts."""
    return await central.speaking_agent((await central.new_site("cellar", conflict_resolution="manual"))["id"])


async def disputed(
    central: RunningCentral, agent: SpeakingAgent, number: int = 1, state: str = "discovered", *, whole: bool = False
) -> dict[str, Any]:
    """A node that central moved to `state` while the site began its install (`whole`: and ended it): the conflict."""
    node = f"n{number}"
    await agent.push(agent.registration(node, MAC.format(number)))
    rev = (await central.ask("PATCH", f"/nodes/{node}/state", json={"state": "pending"}))["state_rev"]
    body = {"state": state, "force": True, "comment": "meanwhile"}
    await central.ask("PATCH", f"/nodes/{node}/state", json=body)
    begun = agent.step(node, "pending", "installing", 1, base=rev)
    done = agent.step(node, "installing", "installed", 1, after=begun["id"])
    answer = await agent.push(begun, *([done] if whole else []))
    assert [result.outcome.value for result in answer.results] == ["conflict"] * (1 + whole)
    conflict: dict[str, Any] = await look(central, agent, str(answer.results[0].conflict_id))
    return conflict


async def look(central: RunningCentral, agent: SpeakingAgent, id: str) -> dict[str, Any]:
    view: dict[str, Any] = await central.ask("GET", f"/sites/{agent.site_id}/conflicts/{id}")
    return view


async def act(
    central: RunningCentral, conflict: dict[str, Any], verb: str, status: int = 200, **body: Any
) -> dict[str, Any]:
    path = f"/sites/{conflict['site_id']}/conflicts/{conflict['id']}/{verb}"
    answer: dict[str, Any] = await central.ask("POST", path, status, json=body)
    return answer


async def stage_of(central: RunningCentral, node: str = "n1") -> tuple[str, int]:
    document = await central.ask("GET", f"/nodes/{node}")
    return document["state"], document["attempt"]


# What a person sees


async def test_a_conflict_shows_both_sides_and_what_each_did(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent, whole=True)
    assert conflict["base"] == {"state": "pending", "attempt": 0}
    assert [(link["origin"]["state"], link["target"]["state"]) for link in conflict["chain"]] == [
        ("pending", "installing"),
        ("installing", "installed"),
    ]
    steps = [(step["from_state"], step["to_state"], step["comment"]) for step in conflict["central_history"]]
    assert steps == [("pending", "discovered", "meanwhile")]
    assert (conflict["local_state"], conflict["local_attempt"], conflict["central_state"]) == (
        "installed",
        1,
        "discovered",
    )
    assert (conflict["site_name"], conflict["node"]["id"], conflict["decisions"]) == ("cellar", "n1", [])


async def test_each_resolution_is_shown_before_it_is_chosen(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent, 2, "cloning_target", whole=True)
    previews = {preview["resolution"]: preview for preview in conflict["previews"]}
    assert previews["keep_central"]["end"] == {"state": "cloning_target", "attempt": 0}
    assert (previews["keep_central"]["steps"], previews["keep_central"]["left_out"]) == ([], 2)
    assert previews["keep_local"]["end"] == {"state": "installed", "attempt": 1}
    assert [step["forced"] for step in previews["keep_local"]["steps"]] == [True, False]
    assert (previews["merge"]["end"], previews["merge"]["left_out"]) == (previews["keep_central"]["end"], 2)
    for resolution, preview in previews.items():
        settled = await act(central, conflict, "resolve", resolution=resolution)
        assert await stage_of(central, "n2") == (preview["end"]["state"], preview["end"]["attempt"])
        conflict = await act(central, settled, "undo")


async def test_a_preview_says_why_a_resolution_cannot_be(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent, state="retired")
    refused = {preview["resolution"]: preview["refused"] for preview in conflict["previews"]}
    assert refused == {
        "keep_local": "This node is retired at central.",
        "keep_central": None,
        "merge": "This node is retired at central.",
    }


async def test_conflicts_are_found_by_site_type_and_words(central: RunningCentral, agent: SpeakingAgent) -> None:
    await disputed(central, agent, 1)
    await disputed(central, agent, 2)
    await central.ask("PATCH", "/nodes/n2", json={"hostname": "Rack7"})
    await central.new_site("loft")
    expected = {
        (("site", "loft"),): [],
        (("site", "cellar"), ("q", "rack7")): ["n2"],
        (("q", "BB:01"),): ["n1"],
        (("q", "nothing"),): [],
        (("q", "%"),): [],
        (("type", "state_mismatch"), ("q", "installing")): ["n1", "n2"],
        (("type", "site_claim"),): [],
    }
    for query, nodes in expected.items():
        found = (await central.ask("GET", "/conflicts", params=dict(query)))["items"]
        assert [row["node_id"] for row in found] == nodes, query


async def test_the_list_shows_what_central_has_now(central: RunningCentral, agent: SpeakingAgent) -> None:
    await disputed(central, agent)
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "active", "force": True, "comment": "again"})
    [row] = (await central.ask("GET", "/conflicts"))["items"]
    assert (row["central_state"], row["local_state"]) == ("active", "installing")


# merge


async def test_merge_takes_as_much_of_the_sites_chain_as_needs_no_force(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await agent.push(agent.registration("n1", MAC.format(1)))
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "discovered"})
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"})
    begun = agent.step("n1", "pending", "installing", 1, base=rev)
    done = agent.step("n1", "installing", "installed", 1, after=begun["id"])
    answer = await agent.push(begun, done)
    conflict = await look(central, agent, str(answer.results[0].conflict_id))
    settled = await act(central, conflict, "resolve", resolution="merge")
    assert (settled["resolution"], await stage_of(central)) == ("merge", ("installed", 1))
    assert [row["forced"] for row in (await central.ask("GET", "/nodes/n1/history"))["items"]] == [False] * 5
    up = agent.step("n1", "installed", "active", 1, after=done["id"])
    assert [result.outcome.value for result in (await agent.push(up)).results] == ["applied"]


async def test_what_a_merge_left_out_takes_what_follows_along(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent, whole=True)
    settled = await act(central, conflict, "resolve", resolution="merge")
    assert await stage_of(central) == ("discovered", 0)
    late = agent.step("n1", "installed", "active", 1, after=settled["local_chain"][-1])
    result = (await agent.push(late)).results[0]
    assert (result.outcome, result.resolution) == ("conflict", "merge")


# Stale, and two at once


async def test_a_decision_on_what_has_moved_on_is_refused_and_shows_what_is(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    conflict = await disputed(central, agent)
    seen = {"version": conflict["version"], "state_rev": conflict["state_rev"]}
    await agent.push(agent.step("n1", "installing", "installed", 1, after=conflict["local_chain"][-1]))
    error = (await act(central, conflict, "resolve", 409, resolution="keep_local", **seen))["error"]
    assert error["code"] == "stale_version"
    assert "the site has the node installed, central discovered by now" in error["message"]
    seen["version"] = (await look(central, agent, conflict["id"]))["version"]
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"})
    error = (await act(central, conflict, "resolve", 409, resolution="keep_local", **seen))["error"]
    assert "the site has the node installed, central pending by now" in error["message"]
    seen["state_rev"] += 1
    assert (await act(central, conflict, "resolve", resolution="keep_local", **seen))["status"] == "resolved"


async def test_of_two_who_decide_at_once_one_counts_and_the_other_is_told(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    conflict = await disputed(central, agent)
    path = f"/api/v1/sites/{agent.site_id}/conflicts/{conflict['id']}/resolve"
    bodies = [{"resolution": "keep_local"}, {"resolution": "keep_central"}]
    answers = await asyncio.gather(*(central.admin.post(path, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    [refused] = [answer.json()["error"] for answer in answers if answer.status_code == 409]
    [counted] = [answer.json() for answer in answers if answer.status_code == 200]
    assert refused["code"] == "already_resolved"
    assert f"{counted['resolution']}, by admin" in refused["message"]


# Many


async def test_many_are_settled_at_once_each_for_itself(central: RunningCentral, agent: SpeakingAgent) -> None:
    ids = [(await disputed(central, agent, n))["id"] for n in (1, 2)]
    retired = (await disputed(central, agent, 3, "retired"))["id"]
    body = {"resolution": "keep_local", "comment": "all of them", "ids": [*ids, retired, "nothing", ids[0]]}
    answer = await central.ask("POST", "/conflicts/resolve", json=body)
    assert (answer["resolved"], answer["refused"], answer["left"]) == (2, 2, 0)
    assert [(row["id"], row["outcome"]) for row in answer["items"]] == [
        (ids[0], "resolved"),
        (ids[1], "resolved"),
        (retired, "refused"),
        ("nothing", "refused"),
    ]
    assert answer["items"][2]["reason"] == "This node is retired at central."
    assert [await stage_of(central, node) for node in ("n1", "n2")] == [("installing", 1)] * 2
    again = await central.ask("POST", "/conflicts/resolve", json=body)
    assert (again["resolved"], again["refused"]) == (0, 4)
    assert "resolved already" in again["items"][0]["reason"]


async def test_many_are_chosen_as_the_list_chooses(central: RunningCentral, agent: SpeakingAgent) -> None:
    for number in (1, 2, 3):
        await disputed(central, agent, number)
    await central.ask("PATCH", "/nodes/n2", json={"hostname": "rack7"})
    one = await central.ask("POST", "/conflicts/resolve", json={"resolution": "keep_central", "q": "rack7"})
    assert one["resolved"] == 1
    rest = await central.ask("POST", "/conflicts/resolve", json={"resolution": "keep_central", "site": "cellar"})
    assert rest["resolved"] == 2
    told = {item.id for item in (await agent.changes()).items if item.type == "conflict"}
    assert len(told) == 3


# Taking back


@pytest.mark.parametrize("resolution", ["keep_central", "keep_local", "merge"])
async def test_a_decision_is_taken_back_while_nothing_has_happened_since(
    central: RunningCentral, agent: SpeakingAgent, resolution: str
) -> None:
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution=resolution, comment="surely")
    undone = await act(central, conflict, "undo", comment="rather not")
    assert (undone["status"], undone["resolution"], undone["resolved_by"]) == ("pending", None, None)
    assert await stage_of(central) == ("discovered", 0)
    log = [(entry["resolution"], entry["by"], entry["comment"]) for entry in undone["decisions"]]
    assert log == [(resolution, "admin", "surely"), (None, "admin", "rather not")]
    assert (await act(central, conflict, "resolve", resolution="keep_local"))["status"] == "resolved"
    assert await stage_of(central) == ("installing", 1)


async def test_a_decision_stands_once_the_node_has_moved(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    settled = await act(central, conflict, "resolve", resolution="keep_local")
    assert settled["final"] == ""
    await agent.push(agent.step("n1", "installing", "installed", 1, after=conflict["local_chain"][-1]))
    error = (await act(central, conflict, "undo", 409))["error"]
    assert (error["code"], "the node has moved since, to installed" in error["message"]) == ("moved_on", True)
    assert "the node has moved since" in (await look(central, agent, conflict["id"]))["final"]


async def test_a_decision_stands_once_the_site_has_gone_on(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution="keep_central")
    await agent.push(agent.step("n1", "installing", "installed", 1, after=conflict["local_chain"][-1]))
    error = (await act(central, conflict, "undo", 409))["error"]
    assert "the site has gone on since" in error["message"]


async def test_a_decision_stands_once_the_node_is_deleted(central: RunningCentral, agent: SpeakingAgent) -> None:
    settled = await act(central, await disputed(central, agent), "resolve", resolution="keep_local")
    await central.ask("DELETE", "/nodes/n1", 204)
    refused = await act(central, settled, "undo", 409)
    assert refused["error"]["message"] == "This decision stands: central has deleted the node since."


async def test_a_decision_that_moved_a_node_stands_once_it_is_another_sites(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    settled = await act(central, await disputed(central, agent), "resolve", resolution="keep_local")
    await central.ask("PATCH", "/nodes/n1", json={"home_site_id": (await central.new_site("loft"))["id"]})
    refused = await act(central, settled, "undo", 409)
    assert refused["error"]["message"] == "This decision stands: the node has gone to another site since."
    assert await stage_of(central) == ("installing", 1)


async def test_what_is_open_is_not_taken_back(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    assert "the conflict is open" in (await act(central, conflict, "undo", 409))["error"]["message"]


async def test_what_a_policy_settled_is_taken_back_too(central: RunningCentral, agent: SpeakingAgent) -> None:
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"conflict_resolution": "site_wins"})
    conflict = await disputed(central, agent)
    assert (conflict["status"], await stage_of(central)) == ("resolved", ("installing", 1))
    undone = await act(central, conflict, "undo")
    assert (undone["status"], await stage_of(central)) == ("pending", ("discovered", 0))
    joined = await agent.push(agent.step("n1", "installing", "installed", 1, after=conflict["local_chain"][-1]))
    assert (joined.results[0].outcome, joined.results[0].resolution) == ("conflict", None)


async def test_no_decision_is_taken_back_over_a_newer_conflict(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution="keep_central")
    await agent.push(agent.step("n1", "pending", "installing", 1, base=1))
    assert "A newer conflict" in (await act(central, conflict, "undo", 409))["error"]["message"]


# By people at the site


def decision(agent: SpeakingAgent, conflict: dict[str, Any], resolution: str, **fields: Any) -> dict[str, Any]:
    body = {"conflict_id": conflict["id"], "resolution": resolution, "person": "Ada", "comment": "I stand beside it"}
    return agent.item("settlement", conflict["node_id"], body, **fields)


async def test_a_decision_of_the_site_counts_in_its_place_in_line(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    conflict = await disputed(central, agent)
    done = agent.step("n1", "installing", "installed", 1, conflict_id=conflict["id"])
    answer = await agent.push(decision(agent, conflict, "keep_local"), done)
    assert [result.outcome.value for result in answer.results] == ["applied", "applied"]
    assert [(c.id, c.resolution, c.resolved_by) for c in answer.conflicts] == [
        (conflict["id"], "keep_local", "Ada at cellar")
    ]
    assert await stage_of(central) == ("installed", 1)
    view = await look(central, agent, conflict["id"])
    assert [(entry["by"], entry["comment"]) for entry in view["decisions"]] == [("Ada at cellar", "I stand beside it")]


async def test_a_decision_of_the_site_that_comes_again_counts_once(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    conflict = await disputed(central, agent)
    item = decision(agent, conflict, "keep_local")
    await agent.push(item)
    again = await agent.push(item, decision(agent, conflict, "keep_local"))
    assert [result.outcome.value for result in again.results] == ["duplicate", "applied"]
    assert len((await look(central, agent, conflict["id"]))["decisions"]) == 1


async def test_a_decision_counts_where_the_node_is_deleted_and_its_last_site_removed(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    """What comes with it counts, too."""
    conflict = await disputed(central, agent)
    await central.new_site("attic")
    await central.ask("PATCH", "/nodes/n1", json={"home_site_id": "attic"})
    await central.ask("DELETE", "/nodes/n1", 204)
    await central.ask("DELETE", "/sites/attic", 204)
    answer = await agent.push(decision(agent, conflict, "keep_central"), agent.registration("n2", MAC.format(2)))
    assert [result.outcome.value for result in answer.results] == ["applied", "applied"]
    assert (await look(central, agent, conflict["id"]))["resolution"] == "keep_central"


async def test_a_site_whose_conflicts_wait_stays(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    await central.ask("DELETE", "/nodes/n1", 204)
    refused = await central.ask("DELETE", f"/sites/{agent.site_id}", 409)
    assert refused["error"]["code"] == "site_has_conflicts"
    await act(central, conflict, "resolve", resolution="keep_central")
    await central.ask("DELETE", f"/sites/{agent.site_id}", 204)


async def test_who_decides_late_at_the_site_is_told_what_was_decided(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution="keep_central")
    answer = await agent.push(decision(agent, conflict, "keep_local"))
    assert answer.results[0].reason == "already_resolved: admin decided keep_central meanwhile."
    assert answer.conflicts[0].resolution == "keep_central"


@pytest.mark.parametrize(
    ("state", "resolution", "fields", "reason"),
    [
        ("discovered", "keep_central", {"autonomy": "readonly"}, "forbidden: A site of level readonly"),
        ("deprovisioning", "keep_local", {}, "forbidden: To keep the site's word"),
        ("migrating", "merge", {}, "forbidden: To keep the site's word"),
    ],
)
async def test_what_a_site_may_not_decide_is_rejected(
    central: RunningCentral, agent: SpeakingAgent, state: str, resolution: str, fields: Any, reason: str
) -> None:
    conflict = await disputed(central, agent, state=state)
    result = (await agent.push(decision(agent, conflict, resolution, **fields))).results[0]
    assert result.outcome == "rejected"
    assert str(result.reason).startswith(reason)
    assert (await look(central, agent, conflict["id"]))["status"] == "pending"


async def test_a_site_may_not_keep_a_chain_of_which_one_edge_is_for_people_at_central(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    """What the site's policy could keep of it makes no difference."""
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"autonomy_level": "full"})
    await agent.push(agent.registration("n1", MAC.format(1)))
    body = {"state": "installed", "force": True, "comment": "by hand"}
    rev = (await central.ask("PATCH", "/nodes/n1/state", json=body))["state_rev"]
    await central.ask("PATCH", "/nodes/n1/state", json=body | {"state": "cloning_target"})
    up = agent.step("n1", "installed", "active", base=rev, autonomy="full")
    again = agent.step("n1", "active", "reprovision", after=up["id"], autonomy="full", body={"triggered_by": "admin"})
    answer = await agent.push(up, again)
    assert [result.outcome.value for result in answer.results] == ["conflict", "conflict"]
    conflict = await look(central, agent, str(answer.results[0].conflict_id))
    assert len(conflict["chain"]) == 2
    result = (await agent.push(decision(agent, conflict, "keep_local", autonomy="full"))).results[0]
    assert str(result.reason).startswith("forbidden: To keep the site's word")
    assert (await look(central, agent, conflict["id"]))["status"] == "pending"


async def test_a_site_decides_only_its_own_conflicts(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    other = await central.speaking_agent((await central.new_site("loft"))["id"])
    await other.push(other.registration("m1", "52:54:00:aa:cc:01"))
    for item in (decision(other, conflict, "keep_central"), decision(other, conflict | {"node_id": "m1"}, "merge")):
        result = (await other.push(item)).results[0]
        assert (result.outcome, str(result.reason).partition(":")[0]) == ("rejected", "unknown_conflict")
    await agent.push(agent.registration("n2", MAC.format(2)))
    wrong = decision(agent, conflict | {"node_id": "n2"}, "keep_central")
    assert str((await agent.push(wrong)).results[0].reason).startswith("unknown_conflict")


# What a site was never allowed


async def test_an_edge_made_under_a_level_the_site_never_had_is_rejected(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await agent.push(agent.registration("n1", MAC.format(1)))
    approval = agent.step("n1", "discovered", "pending", base=1, autonomy="full")
    answer = await agent.push(approval)
    why = "forbidden: This site, which never had the level full, may not make discovered pending by admin."
    assert answer.results[0].reason == why


@pytest.mark.parametrize("claimed", ["limited", "full"])
async def test_a_readonly_site_settles_nothing_by_claiming_another_level(central: RunningCentral, claimed: str) -> None:
    site = await central.new_site("attic", conflict_resolution="manual", autonomy_level="readonly")
    agent = await central.speaking_agent(site["id"])
    conflict = await disputed(central, agent)
    result = (await agent.push(decision(agent, conflict, "keep_local", autonomy=claimed))).results[0]
    assert str(result.reason).startswith(f"forbidden: This site, which never had the level {claimed}, settles")
    assert (await look(central, agent, conflict["id"]))["status"] == "pending"


# A chain and its conflict


async def test_what_the_site_does_after_a_decision_it_has_not_heard_of_counts(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    """And the answer tells of that decision."""
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution="keep_local")
    done = agent.step("n1", "installing", "installed", 1, base=2, conflict_id=conflict["id"])
    answer = await agent.push(done)
    assert [(c.id, c.resolution) for c in answer.conflicts] == [(conflict["id"], "keep_local")]
    base = answer.nodes[0].state_rev
    on = agent.step("n1", "installed", "active", 1, base=base, conflict_id=conflict["id"])
    assert [result.outcome for result in (await agent.push(on)).results] == ["applied"]


async def test_what_central_did_after_its_decision_is_not_overruled(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    """The base is the newest; but the site has the machine elsewhere than it says."""
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution="keep_local")
    body = {"state": "discovered", "force": True, "comment": "again"}
    base = (await central.ask("PATCH", "/nodes/n1/state", json=body))["state_rev"]
    done = agent.step("n1", "installing", "installed", 1, base=base, conflict_id=conflict["id"])
    assert [result.outcome for result in (await agent.push(done)).results] == ["conflict"]


@pytest.mark.parametrize("state", ["pending", "active"])
async def test_what_follows_a_rejected_item_is_still_made_on_what_that_one_was_made_on(
    central: RunningCentral, agent: SpeakingAgent, state: str
) -> None:
    """An administrator has moved the node since: wherever it is now, the site did not know."""
    await agent.push(agent.registration("n1", MAC.format(1)))
    await central.ask("PATCH", "/nodes/n1/state", json={"state": state, "force": True, "comment": "meanwhile"})
    forbidden = agent.step("n1", "discovered", "pending", base=1, body={"triggered_by": "admin"})
    begun = agent.step("n1", "pending", "installing", 1, after=forbidden["id"])
    assert [result.outcome.value for result in (await agent.push(forbidden, begun)).results] == ["rejected", "conflict"]
    assert (await stage_of(central))[0] == state


@pytest.mark.parametrize(("resolution", "outcome"), [("keep_local", "applied"), ("keep_central", "conflict")])
async def test_a_registration_leaves_its_chain_in_the_conflict(
    central: RunningCentral, agent: SpeakingAgent, resolution: str, outcome: str
) -> None:
    conflict = await disputed(central, agent)
    await act(central, conflict, "resolve", resolution=resolution)
    told = agent.registration("n1", MAC.format(1), facts={"ip_address": "10.0.0.7"}, conflict_id=conflict["id"])
    done = agent.step("n1", "installing", "installed", 1, after=told["id"])
    answer = await agent.push(told, done)
    assert [result.outcome for result in answer.results] == ["applied", outcome]
    assert answer.results[1].conflict_id == (conflict["id"] if outcome == "conflict" else None)


async def test_a_conflict_takes_nothing_of_another_node(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    await agent.push(agent.registration("n2", MAC.format(2)))
    rev = (await central.ask("PATCH", "/nodes/n2/state", json={"state": "pending"}))["state_rev"]
    begun = agent.step("n2", "pending", "installing", 1, base=rev, conflict_id=conflict["id"])
    assert [result.outcome for result in (await agent.push(begun)).results] == ["applied"]


async def test_what_was_accepted_under_the_old_level_is_judged_by_it(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await agent.push(agent.registration("n1", MAC.format(1)), agent.registration("n2", MAC.format(2)))
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"autonomy_level": "full"})
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"autonomy_level": "readonly"})
    before = agent.step("n1", "discovered", "pending", base=1, autonomy="full")
    after = agent.step("n2", "discovered", "pending", base=1, autonomy="readonly")
    outcomes = [result.outcome.value for result in (await agent.push(before, after)).results]
    assert outcomes == ["applied", "rejected"]
