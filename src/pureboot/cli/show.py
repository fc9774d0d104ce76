"""Answers on a terminal: tables for people, JSON for programs."""

import json as _json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from pureboot.cli.remote import Row

if TYPE_CHECKING:
    from rich.table import Table


# Columns. Wider than any row.
UNBROKEN = 10_000
# What people copy stays in one piece; the other columns give way.
WHOLE = {"MAC", "ID", "STATE"}
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


def as_json(value: Any) -> None:
    typer.echo(_json.dumps(value, indent=2, ensure_ascii=False))


def listing(rows: Sequence[Row], columns: Mapping[str, str], *, json: bool, empty: str) -> None:
    """`columns`: title to the name of a field, with dots into nested ones."""
    if json:
        as_json(rows)
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(title, overflow="fold", no_wrap=title in WHOLE)
    for row in rows:
        table.add_row(*(escape(text(_at(row, field))) for field in columns.values()))
    _print(table)


def line(row: Row, fields: Iterable[str], *, json: bool) -> None:
    """One of a list without end, as it comes."""
    typer.echo(_json.dumps(row, ensure_ascii=False) if json else "  ".join(text(_at(row, field)) for field in fields))


def record(row: Row, *, json: bool) -> None:
    """One thing, a field a line."""
    if json:
        as_json(row)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _flat(row):
        table.add_row(name, escape(text(value)))
    _print(table)


def _print(table: "Table") -> None:
    """As wide as the terminal; where there is none, as wide as it is, so that nothing is broken for `grep`."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=UNBROKEN)
    console.print(table)


def said(row: Row | None, sentence: str, *, json: bool) -> None:
    """What a command did: one sentence, or the answer."""
    if json:
        as_json(row)
    else:
        typer.echo(sentence)


def text(value: Any) -> str:
    """On one line, without control characters: facts come from machines."""
    match value:
        case None | "" | [] | {}:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(text(item) for item in value)
        case dict():
            return ", ".join(f"{name}={text(item)}" for name, item in value.items())
        case _:
            line = "".join(c if c.isprintable() else " " for c in str(value))
            return f"{time[1]} {time[2]}Z" if (time := _TIME.fullmatch(line)) else line


def _at(row: Row, field: str) -> Any:
    value: Any = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _flat(row: Row, prefix: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in row.items():
        if isinstance(value, dict) and value:
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", value))
    return lines
