"""Which life of central's database this is: a restore from backup begins a new one (PROTOCOL 7)."""

from sqlalchemy import Connection, select

from pureboot.central import tables as t
from pureboot.core.errors import Clash


def generation_of(conn: Connection) -> int:
    return int(conn.execute(select(t.meta.c.generation)).scalar_one())


def check_generation(conn: Connection, theirs: int) -> int:
    ours = generation_of(conn)
    if theirs != ours:
        raise Clash(
            f"Central's generation is {ours}, not {theirs}.",
            code="generation_changed",
            hint="Set your bases aside, offer what was sent again, and read the feed from its start.",
        )
    return ours
