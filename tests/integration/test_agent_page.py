"""The site's own page: at a glance how it is, with the WAN cut too, and no text in it that could act."""

import asyncio
from html.parser import HTMLParser

import pytest

from pureboot.agent.queue import QueueItem
from tests.support.agent import RunningAgent
from tests.support.central import RunningCentral
from tests.support.machines import MAC, approve, import_node, kernel_workflow
from tests.support.parts import EPOCH

HOSTILE = "<script>alert(1)</script>"


class Scripts(HTMLParser):
    """The attributes of each script of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.seen.append(dict(attrs))


async def page(site: RunningAgent) -> str:
    answer = await site.person.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    return answer.text


async def test_an_outage_is_seen_at_the_site(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    online = await page(site)
    assert "Central answers, since" in online
    assert "Central knows everything." in online
    assert "can install 1 of 1 machines without central" in online
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "x"})
    [file] = [file for file in site.agent.content_cache.files() if file.name.endswith("linux")]
    await site.agent.content_cache.evict(file.name)
    offline = await page(site)
    assert "Central has not answered for" in offline
    assert "1 reports" in offline
    assert "content is missing here: images/debian/linux" in offline


async def test_what_machines_say_of_themselves_is_text(central: RunningCentral, site: RunningAgent) -> None:
    workflow = {"name": HOSTILE, "kernel": "images/none"}
    await central.ask("POST", "/workflows", 201, json=workflow)
    node = await import_node(central, MAC, state="active")
    await central.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": HOSTILE, "hostname": HOSTILE})
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": HOSTILE, "message": HOSTILE})
    shown = await page(site)
    [ours] = Scripts(shown).seen
    assert str(ours["src"]).startswith("/page.js?")
    assert "&lt;script&gt;" in shown


async def fails(site: RunningAgent, id: str = "i1") -> None:
    item = QueueItem(id=id, item_type="event", payload={"event": "e"}, created_at=EPOCH, lane="n1", last_error=HOSTILE)
    await site.agent.sync_queue.enqueue(item)
    await site.agent.sync_queue.mark_failed(id, HOSTILE)


async def test_a_failed_report_is_requeued_and_discarded_on_the_page(site: RunningAgent) -> None:
    await site.cut()
    await fails(site)
    shown = await page(site)
    assert "Requeue event of n1" in shown
    answer = await site.person.post("/queue/i1/requeue")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?done=requeued")
    assert "The item goes out again." in (await site.person.get("/?done=requeued")).text
    assert (site.agent.sync_queue.pending_count, site.agent.sync_queue.failed_count) == (1, 0)
    answer = await site.person.post("/queue/i1/discard", data={"reason": "swapped", "person": "ada"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?done=discarded")
    [told] = await site.agent.sync_queue.peek()
    assert (told.item_type, told.payload["reason"], told.payload["person"]) == ("discard", "swapped", "ada")
    gone = await site.person.post("/queue/i1/discard", data={"reason": "", "person": "ada"})
    assert gone.status_code == 404
    assert "There is no such item in the queue." in gone.text
    nobody = await site.person.post("/queue/i2/discard", data={"person": ""})
    assert nobody.status_code == 422


async def test_a_conflict_is_settled_on_the_page(central: RunningCentral, site: RunningAgent) -> None:
    await central.ask("PATCH", "/sites/attic", json={"conflict_resolution": "manual"})
    node = await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
    await site.restore()
    await site.synced()
    await site.cut()
    [conflict] = (await site.person.get("/api/v1/agent/conflicts")).json()["items"]
    assert "What is decided here now waits in line" in await page(site)
    path = f"/conflicts/{conflict['id']}/resolve"
    assert (await site.person.post(path, data={"resolution": "keep_mine"})).status_code == 422
    assert (await site.machine.post(path, data={"resolution": "keep_local"})).status_code == 401
    answer = await site.person.post(path, data={"resolution": "keep_local", "person": "ada", "comment": "seen"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?done=decided")
    assert "keep local: decided here, and counts once central confirms it." in await page(site)
    other = await site.person.post(path, data={"resolution": "merge"})
    assert (other.status_code, "keep_local was decided here" in other.text) == (409, True)
    await site.restore()
    await site.synced()
    assert "Site and central agree." in await page(site)
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": "readonly"})
    await central.ask("POST", f"/sites/attic{path.removesuffix('/resolve')}/undo", json={})
    await site.synced()
    assert "It is settled at central." in await page(site)
    refused = await site.person.post(path, data={"resolution": "merge"})
    assert (refused.status_code, "This site is readonly" in refused.text) == (403, True)


async def test_no_text_of_a_link_is_shown_as_ours(site: RunningAgent) -> None:
    shown = (await site.person.get("/", params={"done": "You have won"})).text
    assert "You have won" not in shown


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Origin": "http://127.0.0.1:8080"}, 303),
        ({"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example:8080", "Host": "evil.example:8080"}, 401),
    ],
)
async def test_a_hostile_page_in_the_hosts_browser_posts_nothing(
    site: RunningAgent, headers: dict[str, str], status: int
) -> None:
    await site.cut()
    await fails(site)
    answer = await site.person.post("/queue/i1/requeue", headers=headers)
    assert answer.status_code == status
    assert site.agent.sync_queue.failed_count == (0 if status == 303 else 1)


async def test_the_api_refuses_it_too_but_not_whoever_shows_the_token(site: RunningAgent) -> None:
    elsewhere = {"Origin": "https://evil.example"}
    assert (await site.person.post("/api/v1/agent/sync", headers=elsewhere)).json()["error"]["code"] == "not_our_page"
    assert (await site.person.delete("/api/v1/agent/cache", headers=elsewhere)).status_code == 403
    token = (site.agent.settings.data_dir / "admin-token").read_text().strip()
    answer = await site.machine.post("/api/v1/agent/sync", headers=elsewhere | {"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200


async def test_the_last_boots_are_told_with_the_decisions_words(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.script("52:54:00:aa:bb:77")
    await site.cut()
    await site.script(MAC)
    first, second = (await site.person.get("/api/v1/agent/boots")).json()["items"]
    assert (first["mac_address"], first["decision"], first["link"]) == ("52:54:00:aa:bb:77", "discover", "online")
    assert (second["mac_address"], second["decision"], second["link"]) == (MAC, "install", "offline")
    assert second["reason"] == "debian, attempt 1."
    assert first["seq"] < second["seq"]
    shown = await page(site)
    assert shown.index("debian, attempt 1.") < shown.index("It is new here and waits to be approved.")
    # Those who follow get what came since, and wait for what comes.
    news = asyncio.create_task(
        site.person.get("/api/v1/agent/boots", params={"after": second["seq"], "wait": 25}, timeout=60)
    )
    await asyncio.sleep(0.1)
    await site.script("52:54:00:aa:bb:77")
    [third] = (await news).json()["items"]
    assert (third["mac_address"], third["state"]) == ("52:54:00:aa:bb:77", "discovered")
    nonsense = await site.person.get("/api/v1/agent/boots", params={"after": "nonsense"})
    assert nonsense.status_code == 400


@pytest.mark.parametrize("path", ["/", "/events", "/api/v1/agent/boots"])
async def test_machines_are_not_let_in(site: RunningAgent, path: str) -> None:
    assert (await site.machine.get(path)).status_code == 401


async def test_the_pages_own_files_are_served(site: RunningAgent) -> None:
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css")):
        answer = await site.person.get(f"/{name}")
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind)


async def test_another_page_does_not_listen(site: RunningAgent) -> None:
    answer = await site.person.get("/events", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
