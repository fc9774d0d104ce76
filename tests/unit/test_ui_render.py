"""Templates: every text is inert, and every macro and filter says what it should."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.requests import Request

import pureboot.central.ui as ui
from pureboot.central.ui.form import Form
from pureboot.central.ui.render import ASSETS, asset, duration, query, relative, render, size
from pureboot.central.ui.view import View
from pureboot.central.ui.visit import Visit, own_path
from pureboot.core.errors import NotFound, PureBootError

FOLDER = Path(ui.__file__).parent
TEMPLATES = sorted(FOLDER.glob("templates/**/*.html"))
NOW = datetime(2026, 1, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_no_template_steps_around_the_escaping(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    # The policy of our pages would stop them anyway.
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", text)
    # An attribute without quotes could be left by a blank.
    assert not re.search(r"<[^>]*[\w-]=\{\{", text)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_what_a_field_holds_is_as_it_was_typed_and_nothing_else_is(template: Path) -> None:
    text = re.sub(r"<meter.*?>", "", template.read_text())
    fields = re.findall(r'\svalue="([^"]*\{\{.*?\}\})"|\n(.*)</textarea>', text)
    assert all(re.fullmatch(r"\{\{ .*\|typed \}\}", value or area) for value, area in fields)
    assert text.count("|typed") == len(fields)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_every_form_that_changes_something_carries_the_sessions_token(template: Path) -> None:
    for form in re.findall(r'<form[^>]*method="post".*?</form>', template.read_text(), re.DOTALL):
        assert "view.csrf" in form or 'action="/sign-in"' in form


def shown_by_a_page(error: PureBootError) -> str:
    request = Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []})
    view = View(request, Visit(None, "", Form()), (), NOW)
    return render("error.html", error=error, view=view, person=None, now=NOW, flash=None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
        ("a\x00\x1b[31m\x7f\x85b", "a��[31m��b"),
        ("evil‮gnp.exe", "evil�gnp.exe"),
        ("a​b⁦c﻿d\xade", "a�b�c�d�e"),
        ("zwei\tWörter, 二", "zwei\tWörter, 二"),
    ],
    ids=["html", "control", "bidi", "unseen", "plain"],
)
def test_text_is_shown_and_does_nothing(text: str, shown: str) -> None:
    error = NotFound(text)
    assert f"<strong>{shown}</strong>" in shown_by_a_page(error)


def test_ages_and_sizes_are_said_as_people_do() -> None:
    assert [duration(s) for s in (0, 1, 119, 120, 7199, 7200, 172800)] == [
        "0 s",
        "1 s",
        "119 s",
        "2 min",
        "119 min",
        "2 h",
        "2 d",
    ]
    assert relative(None, NOW) == "never"
    assert relative(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert relative(NOW + timedelta(minutes=3), NOW) == "in 3 min"
    assert [size(n) for n in (0, 999, 1000, 2.5e9, 3e15)] == ["0 B", "999 B", "1.0 KB", "2.5 GB", "3000.0 TB"]


def test_a_query_leaves_out_what_is_empty_and_quotes_the_rest() -> None:
    assert query(q="a&b", state=None, site="") == "?q=a%26b"
    assert query() == ""


@pytest.mark.parametrize("path", ["//evil", "https://evil", "/\\evil", "\\evil", "", "/a\nb", "evil", "/a\x7f"])
def test_a_path_that_is_not_ours_is_the_start(path: str) -> None:
    assert own_path(path) == "/"
    assert own_path("/nodes?q=a%0Ab") == "/nodes?q=a%0Ab"


def test_a_vendored_file_is_what_its_note_says() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \|.*\| `([0-9a-f]{64})` \|", (FOLDER / "static/VENDORED.md").read_text(), re.MULTILINE
    )
    assert {name for name, _ in rows} == {"htmx.min.js"}
    for name, digest in rows:
        assert hashlib.sha256(asset(name)).hexdigest() == digest
    assert set(ASSETS) == {
        path.name for path in (FOLDER / "static").iterdir() if path.suffix in (".css", ".js", ".svg")
    }
