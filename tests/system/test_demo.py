"""The demo is the product's claim. It must hold, clean up after itself, and fail when the claim is false."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from rich.console import Console

from pureboot.cli.demo.perform import Summary, perform
from pureboot.cli.demo.story import Story
from pureboot.cli.demo.view import Lines
from pureboot.simulator.ledger import Acknowledged

pytestmark = pytest.mark.timeout(180)

DEMO = [sys.executable, "-m", "pureboot", "demo"]


@pytest.fixture
def environment(tmp_path):
    """The demo's folder goes under `tmp_path`, so that a test sees what is left of it."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


def running_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_nothing_that_was_acknowledged_is_lost(environment, tmp_path):
    began = time.monotonic()
    result = subprocess.run([*DEMO, "--json"], env=environment, check=False, capture_output=True, text=True)
    seconds = time.monotonic() - began
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["ok"]
    assert len(summary["phases"]) == 12
    assert all(phase["ok"] for phase in summary["phases"])
    checked = summary["checked"]
    assert checked["acknowledged"] == checked["found"] > 300
    assert (checked["missing"], checked["twice"], checked["out_of_order"]) == ([], [], [])
    assert summary["boots"]["count"] >= 150
    assert seconds < 60
    assert list(tmp_path.iterdir()) == []
    assert running_in(tmp_path) == []


def test_elsewhere_than_on_a_terminal_each_phase_is_a_line(environment):
    result = subprocess.run(
        [*DEMO, "--machines", "5"], env=environment, check=False, capture_output=True, text=True, cwd="/"
    )
    assert result.returncode == 0, result.stdout
    assert len(re.findall(r"^ *[\d.]+ s  ok ", result.stdout, re.MULTILINE)) == 12
    assert "0 twice, 0 out of order" in result.stdout
    assert "\x1b" not in result.stdout


def _look_around(kept: dict[str, str]) -> None:
    """There is a living example of each page; what is shown on it is looked at elsewhere."""
    name, password = re.findall(r"as (\S+), password (\S+)", kept["sign in"])[0]
    with httpx2.Client(base_url=kept["central"], trust_env=False, headers={"Origin": kept["central"]}) as browser:
        assert browser.post("/sign-in", data={"name": name, "password": password}).status_code == 303
        for area in ("sites", "nodes", "conflicts", "workflows", "content", "alerts", "people"):
            page = browser.get(f"/{area}")
            assert page.status_code == 200, area
            assert 'class="empty"' not in page.text, area
    token = {"Authorization": f"Bearer {Path(kept['admin token']).read_text().strip()}"}
    waiting = httpx2.get(f"{kept['central']}/api/v1/conflicts", headers=token, trust_env=False).json()["items"]
    assert [conflict["local_state"] for conflict in waiting] == ["active"]
    site = httpx2.get(f"{kept['agent']}/", trust_env=False).text
    assert "already_resolved" in site
    assert "Keep what the site did" in site


def test_kept_it_goes_on_and_says_where(environment, tmp_path):
    result = subprocess.run(
        [*DEMO, "--keep", "--json", "--machines", "5"], env=environment, check=False, capture_output=True, text=True
    )
    kept = json.loads(result.stdout)["kept"]
    try:
        assert result.returncode == 0, result.stderr
        for program in ("central", "agent"):
            assert httpx2.get(f"{kept[program]}/health", trust_env=False).is_success
        assert Path(kept["admin token"]).stat().st_mode & 0o777 == 0o600
        _look_around(kept)
    finally:
        subprocess.run(["sh", "-c", kept["to stop"]], check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_it_leaves_nothing(environment, tmp_path, number, code):
    # A shell that runs the tests in the background lets them, and what they start, ignore SIGINT.
    command = ["env", "--default-signal=INT", *DEMO]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as demo:
        assert demo.stdout is not None
        said = demo.stdout.readline()
        assert "ok" in said
        assert running_in(tmp_path)
        demo.send_signal(number)
        said += demo.stdout.read()
    assert demo.returncode == code, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert running_in(tmp_path) == []


class Forgetful(Story):
    """Machines were promised something that nobody kept."""

    async def check(self) -> str:
        promised = self.stage.ledger.acknowledged[0]
        self.stage.ledger.note(Acknowledged("lost", promised.mac, promised.what, "queued"))
        return await super().check()


async def told(story: type[Story]) -> Summary:
    return await perform(Lines(Console(quiet=True)), machines=5, write=story)


async def test_a_lost_promise_fails_it():
    summary = await told(Forgetful)
    assert not summary.ok
    assert len(summary.checked["missing"]) == 1
    assert "central serves" in summary.logs["central"]
    assert "The end of agent's log" in "\n".join(summary.lines())


class Deaf(Story):
    """Central comes back, and the line to it does not."""

    async def drain(self) -> str:
        self.stage.wan.kill()
        return await super().drain()


async def test_an_outbox_that_does_not_drain_fails_it(monkeypatch):
    monkeypatch.setattr("pureboot.cli.demo.story.PATIENCE", 4.0)
    summary = await told(Deaf)
    assert not summary.ok
    assert summary.phases[-1].outcome == "Waited 4 s until the outbox is empty, and it is not so."


class Unlucky(Story):
    """Central dies when nobody meant it to."""

    async def install(self) -> str:
        self.stage.central.kill()
        return await super().install()


async def test_a_death_that_is_not_in_the_story_fails_it():
    summary = await told(Unlucky)
    assert not summary.ok
    assert summary.phases[-1].title == "They are approved and install"
    assert summary.phases[-1].outcome
