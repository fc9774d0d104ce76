"""Which life of central's database this is: a restore from backup begins a new one (PROTOCOL 7).

Each generation counts in numbers of its own, so that what agents saw of the future that was lost is never taken for
what came instead: a version, a revision, a position or a fence of one generation is never one of another.
"""

from collections.abc import Iterable

from sqlalchemy import Column, Connection, delete, select, update

from pureboot.central import tables as t
from pureboot.central.engines import nobody_else_writes
from pureboot.core.errors import Clash, SettingsError

# More changes than one entity sees; and a thousand generations still fit into what JSON's readers hold exactly.
SPAN = 10**12


_GENERATION = select(t.meta.c.generation)


def generation_of(conn: Connection) -> int:
    return int(conn.execute(_GENERATION).scalar_one())


def check_generation(conn: Connection, theirs: int) -> int:
    ours = generation_of(conn)
    if theirs != ours:
        raise Clash(
            f"Central's generation is {ours}, not {theirs}.",
            code="generation_changed",
            hint="Set your bases aside, offer what was sent again, and read the feed from its start.",
        )
    return ours


def first_number(generation: int) -> int:
    """The version and revision of what is new in this generation."""
    return _before(generation) + 1


def is_same_count(number: int, other: int) -> bool:
    """Whether two numbers of one column are the same but for what `begin_anew` added to one of them."""
    return number % SPAN == other % SPAN


def _before(generation: int) -> int:
    return (generation - 1) * SPAN


def begin_anew(conn: Connection, known: int) -> int:
    """After a restore: a generation that nobody has seen, `known` being the newest anybody has. Returns it.

    Numbers that belong together (a node's revision and the one its next item is made on) keep their distance.
    """
    if not nobody_else_writes(conn):
        raise SettingsError("database_url: a central runs on this database.", hint="Stop it first.")
    new = max(generation_of(conn), known) + 1
    for column in _numbers():
        conn.execute(update(column.table).values({column.name: _before(new) + column % SPAN}))
    # A cursor of another generation lies below it, and begins again.
    conn.execute(update(t.site_pos).values(floor=_before(new)))
    conn.execute(delete(t.feed_mark))
    # Agents tell them anew: what they bring back counts as queued again.
    conn.execute(delete(t.epoch_account))
    conn.execute(update(t.agent).values(session_epoch=None, lease_until=None))
    conn.execute(update(t.meta).values(generation=new))
    return new


def _numbers() -> Iterable[Column[int]]:
    for table in (t.site, t.workflow, t.content, t.node, t.sync_conflict, t.feed):
        yield table.c.version
    yield from (t.node.c.state_rev, t.sync_conflict.c.expected_rev)
    yield from (t.sync_receipt.c.expected_rev, t.sync_receipt.c.result_version)
    yield from (t.site_pos.c.pos, t.feed.c.pos, t.agent.c.fence)
