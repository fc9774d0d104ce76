"""Who may speak to central: people by a token, agents by a credential that a one-time token bought.

Tokens are 256 random bits; only their SHA-256 is stored, so reading the database opens nothing.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from pureboot.central import tables as t
from pureboot.central.bodies import TokenAnswer
from pureboot.central.clock import new_id
from pureboot.central.sql import one, rows_of, upsert
from pureboot.core.errors import Forbidden, Unauthenticated
from pureboot.core.roles import Role
from pureboot.wire.messages import (
    AgentCredential,
    AgentRegistration,
    AgentStatus,
)

# Long enough to travel to the site with somebody, short enough to be forgotten safely.
TOKEN_LIFE = timedelta(hours=24)
ONLINE_WITHIN, DEGRADED_WITHIN = 2, 5


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a browser, or whoever holds a token."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Agent:
    """`current` is False once a newer agent was registered for its site: it may still push what it holds."""

    id: str
    site_id: str
    current: bool


# In place of the hash of a credential: no hash begins so.
_REVOKED = "revoked:"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


_KEY = one("key")
_ADMIN = select(t.admin_credential.c.name, t.admin_credential.c.role).where(t.admin_credential.c.token_hash == _KEY)
_AGENT = select(t.agent.c.id, t.agent.c.site_id, t.agent.c.replaced_at).where(t.agent.c.credential_hash == _KEY)


def identify(conn: Connection, token: str) -> Person | Agent:
    """Raises Unauthenticated."""
    key = digest(token)
    for row in rows_of(conn, _ADMIN, key=key):
        return Person(row.name, Role(row.role))
    for row in rows_of(conn, _AGENT, key=key):
        return Agent(row.id, row.site_id, row.replaced_at is None)
    raise Unauthenticated("Nobody has this token.", code="unknown_token")


def admin_exists(conn: Connection) -> bool:
    return conn.execute(select(t.admin_credential.c.name).limit(1)).first() is not None


def add_admin(conn: Connection, name: str, token: str, now: datetime) -> None:
    conn.execute(
        insert(t.admin_credential),
        {"token_hash": digest(token), "name": name, "role": Role.ADMIN.value, "created_at": now},
    )


def replace_admin(conn: Connection, name: str, token: str, now: datetime) -> None:
    """The token of that name before, if there is one, opens nothing any more."""
    conn.execute(delete(t.admin_credential).where(t.admin_credential.c.name == name))
    add_admin(conn, name, token, now)


def new_token() -> str:
    return secrets.token_urlsafe(32)


def issue_agent_token(conn: Connection, site_id: str, now: datetime) -> TokenAnswer:
    """The one before it, used or not, is void from now on."""
    token, expires_at = new_token(), now + TOKEN_LIFE
    row = {"site_id": site_id, "token_hash": digest(token), "expires_at": expires_at, "used_at": None}
    upsert(conn, t.agent_token, [row])
    return TokenAnswer(token=token, expires_at=expires_at)


def register_agent(conn: Connection, request: AgentRegistration, now: datetime) -> AgentCredential:
    """Raises Forbidden for a token that is wrong, used, void or too old."""
    site_id = _spend(conn, request, now)
    conn.execute(
        update(t.agent).where(t.agent.c.site_id == site_id, t.agent.c.replaced_at.is_(None)).values(replaced_at=now)
    )
    answer = AgentCredential(agent_id=new_id(), site_id=site_id, credential=new_token())
    conn.execute(insert(t.agent), _new_agent(request, answer, now))
    return answer


def revoke(conn: Connection, site_id: str, now: datetime) -> int:
    """Nobody comes in by what this site's agents ever got, replaced ones too, nor by a token that waits for one. How
    many credentials were good until now."""
    agent = t.agent.c
    good = agent.site_id == site_id, agent.credential_hash.not_like(f"{_REVOKED}%")
    conn.execute(update(t.agent).where(*good, agent.replaced_at.is_(None)).values(replaced_at=now))
    revoked = conn.execute(update(t.agent).where(*good).values(credential_hash=_REVOKED + agent.id)).rowcount
    tokens = t.agent_token.c
    conn.execute(update(t.agent_token).where(tokens.site_id == site_id, tokens.used_at.is_(None)).values(used_at=now))
    return revoked


def _spend(conn: Connection, request: AgentRegistration, now: datetime) -> str:
    tokens = t.agent_token
    query = select(tokens, t.site.c.name).join(t.site).where(tokens.c.token_hash == digest(request.token))
    row = conn.execute(query.with_for_update(of=tokens)).first()
    # One that is good for longer than any was made by a clock that was ahead; by less than that does not matter.
    if row is None or row.used_at is not None or not now < row.expires_at <= now + 2 * TOKEN_LIFE:
        raise Forbidden(
            "This registration token is wrong, used, replaced by a newer one, or too old.",
            code="token_refused",
            hint="Ask an administrator for a new one; it is good for one agent and 24 hours.",
        )
    if request.site not in ("", row.site_id, row.name):
        raise Forbidden("This registration token is for another site.", code="token_refused")
    conn.execute(update(tokens).where(tokens.c.site_id == row.site_id).values(used_at=now))
    return str(row.site_id)


def _new_agent(request: AgentRegistration, answer: AgentCredential, now: datetime) -> dict[str, Any]:
    return {
        "id": answer.agent_id,
        "site_id": answer.site_id,
        "credential_hash": digest(answer.credential),
        "version": request.version[:100],
        "agent_url": request.agent_url[:2000],
        "interval_seconds": answer.heartbeat_interval,
        "metrics": {},
        "last_seen": None,
        "created_at": now,
        "replaced_at": None,
    }


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life of a site's agent."""

    agent_id: str
    last_seen: datetime | None
    interval: timedelta
    metrics: dict[str, Any]


def beats(conn: Connection, site_ids: Collection[str]) -> dict[str, Beat]:
    """By site, of those that have an agent."""
    agent = t.agent.c
    query = select(agent.id, agent.site_id, agent.last_seen, agent.interval_seconds, agent.metrics)
    rows = conn.execute(query.where(agent.site_id.in_(site_ids), agent.replaced_at.is_(None)))
    return {
        row.site_id: Beat(row.id, row.last_seen, timedelta(seconds=row.interval_seconds), row.metrics) for row in rows
    }


def last_heard(conn: Connection, site_ids: Collection[str]) -> dict[str, datetime]:
    """By site: the last sign of life of any agent that it ever had."""
    agent = t.agent.c
    latest = func.max(agent.last_seen)
    query = select(agent.site_id, latest).where(agent.site_id.in_(site_ids), agent.last_seen.is_not(None))
    return {row[0]: row[1] for row in conn.execute(query.group_by(agent.site_id))}


def status_of(beat: Beat | None, now: datetime) -> AgentStatus:
    return status_after(beat.last_seen, beat.interval.total_seconds(), now) if beat else AgentStatus.UNKNOWN


def status_after(last_seen: datetime | None, interval: float, now: datetime) -> AgentStatus:
    """`interval`: the seconds between two of its heartbeats. A `last_seen` that lies ahead counts as now, until the
    watch has put it back."""
    if last_seen is None:
        return AgentStatus.UNKNOWN
    silence = (now - last_seen).total_seconds()
    if silence <= ONLINE_WITHIN * interval:
        return AgentStatus.ONLINE
    return AgentStatus.DEGRADED if silence <= DEGRADED_WITHIN * interval else AgentStatus.OFFLINE
