"""A BIOS machine in QEMU that boots from the network, and the text on its serial console."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

DISK_REACHED = 33
"""Exit status of a machine that booted the disk of `make_disk`."""

NEEDS = (
    "setpriv",
    "qemu-system-x86_64",
    "nasm",
    "/usr/lib/ipxe/qemu/efi-virtio.rom",
    "/usr/share/seabios/bios-256k.bin",
)
"""What this module needs installed, for `@pytest.mark.requires`."""

_DISK_SOURCE = Path(__file__).with_name("disk_ok.asm")
_COLUMNS = 80
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|.)")


def make_disk(path: Path) -> Path:
    """Write the disk image that says LOCAL-DISK-OK; any number of machines may share it."""
    subprocess.run(["nasm", "-f", "bin", "-o", path, _DISK_SOURCE], check=True)
    return path


class Machine:
    """One machine: started on entry, gone on exit.

    An exception that leaves the `async with` block carries the serial console as a note.
    """

    def __init__(
        self,
        *,
        mac: str,
        disk: Path | str,
        port: int = 0,
        memory_mib: int = 128,
        options: Sequence[str] = (),
        bootfile: str = "",
        network: str = "",
        card: str = "virtio-net-pci",
    ) -> None:
        """`disk` is an image, which stays as it is, or another drive in QEMU's own words. `port` is where
        http://127.0.0.1/boot.ipxe is served, unless DHCP names another `bootfile`; that DHCP is QEMU's own, unless
        `network` is another of its -netdev. `card` may carry properties, such as romfile=; `options` are more of
        QEMU's, such as -smbios."""
        self._mac = mac
        # QEMU's own network is the machine's: 10.0.2.2 in it is this host's loopback.
        network = network or f"user,bootfile={bootfile or f'http://10.0.2.2:{port}/boot.ipxe'}"
        self._command = [*_command(network, f"{card},mac={mac}", disk, memory_mib), *options]
        self._serial = bytearray()
        self._ended = False
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._reader
        await self._process.wait()
        if error is not None:
            error.add_note(f"--- serial console of {self._mac} ---\n{self.console}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def console(self) -> str:
        """What the machine has shown so far, without escape sequences, lines unwrapped."""
        return console_text(bytes(self._serial))

    async def wait_for(self, text: str, within: float) -> None:
        """Return when the console shows `text`; fail after `within` seconds, or when the machine ends first."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(lambda: text in self.console or self._ended)
        except TimeoutError:
            raise AssertionError(f"{self._mac} did not show {text!r} within {within:g} s") from None
        if text not in self.console:
            raise AssertionError(f"{self._mac} ended without showing {text!r}")

    async def exited(self, within: float) -> int:
        """Return the machine's exit status; fail if it still runs after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                await asyncio.shield(self._reader)
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"{self._mac} still runs after {within:g} s") from None

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while not self._ended:
            chunk = await self._process.stdout.read(4096)
            async with self._news:
                self._serial += chunk
                self._ended = not chunk
                self._news.notify_all()


def console_text(serial: bytes) -> str:
    """The text of serial output: no escape sequences, erased characters gone, lines of 80 columns joined."""
    shown = [_overtyped(line) for line in _ESCAPE.sub("", serial.decode(errors="replace")).split("\n")]
    return "".join(line if len(line) == _COLUMNS else f"{line.rstrip()}\n" for line in shown)


def _overtyped(line: str) -> str:
    """A line as it stays on the screen after its carriage returns and backspaces."""
    cells: list[str] = []
    column = 0
    for character in line:
        match character:
            case "\r":
                column = 0
            case "\b":
                column = max(column - 1, 0)
            case _:
                cells[column : column + 1] = [character]
                column += 1
    return "".join(cells)


def _image(disk: Path) -> str:
    return f"format=raw,file={disk},snapshot=on,file.locking=off"


def _command(network: str, card: str, disk: Path | str, memory_mib: int) -> list[str]:
    return [
        # The machine dies with the test run, even if that is killed.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        "qemu-system-x86_64",
        # Without graphics, BIOS and iPXE talk on the serial port. TCG, because BIOS crawls under a nested KVM.
        *("-machine", "pc,accel=tcg,graphics=off", "-m", f"{memory_mib}"),
        *("-nodefaults", "-display", "none", "-vga", "std", "-serial", "stdio", "-monitor", "none"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-no-reboot"),
        *("-netdev", f"{network},id=n0"),
        *("-device", f"{card},netdev=n0,bootindex=1"),
        *("-drive", f"if=none,id=d0,{disk if isinstance(disk, str) else _image(disk)}"),
        *("-device", "virtio-blk-pci,drive=d0,bootindex=2"),
    ]
