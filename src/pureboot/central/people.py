"""People: who may sign in, and as what."""

import re
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from pureboot.central import tables as t
from pureboot.central.bodies import PersonView
from pureboot.central.sql import count, locked, page_by
from pureboot.core.errors import Clash, Invalid, NotFound
from pureboot.core.roles import Role
from pureboot.wire.messages import ListPage

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


def plain(name: str) -> str:
    """The name as it is stored; how somebody writes it does not count."""
    return name.strip().lower()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name := plain(name)):
        raise Invalid(
            "name: it is not one that a person can have.",
            code="invalid_name",
            hint="Use up to 64 letters, digits and ._@+- and begin with a letter or a digit.",
        )
    return name


def _row(conn: Connection, name: str) -> Row[Any]:
    row = conn.execute(select(t.person).where(t.person.c.name == plain(name))).first()
    if row is None:
        raise NotFound(
            f"There is no person {name[:64]!r}.",
            code="unknown_person",
            hint="`pureboot person list` shows them, and GET /api/v1/people.",
        )
    return row


_ADMINS = t.person.c.role == Role.ADMIN.value, t.person.c.disabled_at.is_(None)


def _locked(conn: Connection, name: str) -> Row[Any]:
    """With every administrator, in the order of their names: of two that would leave none, the second sees it."""
    held = select(t.person.c.name).where(or_(t.person.c.name == plain(name), and_(*_ADMINS)))
    conn.execute(locked(held.order_by(t.person.c.name)))
    return _row(conn, name)


def _view(row: Row[Any]) -> PersonView:
    return PersonView(
        name=row.name,
        role=Role(row.role),
        disabled=row.disabled_at is not None,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def find(conn: Connection, name: str) -> PersonView:
    """Raises NotFound."""
    return _view(_row(conn, name))


def page(conn: Connection, cursor: str | None, limit: int) -> ListPage[PersonView]:
    rows, more = page_by(conn, select(t.person), t.person.c.name, cursor, limit)
    items = [_view(row) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].name if more else None)


def anybody(conn: Connection) -> bool:
    return conn.execute(select(t.person.c.name).limit(1)).first() is not None


def password_of(conn: Connection, name: str, *, lock: bool = False) -> str | None:
    """The hash; None where nobody may sign in by this name. Locked, it stays so until the transaction ends."""
    query = select(t.person.c.password_hash).where(t.person.c.name == plain(name), t.person.c.disabled_at.is_(None))
    return conn.execute(locked(query) if lock else query).scalar()


def add(conn: Connection, name: str, role: Role, password_hash: str, now: datetime) -> PersonView:
    name = _checked(name)
    if conn.execute(select(t.person.c.name).where(t.person.c.name == name)).first():
        raise Clash(f"There is a person {name!r} already.", code="name_taken", hint="Choose another name.")
    row = {"name": name, "role": role.value, "password_hash": password_hash, "disabled_at": None}
    conn.execute(insert(t.person), row | {"created_at": now, "updated_at": now})
    return find(conn, name)


def change(
    conn: Connection,
    name: str,
    now: datetime,
    *,
    role: Role | None = None,
    password_hash: str | None = None,
    disabled: bool | None = None,
) -> PersonView:
    """None leaves it. A new password, and being disabled, end all sessions. Raises Clash for the last administrator."""
    person = _locked(conn, name)
    values: dict[str, Any] = {"updated_at": now}
    if role is not None:
        values["role"] = role.value
    if disabled is not None:
        values["disabled_at"] = (person.disabled_at or now) if disabled else None
    if password_hash is not None:
        values["password_hash"] = password_hash
    conn.execute(update(t.person).where(t.person.c.name == person.name).values(values))
    if password_hash is not None or disabled:
        _end_sessions(conn, person.name)
    _keep_an_admin(conn, person)
    return find(conn, person.name)


def remove(conn: Connection, name: str) -> None:
    """What they did keeps their name. Raises Clash for the last administrator."""
    person = _locked(conn, name)
    _end_sessions(conn, person.name)
    conn.execute(delete(t.person).where(t.person.c.name == person.name))
    _keep_an_admin(conn, person)


def _end_sessions(conn: Connection, name: str) -> None:
    conn.execute(delete(t.person_session).where(t.person_session.c.name == name))


def _keep_an_admin(conn: Connection, before: Row[Any]) -> None:
    was_admin = before.role == Role.ADMIN and before.disabled_at is None
    if was_admin and not count(conn, t.person, *_ADMINS):
        raise Clash(
            f"{before.name} is the last administrator.",
            code="last_admin",
            hint="Make somebody else an administrator first.",
        )
