"""A LAN of its own, in a network namespace: one bridge, a tap for each machine, and real DHCP servers on it.

The test itself moves into the namespace, and what it starts goes along: an agent there may have port 69 and the
addresses it likes. A namespace has no name and no file: it is gone with the last process in it, even after kill -9.
"""

import asyncio
import ctypes
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

NEEDS = ("ip", "dnsmasq", "setpriv", "/dev/net/tun")
"""What this module needs installed, for `@pytest.mark.requires`."""

BRIDGE = "lan0"
AGENT = "10.77.0.1"
# Of unique local addresses, for router advertisements.
AGENT_V6 = "fd77::1"
OTHER = "10.77.0.2"
OTHER_V6 = "fd77::2"
SUBNET = "10.77.0.0/24"
RANGE = "10.77.0.100,10.77.0.200"

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Lan:
    def __init__(self) -> None:
        self._taps = 0

    def tap(self) -> str:
        """QEMU's -netdev for one more machine on the bridge."""
        name = f"tap{self._taps}"
        self._taps += 1
        ip("tuntap", "add", name, "mode", "tap")
        ip("link", "set", name, "master", BRIDGE, "up")
        return f"tap,ifname={name},script=no,downscript=no"


def _bridge() -> None:
    ip("link", "set", "lo", "up")
    try:
        ip("link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs a kernel with bridges: {error.stderr.decode().strip()}")
    ip("address", "add", f"{AGENT}/24", "dev", BRIDGE)
    ip("address", "add", f"{AGENT_V6}/64", "dev", BRIDGE, "nodad")
    ip("link", "set", BRIDGE, "up")


@contextmanager
def own_lan() -> Iterator[Lan]:
    """The calling thread is in the namespace until this ends; so is what it starts, processes and threads."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"needs the right to make network namespaces: {os.strerror(ctypes.get_errno())}")
        try:
            _bridge()
            yield Lan()
        finally:
            if _libc.setns(home, _CLONE_NEWNET) != 0:
                os._exit(70)  # no other test may run in here
    finally:
        os.close(home)


async def configuration(*options: str) -> str:
    """What `pureboot agent dnsmasq-config` prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pureboot", "agent", "dnsmasq-config", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, problem = await process.communicate()
    assert process.returncode == 0, problem.decode()
    return output.decode()


class Dnsmasq:
    """A running one; its log grows while it talks."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def said(self) -> str:
        return self._log.read_text(errors="replace")


@asynccontextmanager
async def running_dnsmasq(folder: Path, config: str) -> AsyncIterator[Dnsmasq]:
    """Exactly `config`, and what keeps it within `folder` and in the foreground."""
    async with _running(folder, "dnsmasq", config, []) as dnsmasq:
        yield dnsmasq


@asynccontextmanager
async def other_dhcp_server(folder: Path) -> AsyncIterator[Dnsmasq]:
    """On a host of its own on the LAN: it gives out addresses, and knows nothing of boots. It is the LAN's router, too:
    iPXE of 2019 waits 16 s for a router's word on IPv6 at each boot."""
    config = f"port=0\ninterface=other\nbind-dynamic\nlog-dhcp\ndhcp-range={RANGE}\n"
    config += "enable-ra\ndhcp-range=::,constructor:other,ra-only\n"
    # Its host is a namespace of its own; the wire comes when it is there.
    host = (
        f"until ip address add {OTHER}/24 dev other; do sleep 0.1; done 2>/dev/null; "
        f"ip address add {OTHER_V6}/64 dev other nodad; "
        'ip link set other up; ip link set lo up; exec "$@"'
    )
    async with _running(folder, "other", config, ["unshare", "--net", "--", "sh", "-c", host, "sh"]) as dnsmasq:
        yield dnsmasq


@asynccontextmanager
async def _running(folder: Path, name: str, config: str, before: list[str]) -> AsyncIterator[Dnsmasq]:
    file, log = folder / f"{name}.conf", folder / f"{name}.log"
    file.write_text(config)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *before, "dnsmasq", "--keep-in-foreground"),
            *(f"--conf-file={file}", f"--dhcp-leasefile={folder / name}.leases", "--pid-file=", "--user=root"),
            *("--log-facility=-", "--no-resolv", "--no-hosts"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    dnsmasq = Dnsmasq(log)
    try:
        if before:
            await _wire(process.pid)
        await _until_it_serves(process, dnsmasq)
        yield dnsmasq
    except BaseException as error:
        error.add_note(f"--- {name} ---\n{dnsmasq.said()[-6000:]}")
        raise
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if before:
            # The namespace takes its end along, but in its own time.
            with suppress(subprocess.CalledProcessError):
                ip("link", "delete", "to-other")


async def _wire(pid: int) -> None:
    """Between the bridge and the namespace of the process, once it has one."""
    async with asyncio.timeout(30):
        while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/thread-self/ns/net"):
            await asyncio.sleep(0.02)
    ip("link", "add", "to-other", "type", "veth", "peer", "name", "other", "netns", str(pid))
    ip("link", "set", "to-other", "master", BRIDGE, "up")


async def _until_it_serves(process: asyncio.subprocess.Process, dnsmasq: Dnsmasq) -> None:
    async with asyncio.timeout(30):
        while "started" not in dnsmasq.said():
            assert process.returncode is None, f"dnsmasq ended:\n{dnsmasq.said()}"
            await asyncio.sleep(0.02)
