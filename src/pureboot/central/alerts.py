"""What an operator should know of a site.

Of three sorts. What *lasts* is a fact, like a silent agent: `reconcile` opens it, keeps it true and ends it when the
fact has. What *happened* is told as it happens, and stands until somebody has acknowledged it or a day has passed. A
*record* stands at no time: nobody has to do anything. One thing is one row, however often it is said; once it has
ended, the next is a new row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, insert, literal, or_, select, update

from pureboot.central import tables as t
from pureboot.central.bodies import Alert, AlertKind, Severity
from pureboot.central.clock import SLACK, new_id
from pureboot.central.sql import count, locked, tally
from pureboot.core.errors import NotFound
from pureboot.wire.messages import ListPage

Status = Literal["open", "all"]

LASTING: tuple[AlertKind, ...] = ("site_silent", "conflicts", "items_failed", "file_damaged")
NOTICES: tuple[AlertKind, ...] = ("fenced", "sync_discarded")
HAPPENED: dict[AlertKind, tuple[Severity, str]] = {
    "site_returned": ("info", "Its agent is back, and what the site did meanwhile is on its way."),
    "fenced": ("critical", "A second copy of this site's agent tried to write and was fenced off. Stop one of them."),
    "sync_discarded": ("info", "Somebody gave up a report of a machine that central does not know."),
}

RECORDS: tuple[AlertKind, ...] = ("sync_discarded",)

# How long what happened stands, unless somebody acknowledges it.
STANDS = timedelta(days=1)
# And how long, at the end of it, central must have been there without a gap.
SEEN_FOR = timedelta(hours=1)
# What has ended is history.
KEPT, MOST = timedelta(days=90), 100_000
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Key:
    site_id: str
    kind: AlertKind
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """That of a lasting alert which may change while it stands. `times`: how many there are."""

    severity: Severity
    message: str
    times: int = 1


def happened(
    conn: Connection, site_id: str, kind: AlertKind, now: datetime, *, subject: str = "", **detail: object
) -> None:
    """Told again while it stands, it is counted, and what was acknowledged wants to be seen anew. Of one site, one
    transaction at a time."""
    severity, message = HAPPENED[kind]
    key, fact = Key(site_id, kind, subject), Fact(severity, message)
    known = select(t.alert) if kind in RECORDS else _standing()
    standing = conn.execute(locked(known.where(*_is(key)))).first()
    if standing is None:
        _begin(conn, key, fact, detail, now, ended_at=now if kind in RECORDS else None)
        return
    values = {"times": standing.times + 1, "last_at": now, "detail": detail}
    conn.execute(update(t.alert).where(t.alert.c.id == standing.id).values(**values, **_UNSEEN))


def reconcile(conn: Connection, facts: Mapping[Key, Fact], back_at: datetime, now: datetime) -> list[Key]:
    """Makes the lasting alerts that stand those of `facts`; returns those that ended. One at a time.

    `back_at`: since when central has been there for people to see them.
    """
    standing = {_key(row): row for row in conn.execute(_standing().where(t.alert.c.kind.in_(LASTING)))}
    for key in facts.keys() - standing.keys():
        _begin(conn, key, facts[key], {}, now)
    for key in facts.keys() & standing.keys():
        _keep_true(conn, standing[key], facts[key], now)
    gone = [key for key in standing if key not in facts]
    for key in gone:
        conn.execute(update(t.alert).where(t.alert.c.id == standing[key].id).values(ended_at=now))
    happened = (t.alert.c.kind.in_(list(HAPPENED)), t.alert.c.ended_at.is_(None))
    conn.execute(update(t.alert).where(*happened, _stood(back_at, now)).values(ended_at=now))
    return gone


def _stood(back_at: datetime, now: datetime) -> ColumnElement[bool]:
    """For as long as what happened stands. A clock that was wrong for less than `SEEN_FOR` makes nothing old; what it
    stored of the future stands from when it was set back."""
    last, there = t.alert.c.last_at, now - back_at
    return or_(
        and_(last < now - STANDS, literal(there > SEEN_FOR)),
        and_(last > now + SLACK, literal(there > STANDS)),
    )


def acknowledge(conn: Connection, id: str, person: str, now: datetime) -> Alert:
    """The first who does it is who did it. What happened ends with it; what lasts goes on. Raises NotFound."""
    row = conn.execute(locked(select(t.alert).where(t.alert.c.id == id))).first()
    if row is None:
        raise _unknown(id)
    if row.acknowledged_at is None:
        ended = row.ended_at or (now if row.kind in HAPPENED else None)
        values = {"acknowledged_by": person[:200], "acknowledged_at": now, "ended_at": ended}
        conn.execute(update(t.alert).where(t.alert.c.id == id).values(values))
    # The watch may have begun it while its site was removed.
    if (shown := conn.execute(_shown().where(t.alert.c.id == id)).first()) is None:
        raise _unknown(id)
    return _view(shown)


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no alert {id[:64]!r}.", code="unknown_alert", hint="It may be old and forgotten.")


def page(conn: Connection, status: Status, site_id: str | None, cursor: str | None, limit: int) -> ListPage[Alert]:
    """The newest first. `open`: those that stand."""
    query = _shown()
    if status == "open":
        query = query.where(t.alert.c.ended_at.is_(None))
    if site_id is not None:
        query = query.where(t.alert.c.site_id == site_id)
    if cursor is not None:
        query = query.where(t.alert.c.id < cursor)
    rows = conn.execute(query.order_by(t.alert.c.id.desc()).limit(limit + 1)).all()
    items = [_view(row) for row in rows[:limit]]
    return ListPage(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


def notices(conn: Connection, site_id: str) -> list[Alert]:
    """Of a site, what happened there that no node has in its log; the newest first."""
    query = _shown().where(t.alert.c.site_id == site_id, t.alert.c.kind.in_(NOTICES))
    query = query.order_by(t.alert.c.last_at.desc(), t.alert.c.subject).limit(SHOWN)
    return [_view(row) for row in conn.execute(query)]


def unseen(conn: Connection) -> int:
    """How many stand that nobody has acknowledged."""
    return count(conn, t.alert, t.alert.c.ended_at.is_(None), t.alert.c.acknowledged_at.is_(None))


def tallied(conn: Connection) -> dict[str, int]:
    """Those that stand, by severity."""
    query = select(t.alert.c.severity, func.count()).where(t.alert.c.ended_at.is_(None)).group_by(t.alert.c.severity)
    return tally(conn, query)


def forget(conn: Connection, now: datetime) -> None:
    ended = t.alert.c.ended_at
    conn.execute(delete(t.alert).where(ended < now - KEPT))
    newest = select(t.alert.c.id).order_by(t.alert.c.id.desc()).offset(MOST).limit(1)
    if (oldest := conn.execute(newest).scalar()) is not None:
        conn.execute(delete(t.alert).where(ended.is_not(None), t.alert.c.id <= oldest))


_UNSEEN: dict[str, None] = {"acknowledged_by": None, "acknowledged_at": None}


def _shown() -> Select[Any]:
    """A site that was removed took its alerts along."""
    return select(t.alert, t.site.c.name.label("site_name")).join(t.site, t.site.c.id == t.alert.c.site_id)


def _standing() -> Select[Any]:
    return select(t.alert).where(t.alert.c.ended_at.is_(None))


def _is(key: Key) -> tuple[Any, ...]:
    return t.alert.c.site_id == key.site_id, t.alert.c.kind == key.kind, t.alert.c.subject == key.subject


def _key(row: Row[Any]) -> Key:
    return Key(row.site_id, row.kind, row.subject)


def _begin(
    conn: Connection,
    key: Key,
    fact: Fact,
    detail: Mapping[str, object],
    now: datetime,
    ended_at: datetime | None = None,
) -> None:
    row = {
        "id": new_id(),
        "site_id": key.site_id,
        "kind": key.kind,
        "subject": key.subject,
        "severity": fact.severity,
        "message": fact.message,
        "times": fact.times,
        "detail": dict(detail),
        "first_at": now,
        "last_at": now,
        "ended_at": ended_at,
    }
    conn.execute(insert(t.alert), row)


def _keep_true(conn: Connection, row: Row[Any], fact: Fact, now: datetime) -> None:
    """Worse than what was acknowledged wants to be seen anew."""
    if (row.severity, row.message, row.times) == (fact.severity, fact.message, fact.times):
        return
    worse = row.severity != fact.severity == "critical"
    values = {"severity": fact.severity, "message": fact.message, "times": fact.times, "last_at": now}
    conn.execute(update(t.alert).where(t.alert.c.id == row.id).values(values | (_UNSEEN if worse else {})))


def _view(row: Row[Any]) -> Alert:
    return Alert.model_validate(row._asdict())
