"""Real firmware and the real dnsmasq, configured by `pureboot agent dnsmasq-config`, on a LAN of their own."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.programs import Agent, Central, Pair, running_pair_of
from tests.system import dhcp_client, installer, lifecycle, uefi
from tests.system import lan as lans
from tests.system.lan import AGENT, BRIDGE, RANGE, SUBNET, Lan
from tests.system.machine import DISK_REACHED, NEEDS, Machine

MAC = "52:54:00:aa:00:01"
LOADERS = {name: f"/usr/lib/ipxe/{name}" for name in ("undionly.kpxe", "snponly.efi")}
DHCP = ("--range", RANGE, "--interface", BRIDGE)
PROXY = ("--proxy", SUBNET)
MODES = {"dhcp": (*DHCP, "--ipv6-ra"), "proxy": PROXY}


class Site:
    """An agent on a LAN of its own, with its boot loaders and port 69."""

    def __init__(self, folder: Path, lan: Lan, pair: Pair) -> None:
        self.lan, self.pair, self._folder = lan, pair, folder

    async def has_loaders(self) -> None:
        for name, path in LOADERS.items():
            content = await asyncio.to_thread(Path(path).read_bytes)
            await self.pair.ask("PUT", f"/content/bootloaders/{name}", content=content)
        await self.pair.holds(len(LOADERS))

    async def has_active(self, *macs: str) -> None:
        for mac in macs:
            await self.pair.import_node(mac, "active")
        for mac in macs:
            await self.pair.caught_up(mac, "active")

    async def loses_central(self) -> None:
        await self.pair.central.kill()
        await self.pair.until("offline", is_online=False)

    async def configuration(self, *options: str) -> str:
        return await lans.configuration(*options, "--address", AGENT, "--http-port", str(self.pair.agent.port))

    @asynccontextmanager
    async def dhcp(self, config: str) -> AsyncIterator[None]:
        """By dnsmasq with `config`; beside another server, if it is a proxy's."""
        async with AsyncExitStack() as stack:
            if ",proxy," in config:
                await stack.enter_async_context(lans.other_dhcp_server(self._folder))
            await stack.enter_async_context(lans.running_dnsmasq(self._folder, config))
            yield


@asynccontextmanager
async def a_site(folder: Path) -> AsyncIterator[Site]:
    with lans.own_lan() as lan:
        agent = Agent(folder, host="0.0.0.0", tftp_port=69)
        async with running_pair_of(Central(folder), agent) as pair:
            yield Site(folder, lan, pair)


@pytest.mark.requires("dnsmasq")
@pytest.mark.parametrize(
    "options",
    [
        DHCP,
        (*DHCP, "--subnet", SUBNET, "--router", AGENT, "--dns", f"{AGENT},9.9.9.9", "--ipv6-ra", "--tftp-port", "6969"),
        ("--range", f"{RANGE},infinite", "--interface", BRIDGE, "--tftp-port", "0"),
        PROXY,
        (*PROXY, "--interface", BRIDGE, "--tftp-port", "0"),
    ],
)
async def test_dnsmasq_reads_the_configuration(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "dnsmasq.conf"
    file.write_text(await lans.configuration(*options, "--address", AGENT))
    command = ["dnsmasq", "--test", f"--conf-file={file}"]
    tested = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "syntax check OK" in tested.stderr


SCRIPT = f"http://{AGENT}:8080/boot.ipxe"
FILES = f"http://{AGENT}:8080/files/bootloaders"
TOLD = [
    (0, "PXEClient", "undionly.kpxe"),
    (7, "PXEClient", "snponly.efi"),
    (9, "PXEClient", "snponly.efi"),
    (11, "PXEClient", "snponly-arm64.efi"),
    (16, "HTTPClient", f"{FILES}/snponly.efi"),
    (19, "HTTPClient", f"{FILES}/snponly-arm64.efi"),
]


@pytest.mark.requires(*lans.NEEDS)
async def test_each_firmware_is_told_its_loader_and_ipxe_its_script(tmp_path: Path) -> None:
    config = await lans.configuration(*DHCP, "--address", AGENT)
    with lans.own_lan():
        async with lans.running_dnsmasq(tmp_path, config):
            for architecture, vendor, file in TOLD:
                told = await dhcp_client.ask(BRIDGE, dhcp_client.discover(MAC, architecture, vendor=vendor))
                assert (told.file, told.server) == (file, AGENT)
                assert told.vendor_class == (vendor if vendor == "HTTPClient" else "")
                as_ipxe = dhcp_client.discover(MAC, architecture, user_class="iPXE")
                assert (await dhcp_client.ask(BRIDGE, as_ipxe)).file == SCRIPT
            assert (await dhcp_client.ask(BRIDGE, dhcp_client.discover(MAC, 6))).file == ""


@pytest.mark.requires(*NEEDS, *lans.NEEDS, *LOADERS.values())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.timeout(400)
async def test_a_bios_machine_gets_to_its_disk_while_central_is_dead(tmp_path: Path, disk: Path, mode: str) -> None:
    async with a_site(tmp_path) as site:
        await site.has_loaders()
        await site.has_active(MAC)
        await site.loses_central()
        config = await site.configuration(*MODES[mode])
        async with Machine(mac=MAC, disk=disk, network=site.lan.tap()) as machine:
            # First a boot ROM like any other: QEMU's is iPXE, and its saying so goes unheard.
            async with site.dhcp(unheard(config, "set:ipxe,")):
                await machine.wait_for("undionly.kpxe... ok", within=120)
            # Then what it loaded, which asks DHCP anew.
            async with site.dhcp(config):
                await machine.wait_for("boot.ipxe... ok", within=120)
                await machine.wait_for("PureBoot Site Agent - OFFLINE", within=60)
                await machine.wait_for("LOCAL-DISK-OK", within=60)
                assert await machine.exited(within=60) == DISK_REACHED


def unheard(config: str, words: str) -> str:
    return "".join(line for line in config.splitlines(keepends=True) if words not in line)


@pytest.mark.requires(*NEEDS, *lans.NEEDS, *uefi.NEEDS, *LOADERS.values())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.timeout(500)
async def test_a_uefi_machine_gets_by_tftp_by_http_and_to_its_disk_while_central_is_dead(
    tmp_path: Path, mode: str
) -> None:
    disk = uefi.make_disk(tmp_path / "esp")
    async with a_site(tmp_path) as site:
        await site.has_loaders()
        await site.has_active(MAC)
        await site.loses_central()
        async with (
            site.dhcp(await site.configuration(*MODES[mode])),
            Machine(
                mac=MAC,
                disk=disk,
                network=site.lan.tap(),
                card=uefi.CARD,
                memory_mib=uefi.MEMORY_MIB,
                options=uefi.options(),
            ) as machine,
        ):
            assert await machine.exited(within=400) == DISK_REACHED
            # iPXE of 2019 cannot boot a disk here, so each of its scripts ends in the firmware's next boot option.
            steps = [
                "Start PXE over IPv4",
                "NBP filename is snponly.efi",
                *("boot.ipxe... ok", "Operating from cached state.", "Proceeding with local disk..."),
                "Start HTTP Boot over IPv4",
                f"URI: http://{AGENT}:{site.pair.agent.port}/files/bootloaders/snponly.efi",
                *("boot.ipxe... ok", "Operating from cached state.", "Proceeding with local disk..."),
                "LOCAL-DISK-OK",
            ]
            assert in_order(steps, machine.console)


def in_order(steps: list[str], text: str) -> bool:
    at = 0
    for step in steps:
        at = text.find(step, at)
        assert at >= 0, f"{step!r} is not there, or not in its place"
        at += len(step)
    return True


@pytest.mark.requires(*NEEDS, *lans.NEEDS, *installer.NEEDS)
@pytest.mark.timeout(500)
async def test_a_machine_lives_from_its_approval_to_its_own_disk_while_central_is_dead(
    tmp_path: Path, disk: Path, kernel: installer.Kernel
) -> None:
    blank = lifecycle.blank_like(disk, tmp_path / "blank.img")
    initrd = lifecycle.initrd_that_installs(kernel, disk)
    async with a_site(tmp_path) as site:
        node = await lifecycle.approved(site.pair, MAC, kernel.image.read_bytes(), initrd)
        await site.loses_central()
        async with (
            site.dhcp(await site.configuration(*MODES["dhcp"])),
            Machine(
                mac=MAC,
                disk=blank,
                network=site.lan.tap(),
                memory_mib=lifecycle.MEMORY_MIB,
                options=lifecycle.STAYS,
            ) as machine,
        ):
            await lifecycle.installs_itself_offline(machine)
        await lifecycle.central_learns_of_it_once(site.pair, node)


@pytest.mark.requires(*NEEDS, *lans.NEEDS)
@pytest.mark.timeout(500)
async def test_sixteen_machines_at_once_get_to_their_disks_while_central_is_dead(tmp_path: Path, disk: Path) -> None:
    macs = [f"52:54:00:aa:01:{n:02x}" for n in range(16)]
    async with a_site(tmp_path) as site:
        await site.has_active(*macs)
        await site.loses_central()
        async with site.dhcp(await site.configuration(*MODES["dhcp"])), AsyncExitStack() as stack:
            machines = [
                await stack.enter_async_context(Machine(mac=mac, disk=disk, network=site.lan.tap(), memory_mib=40))
                for mac in macs
            ]
            assert await asyncio.gather(*(each.exited(within=300) for each in machines)) == [DISK_REACHED] * 16
            for machine in machines:
                assert in_order(["PureBoot Site Agent - OFFLINE", "LOCAL-DISK-OK"], machine.console)


# The installer runs this as soon as it has read the file, and never otherwise.
ANSWERS = b"d-i preseed/early_command string echo PRESEED-READ of {{ node.mac }} >/dev/console; poweroff -f\n"
# As in examples/workflows/debian-12, on a serial console.
LINE = "auto=true priority=critical url={{ agent.templates }}/preseed.cfg interface=auto"
SERIAL = "console=ttyS0 DEBIAN_FRONTEND=text"


@pytest.mark.requires(*NEEDS, *lans.NEEDS, *installer.NEEDS)
@pytest.mark.timeout(1500)
async def test_debians_installer_reads_its_answers_while_central_is_dead(
    tmp_path: Path, disk: Path, debian_installer: installer.DebianInstaller
) -> None:
    """As Debian ships it. Any address that DHCP names as boot file is a preseed to it: DHCP must name ours to iPXE
    only."""
    linux, initrd = debian_installer.linux.read_bytes(), debian_installer.initrd.read_bytes()
    async with a_site(tmp_path) as site:
        await site.pair.ask("PUT", "/content/templates/debian-12/preseed.cfg", content=ANSWERS)
        templates = {"preseed.cfg": "templates/debian-12/preseed.cfg"}
        await lifecycle.approved(site.pair, MAC, linux, initrd, f"{LINE} {SERIAL}", templates=templates)
        await site.pair.holds(1, under="templates/")
        await site.loses_central()
        async with (
            # Without a router it asks a question, and waits.
            site.dhcp(await site.configuration(*DHCP, "--ipv6-ra", "--router", AGENT, "--dns", AGENT)),
            Machine(mac=MAC, disk=disk, network=site.lan.tap(), memory_mib=1280) as machine,
        ):
            await machine.wait_for("Proceeding with install of debian, attempt 1", within=180)
            await machine.wait_for(f"PRESEED-READ of {MAC}", within=1200)
            assert await machine.exited(within=60) == 0
