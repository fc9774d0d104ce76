"""Boot scripts, compared whole with `tests/golden/*.ipxe`, and shown to be safe whatever stands in them.

Each golden script is one decision as a machine gets it, banner and all. To write them anew after a change that is
meant, say so, then read every line of the difference:

    PUREBOOT_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/unit/test_ipxe.py -k golden && git diff tests/golden
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pureboot.core.boot import (
    Decision,
    DefaultAction,
    Discover,
    Halt,
    Install,
    KnownNode,
    LocalDisk,
    Site,
    UnknownNode,
    decide,
)
from pureboot.core.ipxe import (
    MAX_WORDS,
    VALUE_LENGTH,
    Banner,
    Link,
    acting_word,
    entry,
    fallback,
    quote,
    render,
    words,
)
from pureboot.core.lifecycle import Autonomy, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import DoneWhen, InstallMethod, LocalBoot, Workflow

GOLDEN = Path(__file__).parents[1] / "golden"
WRITE = os.environ.get("PUREBOOT_WRITE_GOLDEN") == "1"

HOUR = 3600.0
NOW = 100 * HOUR

DEBIAN = Workflow(
    "w1",
    "debian-13",
    InstallMethod.KERNEL,
    kernel="images/debian-13/vmlinuz",
    initrd=("images/debian-13/initrd.gz", "images/debian-13/firmware.cpio.gz"),
    cmdline="auto=true priority=critical ds=nocloud;s=http://10.0.0.2:8080/templates/debian/ console=ttyS0,115200n8",
)
SILENT = replace(DEBIAN, done_when=DoneWhen.NEXT_BOOT)
ISO = Workflow("w2", "rescue-iso", InstallMethod.SANBOOT, boot_url="http://10.0.0.2:8080/files/images/rescue.iso")
CHAINED = Workflow("w3", "vendor-tool", InstallMethod.CHAIN, boot_url="http://10.0.0.9/vendor.ipxe")

ONLINE = Banner(
    mac="52:54:00:aa:bb:01",
    site="Lisbon",
    link=Link.ONLINE,
    state="",
    offline_since="2026-01-28T09:15:00Z",
    last_sync="2026-01-28T09:14:30Z",
    base_url="http://10.0.0.2:8080",
    token="k3Yt_b0ot-token",
)
LINKS = {link.value: replace(ONLINE, link=link) for link in Link}


def node(stage: str, workflow: Workflow | None = DEBIAN, **known) -> KnownNode:
    state, _, attempt = stage.partition("/")
    return KnownNode(Stage(NodeState(state), int(attempt or 0)), workflow, **{"approved_at": NOW - HOUR, **known})


def told(known: KnownNode | UnknownNode, site: str, link: str) -> str:
    """The script that the machine gets: decided, and shown with the stage that the decision leads to."""
    level, _, action = site.partition(" ")
    view = Site(Autonomy(level), link != "offline", DefaultAction(action or "local"))
    decision = decide(known, view, NOW)
    return render(decision, replace(LINKS[link], state=shown(known, decision)))


def shown(known: KnownNode | UnknownNode, decision: Decision) -> str:
    match known, decision:
        case _, Discover():
            return "discovered"
        case UnknownNode(), _:
            return "unknown"
        case KnownNode(stage), LocalDisk(_, edges) | Install(_, _, edges):
            return str(edges[-1].target if edges else stage)
        case KnownNode(stage), _:
            return str(stage)


def by_exit(stage: str) -> str:
    banner = replace(ONLINE, state=stage, local_boot=LocalBoot.EXIT)
    return render(decide(node(stage), Site(Autonomy.LIMITED, online=True), NOW), banner)


# What the script shows -> who asks, at which site (its level and, offline, its default action), over which link.
SCRIPTS: dict[str, tuple[KnownNode | UnknownNode, str, str]] = {
    "discovered-waits-to-be-approved": (node("discovered", None), "limited", "online"),
    "discovered-waits-to-be-approved-offline": (node("discovered", None), "limited", "offline"),
    "pending-installs": (node("pending"), "limited", "online"),
    "pending-installs-stale": (node("pending"), "limited", "stale"),
    "pending-installs-offline": (node("pending"), "limited", "offline"),
    "pending-installs-from-an-iso": (node("pending", ISO), "limited", "online"),
    "pending-installs-from-an-iso-offline": (node("pending", ISO), "limited", "offline"),
    "pending-installs-by-another-script": (node("pending", CHAINED), "limited", "online"),
    "pending-installs-by-another-script-offline": (node("pending", CHAINED), "limited", "offline"),
    "pending-waits-at-a-readonly-site-offline": (node("pending"), "readonly", "offline"),
    "pending-waits-for-content-offline": (node("pending", missing=DEBIAN.content), "full", "offline"),
    "pending-waits-because-its-approval-is-old-offline": (
        node("pending", approved_at=NOW - 30.5 * HOUR),
        "limited",
        "offline",
    ),
    "pending-waits-because-the-clock-is-unknown-offline": (node("pending", approved_at=None), "limited", "offline"),
    "pending-waits-because-its-workflow-is-unknown": (node("pending", None), "limited", "online"),
    "reprovision-installs": (node("reprovision"), "limited", "online"),
    "reprovision-installs-offline": (node("reprovision"), "limited", "offline"),
    "installing-is-served-the-same-attempt": (node("installing/2"), "limited", "online"),
    "installing-is-served-the-same-attempt-offline": (node("installing/2"), "readonly", "offline"),
    "installing-starts-over": (node("installing/1", begun=True), "limited", "online"),
    "installing-starts-over-offline": (node("installing/1", begun=True), "limited", "offline"),
    "installing-does-not-start-over-at-a-readonly-site-offline": (
        node("installing/1", begun=True),
        "readonly",
        "offline",
    ),
    "installing-waits-for-content-offline": (node("installing/1", missing=DEBIAN.content), "limited", "offline"),
    "installing-failed-for-the-third-time": (node("installing/3", begun=True), "limited", "online"),
    "installing-failed-for-the-third-time-offline": (node("installing/3", begun=True), "limited", "offline"),
    "installing-is-done-when-it-comes-back": (node("installing/1", SILENT, begun=True), "limited", "online"),
    "installing-is-done-when-it-comes-back-offline": (node("installing/1", SILENT, begun=True), "limited", "offline"),
    "install-failed-needs-somebody": (node("install_failed/3"), "limited", "online"),
    "install-failed-needs-somebody-offline": (node("install_failed/3"), "limited", "offline"),
    "installed-boots-its-disk": (node("installed/1"), "limited", "online"),
    "installed-boots-its-disk-offline": (node("installed/1"), "limited", "offline"),
    "active-boots-its-disk": (node("active/1"), "limited", "online"),
    "active-boots-its-disk-stale": (node("active/1"), "limited", "stale"),
    "active-boots-its-disk-offline": (node("active/1"), "limited", "offline"),
    "migrating-boots-its-disk": (node("migrating"), "limited", "online"),
    "migrating-boots-its-disk-offline": (node("migrating"), "limited", "offline"),
    "serving-source-boots-its-disk": (node("serving_source"), "limited", "online"),
    "serving-source-boots-its-disk-offline": (node("serving_source"), "limited", "offline"),
    "cloning-target-boots-its-disk": (node("cloning_target"), "limited", "online"),
    "cloning-target-boots-its-disk-offline": (node("cloning_target"), "limited", "offline"),
    "deprovisioning-boots-its-disk": (node("deprovisioning"), "limited", "online"),
    "deprovisioning-boots-its-disk-offline": (node("deprovisioning"), "limited", "offline"),
    "retired-goes-to-its-next-device": (node("retired"), "limited", "online"),
    "retired-goes-to-its-next-device-offline": (node("retired"), "limited", "offline"),
    "disputed-is-not-touched": (node("pending", disputed=True), "limited", "online"),
    "disputed-is-not-touched-offline": (node("pending", disputed=True), "limited", "offline"),
    "unknown-is-registered": (UnknownNode(), "limited", "online"),
    "unknown-boots-its-disk-offline": (UnknownNode(), "limited local", "offline"),
    "unknown-is-registered-offline": (UnknownNode(), "limited discovery", "offline"),
    "unknown-boots-its-disk-as-last-known-offline": (UnknownNode(NodeState.ACTIVE), "limited last_known", "offline"),
    "unknown-goes-to-its-next-device-as-last-known-offline": (
        UnknownNode(NodeState.RETIRED),
        "limited last_known",
        "offline",
    ),
}
WHOLE: dict[str, Callable[[], str]] = {
    "entry": entry,
    "entry-where-disks-boot-by-exit": lambda: entry(local_boot=LocalBoot.EXIT),
    "autoexec": lambda: entry("http://192.0.2.1:8080"),
    "active-boots-its-disk-by-exit": lambda: by_exit("active/1"),
    "pending-installs-where-disks-boot-by-exit": lambda: by_exit("pending"),
    "fallback": lambda: fallback("This site's agent could not decide in time. Booting the local disk."),
}
GOLDEN_NAMES = [*SCRIPTS, *WHOLE]


def script(name: str) -> str:
    return WHOLE[name]() if name in WHOLE else told(*SCRIPTS[name])


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_the_script_is_the_golden_one(name):
    path = GOLDEN / f"{name}.ipxe"
    if WRITE:
        path.write_text(script(name), newline="\n")
    assert script(name) == path.read_bytes().decode()


def test_every_golden_script_is_compared():
    assert {path.stem for path in GOLDEN.glob("*.ipxe")} == set(GOLDEN_NAMES)


def test_every_state_has_a_golden_script_online_and_offline():
    shown = {(asks.stage.state, link) for asks, _, link in SCRIPTS.values() if isinstance(asks, KnownNode)}
    assert shown >= {(state, link) for state in NodeState for link in ("online", "offline")}


# iPXE, as far as it tells commands apart. Written from script.c (lines, continuations, labels) and exec.c (words,
# terminators, comments), in bytes as there, and sharing nothing with the code under test.

WHITESPACE = b" \t\n\v\f\r"
JOINTS = {b"||", b"&&", b";"}


@dataclass(frozen=True)
class Line:
    """`words` without joints and comments, one list for each command; `joints` between (and behind) them."""

    label: bytes | None
    words: tuple[tuple[bytes, ...], ...]
    joints: tuple[bytes, ...]

    @property
    def commands(self) -> tuple[bytes, ...]:
        return tuple(command[0] for command in self.words if command)

    @property
    def shape(self) -> tuple[object, ...]:
        return self.label, self.commands, self.joints


def lines(text: str) -> list[Line]:
    """What iPXE runs, line by line. Empty lines and comments count: a value may not add or swallow any."""
    found = []
    carried = b""
    for raw in text.encode("utf-8", "surrogatepass").split(b"\n"):
        line = carried + raw.removesuffix(b"\r")
        carried = b""
        if line.endswith(b"\\"):
            carried = line[:-1]
            continue
        found.append(parsed(line.split(b"\0")[0].lstrip(WHITESPACE)))
    return found


def parsed(line: bytes) -> Line:
    label = None
    if line.startswith(b":"):
        label, *rest = re.split(rb"[ \t\n\v\f\r]", line[1:], maxsplit=1)
        line = b"".join(rest)
    commands: list[list[bytes]] = [[]]
    joints: list[bytes] = []
    for word in re.findall(rb"[^ \t\n\v\f\r]+", line):
        if word.startswith(b"#"):
            break
        if word in JOINTS:
            joints.append(word)
            commands.append([])
        else:
            commands[-1].append(word)
    return Line(label, tuple(tuple(command) for command in commands), tuple(joints))


def shape(text: str) -> list[tuple[object, ...]]:
    """Labels, names of commands and what joins them, in order."""
    return [line.shape for line in lines(text)]


def test_the_model_of_ipxe_sees_what_acts():
    acting = ["echo a ; reboot", "echo b || shell && x", ":label exit 1", "# echo no", "echo a;b #c || d"]
    assert shape("\n".join([*acting, "echo \\", "long", "echo\0|| x"])) == [
        (None, (b"echo", b"reboot"), (b";",)),
        (None, (b"echo", b"shell", b"x"), (b"||", b"&&")),
        (b"label", (b"exit",), ()),
        (None, (), ()),
        (None, (b"echo",), ()),
        (None, (b"echo",), ()),
        (None, (b"echo",), ()),
    ]


# What holds for every golden script.


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_a_script_begins_with_the_shebang_at_its_first_byte_and_ends_with_a_newline(name):
    assert script(name).startswith("#!ipxe\n")
    assert script(name).endswith("\n")
    assert script(name).isascii()


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_every_command_that_can_fail_is_guarded(name):
    for line in lines(script(name)):
        if line.commands and line.commands[0] not in {b"echo", b"exit"}:
            assert line.joints == (b"||",)
            assert line.words[1] in {(), (b"exit", b"1"), (b"goto", b"failed"), (b"goto", b"local")}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_every_label_a_script_goes_to_is_in_it_once_and_further_down(name):
    every = lines(script(name))
    for number, line in enumerate(every):
        for command in line.words:
            if command[:1] == (b"goto",):
                assert [at for at, other in enumerate(every) if other.label == command[1]] > [number]


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_a_script_ends_at_the_local_disk_or_the_next_device_and_never_at_a_bare_exit(name):
    last = [line for line in lines(script(name)) if line.commands][-1]
    assert last.words[-1] == (b"exit", b"1")
    assert last.commands in {(b"exit",), (b"sanboot", b"exit")}


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_only_the_entry_scripts_expand_settings(name):
    assert ("${" in script(name)) == name.startswith(("entry", "autoexec"))


@pytest.mark.parametrize("name", [name for name, (_, _, link) in SCRIPTS.items() if link == "offline"])
def test_an_offline_script_carries_the_banner_of_the_contract(name):
    """spec/phase-4, "Offline Boot Script Example", line by line."""
    text = script(name)
    state = re.search("^# Cached State: (.+)$", text, re.MULTILINE)
    assert state
    head = f"""\
#!ipxe
# PureBoot Agent - OFFLINE MODE
# MAC: 52:54:00:aa:bb:01
# Site: Lisbon
# Cached State: {state[1]}
# Offline Since: 2026-01-28T09:15:00Z

echo
echo *** PureBoot Site Agent - OFFLINE ***
echo
echo   Central controller is unreachable.
echo   Operating from cached state.
echo   Node state: {state[1]}
echo   Last sync: 2026-01-28T09:14:30Z
"""
    assert text.startswith(head)
    assert re.match(r"(echo   [A-Z].+\.\n)?echo\necho   Proceeding with .+\.\.\.\necho\n\n", text[len(head) :])


@pytest.mark.parametrize("name", [name for name, (_, _, link) in SCRIPTS.items() if link == "stale"])
def test_a_stale_script_says_so_and_does_not_claim_to_be_offline(name):
    assert "# PureBoot Agent - STALE" in script(name)
    assert "Last sync: 2026-01-28T09:14:30Z" in script(name)
    assert "OFFLINE" not in script(name).upper()


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_the_boot_token_is_given_to_an_install_only(name):
    installs = "kernel " in script(name)
    assert (ONLINE.token in script(name)) == installs


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_no_sentence_of_ours_is_cut_or_maimed(name):
    for line in re.findall("^(?:echo|#) .*$", script(name), re.MULTILINE):
        assert len(line) < VALUE_LENGTH
        assert not re.search("_(?![a-z])|(?<![a-z])_", line)


# Values that would act if they could. Every place a value can stand in, one after the other and all at once.

FRAGMENTS = [
    " ; reboot",
    " || shell",
    " && chain http://evil/",
    "\n:failed",
    "\nreboot",
    "\r\nreboot\r\n",
    "\rreboot",
    "\u2028reboot",
    "\u2029",
    "\x85reboot",
    "\x0breboot\x0c",
    "\x1c",
    "\0",
    "${net0/ip}",
    "$${net0/ip}",
    "$$${${net0/ip}}",
    "$\x01{net0/ip}",
    "$ {net0/ip}",
    " # ",
    " #hidden",
    "#",
    " \x01# ",
    " |\x01| ",
    "|",
    "&",
    ";",
    "$",
    "{",
    "\\",
    "\\\n",
    " -- ",
    "'",
    '"',
    "%0a",
    " ",
    "\t",
    "\u00a0",
    "é",
    "\u202e",
]
hostile = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=12).map("".join),
    st.sampled_from(FRAGMENTS).map(lambda fragment: fragment * 200),
    st.text(alphabet=st.characters(max_codepoint=0x2100), max_size=1000),
)
links = st.sampled_from(Link)

BENIGN = "value"
NO_BANNER = Banner(BENIGN, BENIGN, Link.ONLINE, BENIGN, BENIGN, BENIGN, BENIGN, BENIGN)

banners = st.builds(
    Banner,
    mac=hostile,
    site=hostile,
    link=links,
    state=hostile,
    offline_since=hostile,
    last_sync=hostile,
    base_url=hostile,
    token=hostile,
)
workflows = st.builds(
    Workflow,
    id=hostile,
    name=hostile,
    install_method=st.sampled_from(InstallMethod),
    kernel=hostile,
    initrd=st.lists(hostile, max_size=3).map(tuple),
    cmdline=hostile,
    boot_url=hostile,
)


def benign(workflow: Workflow) -> Workflow:
    return replace(
        workflow,
        name=BENIGN,
        kernel=BENIGN,
        initrd=tuple(BENIGN for _ in workflow.initrd),
        cmdline=BENIGN,
        boot_url=BENIGN,
    )


def check_nothing_acts(decision: Decision, harmless: Decision, banner: Banner) -> None:
    text = render(decision, banner)
    assert shape(text) == shape(render(harmless, replace(NO_BANNER, link=banner.link)))
    assert "${" not in text
    assert text.isascii()
    assert re.fullmatch(r"[\x20-\x7e\n]*", text)


@given(banners, st.integers(1, 3), workflows)
def test_no_value_can_add_a_command_to_an_install(banner, attempt, workflow):
    check_nothing_acts(Install(workflow, attempt), Install(benign(workflow), attempt), banner)


@given(banners, st.lists(hostile, min_size=1, max_size=5).map(tuple))
def test_no_name_of_missing_content_can_add_a_command(banner, missing):
    site = Site(Autonomy.FULL, online=False)
    for stage in ("pending", "installing/1"):
        decision, harmless = (
            decide(node(stage, missing=names), site, NOW) for names in (missing, tuple(BENIGN for _ in missing))
        )
        assert isinstance(decision, LocalDisk)
        check_nothing_acts(decision, harmless, banner)


@given(banners, hostile)
@example(NO_BANNER, "lost ; reboot")
def test_no_value_can_add_a_command_to_any_other_script(banner, reason):
    for make in (LocalDisk, Discover, Halt):
        check_nothing_acts(make(f"Because of {reason}"), make(f"Because of {BENIGN}"), banner)
    check_nothing_acts(LocalDisk(), LocalDisk(), banner)


@given(hostile)
def test_no_reason_can_add_a_command_to_the_fallback(reason):
    assert shape(fallback(reason)) == shape(fallback(BENIGN))
    assert "${" not in fallback(reason)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=ascii)
@pytest.mark.parametrize("field", ["name", "kernel", "cmdline", "boot_url"])
@pytest.mark.parametrize("method", InstallMethod)
def test_no_fragment_acts_in_a_workflow_wherever_it_stands(method, field, fragment):
    harmless = Workflow("w", BENIGN, method, BENIGN, (BENIGN,), BENIGN, BENIGN)
    for value in (fragment, f"a{fragment}", f"{fragment}b", f"a{fragment}b", f" {fragment} "):
        fields: dict[str, Any] = {field: value}
        check_nothing_acts(Install(replace(harmless, **fields), 1), Install(harmless, 1), NO_BANNER)


@given(mac=hostile, base_url=hostile, token=hostile)
def test_what_a_machine_says_of_itself_is_no_further_argument_of_its_kernel(mac, base_url, token):
    """Its Host header becomes the base of the files' addresses."""
    usual, odd = (
        lines(render(Install(DEBIAN, 1), banner))
        for banner in (ONLINE, replace(ONLINE, mac=mac, base_url=base_url, token=token))
    )
    for one, other in zip(usual, odd, strict=True):
        if one.commands and one.commands[0] in {b"kernel", b"initrd"}:
            assert len(one.words[0]) == len(other.words[0])


@given(hostile)
def test_a_quoted_value_is_one_short_line_of_inert_text(value):
    quoted = quote(value)
    assert len(quoted) <= VALUE_LENGTH
    assert not re.search(r"[^ -~]|[#;|&$`\"\\{}\[\]]", quoted)
    assert not quoted.startswith(" ")
    assert quote(quoted) == quoted.strip()


@given(st.text(alphabet="abcXYZ019 ._:/@%+=,()*?!~^<>'-", max_size=VALUE_LENGTH))
def test_an_ordinary_value_is_shown_as_it_is_but_for_runs_of_blanks(value):
    assert quote(value) == " ".join(value.split())


@pytest.mark.parametrize(
    "mac", ["52:54:00:aa:bb:01", "52-54-00-AA-BB-01"], ids=["as we write it", "as firmware writes it"]
)
def test_a_mac_is_shown_whole(mac):
    assert quote(str(MacAddress.parse(mac))) == "52:54:00:aa:bb:01"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        pytest.param(
            "ds=nocloud;s=http://10.0.0.2/?a=1&b=2 ip=dhcp", "ds=nocloud;s=http://10.0.0.2/?a=1&b=2 ip=dhcp", id="as is"
        ),
        pytest.param('root="LABEL=x y" a|b', 'root="LABEL=x y" a|b', id="quotes and bars inside a word"),
        pytest.param("quiet --- splash", "quiet --- splash", id="dashes"),
        pytest.param("http://h/x.iso#part", "http://h/x.iso#part", id="a fragment inside a word"),
        pytest.param("a\n  b\t c", "a b c", id="lines become words"),
        pytest.param("a ; b || c && d", "a b c d", id="joints are dropped"),
        pytest.param("a # b", "a b", id="a lone # is dropped"),
        pytest.param("a #b c", "a c", id="so is a word that begins with one"),
        pytest.param("ip=${net0/ip}", "ip={net0/ip}", id="an expansion is undone"),
        pytest.param("ip=$${net0/ip}", "ip={net0/ip}", id="also one behind another dollar"),
        pytest.param("cost=5$ {x}", "cost=5$ {x}", id="a dollar alone stays"),
        pytest.param("naïve", "nave", id="what is not ASCII is dropped"),
    ],
)
def test_an_administrators_words_stay_but_for_what_acts(written, kept):
    assert words(written) == kept


@given(hostile)
def test_words_are_a_fixed_point(text):
    assert words(words(text)) == words(text)


@given(hostile)
def test_a_command_line_without_an_acting_word_stands_in_the_script_word_for_word(text):
    if acting_word(text) is None:
        assert words(text).split() == text.split()[:MAX_WORDS]
    else:
        assert acting_word(text) in text.split()
        assert words(text).split() != text.split()[:MAX_WORDS]


def test_a_line_never_has_more_words_than_ipxe_can_split():
    """260 are too many for it."""
    endless = "a " * 10_000
    banner = replace(NO_BANNER, link=Link.OFFLINE, mac=endless, site=endless, base_url=endless, token=endless)
    for method in InstallMethod:
        workflow = Workflow("w", endless, method, endless, tuple("abcdefgh"), endless, endless)
        assert max(len(line.split()) for line in render(Install(workflow, 1), banner).splitlines()) < 230
