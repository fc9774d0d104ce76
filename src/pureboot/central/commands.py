"""What a person asks of a site's agent: it waits here until the agent has said what became of it.

The answer to a heartbeat carries what waits, again and again; the agent does each at most once, by its id, and says so
in a later heartbeat. So a lost answer loses nothing. An agent of before says nothing: it gets `sync`, once.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from pureboot.central import sites
from pureboot.central import tables as t
from pureboot.central.bodies import CommandView
from pureboot.central.clock import new_id
from pureboot.central.db import Database
from pureboot.central.sql import locked, one, rows_of
from pureboot.core.errors import Clash
from pureboot.core.node import printable
from pureboot.wire.beats import MOST_COMMANDS, BeatReport, Command, CommandDone

Name = Literal["sync", "requeue", "discard", "invalidate"]

# An agent that has been away for long is not asked for thousands of things when it comes back.
MOST_WAITING = 500
SHOWN = 50
KEPT = timedelta(days=30)

_NO_ACCOUNT = "This site's agent does not tell what became of it."
_TOO_OLD = "This site's agent is too old for it: upgrade it, or do it at the site."


async def send(db: Database, ref: str, command: Name, now: datetime, **about: str) -> CommandView:
    """Asks the site named `ref`, and ends its agent's long poll so that it comes for it. Raises as `ask`, and
    NotFound."""
    asked = await db.write(lambda conn: ask(conn, sites.find(conn, ref).id, command, now, **about))
    db.bell.ring([asked.site_id])
    return asked


def ask(
    conn: Connection,
    site_id: str,
    command: Name,
    now: datetime,
    *,
    item_id: str = "",
    name: str = "",
    reason: str = "",
    person: str = "",
) -> CommandView:
    """Asked for twice, it is done once. Raises Clash without an agent, and where too much waits for it."""
    _lock_agent(conn, site_id)
    waiting = _waiting(conn, site_id)
    for row in waiting:
        if (row.command, row.item_id, row.name) == (command, item_id, name):
            return view(row)
    if len(waiting) >= MOST_WAITING:
        raise Clash(
            f"{MOST_WAITING} commands wait for this site's agent already.",
            code="too_many_commands",
            hint="Wait until it is back and has done them.",
        )
    values = {
        "id": new_id(),
        "site_id": site_id,
        "command": command,
        "item_id": item_id,
        "name": name,
        "reason": printable(reason, 2000),
        "person": printable(person, 200),
        "asked_at": now,
        "handed_at": None,
        "done_at": None,
        "outcome": None,
        "message": "",
    }
    conn.execute(insert(t.site_command), values)
    return CommandView.model_validate(values)


def hand_out(conn: Connection, site_id: str, report: BeatReport | None, now: datetime) -> list[Command]:
    """What waits for the site's agent, the oldest first. Under the lock of the agent."""
    waiting = _waiting(conn, site_id)[:MOST_COMMANDS]
    obeys = set(report.obeys) if report else set()
    known = [row for row in waiting if row.command in obeys or row.command == "sync"]
    _settle(conn, [row.id for row in waiting if row not in known], "unknown", _TOO_OLD, now)
    if not obeys:
        _settle(conn, [row.id for row in known], "done", _NO_ACCOUNT, now)
    _update(conn, [row.id for row in known if row.handed_at is None], handed_at=now)
    return [_command(row) for row in known]


def settle(conn: Connection, site_id: str, done: Sequence[CommandDone], now: datetime) -> None:
    """What the agent says became of them; what it says again changes nothing."""
    mine = {row.id for row in _waiting(conn, site_id)} if done else set()
    for each in done:
        if each.id in mine:
            _settle(conn, [each.id], each.outcome, each.message, now)


def recent(conn: Connection, site_id: str) -> list[CommandView]:
    """The newest first."""
    rows = t.site_command.c
    query = select(t.site_command).where(rows.site_id == site_id).order_by(rows.id.desc()).limit(SHOWN)
    return [view(row) for row in conn.execute(query)]


_DUE = select(t.site_command.c.id).where(
    t.site_command.c.site_id == one("site"), t.site_command.c.done_at.is_(None), t.site_command.c.handed_at.is_(None)
)
_DUE = _DUE.limit(1)


def is_due(conn: Connection, site_id: str) -> bool:
    """Whether something waits that no heartbeat's answer has carried yet."""
    return bool(rows_of(conn, _DUE, site=site_id))


def forget(conn: Connection, now: datetime) -> None:
    conn.execute(delete(t.site_command).where(t.site_command.c.done_at < now - KEPT))


def view(row: Row[Any]) -> CommandView:
    return CommandView.model_validate(row._asdict())


def _lock_agent(conn: Connection, site_id: str) -> None:
    """Asked twice: the row that the first waited for may be replaced now, by one that it does not see yet."""
    agents = t.agent.c
    query = locked(select(agents.id).where(agents.site_id == site_id, agents.replaced_at.is_(None)))
    if conn.execute(query).first() is None and conn.execute(query).first() is None:
        raise Clash("This site has no agent.", code="no_agent", hint="Register one with a token of this site.")


_WAITING = select(t.site_command).where(t.site_command.c.site_id == one("site"), t.site_command.c.done_at.is_(None))
_WAITING = _WAITING.order_by(t.site_command.c.id)


def _waiting(conn: Connection, site_id: str) -> Sequence[Row[Any]]:
    return rows_of(conn, _WAITING, site=site_id)


def _settle(conn: Connection, ids: Collection[str], outcome: str, message: str, now: datetime) -> None:
    _update(conn, ids, done_at=now, outcome=outcome, message=message)


def _update(conn: Connection, ids: Collection[str], **values: Any) -> None:
    if ids:
        conn.execute(update(t.site_command).where(t.site_command.c.id.in_(ids)).values(values))


def _command(row: Row[Any]) -> Command:
    return Command(
        id=row.id, command=row.command, item_id=row.item_id, name=row.name, reason=row.reason, person=row.person
    )
