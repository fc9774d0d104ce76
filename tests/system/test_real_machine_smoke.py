"""The harness itself: what a real machine does can be seen from a test."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.system import installer, machine
from tests.system.machine import DISK_REACHED, Machine

pytestmark = [pytest.mark.requires(*machine.NEEDS), pytest.mark.timeout(300)]

LOCAL_BOOT = b"""#!ipxe
echo THE-SCRIPT-RAN and said so in a line that is longer than the eighty columns of a console
sanboot --no-describe --drive 0x80 || exit 1
"""

LINUX = b"""#!ipxe
kernel /vmlinuz?token=abc console=ttyS0 quiet initrd=initrd0 || exit 1
initrd --name initrd0 /initrd?token=abc || exit 1
boot || exit 1
"""


async def test_a_machine_runs_its_script_and_reaches_its_disk(disk: Path) -> None:
    with serving({"/boot.ipxe": LOCAL_BOOT}) as port:
        async with Machine(port=port, mac="52:54:00:aa:00:01", disk=disk) as it:
            await it.wait_for("longer than the eighty columns of a console", within=90)
            await it.wait_for("LOCAL-DISK-OK", within=60)
            assert await it.exited(within=60) == DISK_REACHED


async def test_a_failure_shows_the_console_and_leaves_no_machine(disk: Path) -> None:
    it = Machine(port=1, mac="52:54:00:aa:00:02", disk=disk)

    async def fail() -> None:
        async with it:
            await it.wait_for("SeaBIOS", within=90)
            assert is_running(it.pid)
            await it.wait_for("NEVER-SHOWN", within=0.1)

    with pytest.raises(AssertionError, match="did not show 'NEVER-SHOWN'") as failure:
        await fail()
    assert any("SeaBIOS" in note for note in failure.value.__notes__)
    assert not is_running(it.pid)


@pytest.mark.requires(*installer.NEEDS)
async def test_a_machine_runs_linux_with_its_network_and_its_disk(disk: Path, kernel: installer.Kernel) -> None:
    files = {"/boot.ipxe": LINUX, "/vmlinuz": kernel.image.read_bytes(), "/hello": b"HELLO-FROM-THE-HOST\n"}
    with serving(files) as port:
        script = f"echo INITRD-OK\ncat /proc/cmdline\nwget -q -O - http://10.0.2.2:{port}/hello\nstrings /dev/vda\n"
        files["/initrd"] = installer.busybox_initrd(kernel, script)
        async with Machine(port=port, mac="52:54:00:aa:00:03", disk=disk, memory_mib=256) as it:
            for text in ("INITRD-OK", "console=ttyS0 quiet initrd=initrd0", "HELLO-FROM-THE-HOST", "LOCAL-DISK-OK"):
                await it.wait_for(text, within=120)
            assert await it.exited(within=60) == 0


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[int]:
    """The port at which the files are served, by path; a query is passed over."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.partition("?")[0])
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
