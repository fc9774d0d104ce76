"""What tests do to machines and their nodes, in a line each."""

import re
from dataclasses import dataclass
from typing import Any

from tests.support.agent import RunningAgent
from tests.support.central import RunningCentral

MAC = "52:54:00:aa:bb:01"


async def import_node(central: RunningCentral, mac: str, *, state: str, site: str = "attic") -> dict[str, Any]:
    body = {"mac_address": mac, "home_site_id": site, "state": state}
    node: dict[str, Any] = await central.ask("POST", "/nodes", 201, json=body)
    return node


async def kernel_workflow(central: RunningCentral, name: str = "debian", **fields: Any) -> dict[str, Any]:
    for file in ("linux", "initrd"):
        content = f"{'kernel' if file == 'linux' else file} of {name}".encode()
        await central.admin.put(f"/api/v1/content/images/{name}/{file}", content=content)
    body = {"name": name, "kernel": f"images/{name}/linux", "initrd": [f"images/{name}/initrd"], "cmdline": "auto=true"}
    workflow: dict[str, Any] = await central.ask("POST", "/workflows", 201, json=body | fields)
    return workflow


async def approve(central: RunningCentral, mac: str, workflow: str) -> None:
    node = await central.node(mac)
    await central.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": workflow})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "pending"})


@dataclass
class Install:
    script: str
    token: str
    kernel: bytes
    initrds: list[bytes]


class Machine:
    """Boots as far as its kernel and initrd, and reports as an installer does."""

    def __init__(self, site: RunningAgent, mac: str) -> None:
        self._site = site
        self.mac = mac
        self.token = ""

    async def boot(self) -> Install:
        script = await self._site.script(self.mac)
        files = re.findall(r"^(?:kernel|initrd) .*?(http\S+/files/\S+)", script, re.MULTILINE)
        assert files, script
        self.token = re.findall(r"pureboot\.token=(\S+)", script)[0]
        bodies = [await self._fetch(url) for url in files]
        return Install(script, self.token, bodies[0], bodies[1:])

    async def report(self, event: str, status: int = 200, **fields: Any) -> dict[str, Any]:
        body = {"mac": self.mac, "event": event, "boot_token": self.token} | fields
        answer = await self._site.machine.post("/api/v1/report", json=body)
        assert answer.status_code == status, answer.text
        written: dict[str, Any] = answer.json()
        return written

    async def _fetch(self, url: str) -> bytes:
        answer = await self._site.machine.get(url)
        assert answer.status_code == 200, answer.text
        return answer.content
