"""A machine in software keeps what it was promised, and repeats what nobody took."""

import httpx2
import pytest

from pureboot.core import ipxe
from pureboot.core.boot import Install, LocalDisk
from pureboot.core.errors import Forbidden
from pureboot.core.ipxe import Banner, Link
from pureboot.core.node import InstallMethod, Workflow
from pureboot.simulator.ledger import InstallServed, Kind, Ledger
from pureboot.simulator.machine import BootKind, Machine, Unheard, fleet_hardware
from tests.fakes_cli import Canned, serving

HARDWARE = fleet_hardware(1)
SCRIPT = f"/boot/{HARDWARE.mac.hyphenated}"
LINUX = Workflow("w", "linux", InstallMethod.KERNEL, kernel="images/k", initrd=("images/i",))


@pytest.fixture
def agent():
    with serving(Canned()) as canned:
        canned.says("GET", "/boot.ipxe", ipxe.entry().encode())
        yield canned


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def machine(agent, ledger):
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
        yield Machine(HARDWARE, agent.url, client, ledger, patience=0.5)


def banner(agent: Canned, link: Link = Link.ONLINE) -> Banner:
    return Banner(mac=str(HARDWARE.mac), site="lab", link=link, state="active", base_url=agent.url, token="t0k")


async def test_it_boots_its_disk_and_reads_the_screen(agent, machine):
    agent.says("GET", SCRIPT, ipxe.render(LocalDisk("It waits."), banner(agent, Link.OFFLINE)).encode())
    booted = await machine.boot()
    assert (booted.kind, booted.offline) == (BootKind.LOCAL, True)
    assert "It waits." in booted.reason


async def test_it_installs_reports_and_comes_back(agent, machine, ledger):
    agent.says("GET", SCRIPT, ipxe.render(Install(LINUX, 1), banner(agent)).encode())
    agent.says("GET", SCRIPT, ipxe.render(LocalDisk(), banner(agent)).encode())
    agent.says("GET", "/files/images/k", b"kernel")
    agent.says("GET", "/files/images/i", b"initrd")
    for item in ("a", "b"):
        agent.says("POST", "/api/v1/report", {"status": "applied", "queue_id": item})
    for item in ("c", "d"):
        agent.says("POST", "/api/v1/report", {"status": "applied", "queue_id": f"{item}2", "event_queue_id": item})
    boots = await machine.boot_and_follow()
    assert [booted.kind for booted in boots] == [BootKind.INSTALL, BootKind.LOCAL]
    assert [(promise.what, promise.kind, promise.queue_id) for promise in ledger.acknowledged] == [
        ("install_started", Kind.EVENT, "a"),
        ("install_progress", Kind.EVENT, "b"),
        ("install_complete", Kind.EVENT, "c"),
        ("install_complete", Kind.EDGE, "c2"),
        ("first_boot", Kind.EVENT, "d"),
        ("first_boot", Kind.EDGE, "d2"),
    ]
    assert ledger.installs == [InstallServed(HARDWARE.mac, 1, "t0k")]
    reports = [asked.json for asked in agent.asked if asked.method == "POST"]
    assert [report.get("boot_token") for report in reports] == ["t0k", "t0k", "t0k", None]
    assert len({report["report_id"] for report in reports}) == 4
    assert machine.disk.endswith("/files/images/k")


async def test_a_report_that_failed_is_repeated_under_its_id(agent, machine, ledger):
    agent.says("POST", "/api/v1/report", {}, status=507)
    agent.says("POST", "/api/v1/report", {"status": "queued", "queue_id": "q1", "offline": True}, status=202)
    [promise] = await machine.report("burn_in")
    assert (promise.queue_id, promise.status) == ("q1", "queued")
    assert len({asked.json["report_id"] for asked in agent.asked}) == 1
    assert len(agent.asked) == 2
    assert ledger.acknowledged == [promise]


async def test_a_report_that_said_nothing_new_promises_nothing(agent, machine, ledger):
    agent.says("POST", "/api/v1/report", {"status": "already", "queue_id": None})
    assert await machine.report("first_boot") == []
    assert ledger.acknowledged == []


async def test_a_refusal_is_not_repeated(agent, machine, ledger):
    error = {"error": {"code": "forbidden", "message": "Wrong boot token.", "hint": ""}}
    agent.says("POST", "/api/v1/report", error, status=403)
    with pytest.raises(Forbidden, match="Wrong boot token"):
        await machine.report("install_complete", token="stale")
    assert ledger.acknowledged == []


async def test_patience_ends(agent, machine, ledger):
    agent.says("POST", "/api/v1/report", {}, status=503)
    with pytest.raises(Unheard):
        await machine.report("burn_in")
    assert ledger.acknowledged == []
