"""Browsers that are signed in. The cookie is 256 random bits; the database knows its SHA-256 only."""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from pureboot.central import tables as t
from pureboot.central.accounts import Person, digest, new_token
from pureboot.core.roles import Role

# That a session is used is written this often: not with each page.
NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SessionLife:
    """`idle`: without being used; `longest`: in all."""

    idle: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Session:
    """`stale`: that it is used is to be written again."""

    key: str
    person: Person
    stale: bool


def begin(conn: Connection, name: str, life: SessionLife, now: datetime) -> str:
    """The cookie. Sessions that are over go."""
    conn.execute(delete(t.person_session).where(_over(life, now)))
    token = new_token()
    row = {"token_hash": digest(token), "name": name, "created_at": now, "used_at": now}
    conn.execute(insert(t.person_session), row | {"expires_at": now + life.longest})
    return token


_S = t.person_session.c
_FIND = select(_S.token_hash, _S.used_at, _S.expires_at, t.person.c.name, t.person.c.role).join(t.person)


def find(conn: Connection, token: str, life: SessionLife, now: datetime) -> Session | None:
    query = _FIND.where(_S.token_hash == digest(token), t.person.c.disabled_at.is_(None), ~_over(life, now))
    for row in conn.execute(query):
        return Session(row.token_hash, Person(row.name, Role(row.role)), abs(now - row.used_at) >= NOTED_EVERY)
    return None


def _over(life: SessionLife, now: datetime) -> ColumnElement[bool]:
    """Also one that was used by a clock that was further ahead than it may lie unused: it would not end for as long."""
    return or_(_S.expires_at <= now, _S.used_at <= now - life.idle, _S.used_at > now + life.idle)


def touch(conn: Connection, key: str, now: datetime) -> None:
    conn.execute(update(t.person_session).where(_S.token_hash == key).values(used_at=now))


def end(conn: Connection, token: str) -> None:
    conn.execute(delete(t.person_session).where(_S.token_hash == digest(token)))


def key_of(token: str) -> str:
    """What the database knows a session by."""
    return digest(token)


def alive(conn: Connection, key: str, life: SessionLife, now: datetime) -> bool:
    query = _FIND.where(_S.token_hash == key, t.person.c.disabled_at.is_(None), ~_over(life, now))
    return conn.execute(query).first() is not None


def form_token(token: str) -> str:
    """What the forms of this session carry: only a page that the browser got with its cookie knows it."""
    return hmac.digest(token.encode(), b"form", "sha256").hex()


def same_token(ours: str, sent: str) -> bool:
    return bool(ours) and hmac.compare_digest(ours.encode(), sent.encode())
