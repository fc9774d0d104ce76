"""Death at a chosen moment: before a transaction begins, inside it, before it commits, or right after it has.

The two sides are killed at the boundaries of their real transactions: the agent's where its connection is told BEGIN
and COMMIT, central's where SQLAlchemy begins, sends each statement, and commits.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event


class Killed(BaseException):
    """No error that any code could catch: the process is gone."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Fuse:
    """One process' life. Lit, it kills at the n-th boundary from then on; after that nothing of it commits any more."""

    def __init__(self) -> None:
        self._left = -1
        self.dead = False

    def light(self, boundaries: int) -> None:
        self._left = boundaries

    def put_out(self) -> None:
        self._left = -1

    def burn(self, where: str) -> None:
        if self.dead or self._left == 0:
            self.dead = True
            raise Killed(where)
        self._left -= self._left > 0


def mortal_connection(fuse: Fuse) -> type[sqlite3.Connection]:
    """For the connection that writes an agent's file."""

    class Mortal(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            if sql in ("BEGIN IMMEDIATE", "COMMIT"):
                fuse.burn(f"the agent, before {sql}")
            cursor = super().execute(sql, parameters)
            if sql == "COMMIT":
                fuse.burn("the agent, after COMMIT")
            return cursor

    return Mortal


@contextmanager
def mortal_engines(fuse: Fuse, poisoned: set[str]) -> Iterator[None]:
    """For every database that central opens meanwhile. It stumbles over each item of which `poisoned` has the id."""

    def begins(_: Connection) -> None:
        fuse.burn("central, before BEGIN")

    def commits(_: Connection) -> None:
        fuse.burn("central, before COMMIT")

    def executes(_: Connection, __: object, statement: str, parameters: Any, ___: object, many: bool) -> None:
        fuse.burn(f"central, before {statement[:30]!r}")
        settles = statement.startswith("INSERT INTO sync_receipt (item_id,")
        if settles and any(row[0] in poisoned for row in (parameters if many else [parameters])):
            raise RuntimeError("poison")

    listeners: list[tuple[str, Callable[..., None]]] = [
        ("begin", begins),
        ("commit", commits),
        ("before_cursor_execute", executes),
    ]
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)
