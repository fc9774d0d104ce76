"""Answers on a terminal: tables for people, JSON for programs."""

import json as _json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from pureboot.cli.remote import Row

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


# Columns. Wider than any row.
UNBROKEN = 10_000
# What people copy stays in one piece; the other columns give way.
WHOLE = {"MAC", "ID", "STATE"}
_BEYOND_ASCII = re.compile(r"[^\n -~]")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


def as_json(value: Any) -> None:
    typer.echo(_dumped(value, indent=2))


def _dumped(value: Any, indent: int | None = None) -> str:
    """As people read it; what is no letter is escaped: `dumps` leaves what follows ASCII, controls too, as it is."""
    letters = _json.dumps(value, indent=indent, ensure_ascii=False)
    return _BEYOND_ASCII.sub(lambda c: c[0] if c[0].isprintable() else _json.dumps(c[0])[1:-1], letters)


def listing(rows: Sequence[Row], columns: Mapping[str, str], *, json: bool, empty: str) -> None:
    """`columns`: title to the name of a field, with dots into nested ones."""
    if json:
        as_json(rows)
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        table.add_column(title, overflow="fold", no_wrap=title in WHOLE)
    for row in rows:
        table.add_row(*(_cell(_at(row, field)) for field in columns.values()))
    _print(table)


def line(row: Row, fields: Iterable[str], *, json: bool) -> None:
    """One of a list without end, as it comes."""
    typer.echo(_dumped(row) if json else "  ".join(text(_at(row, field)) for field in fields))


def record(row: Row, *, json: bool) -> None:
    """One thing, a field a line."""
    if json:
        as_json(row)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in ("name", "value"):
        table.add_column(overflow="fold")
    for name, value in _flat(row):
        table.add_row(_cell(name), _cell(value))
    _print(table)


def _cell(value: Any) -> "Text":
    """No `str`, which rich takes for markup, and the `:ab:` in 52:54:00:ab:00:01 for an emoji."""
    from rich.text import Text

    return Text(text(value))


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
        tell(sentence)


def tell(sentence: str, *, err: bool = False) -> None:
    """A line for people, whatever words of others are in it."""
    typer.echo(_clean(sentence), err=err)


def text(value: Any) -> str:
    """On one line, without control characters: facts come from machines."""
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(text(item) for item in value)
        case dict():
            return ", ".join(f"{text(name)}={text(item)}" for name, item in value.items()) or "-"
        case _:
            line = _clean(str(value))
            return f"{time[1]} {time[2]}Z" if (time := _TIME.fullmatch(line)) else line


def _clean(words: str) -> str:
    return "".join(c if c.isprintable() else " " for c in words)


def _at(row: Row, field: str) -> Any:
    value: Any = row
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Objects within others are `outer.inner`, those of a list have its number; other lists are a line for each."""
    match value:
        case dict() if value:
            for inner, each in value.items():
                yield from _flat(each, f"{name}.{inner}" if name else inner)
        case [dict(), *_]:
            for number, each in enumerate(value, 1):
                yield from _flat(each, f"{name}.{number}")
        case [_, *_]:
            yield from ((name, each) for each in value)
        case _:
            yield name, value
