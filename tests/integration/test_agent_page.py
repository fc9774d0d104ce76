"""The site's own page: at a glance how it is, with the WAN cut too, and no text in it that could act."""

from html.parser import HTMLParser

from tests.support.agent import RunningAgent
from tests.support.central import RunningCentral
from tests.support.machines import MAC, approve, import_node, kernel_workflow

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


async def page(site: RunningAgent) -> str:
    answer = await site.person.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.text


async def test_an_outage_is_seen_at_the_site(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    online = await page(site)
    assert "Central answers." in online
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
    assert "script" not in Tags(shown).seen
    assert "&lt;script&gt;" in shown


async def test_machines_do_not_see_it(site: RunningAgent) -> None:
    assert (await site.machine.get("/")).status_code == 401
