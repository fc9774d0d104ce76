"""A real Linux for machines to install with: Debian's cloud kernel and a busybox initrd made for one script."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDS = ("apt-get", "apt-cache", "dpkg-deb", "/bin/busybox")
"""What this module needs installed, for `@pytest.mark.requires`. /bin/busybox is that of busybox-static."""

_PACKAGE = "linux-image-cloud-amd64"
_INSTALLER = "debian-installer-12-netboot-amd64"
_BUSYBOX = Path("/bin/busybox")

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
trap 'sync; poweroff -f' EXIT
for module in /modules/*; do insmod "$module"; done
ip link set lo up
ip link set eth0 up
udhcpc -q -n -t 20 -T 1 -i eth0 -s /bin/leased
"""

_LEASED = """#!/bin/sh
[ "$1" != bound ] || ip address add "$ip/$mask" dev "$interface"
"""


@dataclass(frozen=True)
class Kernel:
    """A kernel's image and the folder of its modules."""

    image: Path
    modules: Path


def debian_kernel(cache: Path) -> Kernel:
    """The kernel unpacked in `cache`; fetched there with apt, without installing it, when it is not."""
    unpacked = _unpacked(cache, _PACKAGE, _newest_kernel)
    [image] = unpacked.glob("boot/vmlinuz-*")
    [modules] = unpacked.glob("lib/modules/*")
    return Kernel(image, modules)


@dataclass(frozen=True)
class DebianInstaller:
    """The kernel and the initrd of Debian's installer for the network."""

    linux: Path
    initrd: Path


def debian_installer(cache: Path) -> DebianInstaller:
    """Unpacked in `cache`; fetched there with apt, without installing it, when it is not. 130 MB."""
    [folder] = _unpacked(cache, _INSTALLER, lambda: _INSTALLER).glob("usr/lib/debian-installer/images/12/amd64/text")
    files = folder / "debian-installer" / "amd64"
    return DebianInstaller(files / "linux", files / "initrd.gz")


def _unpacked(cache: Path, name: str, package: Callable[[], str]) -> Path:
    unpacked = cache / name
    if not unpacked.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _fetch(Path(folder), package).rename(unpacked)
    return unpacked


def _newest_kernel() -> str:
    depends = subprocess.run(["apt-cache", "depends", _PACKAGE], check=True, capture_output=True, text=True).stdout
    [package] = re.findall(r"Depends: (linux-image-\S+)", depends)
    return str(package)


def _fetch(folder: Path, package: Callable[[], str]) -> Path:
    # An old list names packages that are gone. Only root may renew it; for others it may still do.
    subprocess.run(["apt-get", "update"], check=False, capture_output=True)
    subprocess.run(["apt-get", "download", "--quiet", package()], check=True, cwd=folder)
    [archive] = folder.glob("*.deb")
    unpacked = folder / "unpacked"
    subprocess.run(["dpkg-deb", "--extract", archive, unpacked], check=True)
    return unpacked


def busybox_initrd(kernel: Kernel, script: str) -> bytes:
    """An initrd that runs `script` with the disk at /dev/vda and an address from DHCP, then powers off."""
    # `insmod` resolves nothing, so the names tell the order.
    modules = {f"modules/{n:02}": path.read_bytes() for n, path in enumerate(_modules(kernel))}
    programs = {"bin/busybox": _BUSYBOX.read_bytes(), "bin/leased": _LEASED.encode(), "init": (_INIT + script).encode()}
    return cpio({**programs, **modules})


def _modules(kernel: Kernel) -> list[Path]:
    """The modules of a virtio machine, each after those it depends on."""
    files = {path.stem: path for path in kernel.modules.rglob("*.ko")}

    def with_dependencies(names: Iterable[str]) -> Iterator[Path]:
        for name in names:
            yield from with_dependencies(_depends(files[name]))
            yield files[name]

    return list(dict.fromkeys(with_dependencies(["virtio_pci", "virtio_net", "virtio_blk"])))


def _depends(module: Path) -> list[str]:
    found = re.search(rb"\0depends=([^\0]+)\0", module.read_bytes())
    return found[1].decode().split(",") if found else []


def cpio(files: dict[str, bytes]) -> bytes:
    """The files, all executable, as an archive in the kernel's format ("newc"), with the folders init needs."""
    folders = {"dev", "proc", "sys", *(path.rpartition("/")[0] for path in files)} - {""}
    entries = [_entry(folder, 0o040755, b"") for folder in sorted(folders)]
    entries += [_entry(path, 0o100755, content) for path, content in files.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0, b"")])


def _entry(path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    # inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    return _padded(b"070701" + b"".join(b"%08x" % field for field in fields) + name) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)
