"""Boot scripts: the only place that writes the shebang, one template per decision.

What real firmware asks of a script is in FIRMWARE notes of docs/how-a-machine-boots.md: every command is guarded, and
every value is quoted, because a newline in one is a new command and a lone `;` starts one.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote as percent

from pureboot.core.boot import Decision, Discover, Halt, Install, LocalDisk
from pureboot.core.node import InstallMethod, LocalBoot, Workflow

VALUE_LENGTH = 120
_ACTIVE = re.compile(r"[^A-Za-z0-9 ._:/@%+=,()*?!~^<>'-]")
# iPXE compares whole words with these; inside a word they are plain text, as in `ds=nocloud;s=http://…`.
# A word that begins with `#` hides the rest of its line, the guard too; `$${` would be `${` again if one `$` stayed.
_ACTING_WORDS = {";", "||", "&&"}
_EXPANSION = re.compile(r"\$+\{")
# 260 words on a line are too many for it, 400 hang the machine.
MAX_WORDS = 200


class Link(StrEnum):
    """How fresh what the agent knows is. `stale`: central answers, but the last full pass over its feed is old."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Banner:
    """What the machine's screen says around the decision, and where its files are.

    Times are text for people. `token` proves that a report comes from this attempt of this node; empty when nothing
    is being installed. `base_url` is the agent's, without a slash at its end. `local_boot`: how this machine gets to
    its disk.
    """

    mac: str
    site: str
    link: Link
    state: str
    offline_since: str = "unknown"
    last_sync: str = "never"
    base_url: str = ""
    token: str = ""
    local_boot: LocalBoot = LocalBoot.SANBOOT


def quote(value: str) -> str:
    """One line of text that cannot act, whatever a machine put into it: at most 120 inert ASCII characters.

    Of a `#` or `;` nothing is left that iPXE could take for a comment or the start of a command.
    """
    return _ACTIVE.sub("_", " ".join(value[: 4 * VALUE_LENGTH].split()))[:VALUE_LENGTH]


def words(text: str) -> str:
    """An administrator's command line, as words that stay one command and expand nothing. What this would change is
    refused when a workflow is made (`acting_word`)."""
    kept = (_EXPANSION.sub("{", re.sub(r"[^\x21-\x7e]", "", word)) for word in text.split())
    return " ".join([word for word in kept if word and word not in _ACTING_WORDS and word[0] != "#"][:MAX_WORDS])


def acting_word(text: str) -> str | None:
    """The first word that could not stand in a script as it is."""
    return next((word for word in text.split() if words(word) != word), None)


def render(decision: Decision, banner: Banner) -> str:
    """The whole script. It always ends in a boot of the local disk or in `exit 1`, the firmware's next device."""
    return "\n".join(["#!ipxe", *_head(banner), "", *_screen(decision, banner), "", *_commands(decision, banner), ""])


# Firmware waits for ever on a server that accepts and says nothing, unless it is told not to. Milliseconds without any
# progress: a decision takes a second at most, a file may first have to come over the site's WAN.
_PATIENCE = {"script": 10_000, "file": 60_000}

# `:uristring` leaves `&` and `+` of a maker's name as they are and sends a UUID as raw bytes, which cuts the query
# short at the first zero (docs/decisions/0004); `:hexraw` carries any bytes.
_FACTS = {
    "uuid": "${uuid}",
    "serial.hex": "${serial:hexraw}",
    "manufacturer.hex": "${manufacturer:hexraw}",
    "product.hex": "${product:hexraw}",
    "platform": "${platform:uristring}",
    "buildarch": "${buildarch:uristring}",
}


def entry(base_url: str = "", local_boot: LocalBoot = LocalBoot.SANBOOT) -> str:
    """The script every machine of a site is pointed at: it asks for its own, and carries its hardware facts there.

    Without `base_url` the address is relative, so it holds behind whatever name or port the machine reached the agent
    by; a script that did not come over HTTP needs the agent's HTTP address. `--replace`: a script that says `exit 1`
    must not come back here and boot the disk after all. `local_boot` is the site's: a node that gets no script
    (`http-404`) boots its disk from here.
    """
    facts = "&".join(f"{name}={setting}" for name, setting in _FACTS.items())
    base = f"{_word(base_url)}/" if base_url else ""
    return "\n".join(
        [
            "#!ipxe",
            "# PureBoot Agent",
            "",
            f"chain --timeout {_PATIENCE['script']} --replace --autofree "
            f"{base}boot/${{netX/mac:hexhyp}}?{facts} || goto local",
            "",
            ":local",
            "echo PureBoot: this site's agent gave no boot script. Booting the local disk.",
            *_local_disk(local_boot),
            "",
        ]
    )


def fallback(reason: str, local_boot: LocalBoot = LocalBoot.SANBOOT) -> str:
    """For when not even a decision could be made."""
    disk = _local_disk(local_boot)
    return "\n".join(["#!ipxe", "# PureBoot Agent", "", f"echo PureBoot: {quote(reason)}", *disk, ""])


# `exit` without 1 ends in OVMF's set-up screen and stays there.
_NEXT_DEVICE = ["exit 1"]


def _local_disk(method: LocalBoot) -> list[str]:
    """Where there is a script after all, leaving it is the nearest to none (`http-404`)."""
    return ["sanboot --no-describe --drive 0x80 || exit 1"] if method is LocalBoot.SANBOOT else _NEXT_DEVICE


def _head(banner: Banner) -> list[str]:
    title = {Link.OFFLINE: "# PureBoot Agent - OFFLINE MODE", Link.STALE: "# PureBoot Agent - STALE"}
    lines = [
        title.get(banner.link, "# PureBoot Agent"),
        f"# MAC: {quote(banner.mac)}",
        f"# Site: {quote(banner.site)}",
        f"# Cached State: {quote(banner.state)}",
    ]
    return [*lines, f"# Offline Since: {quote(banner.offline_since)}"] if banner.link is Link.OFFLINE else lines


def _screen(decision: Decision, banner: Banner) -> list[str]:
    action, reason = _action(decision)
    last = [f"echo   {quote(reason)}"] if reason else []
    if banner.link is Link.ONLINE:
        return [f"echo PureBoot: {action} (node state: {quote(banner.state)})", *last]
    central = {
        Link.OFFLINE: ("OFFLINE", "Central controller is unreachable."),
        Link.STALE: ("STALE", "Central controller answers, but has not been heard out for a while."),
    }[banner.link]
    return [
        "echo",
        f"echo *** PureBoot Site Agent - {central[0]} ***",
        "echo",
        f"echo   {central[1]}",
        "echo   Operating from cached state.",
        f"echo   Node state: {quote(banner.state)}",
        f"echo   Last sync: {quote(banner.last_sync)}",
        *last,
        "echo",
        f"echo   Proceeding with {action}...",
        "echo",
    ]


def _action(decision: Decision) -> tuple[str, str]:
    match decision:
        case LocalDisk(reason):
            return "local disk", reason
        case Discover(reason):
            return "discovery, then local disk", reason
        case Halt(reason):
            return "no action", reason
        case Install(workflow, attempt):
            return f"install of {quote(workflow.name)}, attempt {attempt}", ""


def _commands(decision: Decision, banner: Banner) -> list[str]:
    match decision:
        case Install(workflow):
            return _install(workflow, banner)
        case Halt():
            return _NEXT_DEVICE
        case _:
            return _local_disk(banner.local_boot)


def _install(workflow: Workflow, banner: Banner) -> list[str]:
    commands: list[str]
    match workflow.install_method:
        case InstallMethod.KERNEL:
            commands = _kernel(workflow, banner)
        case InstallMethod.SANBOOT:
            commands = [f"sanboot --no-describe {_boot_url(workflow, banner)} || goto failed"]
        case InstallMethod.CHAIN:
            patience = f"--timeout {_PATIENCE['file']}"
            commands = [f"chain {patience} --autofree {_boot_url(workflow, banner)} || goto failed"]
    return [
        *commands,
        "",
        ":failed",
        "echo PureBoot: the install could not be started. Booting the local disk.",
        "imgfree ||",
        *_local_disk(banner.local_boot),
    ]


def _kernel(workflow: Workflow, banner: Banner) -> list[str]:
    names = [f"initrd{i}" for i in range(len(workflow.initrd))]
    arguments = [
        *(f"initrd={name}" for name in names),
        words(workflow.cmdline),
        f"pureboot.url={_word(banner.base_url)}",
        f"pureboot.mac={_word(banner.mac)}",
        f"pureboot.token={_word(banner.token)}",
    ]
    line = " ".join(word for word in arguments if word)
    patience = f"--timeout {_PATIENCE['file']}"
    return [
        f"kernel {patience} {_file(workflow.kernel, banner)} {line} || goto failed",
        *(
            f"initrd {patience} --name {name} {_file(path, banner)} || goto failed"
            for name, path in zip(names, workflow.initrd, strict=True)
        ),
        "boot || goto failed",
    ]


def _boot_url(workflow: Workflow, banner: Banner) -> str:
    return _file(workflow.boot_file, banner) if workflow.boot_file else _word(workflow.boot_url)


def _file(name: str, banner: Banner) -> str:
    return f"{_word(banner.base_url)}/files/{percent(name)}?token={percent(banner.token)}"


def _word(text: str) -> str:
    """One word: what a machine says of itself (its Host header) is no further argument of a kernel."""
    return words(text).replace(" ", "%20")
