"""A site says beforehand which machines it could install without central, and what keeps it from the others."""

from typing import Any

from tests.support.agent import RunningAgent
from tests.support.central import RunningCentral
from tests.support.machines import MAC, Machine, approve, import_node, kernel_workflow

OTHER, THIRD, PLAIN = (f"52:54:00:aa:bb:0{n}" for n in (2, 3, 4))


async def report(site: RunningAgent) -> dict[str, Any]:
    answer: dict[str, Any] = (await site.person.get("/api/v1/agent/readiness")).json()
    return answer


async def assigned(central: RunningCentral, mac: str, state: str = "active", workflow: str = "debian") -> None:
    node = await import_node(central, mac, state=state)
    await central.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": workflow})


async def test_a_site_says_which_machines_it_could_install(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    body = {"name": "big", "kernel": "images/big/linux", "initrd": ["images/none"]}
    await central.ask("POST", "/workflows", 201, json=body)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await assigned(central, OTHER)
    await assigned(central, THIRD, workflow="big")
    await import_node(central, PLAIN, state="active")
    await central.admin.put("/api/v1/content/images/big/linux", content=b"big")
    await site.synced()
    [big] = [file for file in site.agent.content_cache.files() if file.name == "images/big/linux"]
    await site.agent.content_cache.evict(big.name)

    said = await report(site)
    assert (said["ready"], said["total"]) == (2, 3)
    assert said["missing"] == [{"name": "images/big/linux", "size": 3}, {"name": "images/none", "size": None}]
    assert said["summary"] == (
        "Site attic can install 2 of 3 machines without central. Missing: images/big/linux, images/none."
    )
    assert [(item["mac_address"], item["ready"], item["approved"]) for item in said["items"]] == [
        (THIRD, False, False),
        (MAC, True, True),
        (OTHER, True, False),
    ]
    assert said["items"][0]["reason"] == "Central has no content images/none."
    metrics = (await site.person.get("/metrics")).text
    assert "pureboot_agent_ready_nodes 2.0" in metrics
    assert "pureboot_agent_installable_nodes 3.0" in metrics
    assert "pureboot_agent_content_missing 2.0" in metrics


async def test_a_machine_that_was_approved_without_a_workflow_is_not_ready_and_it_says_why(
    central: RunningCentral, site: RunningAgent
) -> None:
    await kernel_workflow(central)
    await assigned(central, OTHER)
    node = await import_node(central, MAC, state="discovered")
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "pending"})
    await site.synced()
    said = await report(site)
    assert said["summary"] == "Site attic can install 1 of 2 machines without central."
    [first, _] = said["items"]
    assert (first["mac_address"], first["ready"], first["approved"], first["workflow_id"]) == (MAC, False, True, None)
    assert first["reason"] == "It is approved, but no workflow is assigned to it."
    await central.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": "debian"})
    await site.synced()
    assert (await report(site))["ready"] == 2


async def test_what_it_says_is_what_happens(central: RunningCentral, site: RunningAgent) -> None:
    """At each level the machines that are said to be ready are those that are installed, central dead."""
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    for level, ready in (("readonly", False), ("limited", True)):
        await central.ask("PATCH", "/sites/attic", json={"autonomy_level": level})
        await site.synced()
        [item] = (await report(site))["items"]
        assert item["ready"] is ready, level
        await site.cut()
        assert [item["ready"] for item in (await report(site))["items"]] == [ready]
        assert ("kernel " in await site.script(MAC)) is ready
        if not ready:
            assert item["reason"] in (await site.script(MAC))
        await site.restore()
    await Machine(site, MAC).boot()


async def test_central_hears_it_with_the_heartbeat(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    await assigned(central, MAC)
    await site.synced()
    await report(site)
    await site.agent.heartbeat.beat()
    health = await central.ask("GET", "/sites/attic/health")
    assert health["metrics"]["readiness"] == {"ready": 1, "total": 1, "missing": [], "missing_total": 0}


async def test_a_site_without_workflows_says_so(site: RunningAgent) -> None:
    assert (await report(site))["summary"] == "Site attic has no machine with a workflow."
