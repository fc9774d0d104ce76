"""A node: a machine as the system knows it."""

import re
from collections.abc import Mapping
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


# Content that a command line hands to the installer by its address.
_NAMED = re.compile(r"{{ *agent\.files *}}/([\w+@=~.-]+/[\w+@=~./-]+)", re.ASCII)


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
    """How a machine is installed. `kernel` and `initrd` are content names, `category/path`; `boot_url` is one, or the
    address of something elsewhere. `templates` are the answer files: what the installer asks for, and the content."""

    id: str
    name: str
    install_method: InstallMethod
    kernel: str = ""
    initrd: tuple[str, ...] = ()
    cmdline: str = ""
    boot_url: str = ""
    done_when: DoneWhen = DoneWhen.REPORT
    templates: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    boot_mode: str = "any"

    @property
    def boot_file(self) -> str:
        """The content that `boot_url` names; empty where it is an address."""
        return self.boot_url if "://" not in self.boot_url else ""

    @property
    def boots(self) -> tuple[str, ...]:
        """The content that takes hold of the machine: once it has it all, its attempt has begun."""
        return tuple(name for name in (self.kernel, *self.initrd, self.boot_file) if name)

    @property
    def content(self) -> tuple[str, ...]:
        """The files that have to be whole on disk before this install may start without central."""
        return tuple(dict.fromkeys([*self.boots, *_NAMED.findall(self.cmdline), *self.templates.values()]))
