"""The command as a whole: its help, its speed, its reference, and how the demo tells its story."""

import io
import json
import logging
import subprocess
import sys

import pytest
from rich.console import Console
from rich.live import Live
from typer.testing import CliRunner

from pureboot import __version__
from pureboot.cli import reference
from pureboot.cli.demo.perform import Summary
from pureboot.cli.demo.view import Lines, Phase, Picture, Scene
from pureboot.cli.main import app
from pureboot.cli.serve import JsonLines


def test_the_reference_says_what_the_code_says():
    assert (reference.DOCS / "cli.md").read_text() == reference.cli_page(), "run `python -m pureboot.cli.reference`"


def test_the_settings_page_says_what_the_code_says():
    page = (reference.DOCS / "settings.md").read_text()
    assert page == reference.settings_page(), "run `python -m pureboot.cli.reference`"


def test_the_reference_names_every_command():
    page = reference.cli_page()
    for command in (
        "demo",
        "central run",
        "agent init",
        "agent sync",
        "site token",
        "node approve",
        "conflict resolve",
    ):
        assert f"### pureboot {command}\n" in page
    assert "| `--autonomy-level` | What it may do without central. One of: `readonly`, `limited`, `full`. |" in page


def test_help_loads_nothing_that_it_does_not_show():
    """What makes it slow is what is imported; seconds differ from host to host."""
    code = (
        "import sys; from typer.testing import CliRunner; from pureboot.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('pydantic', 'httpx2', 'fastapi', 'starlette', 'sqlalchemy', 'uvicorn', 'rich.console')"
        " if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"


def test_the_version():
    assert CliRunner().invoke(app, ["--version"]).output == f"pureboot {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["agent"], ["site"]])
def test_a_group_alone_shows_its_help(arguments):
    assert "Commands:" in CliRunner().invoke(app, arguments).output


def test_a_line_of_the_log_as_json():
    record = logging.LogRecord("pureboot.agent", logging.INFO, __file__, 1, "port %d", (8080,), None)
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["logger"], line["message"]) == ("info", "pureboot.agent", "port 8080")
    assert line["time"].endswith("+00:00")


class TestTheDemosStory:
    @pytest.fixture
    def console(self):
        return Console(file=io.StringIO(), width=120)

    def test_in_lines(self, console):
        lines = Lines(console)
        good, bad = Phase("Machines boot"), Phase("The outbox drains")
        for phase in (good, bad):
            lines.begin(phase)
        good.end("25 of 25")
        bad.end("it did not [red]", failed=True)
        lines.see(Scene())
        for phase in (good, bad):
            lines.end(phase)
        said = console.file.getvalue().splitlines()
        assert said[0].endswith("s  ok      Machines boot: 25 of 25")
        assert said[1].endswith("s  FAILED  The outbox drains: it did not [red]")

    def test_in_a_picture(self, console):
        picture = Picture(Live(console=console))
        phase = Phase("Machines boot")
        picture.begin(phase)
        phase.end("25 of 25")
        picture.end(phase)
        picture.see(Scene("dead", "offline", 12, None, 50, 0.25))
        console.print(picture.render())
        said = console.file.getvalue()
        assert "✓" in said
        for words in ("Machines boot", "25 of 25", "dead", "offline", "12", "0.25 s"):
            assert words in said

    def test_its_end(self):
        phase = Phase("Machines boot")
        phase.end("no", failed=True)
        summary = Summary(phases=[phase], logs={"agent": "last words"}, kept={"central": "http://x"}, seconds=3)
        assert json.loads(json.dumps(summary.as_dict()))["phases"][0]["ok"] is False
        text = "\n".join(summary.lines())
        assert "last words" in text
        assert "The demo failed" in text
        assert "http://x" in text
