"""Tokens for programs that speak to the API in a person's place: each with a role, shown once, revocable."""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from pureboot.central import tables as t
from pureboot.central.accounts import digest, new_token
from pureboot.central.bodies import NewToken, TokenCreate, TokenView
from pureboot.central.sql import count, locked, page_by
from pureboot.core.errors import Clash, NotFound
from pureboot.core.roles import Role
from pureboot.wire.messages import ListPage

_T = t.admin_credential.c
_ADMINS = _T.role == Role.ADMIN.value
_ADMINS_LOCKED = locked(select(_T.name).where(_ADMINS).order_by(_T.token_hash))


def page(conn: Connection, cursor: str | None, limit: int) -> ListPage[TokenView]:
    rows, more = page_by(conn, select(_T.name, _T.role, _T.created_at), _T.name, cursor, limit)
    items = [TokenView.model_validate(row._asdict()) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].name if more else None)


def create(conn: Connection, body: TokenCreate, now: datetime) -> NewToken:
    _take_turns(conn)
    if count(conn, t.admin_credential, _T.name == body.name):
        raise Clash(f"There is a token {body.name!r} already.", code="name_taken", hint="Choose another name.")
    token = new_token()
    row = {"token_hash": digest(token), "name": body.name, "role": body.role.value, "created_at": now}
    conn.execute(insert(t.admin_credential), row)
    return NewToken(name=body.name, role=body.role, created_at=now, token=token)


def revoke(conn: Connection, name: str) -> None:
    """Raises Clash for the last administrator's: nobody could make another."""
    _take_turns(conn)
    if not conn.execute(delete(t.admin_credential).where(_T.name == name)).rowcount:
        raise NotFound(
            f"There is no token {name[:100]!r}.",
            code="unknown_token",
            hint="`pureboot token list` shows them, and GET /api/v1/tokens.",
        )
    if not count(conn, t.admin_credential, _ADMINS):
        raise Clash("This is the last token of an administrator.", code="last_admin", hint="Make another first.")


def _take_turns(conn: Connection) -> None:
    """There is always an administrator's token: whoever holds them all is the only one to count tokens or names."""
    conn.execute(_ADMINS_LOCKED)
