"""What makes a test's machine one with UEFI: Debian's OVMF, and a disk that it boots."""

import subprocess
from pathlib import Path

NEEDS = ("nasm", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
"""What this module needs installed, for `@pytest.mark.requires`."""

MEMORY_MIB = 256
CARD = "virtio-net-pci,romfile="
"""Without QEMU's own iPXE in it, so that the firmware asks the network itself."""

_SOURCE = Path(__file__).with_name("disk_ok_uefi.asm")
_FIRMWARE = ("/usr/share/OVMF/OVMF_CODE_4M.fd,readonly=on", "/usr/share/OVMF/OVMF_VARS_4M.fd,snapshot=on")


def options() -> list[str]:
    """QEMU's, beside those of every machine."""
    drives = (f"if=pflash,unit={n},format=raw,file={file}" for n, file in enumerate(_FIRMWARE))
    words = [word for drive in drives for word in ("-drive", drive)]
    # IPv6 of the firmware waits half a minute for a server there is not.
    return [*words, "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"]


def make_disk(folder: Path) -> str:
    """A drive that says LOCAL-DISK-OK and ends the machine with `DISK_REACHED`: QEMU shows the folder as a FAT disk."""
    program = folder / "EFI" / "BOOT" / "BOOTX64.EFI"
    program.parent.mkdir(parents=True)
    subprocess.run(["nasm", "-f", "bin", "-o", program, _SOURCE], check=True)
    return f"format=raw,file=fat:{folder},readonly=on"
