"""A site's agent over TFTP: boot loaders, the script beside them, and nothing else."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from pureboot.tftp.packets import ErrorCode
from tests.support.agent import RunningAgent, init, running_agent
from tests.support.central import RunningCentral
from tests.support.programs import free_udp_port
from tests.support.tftp_client import fetch

LOADER = Random(3).randbytes(70_000)
NEWER = Random(4).randbytes(80_000)
OF_CONTENT = {"bootloaders/undionly.kpxe": LOADER, "bootloaders/arm64/snponly.efi": NEWER, "images/secret": b"secret"}


async def put(central: RunningCentral, name: str, content: bytes) -> None:
    answer = await central.admin.put(f"/api/v1/content/{name}", content=content)
    assert answer.is_success, answer.text


@asynccontextmanager
async def tftp_site(
    central: RunningCentral, folder: Path, **changed: object
) -> AsyncIterator[tuple[RunningAgent, int]]:
    """A site that has heard of all content, and the port of its TFTP server."""
    for name, content in OF_CONTENT.items():
        await put(central, name, content)
    await central.new_site("attic")
    await init(central, "attic", folder)
    settings = {"host": "127.0.0.1", "tftp_port": free_udp_port()} | changed
    async with running_agent(folder, central.transport(), **settings) as site:
        await site.synced()
        await site.agent.tftp.start()
        try:
            yield site, site.agent.tftp.server.port
        finally:
            await site.agent.tftp.stop()


async def test_a_boot_loader_is_served_by_its_name_as_firmware_writes_it(
    central: RunningCentral, tmp_path: Path
) -> None:
    async with tftp_site(central, tmp_path / "agent") as (_, port):
        for before in ("", "/", "//", "\\", "bootloaders/", "/bootloaders/", "\\bootloaders\\"):
            assert (await fetch(port, f"{before}undionly.kpxe", blksize=1432, tsize=0)).content == LOADER, before


async def test_boot_loaders_are_here_before_they_are_asked_for_and_stay_when_central_is_gone(
    central: RunningCentral, tmp_path: Path
) -> None:
    async with tftp_site(central, tmp_path / "agent") as (site, port):
        await site.cut()
        assert (await fetch(port, "undionly.kpxe", blksize=1468, windowsize=4)).content == LOADER
        assert (await fetch(port, "arm64\\snponly.efi")).content == NEWER


async def test_an_older_loader_is_served_rather_than_a_wait_for_the_wan(
    central: RunningCentral, tmp_path: Path
) -> None:
    async with tftp_site(central, tmp_path / "agent") as (site, port):
        await put(central, "bootloaders/undionly.kpxe", NEWER)
        await site.agent.sync.sync_once()  # it knows of the newer one
        site.wan.state = "hangs"
        assert (await fetch(port, "undionly.kpxe", blksize=1432)).content == LOADER


NOT_SERVED = [
    "images/secret",
    "../images/secret",
    "bootloaders/../images/secret",
    "/bootloaders/..\\..\\images\\secret",
    "bootloaders",
    "",
    "/",
    ".",
    "..",
    "./undionly.kpxe",
    "arm64/../undionly.kpxe",
    "undionly.kpxe/",
    "../../../../etc/passwd",
    "/etc/passwd",
    "//etc//passwd",
    "\\..\\..\\etc\\passwd",
    "..%2f..%2fetc%2fpasswd",
    "....//....//etc/passwd",
    "file:///etc/passwd",
    "C:\\boot.ini",
    "UNDIONLY.KPXE",
    "undionly.kpxe\n",
    "agent.db",
    "../state/agent.db",
    "identity.json",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x",
    "a" * 480,
]


async def test_nothing_else_is_served_whatever_the_path_says(central: RunningCentral, tmp_path: Path) -> None:
    async with tftp_site(central, tmp_path / "agent") as (_, port):
        for name in NOT_SERVED:
            error = (await fetch(port, name)).error
            assert error is not None, name
            assert error.code == ErrorCode.NOT_FOUND, name


async def test_the_entry_script_is_beside_the_loaders_and_names_the_agent_as_the_machine_reached_it(
    central: RunningCentral, tmp_path: Path
) -> None:
    async with tftp_site(central, tmp_path / "agent", port=8081) as (_, port):
        for name in ("autoexec.ipxe", "/autoexec.ipxe", "bootloaders/autoexec.ipxe"):
            script = (await fetch(port, name)).content.decode()
            assert script.startswith("#!ipxe\n")
            assert "http://127.0.0.1:8081/boot/${netX/mac:hexhyp}?" in script


async def test_the_entry_script_names_the_advertised_address(central: RunningCentral, tmp_path: Path) -> None:
    url = "http://boot.attic.example/"
    async with tftp_site(central, tmp_path / "agent", advertise_url=url) as (_, port):
        script = (await fetch(port, "autoexec.ipxe")).content.decode()
        assert " http://boot.attic.example/boot/${netX/mac:hexhyp}?" in script


async def test_the_entry_script_boots_disks_as_the_site_says(central: RunningCentral, tmp_path: Path) -> None:
    async with tftp_site(central, tmp_path / "agent") as (site, port):
        await central.ask("PATCH", "/sites/attic", json={"local_boot": "exit"})
        await site.synced()
        assert (await fetch(port, "autoexec.ipxe")).content.endswith(b"\nexit 1\n")


async def test_what_it_served_is_counted(central: RunningCentral, tmp_path: Path) -> None:
    async with tftp_site(central, tmp_path / "agent") as (site, port):
        await fetch(port, "undionly.kpxe", blksize=1432)
        await fetch(port, "nothing")
        await site.until(lambda: site.agent.tftp.server.active == 0, "idle")
        metrics = (await site.person.get("/metrics")).text
        assert "pureboot_agent_tftp_transfers_total 1.0" in metrics
        assert f"pureboot_agent_tftp_bytes_total {float(len(LOADER))}" in metrics
        assert "pureboot_agent_tftp_errors_total 1.0" in metrics


async def test_a_port_that_cannot_be_had_shows_in_the_health_and_stops_nothing_else(
    central: RunningCentral, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with tftp_site(central, tmp_path / "agent", tftp_port=port) as (site, _):
            health = await site.health()
            why = f"Cannot serve TFTP on 127.0.0.1, port {port}: Address already in use."
            assert health["services"] == {"http": "running", "tftp": f"failed: {why}"}
            assert health["status"] == "degraded"
            assert f"TFTP is not served. {why}" in health["problems"]
            assert site.agent.heartbeat.collect().services["tftp"] == f"failed: {why}"
            assert "#!ipxe" in await site.script("52:54:00:aa:bb:01")


async def test_without_a_port_there_is_no_tftp_and_nothing_to_complain_of(
    central: RunningCentral, tmp_path: Path
) -> None:
    async with tftp_site(central, tmp_path / "agent", tftp_port=0) as (site, _):
        health = await site.health()
        assert health["services"] == {"http": "running", "tftp": "off"}
        assert health["problems"] == []
