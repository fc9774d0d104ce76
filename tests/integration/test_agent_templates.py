"""Answer files: rendered at the agent, offline too, for the one node whose install is in progress."""

import asyncio
import re
import time
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from pureboot.core.lifecycle import NodeState
from tests.support.agent import RunningAgent
from tests.support.central import RunningCentral
from tests.support.machines import MAC, Machine, approve, import_node, kernel_workflow

OTHER = "52:54:00:aa:bb:02"
PRESEED = "host={{ node.hostname }} mac={{ node.mac }} serial={{ node.serial_number|shell }} token={{ token }}\n"


async def workflow(central: RunningCentral, preseed: str = PRESEED, **fields: object) -> None:
    await central.admin.put("/api/v1/content/templates/debian/preseed.cfg", content=preseed.encode())
    values: dict[str, Any] = {
        "templates": {"preseed.cfg": "templates/debian/preseed.cfg"},
        "cmdline": "auto url={{ agent.templates }}/preseed.cfg name={{ node.hostname }}",
    }
    await kernel_workflow(central, **(values | fields))


async def approved(central: RunningCentral, site: RunningAgent, *macs: str) -> None:
    for mac in macs or (MAC,):
        node = await import_node(central, mac, state="discovered")
        await central.ask("PATCH", f"/nodes/{node['id']}", json={"hostname": f"host{mac[-2:]}"})
        await approve(central, mac, "debian")
    await site.synced()


async def answer_file(site: RunningAgent, script: str) -> httpx2.Response:
    [url] = re.findall(r" url=(\S+)", script)
    return await site.machine.get(url)


async def test_an_answer_file_is_rendered_for_each_node_while_central_is_dead(
    central: RunningCentral, site: RunningAgent
) -> None:
    await workflow(central)
    await approved(central, site, MAC, OTHER)
    await site.cut()
    for mac, serial in ((MAC, "A'1; reboot"), (OTHER, "B2")):
        await site.machine.post("/api/v1/nodes/register", json={"mac": mac, "serial_number": serial})
        script = await site.script(mac)
        token = re.findall(r"pureboot\.token=(\S+)", script)[0]
        assert f"name=host{mac[-2:]} " in script
        answer = await answer_file(site, script)
        quoted = "'A'\"'\"'1; reboot'" if mac == MAC else "B2"
        assert answer.text == f"host=host{mac[-2:]} mac={mac} serial={quoted} token={token}\n"
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


async def test_only_the_token_of_an_install_in_progress_opens_it(central: RunningCentral, site: RunningAgent) -> None:
    await workflow(central)
    await approved(central, site)
    machine = Machine(site, MAC)
    install = await machine.boot()
    path = "/templates/preseed.cfg"
    assert (await site.machine.get(path)).status_code == 403
    assert (await site.machine.get(path, params={"token": "x"})).status_code == 403
    assert (await site.machine.get(f"/templates/token/{machine.token}/other.cfg")).status_code == 404
    assert (await site.machine.get(path, params={"token": machine.token})).status_code == 200
    assert (await site.machine.head(path, params={"token": machine.token})).status_code == 200
    for odd in ("../debian/preseed.cfg", "%2e%2e/preseed.cfg", "//etc/passwd", "%00", ""):
        answer = await site.machine.get(f"/templates/token/{machine.token}/{odd}")
        assert answer.status_code in (403, 404), odd
    await machine.report("install_complete")
    assert (await answer_file(site, install.script)).status_code == 403


async def test_the_next_attempt_has_a_token_of_its_own(central: RunningCentral, site: RunningAgent) -> None:
    await workflow(central)
    await approved(central, site)
    first = (await Machine(site, MAC).boot()).script
    second = await site.script(MAC)
    assert "attempt 2" in second
    assert (await answer_file(site, first)).status_code == 403
    assert (await answer_file(site, second)).status_code == 200


@pytest.mark.parametrize(
    ("preseed", "says"),
    [
        ("one\n{{ node.color }}\n", "Line 2 of the template: there is no variable node.color"),
        ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "longer than"),
        ("\udcff", "no UTF-8"),
    ],
)
async def test_a_bad_template_is_told_to_the_installer_and_stops_no_boot(
    central: RunningCentral, site: RunningAgent, preseed: str, says: str
) -> None:
    content = preseed.encode("utf-8", "surrogateescape")
    await workflow(central)
    await central.admin.put("/api/v1/content/templates/debian/preseed.cfg", content=content)
    await approved(central, site)
    script = await site.script(MAC)
    waiting = asyncio.create_task(answer_file(site, script))
    began = time.monotonic()
    assert "#!ipxe" in await site.script(OTHER)
    assert time.monotonic() - began < 2
    answer = await waiting
    assert answer.status_code == 422
    assert says in answer.json()["error"]["message"]


async def test_a_template_that_is_not_here_keeps_an_install_from_starting_offline(
    central: RunningCentral, site: RunningAgent
) -> None:
    await workflow(central)
    await approved(central, site)
    [file] = [file for file in site.agent.content_cache.files() if file.name.startswith("templates/")]
    await site.agent.content_cache.evict(file.name)
    await site.cut()
    script = await site.script(MAC)
    assert "content is missing here: templates/debian/preseed.cfg" in script
    assert "kernel " not in script


async def test_content_that_the_command_line_names_is_fetched_ahead(
    central: RunningCentral, site: RunningAgent
) -> None:
    await central.admin.put("/api/v1/content/images/live.iso", content=b"iso")
    await workflow(central, cmdline="url={{ agent.files }}/images/live.iso")
    await approved(central, site)
    await site.cut()
    script = await site.script(MAC)
    assert " url=http://agent:8080/files/images/live.iso " in script
    assert (await site.machine.get("/files/images/live.iso")).content == b"iso"


@pytest.mark.parametrize("method", ["sanboot", "chain"])
async def test_an_image_or_script_of_centrals_is_served_by_the_agent(
    central: RunningCentral, site: RunningAgent, method: str
) -> None:
    await central.admin.put("/api/v1/content/images/tool.img", content=b"tool")
    body = {"name": "tool", "install_method": method, "boot_url": "images/tool.img", "done_when": "next_boot"}
    await central.ask("POST", "/workflows", 201, json=body)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "tool")
    await site.synced()
    await site.cut()
    script = await site.script(MAC)
    [url] = re.findall(rf"^{method} .*(http://agent:8080/files/images/tool.img\?token=\S+) ", script, re.MULTILINE)
    assert (await site.machine.get(url)).content == b"tool"
    # It came back after it had it all: that was the install.
    assert "# Cached State: installed" in await site.script(MAC)


@pytest.mark.parametrize(
    ("fields", "facts", "says"),
    [
        ({"boot_mode": "uefi"}, {"platform": "pcbios"}, "for UEFI, and this machine starts by BIOS"),
        ({"boot_mode": "bios"}, {"platform": "efi"}, "for BIOS, and this machine starts by UEFI"),
        ({"architecture": "arm64"}, {"buildarch": "x86_64"}, "for arm64, and this machine says x86_64"),
        ({}, {"buildarch": "arm64"}, "for x86_64, and this machine says arm64"),
        ({"boot_mode": "uefi"}, {"platform": "efi", "buildarch": "x86_64"}, ""),
        ({"boot_mode": "bios"}, {"platform": "pcbios", "buildarch": "i386"}, ""),
        ({"boot_mode": "uefi"}, {}, ""),
    ],
)
async def test_a_workflow_for_other_machines_touches_no_disk(
    central: RunningCentral, site: RunningAgent, fields: dict[str, str], facts: dict[str, str], says: str
) -> None:
    await workflow(central, **fields)
    await approved(central, site)
    script = await site.script(MAC, **facts)
    if says:
        assert says in script
        assert site.agent.state_cache.nodes()[0].state == "pending"
    assert ("kernel " in script) == (not says)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cmdline": "{{ node.colour }}"}, "cmdline: Line 1 of the template: there is no variable node.colour"),
        ({"cmdline": "{% if %}"}, "cmdline"),
        ({"boot_url": "{{ x }}", "install_method": "chain"}, "boot_url: Line 1"),
        ({"boot_url": "no-category", "install_method": "chain"}, "'no-category' is not a content name"),
        ({"templates": {"../x": "templates/x"}}, "not a content path"),
        ({"templates": {"x": "x"}}, "not a content name"),
        ({"templates": {"token/x": "templates/x"}}, "names that begin with token/"),
    ],
)
async def test_central_refuses_a_workflow_that_no_site_could_use(
    central: RunningCentral, fields: dict[str, object], says: str
) -> None:
    body = {"name": "w", "kernel": "images/linux"} | fields
    answer = await central.admin.post("/api/v1/workflows", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["error"]["message"]


async def test_a_token_is_worth_nothing_once_its_node_is_past_its_install(
    central: RunningCentral, site: RunningAgent
) -> None:
    """Even if it were still there."""
    await workflow(central)
    await approved(central, site)
    install = await Machine(site, MAC).boot()
    cache = site.agent.state_cache
    [node] = cache.nodes()
    await cache.database.store.write(lambda tx: cache.save(tx, replace(node, state=NodeState.ACTIVE)))
    assert (await answer_file(site, install.script)).status_code == 403
