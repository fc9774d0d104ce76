"""A node: a machine as the system knows it."""

from dataclasses import dataclass, field
from enum import StrEnum

from pureboot.core.lifecycle import Stage
from pureboot.core.mac import MacAddress

FACT_NAMES = ("vendor", "model", "serial_number", "system_uuid", "ip_address", "platform", "architecture")
FACT_LENGTH = 200


def clean_facts(raw: dict[str, object]) -> dict[str, str]:
    """The known facts among `raw`, as one printable line each of at most 200 characters; empty ones are left out.

    Facts come from machines: they are hostile text wherever they are shown, and a few megabytes if one lets them.
    """
    lines = {name: printable(str(raw[name]), FACT_LENGTH) for name in FACT_NAMES if raw.get(name) is not None}
    return {name: line for name, line in lines.items() if line}


def printable(text: str, length: int) -> str:
    text = text[: 4 * length]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text.strip()[:length]


class LocalBoot(StrEnum):
    """How a machine gets to its own disk; what works differs from firmware to firmware.

    `sanboot`: iPXE boots the disk, or leaves where it cannot. `exit`: iPXE leaves, the firmware goes on with its next
    device. `http-404`: there is no script, for firmware that asks for its script itself and takes no `exit`.
    """

    SANBOOT = "sanboot"
    EXIT = "exit"
    HTTP_404 = "http-404"


@dataclass(frozen=True, slots=True)
class Node:
    """`version` counts every change, `state_rev` only those of `stage`. The site owns `facts`; central the rest.

    `local_boot`: None, as its site has it.
    """

    id: str
    mac_addresses: tuple[MacAddress, ...]
    home_site_id: str
    stage: Stage
    version: int
    state_rev: int
    hostname: str = ""
    workflow_id: str | None = None
    group_id: str | None = None
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    local_boot: LocalBoot | None = None


class InstallMethod(StrEnum):
    KERNEL = "kernel"
    SANBOOT = "sanboot"
    CHAIN = "chain"


class DoneWhen(StrEnum):
    """What ends an install: the installer's report, or (for those that send none) the machine's next boot."""

    REPORT = "report"
    NEXT_BOOT = "next_boot"


@dataclass(frozen=True, slots=True)
class Workflow:
    """How a machine is installed. `kernel` and `initrd` are content names, `category/path`."""

    id: str
    name: str
    install_method: InstallMethod
    kernel: str = ""
    initrd: tuple[str, ...] = ()
    cmdline: str = ""
    boot_url: str = ""
    done_when: DoneWhen = DoneWhen.REPORT

    @property
    def content(self) -> tuple[str, ...]:
        """The files that have to be whole on disk before this install may start without central."""
        return tuple(name for name in (self.kernel, *self.initrd) if name)
