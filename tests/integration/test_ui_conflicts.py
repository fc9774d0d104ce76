"""Conflicts on central's pages, as a browser without JavaScript sees them."""

import asyncio
import re
from html import unescape
from typing import Any

import pytest

from tests.integration.test_central_settlement import agent as agent
from tests.integration.test_central_settlement import disputed, look, stage_of
from tests.support.browser import signed_in
from tests.support.central import RunningCentral, SpeakingAgent

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e"


async def test_the_list_shows_what_waits_and_finds_it(central: RunningCentral, agent: SpeakingAgent) -> None:
    await disputed(central, agent, 1)
    await disputed(central, agent, 2)
    await central.ask("PATCH", "/nodes/n2", json={"hostname": "rack7"})
    viewer = await signed_in(central, "viewer")
    everything = (await viewer.get("/conflicts")).text
    assert "2 conflicts" in everything
    assert "Settle many" not in everything
    found = (await viewer.get("/conflicts?q=rack7&site=cellar&type=state_mismatch")).text
    assert ("rack7" in found, "52:54:00:aa:bb:01" in found) == (True, False)
    # As the filter's own form sends it.
    assert "2 conflicts" in (await viewer.get("/conflicts?q=&site=&type=&status=pending")).text
    assert (await viewer.get("/conflicts?type=none")).status_code == 422
    assert "No conflict is like that" in (await viewer.get("/conflicts?q=nothing")).text
    assert (await viewer.get("/conflicts?status=none")).status_code == 422


async def test_one_shows_both_sides_and_each_way_out(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent, whole=True)
    page = unescape((await (await signed_in(central, "operator")).get(f"/conflicts/{conflict['id']}")).text)
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Base: what both had At cellar At central, now" in text
    assert "pending → installing 1 by node" in text or "pending → installing 1 by system" in text
    assert "pending → discovered forced" in text or "pending → discovered by admin" in text
    for way in ("Keep the site's", "Keep central's", "Merge"):
        assert way in text
    assert "2 of the site's steps would not take effect." in text


async def test_an_operator_settles_it_and_takes_it_back(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    operator = await signed_in(central, "operator", "grace")
    path = f"/conflicts/{conflict['id']}"
    seen = {"version": str(conflict["version"]), "state_rev": str(conflict["state_rev"])}
    answer = await operator.post(path, resolution="keep_local", comment="I looked", **seen)
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert await stage_of(central) == ("installing", 1)
    view = await look(central, agent, conflict["id"])
    assert (view["resolved_by"], view["comment"]) == ("grace", "I looked")
    assert "Take it back" in (await operator.get(path)).text
    answer = await operator.post(f"{path}/undo", page=path, comment="rather not", version=str(view["version"]))
    assert answer.status_code == 303
    assert await stage_of(central) == ("discovered", 0)
    assert "Taken back" in (await operator.get(path)).text


async def test_a_decision_on_what_has_moved_on_shows_what_is_and_keeps_what_was_typed(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    conflict = await disputed(central, agent)
    operator = await signed_in(central, "operator")
    path = f"/conflicts/{conflict['id']}"
    seen = {"version": str(conflict["version"]), "state_rev": str(conflict["state_rev"])}
    await agent.push(agent.step("n1", "installing", "installed", 1, after=conflict["local_chain"][-1]))
    answer = await operator.post(path, resolution="keep_local", comment="my long thoughts", **seen)
    assert answer.status_code == 409
    assert "This conflict has moved on: the site has the node installed" in unescape(answer.text)
    assert 'value="my long thoughts"' in answer.text
    assert 'value="keep_local" required checked' in answer.text
    assert await stage_of(central) == ("discovered", 0)


async def test_of_two_operators_one_wins_and_the_other_is_told(central: RunningCentral, agent: SpeakingAgent) -> None:
    conflict = await disputed(central, agent)
    path = f"/conflicts/{conflict['id']}"
    ada, grace = await signed_in(central, "operator", "ada"), await signed_in(central, "operator", "grace")
    answers = await asyncio.gather(ada.post(path, resolution="keep_local"), grace.post(path, resolution="keep_central"))
    assert sorted(answer.status_code for answer in answers) == [303, 409]
    [loser] = [unescape(answer.text) for answer in answers if answer.status_code == 409]
    winner, how = ("grace", "keep_central") if answers[1].status_code == 303 else ("ada", "keep_local")
    assert f"This conflict is resolved already: {how}, by {winner}." in loser


async def test_many_are_settled_after_a_look(central: RunningCentral, agent: SpeakingAgent) -> None:
    ids = [(await disputed(central, agent, n))["id"] for n in (1, 2)]
    retired = (await disputed(central, agent, 3, "retired"))["id"]
    operator = await signed_in(central, "operator")
    chosen: dict[str, Any] = {"scope": "all", "resolution": "keep_local", "comment": "all of them"}
    look_first = await operator.post("/conflicts/bulk", page="/conflicts", **chosen)
    assert "Settle 2 conflicts" in look_first.text
    assert "This node is retired at central." in look_first.text
    assert await stage_of(central, "n1") == ("discovered", 0)
    done = await operator.post("/conflicts/bulk", page="/conflicts", **chosen, confirmed="yes")
    assert "This node is retired at central." in done.text
    assert [await stage_of(central, node) for node in ("n1", "n2")] == [("installing", 1)] * 2
    ticked = await operator.post(
        "/conflicts/bulk", page="/conflicts", id=[retired, *ids], resolution="keep_central", confirmed="yes"
    )
    assert "resolved already" in ticked.text
    none = await operator.post("/conflicts/bulk", page="/conflicts", resolution="keep_central")
    assert (none.status_code, "No conflict is ticked." in none.text) == (422, True)
    for wrong in (
        {"resolution": "all"},
        {"resolution": "merge", "type": "none"},
        {"resolution": "merge", "q": "x" * 201},
    ):
        answer = await operator.post("/conflicts/bulk", page="/conflicts", scope="all", **wrong)
        assert answer.status_code == 422


@pytest.mark.parametrize("path", ["", "/undo"])
async def test_a_viewer_decides_nothing(central: RunningCentral, agent: SpeakingAgent, path: str) -> None:
    conflict = await disputed(central, agent)
    viewer = await signed_in(central, "viewer")
    page = f"/conflicts/{conflict['id']}"
    assert "An operator can settle it." in (await viewer.get(page)).text
    answer = await viewer.post(page + path, page=page, resolution="keep_local")
    assert answer.status_code == 403
    assert await stage_of(central) == ("discovered", 0)


async def test_a_conflict_that_is_none(central: RunningCentral) -> None:
    operator = await signed_in(central, "operator")
    answer = await operator.get("/conflicts/nothing")
    assert (answer.status_code, "There is no conflict" in unescape(answer.text)) == (404, True)
    answer = await operator.post("/conflicts/nothing", page="/conflicts", resolution="merge")
    assert answer.status_code == 404


async def test_what_a_machine_or_a_person_wrote_is_inert(central: RunningCentral, agent: SpeakingAgent) -> None:
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"name": HOSTILE[:200]})
    await agent.push(agent.registration("n1", "52:54:00:aa:bb:01"))
    await central.ask("PATCH", "/nodes/n1", json={"hostname": HOSTILE})
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending", "comment": HOSTILE}))["state_rev"]
    body = {"state": "discovered", "force": True, "comment": HOSTILE}
    await central.ask("PATCH", "/nodes/n1/state", json=body)
    step = agent.step("n1", "pending", "installing", 1, base=rev, body={"comment": HOSTILE})
    id = (await agent.push(step)).results[0].conflict_id
    operator = await signed_in(central, "operator")
    await operator.post(f"/conflicts/{id}", resolution="keep_central", comment=HOSTILE)
    for path in ("/conflicts?status=all", f"/conflicts/{id}", f"/conflicts?q={'%3Cscript%3E'}&site=%22%3E%3Cb%3E"):
        html = (await operator.get(path)).text
        assert "<script>alert" not in html, path
        assert "<img src=x" not in html, path
        assert '<b>"' not in html, path
        assert "\u202e" not in html, path
