"""iPXE in software follows the scripts that core renders, and falls where the real one falls."""

import pytest

from pureboot.core import ipxe
from pureboot.core.boot import Halt, Install
from pureboot.core.boot import LocalDisk as DecidedLocalDisk
from pureboot.core.ipxe import Banner, Link
from pureboot.core.mac import MacAddress
from pureboot.core.node import InstallMethod, Workflow
from pureboot.simulator.firmware import Firmware, Hardware, Hung, Kernel, LocalDisk, NextDevice, NotFetched, San

AGENT = "http://agent:8080"
MAC = MacAddress.parse("52:54:00:aa:bb:01")
HARDWARE = Hardware(MAC, bytes(range(16)), {"serial": "A 1&x=2", "platform": "pcbios"})
BANNER = Banner(mac=str(MAC), site="lab", link=Link.OFFLINE, state="active", base_url=AGENT, token="t0k")
LINUX = Workflow(
    "w1",
    "linux",
    InstallMethod.KERNEL,
    kernel="images/vmlinuz",
    initrd=("images/a.img", "images/b.img"),
    cmdline="quiet",
)


class Web:
    """Bodies by address; an address without its query stands for all queries."""

    def __init__(self, **pages: str | bytes) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        for path, body in pages.items():
            self.add(path, body)

    def add(self, path: str, body: str | bytes) -> None:
        self.pages[f"{AGENT}/{path}"] = body.encode() if isinstance(body, str) else body

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        try:
            return self.pages[url.partition("?")[0]]
        except KeyError:
            raise NotFetched(url) from None


def site_with(script: str | bytes) -> Web:
    web = Web()
    web.add("boot.ipxe", ipxe.entry())
    web.add(f"boot/{MAC.hyphenated}", script)
    web.add("files/images/vmlinuz", b"kernel")
    web.add("files/images/a.img", b"first")
    web.add("files/images/b.img", b"second")
    return web


async def boot(web: Web, *, disk_boots: bool = True):
    firmware = Firmware(HARDWARE, web.fetch, disk_boots=disk_boots)
    return await firmware.boot(f"{AGENT}/boot.ipxe"), firmware


async def run(script: str, *, disk_boots: bool = True):
    """A script on its own."""
    web = Web()
    web.add("boot.ipxe", f"#!ipxe\n{script}\n")
    return await boot(web, disk_boots=disk_boots)


async def test_the_entry_script_asks_for_the_machines_own_with_its_facts():
    web = site_with(ipxe.render(DecidedLocalDisk(), BANNER))
    outcome, _ = await boot(web)
    assert outcome == LocalDisk("0x80")
    assert web.asked[1].startswith(f"{AGENT}/boot/52-54-00-aa-bb-01?")
    assert f"serial.hex={b'A 1&x=2'.hex()}" in web.asked[1]
    assert "uuid=00010203-0405-0607-0809-0a0b0c0d0e0f" in web.asked[1]
    assert "platform=pcbios" in web.asked[1]


async def test_the_banner_is_on_the_screen():
    _, firmware = await boot(site_with(ipxe.render(DecidedLocalDisk("It waits."), BANNER)))
    assert "*** PureBoot Site Agent - OFFLINE ***" in firmware.screen
    assert "It waits." in firmware.screen


async def test_an_install_hands_over_kernel_initrds_and_arguments():
    outcome, _ = await boot(site_with(ipxe.render(Install(LINUX, 2), BANNER)))
    assert isinstance(outcome, Kernel)
    assert outcome.images == {"kernel": b"kernel", "initrd0": b"first", "initrd1": b"second"}
    assert outcome.argument("pureboot.token") == "t0k"
    assert outcome.argument("pureboot.mac") == str(MAC)
    assert "quiet" in outcome.arguments


async def test_an_install_whose_initrd_is_missing_boots_the_disk():
    web = site_with(ipxe.render(Install(LINUX, 1), BANNER))
    del web.pages[f"{AGENT}/files/images/b.img"]
    outcome, firmware = await boot(web)
    assert outcome == LocalDisk("0x80")
    assert "PureBoot: the install could not be started. Booting the local disk." in firmware.screen


async def test_an_agent_without_a_script_for_it_leaves_the_disk():
    web = Web()
    web.add("boot.ipxe", ipxe.entry())
    outcome, firmware = await boot(web)
    assert outcome == LocalDisk("0x80")
    assert any("gave no boot script" in line for line in firmware.screen)


async def test_no_agent_at_all_is_the_next_boot_device():
    outcome, _ = await boot(Web())
    assert outcome == NextDevice(1)


@pytest.mark.parametrize("body", [b"<html>502</html>", b"{}", b"\n#!ipxe\n", b"\xef\xbb\xbf#!ipxe\n"])
async def test_anything_but_a_script_hangs_the_machine(body):
    outcome, _ = await boot(site_with(body))
    assert isinstance(outcome, Hung)


async def test_a_disk_that_does_not_boot_is_the_next_boot_device():
    outcome, _ = await run("sanboot --no-describe --drive 0x80 || exit 1", disk_boots=False)
    assert outcome == NextDevice(1)


async def test_a_script_alone_that_halts_ends_with_the_next_device():
    web = Web()
    web.add("boot.ipxe", ipxe.render(Halt("This node is retired."), BANNER))
    outcome, _ = await boot(web)
    assert outcome == NextDevice(1)


async def test_a_san_install_is_handed_over():
    workflow = Workflow("w", "iso", InstallMethod.SANBOOT, boot_url="http://agent/x.iso")
    outcome, _ = await boot(site_with(ipxe.render(Install(workflow, 1), BANNER)))
    assert outcome == San("http://agent/x.iso")


@pytest.mark.parametrize(
    ("script", "screen"),
    [
        ("echo   a    b", ["a b"]),
        ("echo a # b", ["a"]),
        ("echo a ; echo b", ["a", "b"]),
        ("nonsense || echo c", ["nonsense: command not found", "c"]),
        ("echo a || echo b", ["a"]),
        ("echo a && echo b", ["a", "b"]),
        ("echo a || echo b && echo c", ["a", "c"]),
        ("imgfree ||\necho on", ["on"]),
        ("nonsense ||\necho on", ["nonsense: command not found", "on"]),
        ("nonsense\necho never", ["nonsense: command not found"]),
        ("goto there\necho never\n:there echo here", ["here"]),
        ("goto nowhere\necho never", []),
        ("goto a || echo never\n:a\necho a", ["a"]),
        ("exit 0\necho never", []),
        ("echo ${net0/mac} ${uuid}", ["52:54:00:aa:bb:01 00010203-0405-0607-0809-0a0b0c0d0e0f"]),
        ("echo ${platform}${nothing}", ["pcbios"]),
        ("echo ${net0/mac:hexhyp} ${mac:hexraw}", ["52-54-00-aa-bb-01 525400aabb01"]),
        ("echo ${serial:uristring} ${serial:hexraw}", ["A%201&x=2 41203126783d32"]),
        ("echo [${uuid:uristring}]", ["[]"]),
        ("echo a \\\n  b", ["a b"]),
    ],
)
async def test_the_language(script, screen):
    _, firmware = await run(script)
    assert firmware.screen == screen


async def test_a_setting_cannot_add_a_command():
    web = Web()
    web.add("boot.ipxe", "#!ipxe\necho ${serial}\n")
    firmware = Firmware(Hardware(MAC, strings={"serial": "x ; exit 7 || goto"}), web.fetch)
    assert await firmware.boot(f"{AGENT}/boot.ipxe") == NextDevice(0)
    assert firmware.screen == ["x ; exit 7 || goto"]


async def test_exit_1_in_a_chained_script_fails_the_chain():
    web = Web()
    web.add("boot.ipxe", "#!ipxe\nchain next || goto failed\nexit 0\n:failed\necho failed\n")
    web.add("next", "#!ipxe\nexit 1\n")
    _, firmware = await boot(web)
    assert firmware.screen == ["failed"]


async def test_a_replacing_chain_does_not_come_back():
    web = Web()
    web.add("boot.ipxe", "#!ipxe\nchain --replace next || goto failed\nexit 0\n:failed\necho failed\n")
    web.add("next", "#!ipxe\nexit 1\n")
    outcome, firmware = await boot(web)
    assert outcome == NextDevice(1)
    assert firmware.screen == []
