"""Central's pages, as a browser without JavaScript gets them."""

import gzip
import html
import re
from datetime import timedelta
from typing import Any

import pytest

from pureboot.central.ui.form import MOST_BYTES, MOST_FIELDS, URLENCODED
from tests.support.browser import Visitor, browser, signed_in
from tests.support.central import RunningCentral, SetClock
from tests.support.seed import content, mac, node_id, outage_of, seed, site_id, workflow_id

PAGES = (
    "/sites",
    f"/sites/{site_id(5)}",
    "/alerts",
    "/nodes",
    f"/nodes/{node_id(5)}",
    "/workflows",
    f"/workflows/{workflow_id(0)}",
    "/content",
    "/password",
)
FOR_ADMINS = ("/people", "/people/the-admin", "/workflows/new")
# Markup, script, an attribute's end, a template's, control characters, and text that runs backwards.
HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{ 7*7 }}\x1b[31m\u202egnp\u2066"
# What fields hold is as it was typed.
WITHOUT_FIELDS = re.compile(r'value="[^"]*"|<textarea.*?</textarea>', re.DOTALL)


@pytest.fixture
def seeded(central: RunningCentral, clock: SetClock) -> RunningCentral:
    now = clock.now()
    central.db.write_now(lambda conn: seed(conn, sites=40, nodes=120, workflows=4, now=now))
    central.db.write_now(lambda conn: outage_of(conn, 5, now))
    central.db.write_now(lambda conn: content(conn, now))
    return central


def text_of(page: str) -> str:
    """What a person reads, on one line."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page[page.index("<main") :]).split()))


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_each_role_sees_the_pages_that_are_for_it(seeded: RunningCentral, role: str) -> None:
    visitor = await signed_in(seeded, role)
    for path in PAGES:
        assert (await visitor.get(path)).status_code == 200, path
    for path in FOR_ADMINS:
        assert (await visitor.get(path)).status_code == (200 if role == "admin" else 403), path


async def test_a_viewer_is_offered_nothing_and_refused_everything(seeded: RunningCentral) -> None:
    viewer = await signed_in(seeded, "viewer")
    for path in PAGES:
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', (await viewer.get(path)).text)
        assert set(forms) <= {"/sign-out", "/nodes/bulk", "/password"}, path
    assert "Change many" not in (await viewer.get("/nodes")).text
    sent: dict[str, dict[str, Any]] = {
        "/nodes/bulk": {"id": node_id(1), "do": "move", "to_state": "retired", "confirmed": "yes"},
        f"/nodes/{node_id(1)}": {"hostname": "mine"},
        f"/nodes/{node_id(1)}/state": {"state": "retired"},
        "/people": {"name": "me", "role": "admin", "password": "long enough", "password_again": "long enough"},
        "/workflows/new": {"name": "mine", "kernel": "images/k"},
        f"/workflows/{workflow_id(0)}": {"name": "mine"},
        f"/workflows/{workflow_id(0)}/delete": {},
        "/content/delete": {"category": "images", "path": "debian/linux"},
    }
    before = seeded.everything_stored()
    for path, fields in sent.items():
        answer = await viewer.post(path, **fields)
        assert answer.status_code == 403, path
        assert "needs the role" in answer.text
    assert seeded.everything_stored() == before


async def test_sites_with_problems_come_first_and_are_found(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded, "viewer")
    page = (await visitor.get("/sites")).text
    statuses = re.findall(r'data-label="Status"><span class="pill [a-z]*">([a-z]+)<', page)
    assert (len(statuses), statuses[:2], statuses[-1]) == (40, ["offline", "offline"], "online")
    assert statuses.index("degraded") > statuses.index("online")  # those whose reports failed
    only = (await visitor.get("/sites?status=offline&q=COLOGNE")).text
    assert re.findall(r'href="/sites/[^"]*">([^<]*)<', only) == ["cologne-01", "cologne-03"]
    assert "No site is like that" in (await visitor.get("/sites?q=nowhere")).text


async def test_sites_are_turned_page_by_page(central: RunningCentral, clock: SetClock) -> None:
    central.db.write_now(lambda conn: seed(conn, sites=120, nodes=0, workflows=1, now=clock.now()))
    visitor = await signed_in(central, "viewer")
    names, path = [], "/sites"
    while path:
        page = (await visitor.get(path)).text
        names += re.findall(r'href="/sites/[^"]*">([^<]*)<', page)
        following = re.search(r'href="([^"]*)" rel="next"', page)
        path = html.unescape(following[1]) if following else ""
    assert len(names) == len(set(names)) == 120


async def test_the_list_of_sites_says_the_same_in_the_api(seeded: RunningCentral) -> None:
    found = await seeded.ask("GET", "/sites", params={"order": "problems", "limit": 3})
    assert [site["agent_status"] for site in found["items"]] == ["offline", "offline", "online"]
    third = found["items"][2]
    assert (third["nodes_total"], third["failed_queue_items"], third["readiness"]["total"]) == (3, 2, 96)
    rest = await seeded.ask("GET", "/sites", params={"order": "problems", "cursor": found["next_cursor"]})
    assert len(rest["items"]) == 37
    assert (await seeded.ask("GET", f"/sites/{third['id']}")) == third
    names = [site["name"] for site in (await seeded.ask("GET", "/sites"))["items"]]
    assert names == sorted(names)
    await seeded.ask("GET", "/sites", 400, params={"order": "problems", "cursor": "nonsense"})


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 120),
        ({"q": "SRV-00001"}, 9),
        ({"q": "%"}, 0),
        ({"q": mac(17)}, 1),
        ({"q": mac(17).replace(":", "-").upper()}, 1),
        ({"q": "00000011"}, 1),
        ({"site": "berlin-01"}, 3),
        ({"site": "berlin-01", "workflow": "debian-12", "state": "installing"}, 1),
        ({"workflow": "nowhere"}, None),
        ({"state": "asleep"}, None),
    ],
    ids=str,
)
async def test_nodes_are_found_alike_by_page_and_api(
    seeded: RunningCentral, query: dict[str, str], count: int | None
) -> None:
    visitor = await signed_in(seeded, "viewer")
    page = await visitor.get("/nodes", params=query)
    if count is None:
        assert page.status_code == (404 if "workflow" in query else 422)
        return
    found = await seeded.ask("GET", "/nodes", params=query | {"limit": 1000})
    assert len(found["items"]) == count
    assert f"{count} machine" in text_of(page.text)


async def test_a_workflow_is_assigned_to_many_after_a_look(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded, "operator")
    choice = {"site": "berlin-01", "scope": "all", "do": "assign", "to_workflow": workflow_id(3)}
    look = await visitor.post("/nodes/bulk", **choice)
    assert "3 would change" in text_of(look.text)
    assert len((await seeded.ask("GET", "/nodes", params={"workflow": "talos", "site": "berlin-01"}))["items"]) == 0
    done = await visitor.post("/nodes/bulk", **choice, confirmed="yes")
    assert (done.status_code, done.headers["location"]) == (303, "/nodes?site=berlin-01")
    assert "3 changed, 0 were like that already." in (await visitor.get("/nodes?site=berlin-01")).text
    assert "3 changed" not in (await visitor.get("/nodes?site=berlin-01")).text
    assert len((await seeded.ask("GET", "/nodes", params={"workflow": "talos", "site": "berlin-01"}))["items"]) == 3


async def test_of_many_each_is_moved_or_refused_on_its_own(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded, "operator", "kim")
    ids = [node_id(n) for n in range(20)]
    before = {node["id"]: node["state"] for node in (await seeded.ask("GET", "/nodes"))["items"]}
    able = [id for id in ids if before[id] in ("discovered", "install_failed")]
    waiting = [id for id in ids if before[id] == "pending"]
    assert able
    answer = await visitor.post("/nodes/bulk", id=ids, do="move", to_state="pending", confirmed="yes")
    assert f"{len(able)} changed" in text_of(answer.text)
    assert f"{20 - len(able) - len(waiting)} refused" in text_of(answer.text)
    after = {node["id"]: node["state"] for node in (await seeded.ask("GET", "/nodes"))["items"]}
    assert {id for id in ids if after[id] == "pending"} == {*able, *waiting}
    assert {id: state for id, state in after.items() if id not in able} == {
        id: state for id, state in before.items() if id not in able
    }
    steps = await seeded.ask("GET", f"/nodes/{able[0]}/history")
    assert steps["items"][-1]["actor"] == "kim"


async def test_many_by_the_api_are_told_one_by_one(seeded: RunningCentral) -> None:
    body = {"ids": [node_id(0), node_id(0), "nobody"], "state": "retired", "preview": True}
    outcome = await seeded.ask("POST", "/nodes/move", json=body)
    assert (outcome["matched"], outcome["changed"], outcome["refused"][0]["code"]) == (2, 1, "unknown_node")
    assert (await seeded.ask("GET", f"/nodes/{node_id(0)}"))["state"] != "retired"
    await seeded.ask("POST", "/nodes/move", json=body | {"preview": False})
    assert (await seeded.ask("GET", f"/nodes/{node_id(0)}"))["state"] == "retired"
    wrong_ones: list[dict[str, Any]] = [{}, {"ids": [], "filter": {}}, {"filter": {"colour": "red"}}]
    for wrong in wrong_ones:
        await seeded.ask("POST", "/nodes/assign", 422, json={"workflow_id": None, **wrong})
    everywhere = await seeded.ask("POST", "/nodes/assign", json={"filter": {}, "workflow_id": "talos"})
    assert everywhere["matched"] == 120


async def test_a_stale_edit_shows_what_is_and_keeps_what_was_typed(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded, "operator")
    path = f"/nodes/{node_id(1)}"
    await seeded.ask("PATCH", path, json={"hostname": "theirs"})
    answer = await visitor.post(
        path, version="3", hostname="mine<b>", workflow_id="", tags="one\r\ntwo", local_boot="exit"
    )
    assert answer.status_code == 409
    assert 'value="mine&lt;b&gt;"' in answer.text
    assert "one\ntwo</textarea>" in answer.text
    assert "As the node is now: hostname theirs" in text_of(answer.text)
    assert (await seeded.ask("GET", path))["hostname"] == "theirs"
    version = re.search(r'name="version" value="(\d+)"', answer.text)
    assert version
    again = await visitor.post(path, version=version[1], hostname="mine", tags="one\r\ntwo", workflow_id="")
    assert again.status_code == 303
    node = await seeded.ask("GET", path)
    assert (node["hostname"], node["tags"], node["workflow_id"]) == ("mine", ["one", "two"], None)


async def test_a_refused_move_keeps_its_comment(seeded: RunningCentral) -> None:
    operator, admin = await signed_in(seeded, "operator"), await signed_in(seeded, "admin")
    path, typed = f"/nodes/{node_id(7)}", {"comment": 'the "fan" is loud', "version": "77"}
    before = (await operator.get(path)).text
    answer = await operator.post(f"{path}/state", state="retired", **typed)
    assert answer.status_code == 409
    assert 'id="f-comment" name="comment" maxlength="2000" autocomplete="off" value="the &#34;fan&#34;' in answer.text
    # Of the node itself nothing was typed.
    assert re.findall(r'id="f-hostname".*', answer.text) == re.findall(r'id="f-hostname".*', before)
    forced = (await admin.post(f"{path}/state", state="reprovision", force="true", **typed)).text
    assert 'id="f-why" name="comment" required maxlength="2000" autocomplete="off" value="the &#34;fan&#34;' in forced
    assert '<option value="reprovision" selected>' in forced
    assert forced.count("the &#34;fan&#34;") == 1


COMMENT = 'id="f-comment" name="comment" maxlength="2000" autocomplete="off" value="the &#34;fan&#34; is loud"'


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": []},
        {"do": "assign", "to_workflow": "nowhere", "confirmed": "yes"},
        {"scope": "all", "site": "nowhere"},
        {"do": "assign", "to_workflow": "nowhere", "scope": "all", "q": "no such node"},
    ],
    ids=str,
)
async def test_a_refused_change_of_many_keeps_what_was_typed(seeded: RunningCentral, wrong: dict[str, Any]) -> None:
    visitor = await signed_in(seeded, "operator")
    typed = {"comment": 'the "fan" is loud', "id": [node_id(1), node_id(3)], "do": "move", "to_state": "retired"}
    answer = await visitor.post("/nodes/bulk", **typed | wrong)
    assert answer.status_code in (404, 422)
    assert 'role="alert"' in answer.text
    assert COMMENT in answer.text
    ticked = re.findall(r'name="id" value="([^"]*)" id="[^"]*" checked', answer.text)
    assert set(ticked) == (set() if "q" in wrong else {*(typed | wrong)["id"]})
    # What was for all of one site is not for all there are.
    everything = re.search(r'name="scope" value="all"( checked)?', answer.text)
    assert everything
    assert bool(everything[1]) == ("q" in wrong)


@pytest.mark.parametrize("sent", [{}, {"confirmed": "yes"}], ids=["a look", "confirmed"])
async def test_after_a_refusal_one_can_choose_again(seeded: RunningCentral, sent: dict[str, str]) -> None:
    visitor = await signed_in(seeded, "operator")
    node = (await seeded.ask("GET", "/nodes", params={"state": "discovered"}))["items"][0]
    typed = {"comment": 'the "fan" is loud', "id": node["id"], "do": "move", "to_state": "installed"}
    refused = (await visitor.post("/nodes/bulk", **typed, **sent)).text
    assert ("There is nothing to change." in refused) == (not sent)
    assert 'name="confirmed"' not in refused
    assert '<button name="again" value="yes">' in refused
    assert '<input type="hidden" name="comment" value="the &#34;fan&#34; is loud">' in refused
    again = await visitor.post("/nodes/bulk", **typed, again="yes")
    assert again.status_code == 200
    assert COMMENT in again.text
    assert '<option value="installed" selected>' in again.text


async def test_only_the_moves_that_a_node_can_make_are_offered(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded, "operator")
    node = (await seeded.ask("GET", "/nodes", params={"state": "discovered"}))["items"][0]
    page = (await visitor.get(f"/nodes/{node['id']}")).text
    assert re.findall(r'<button name="state" value="(\w+)"', page) == ["pending", "cloning_target", "retired"]
    assert "Force" not in page
    assert (await visitor.post(f"/nodes/{node['id']}/state", state="active")).status_code == 409
    assert (await visitor.post(f"/nodes/{node['id']}/state", state="pending")).status_code == 303
    forced = {"state": "active", "force": "true", "comment": "it is"}
    assert (await visitor.post(f"/nodes/{node['id']}/state", **forced)).status_code == 403
    admin = await signed_in(seeded, "admin")
    assert (await admin.post(f"/nodes/{node['id']}/state", **forced | {"comment": " "})).status_code == 409
    assert (await admin.post(f"/nodes/{node['id']}/state", **forced)).status_code == 303


async def test_the_time_line_says_what_happened_offline_and_when_central_learned(
    seeded: RunningCentral, clock: SetClock
) -> None:
    # The numbers of the two tables have nothing to do with each other.
    seeded.sql("UPDATE node_event SET seq = seq + 1000")
    items = (await seeded.ask("GET", f"/nodes/{node_id(5)}/timeline"))["items"]
    assert [each["occurred_at"] for each in items] == sorted((each["occurred_at"] for each in items), reverse=True)
    late = [each for each in items if each["learned_after_seconds"] > 30]
    assert [each["event"] or each["to_state"] for each in late] == [
        "active",
        "boot_started",
        "installed",
        "install_complete",
        "partitioned",
        "install_started",
        "installing",
    ]
    assert late[0]["learned_after_seconds"] == timedelta(minutes=82).total_seconds()
    pages, query = [], {"limit": "1"}
    while True:
        page = await seeded.ask("GET", f"/nodes/{node_id(5)}/timeline", params=query)
        pages += page["items"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert pages == items
    await seeded.ask("GET", f"/nodes/{node_id(5)}/timeline", 400, params={"cursor": "1.2"})
    shown = text_of((await (await signed_in(seeded, "viewer")).get(f"/nodes/{node_id(5)}")).text)
    assert "central learned 82 min later" in shown
    assert shown.count("Told together") == 1


async def test_a_workflow_is_made_and_changed_on_its_pages(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded)
    fields = {"name": "new", "install_method": "kernel", "initrd": "images/a\r\nimages/b", "cmdline": "x"}
    wrong = await visitor.post("/workflows/new", **fields)
    assert (wrong.status_code, "images/a\nimages/b" in wrong.text) == (422, True)
    made = await visitor.post("/workflows/new", **fields, kernel="images/k", templates="p.cfg = templates/p")
    assert made.status_code == 303
    workflow = await seeded.ask("GET", "/workflows/new")
    assert (workflow["initrd"], workflow["templates"]) == (["images/a", "images/b"], {"p.cfg": "templates/p"})
    path = f"/workflows/{workflow['id']}"
    assert (await visitor.post(path, name="new", templates="")).status_code == 303
    assert (await seeded.ask("GET", path))["templates"] == {}
    assert (await visitor.post(f"/workflows/{workflow_id(0)}/delete")).status_code == 409
    assert (await visitor.post(f"{path}/delete")).status_code == 303


async def test_what_two_change_at_once_on_a_workflows_page_is_shown_to_the_second(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded)
    path = f"/workflows/{workflow_id(0)}"
    [version] = re.findall(r'name="version" value="(\d+)"', (await visitor.get(path)).text)
    await seeded.ask("PATCH", path, json={"cmdline": "theirs"})
    stale = await visitor.post(path, version=version, cmdline="mine")
    assert (stale.status_code, "mine" in stale.text) == (409, True)
    assert (await seeded.ask("GET", path))["cmdline"] == "theirs"
    [version] = re.findall(r'name="version" value="(\d+)"', stale.text)
    assert (await visitor.post(path, version=version, cmdline="mine")).status_code == 303


async def test_a_workflow_that_breaks_a_rule_is_shown_again_with_what_was_typed(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded)
    for path in ("/workflows/new", f"/workflows/{workflow_id(0)}"):
        wrong = await visitor.post(path, name="new", kernel="images/k", cmdline="a && b")
        assert wrong.status_code == 422
        assert "iPXE would act on" in wrong.text
        assert "a &amp;&amp; b" in wrong.text


async def test_errors_are_pages_with_a_sentence_and_their_status(seeded: RunningCentral) -> None:
    visitor = await signed_in(seeded)
    missing = await visitor.get("/nodes/nobody")
    assert (missing.status_code, "There is no node" in missing.text) == (404, True)
    assert (await visitor.get("/nodes?cursor=" + "x" * 800)).status_code == 422
    answer = await visitor.client.post("/people", content=b"{}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, "This is no form" in answer.text) == (400, True)


async def hostile(central: RunningCentral) -> dict[str, str]:
    """Text like that, wherever a machine or a person can put one. Past the rules, where they would stop it."""
    site = await central.new_site(HOSTILE.replace("\x1b", ""), description=HOSTILE)
    fields = {"name": HOSTILE.replace("\x1b", ""), "kernel": "images/k"}
    workflow = await central.ask("POST", "/workflows", 201, json=fields)
    agent = await central.speaking_agent(site["id"])
    facts = {"vendor": HOSTILE, "serial_number": HOSTILE}
    await agent.push(
        agent.registration("n1", "52:54:00:aa:bb:01", facts=facts),
        agent.event("n1", HOSTILE[:100]),
    )
    node = (await central.node("52:54:00:aa:bb:01"))["id"]
    values = {"text": HOSTILE, "workflow": workflow["id"], "node": node}
    central.sql(
        "UPDATE node SET hostname = :text, group_id = :text, workflow_id = :workflow WHERE id = :node", **values
    )
    body = {"event": HOSTILE[:100], "message": HOSTILE, "metadata": {HOSTILE: HOSTILE}}
    await central.ask("POST", f"/nodes/{node}/event", json=body)
    await central.ask("PATCH", f"/nodes/{node}/state", json={"state": "pending", "comment": HOSTILE})
    return {"site": site["id"], "workflow": workflow["id"], "node": node}


async def test_hostile_text_is_inert_on_every_page(central: RunningCentral) -> None:
    ids = await hostile(central)
    visitor: Visitor = await signed_in(central)
    pages = ["/sites", "/nodes", f"/nodes/{ids['node']}", "/workflows", f"/workflows/{ids['workflow']}"]
    for path in [*pages, "/people?cursor=<b>", "/nodes/<script>", "/sites?q=<script>alert(2)</script>\u202e"]:
        page = (await visitor.get(path)).text
        assert "alert(" in page or "script" in page or "<b>" in path, path
        main = page[page.index("<main") :]
        assert not re.search(r"<script|<img", main), path
        shown = WITHOUT_FIELDS.sub("", page)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", shown), path
        assert "49" not in re.sub(r"\d{3,}|[0-9a-f-]{30,}|:\d\d", "", text_of(page)), path


async def test_a_form_that_is_sent_untouched_changes_nothing(central: RunningCentral) -> None:
    """Persian and emoji are joined by marks that nobody sees."""
    text = "می\u200cخواهم \U0001f469\u200d\U0001f467 co\u00adop"
    site = await central.new_site(text, description=text)
    visitor = await signed_in(central)
    path = f"/sites/{site['id']}"
    page = (await visitor.get(path)).text
    [name] = re.findall(r'<input id="f-name" [^>]*value="(.*?)"', page)
    [description] = re.findall(r'<textarea id="f-description"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    answer = await visitor.post(path, name=html.unescape(name), description=html.unescape(description))
    assert answer.status_code == 303
    assert await central.ask("GET", path) == site | {"version": 2}
    # Where it is only read, nothing is hidden.
    assert not re.search("[\xad\u200b-\u200f]", WITHOUT_FIELDS.sub("", page))
    held = await browser(central).post("/people", data={"name": text})
    assert f'name="held.name" value="{text}"' in held.text


@pytest.mark.parametrize("path", ["/sign-in", "/nodes/n1"])
async def test_nobody_causes_more_work_than_is_sent(central: RunningCentral, path: str) -> None:
    stranger = browser(central)
    form = b"a=" + b"%41" * (MOST_BYTES // 3 + 1)
    headers = {"Content-Type": URLENCODED}
    packed = await stranger.post(path, content=gzip.compress(form), headers=headers | {"Content-Encoding": "gzip"})
    assert (packed.status_code, "nothing that is packed" in packed.text) == (400, True)
    long = await stranger.post(path, content=form, headers=headers)
    assert (long.status_code, f"larger than {MOST_BYTES} bytes" in long.text) == (413, True)
    many = await stranger.post(path, content=b"a&" * MOST_FIELDS, headers=headers)
    assert (many.status_code, f"up to {MOST_FIELDS} fields" in many.text) == (400, True)


async def test_a_mistyped_address_is_a_page_for_people_and_json_for_programs(central: RunningCentral) -> None:
    visitor = await signed_in(central, "viewer")
    answer = await visitor.get("/nonsense", headers={"Accept": "text/html"}, follow_redirects=True)
    assert (answer.status_code, "There is no page at this address" in answer.text) == (404, True)
    for path, accept in (("/nonsense", "*/*"), ("/api/v1/nonsense", "text/html")):
        answer = await visitor.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
