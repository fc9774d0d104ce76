"""Whatever answers, and whatever machines and people wrote into it: every command ends with words of its own."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from pureboot.cli import show
from pureboot.cli.main import app
from tests.fakes_cli import Asked, Canned, serving

MAC = "52:54:00:ab:bb:01"
# Markup, a title for the terminal, a colour, a turn of the line's direction, and a line that is none.
EVIL = "[/red]\x1b]0;owned\x07\x9b31m\u202e\nFORGED"
WORDS = """
account acknowledged_by agent_id category central_state central_updated_at command conflict_type credential decision
description digest event first_at from_state hostname item_id item_type kind last_error local_state local_updated_at
message name node_mac path person reason recorded_at resolution role severity site_name status summary told_at token who
"""
NUMBERS = "changed cleared failed fetched files freed left pending resolved revoked size unchanged version"
STAGE = {"state": EVIL, "attempt": 1}
ROW: dict[str, Any] = {
    **dict.fromkeys(WORDS.split(), EVIL),
    "id": "x1",
    "site_id": "x1",
    "mac_address": MAC,
    "state": "discovered",
    "version": 1,
    "attempt": 0,
    "forced": False,
    "outcome": "refused",
    "metadata": {EVIL: [EVIL, {}]},
}
# Every field that a command reads, of every kind of answer.
THING: dict[str, Any] = {
    **ROW,
    **dict.fromkeys(NUMBERS.split(), 0),
    "items": [ROW],
    "next_cursor": None,
    "commands": [ROW],
    "notices": [ROW],
    "workflow_id": None,
    "preview": False,
    "offline": False,
    "missing": [EVIL],
    "evicted": [EVIL],
    "local_uncertainty_seconds": 1.0,
    "knowledge_age_seconds": 1.0,
    "metrics": {EVIL: {EVIL: EVIL}},
    "refused": [{"mac_address": "", "node_id": EVIL, "message": EVIL}],
    "base": STAGE,
    "chain": [{"origin": None, "target": STAGE, "occurred_at": EVIL, "comment": EVIL}],
    "central_history": [{"from_state": None, "to_state": EVIL, "recorded_at": EVIL, "actor": EVIL, "comment": EVIL}],
    "previews": [{"resolution": EVIL, "refused": EVIL, "end": None, "steps": []}],
    "decisions": [{"at": EVIL, "resolution": None, "by": EVIL, "comment": EVIL}],
}

COMMANDS = """
agent boots | agent cache | agent cache clear | agent cache evict | agent cache remove images/k | agent cache verify
agent confirm-clock | agent conflicts | agent init --central-url URL --site x1 --token once --data-dir agent
agent move x1 active | agent queue | agent queue clear-failed | agent queue discard x1 | agent queue requeue x1
agent readiness | agent resolve x1 merge | agent status | agent sync
alert acknowledge x1 | alert list --site x1
conflict list | conflict resolve x1 merge | conflict resolve --all merge | conflict show x1 | conflict undo x1
content delete images/k | content get images/k -o got | content import-ipxe . | content list
content put images/k ipxe.efi
node approve x1 --workflow x1 | node assign x1 --site x1 | node create MAC --site x1 --workflow x1 | node delete x1
node events x1 | node history x1 | node list | node move active x1 | node show x1 | node state x1 active
node timeline x1 | node update x1 --hostname h
person add kim | person list | person remove kim | person set kim --disable
site create lab | site delete x1 | site discard x1 q1 | site health x1 | site invalidate x1 images/k | site list
site outages x1 | site queue x1 | site requeue x1 q1 | site revoke x1 | site show x1 | site sync x1 | site token x1
site update x1 --name lab
token create ci --role viewer | token list | token revoke ci
workflow create w | workflow delete x1 | workflow list | workflow show x1
"""
# Built once for all: that takes longer than to run one.
ROOT = typer.main.get_command(app)
# They speak to nobody, or are what others speak to.
ALONE = {"agent run", "agent dnsmasq-config", "central admin-token", "central run", "central post-restore", "demo"}


class Same(Canned):
    """Says one thing, whatever it is asked."""

    says_always: Any = None

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        return 200, self.says_always


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Same]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    # Reading the host's takes longer than all the rest.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    (tmp_path / "ipxe.efi").write_bytes(b"x")
    with serving(same := Same()):
        monkeypatch.setenv("PUREBOOT_URL", same.url)
        monkeypatch.setenv("PUREBOOT_TOKEN", "adm1n")
        monkeypatch.setenv("PUREBOOT_AGENT__PORT", same.url.rpartition(":")[2])
        yield same


NOBODY = ("pureboot: Central cannot be reached at ", "pureboot: No agent answers at ")
STRANGE = ("pureboot: The answer has no field ", "pureboot: What answers at ")


def controls(output: str) -> list[str]:
    return [c for c in output if not (c.isprintable() or c == "\n")]


def commands() -> list[list[str]]:
    return [line.split() for line in COMMANDS.replace("\n", " | ").split("|") if line.strip()]


@dataclass
class Terminal:
    """Runs commands; what breaks within one breaks the test."""

    url: str
    capsys: pytest.CaptureFixture[str]
    code: int = 0

    def run(self, words: list[str]) -> str:
        """What it printed."""
        with pytest.raises(SystemExit) as end:
            ROOT([{"URL": self.url, "MAC": MAC}.get(word, word) for word in words])
        self.code = int(end.value.code or 0)
        return "".join(self.capsys.readouterr())


@pytest.fixture
def terminal(server: Same, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.setattr("sys.stdin", io.StringIO("long enough\n" * 9))
    return Terminal(server.url, capsys)


def test_every_command_is_here():
    registered = {
        f"{group.name} {command.name or str(getattr(command.callback, '__name__', '')).replace('_', '-')}"
        for group in app.registered_groups
        for command in (group.typer_instance or typer.Typer()).registered_commands
    } | {"demo"}
    assert {" ".join(words[:2]) for words in commands()} == registered - ALONE


def test_an_answer_that_lacks_what_it_should_tell_is_said_to_be_strange(server, terminal):
    server.says_always = {}
    for words in commands():
        output = terminal.run(words)
        assert not terminal.code or output.startswith(STRANGE), (words, output)


def test_every_command_that_changes_something_tells_it_as_json(server, terminal):
    server.says_always = THING
    changing = []
    for words in commands():
        server.asked.clear()
        output = terminal.run([*words, "--json"] if words[:2] != ["agent", "init"] else words)
        if {asked.method for asked in server.asked} - {"GET"} and words[:2] != ["agent", "init"]:
            assert json.loads(output), words
            changing.append(words[:2])
        else:
            assert "No such option" not in output, words
    assert ["node", "approve"] in changing
    assert len(changing) > 30


@pytest.mark.parametrize("body", [b"[]", b"null", b"", b"<html>", b"[" * 100_000], ids=lambda body: repr(body[:4]))
def test_an_answer_that_is_no_object_is_said_to_be_strange(server, terminal, body):
    server.says_always = body
    for words in (["site", "list"], ["token", "create", "ci", "--role", "viewer"], ["node", "state", "x1", "active"]):
        output = terminal.run(words)
        assert terminal.code == 1, words
        assert output.startswith(STRANGE), (words, output)


@pytest.mark.parametrize("items", [None, "x1", [None], ["x1"], {"id": "x1"}])
def test_a_list_that_is_none_is_said_to_be_none(server, terminal, items):
    server.says_always = {"items": items, "next_cursor": None}
    for words in (["site", "list"], ["agent", "queue"], ["agent", "boots", "--follow"], ["node", "show", MAC]):
        assert terminal.run(words).endswith("is not PureBoot.\n"), words
        assert terminal.code == 1, words


def test_an_answer_that_cannot_be_unpacked_is_said_not_to_have_come(server, terminal):
    server.says_always = b"garbage"
    server.headers["Content-Encoding"] = "gzip"
    for words in (["site", "list"], ["agent", "status"], ["content", "get", "images/k", "-o", "got"]):
        assert terminal.run(words).startswith("pureboot: The answer did not come: "), words
        assert terminal.code == 1


def test_nobody_answers(terminal, monkeypatch):
    monkeypatch.setenv("PUREBOOT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PUREBOOT_AGENT__PORT", "9")
    terminal.url = "http://127.0.0.1:9"
    for words in commands():
        assert terminal.run(words).startswith(NOBODY), words
        assert terminal.code == 1, words


def test_words_of_others_stay_words(server, terminal):
    server.says_always = THING
    for words in commands():
        output = terminal.run(words)
        assert controls(output) == [], words
        assert "\nFORGED" not in output, words


def test_words_of_others_stay_words_as_json(server, terminal):
    """A terminal obeys U+009B too, which JSON need not escape."""
    server.says_always = THING
    for words in (["site", "health", "x1", "--json"], ["agent", "status", "--json"]):
        output = terminal.run(words)
        assert controls(output) == [], words
        assert json.loads(output) == THING


def test_a_mac_address_is_no_emoji(server, terminal):
    """Rich makes one of `:ab:`."""
    server.says_always = THING
    assert MAC in terminal.run(["node", "list"])
    assert MAC in terminal.run(["node", "show", MAC])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (0, "0"),
        (False, "no"),
        ({"disk": "/dev/sda", "tries": 2}, "disk=/dev/sda, tries=2"),
        ([{"gap": 3}, {}], "gap=3, -"),
        ({"\x1b[31m": {"a": []}}, " [31m=a=-"),
        ("2026-01-28T12:00:00.5+00:00", "2026-01-28 12:00:00Z"),
    ],
)
def test_a_value_is_one_line_of_text(value, shown):
    assert show.text(value) == shown
