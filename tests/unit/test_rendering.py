"""Templates: a sandbox with documented variables, and nothing an administrator's slip could stop."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pureboot.core.errors import Invalid
from pureboot.core.ipxe import acting_word
from pureboot.rendering.language import FILE_BYTES, VARIABLES, check_file, check_line, render_line
from pureboot.rendering.renderer import Renderer

VALUES = {
    "node": {"mac": "52:54:00:aa:bb:01", "hostname": "web1", "serial_number": "a b\tc", "vendor": ""},
    "site": {"name": "attic"},
    "token": "secret",
}


@pytest.fixture
async def renderer() -> AsyncIterator[Renderer]:
    renderer = Renderer()
    yield renderer
    await renderer.aclose()


# Lines


def test_a_line_takes_variables_and_makes_each_one_word() -> None:
    line = "hostname={{ node.hostname | default('x') }} serial={{ node.serial_number }} {{ token|upper }}"
    assert render_line(line, VALUES) == "hostname=web1 serial=a_b_c SECRET"


def test_a_line_without_braces_is_left_alone() -> None:
    assert render_line("quiet a\\b %7B", {}) == "quiet a\\b %7B"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{% for a in range(9) %}{% endfor %}", "for cannot stand in one line"),
        ("{{ 'a' * 1000000000 }}", "mul cannot stand in one line"),
        ("{{ node.mac.__class__ }}", "getattr"),
        ("{{ node.mac|center(1000000000) }}", "the filter center cannot"),
        ("{{ node.mac() }}", "call cannot"),
        ("{{ hostname }}", "no variable hostname"),
        ("{{ node.host }}", "no variable node.host"),
        ("{{ node.mac", "Line 1 of the template"),
        ("{{ " + "(" * 5000, "nested too deeply|Line 1"),
    ],
)
def test_what_a_line_must_not_do_is_refused_before_it_is_rendered(line: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        check_line(line)


def test_what_is_undefined_after_all_is_an_error() -> None:
    with pytest.raises(Invalid, match="cannot be rendered"):
        render_line("{{ node.model }}", VALUES)


# Files


async def test_a_file_decides_loops_and_quotes(renderer: Renderer) -> None:
    text = (
        "{% set disks = ['sda', 'sdb'] %}{% for d in disks %}{{ loop.index }}={{ d }}\n{% endfor %}"
        "{% if node.vendor %}v{% else %}none{% endif %} {{ node.serial_number|shell }} {{ node.hostname|tojson }}\n"
    )
    assert await renderer.render(text, VALUES) == "1=sda\n2=sdb\nnone 'a b\tc' \"web1\"\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("one\n{{ hostname }}", "Line 2 of the template: there is no variable hostname"),
        ("{{ node.host }}", "no variable node.host"),
        ("{% if %}", "Line 1"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "cannot be rendered"),
        ("{{ 1/0 }}", "ZeroDivisionError"),
        ("{% for a in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", f"more than {FILE_BYTES}"),
    ],
)
async def test_a_fault_is_told_and_the_next_file_is_rendered(renderer: Renderer, text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        await renderer.render(text, VALUES)
    assert await renderer.render("{{ token }}", VALUES) == "secret"


ENDLESS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
GREEDY = "{% set x = namespace(s='x') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}"


@pytest.mark.parametrize(("text", "says"), [(ENDLESS, "longer than 0.5 s"), (GREEDY, "memory|longer")])
async def test_a_loop_without_end_is_stopped_and_stops_nothing(text: str, says: str) -> None:
    renderer = Renderer(patience=0.5)
    check_file(text)
    with pytest.raises(Invalid, match=says):
        await renderer.render(text, VALUES)
    stopped = renderer.pid
    assert await renderer.render("{{ token }}", VALUES) == "secret"
    assert renderer.pid != stopped or stopped is not None
    await renderer.aclose()


async def test_a_process_left_alone_in_a_loop_ends_by_itself() -> None:
    """As after a kill -9 of the agent: nobody is left to kill it."""
    renderer = Renderer(patience=60)
    with pytest.raises(Invalid, match="too much time or memory"):
        await renderer.render(ENDLESS, VALUES)
    await renderer.aclose()


async def test_many_at_once_each_get_their_own(renderer: Renderer) -> None:
    rendered = await asyncio.gather(*(renderer.render("{{ token }}", {"token": str(n)}) for n in range(50)))
    assert rendered == [str(n) for n in range(50)]


async def test_who_goes_away_in_the_middle_harms_nobody(renderer: Renderer) -> None:
    waiting = asyncio.create_task(renderer.render(ENDLESS, VALUES))
    await asyncio.sleep(0.5)
    waiting.cancel()
    assert await renderer.render("{{ token }}", VALUES) == "secret"


async def test_a_killed_process_is_replaced(renderer: Renderer) -> None:
    await renderer.render("", VALUES)
    assert renderer.pid
    os.kill(renderer.pid, 9)
    await asyncio.sleep(0.2)
    assert await renderer.render("{{ token }}", VALUES) == "secret"


async def test_an_idle_process_is_given_back() -> None:
    renderer = Renderer(idle=0.05)
    await renderer.render("", VALUES)
    async with asyncio.timeout(10):
        while renderer.pid:
            await asyncio.sleep(0.01)
    await renderer.aclose()


def test_every_variable_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()
    assert [name for name in VARIABLES if f"`{name}`" not in text] == []


# The examples

EXAMPLES = Path(__file__).parents[2] / "examples" / "workflows"
FULL = {
    "node": {name.partition(".")[2]: "x" for name in VARIABLES if name.startswith("node.")},
    "site": {"id": "s1", "name": "Lab 1"},
    "workflow": {"id": "w1", "name": "debian"},
    "agent": {name.partition(".")[2]: f"http://agent/{name}" for name in VARIABLES if name.startswith("agent.")},
    "token": "secret",
}


@pytest.mark.parametrize("path", ["debian-12/preseed.cfg", "ubuntu-24.04/user-data", "ubuntu-24.04/meta-data"])
async def test_the_examples_answer_files_can_be_rendered(renderer: Renderer, path: str) -> None:
    text = await renderer.render((EXAMPLES / path).read_text(), FULL)
    assert "{{" not in text
    report = "boot_token=secret http://agent/agent.report"
    assert (report in " ".join(text.split())) == (path != "ubuntu-24.04/meta-data")


@pytest.mark.parametrize("name", ["debian-12", "ubuntu-24.04"])
def test_the_examples_command_lines_can_be_rendered(name: str) -> None:
    [line] = re.findall('--cmdline "(.*)"', (EXAMPLES / name / "create.sh").read_text())
    assert "http://agent/agent.templates" in render_line(line, FULL)
    assert acting_word(line) is None
