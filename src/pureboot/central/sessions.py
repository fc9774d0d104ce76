"""One writer for each credential: a session has a lease, and a fence that each push shows (PROTOCOL 7).

Item ids make two copies of one agent harmless to the data; the fence makes them visible. A push without one is taken,
for agents that know no sessions.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update

from pureboot.central import alerts, watch
from pureboot.central import tables as t
from pureboot.central.accounts import Agent
from pureboot.central.clock import SLACK, lies_ahead
from pureboot.central.sql import count, locked, one, rows_of
from pureboot.core.errors import Fenced, Unauthenticated
from pureboot.wire.messages import SessionGrant, SessionRequest

# One push of a few hundred items takes about this long; so many agents, so many times, and no two at once.
SPREAD_PER_AGENT_MS, LONGEST_SPREAD_MS = 20, 60_000


_AGENTS = locked(select(t.agent).where(t.agent.c.site_id == one("site")).order_by(t.agent.c.id))


def lock_site(conn: Connection, agent: Agent) -> Row[Any]:
    """The agents of one site write one after the other, and this is the first lock a push takes. Returns its own row.

    So receipts, aliases and owners that are read under it stay true. What other sites do to a node is held off by its
    own lock; that one of them takes a MAC first, by its key.
    """
    mine = {row.id: row for row in rows_of(conn, _AGENTS, site=agent.site_id)}.get(agent.id)
    if mine is None:
        raise Unauthenticated("This agent's site was removed.", code="unknown_token")
    return mine


def open_session(
    conn: Connection, agent: Agent, request: SessionRequest, now: datetime, lease: timedelta
) -> SessionGrant | Fenced:
    """A refusal is returned, not raised: what it leaves for the operator is to be stored."""
    row = lock_site(conn, agent)
    if (
        request.epoch != row.session_epoch
        and _is_alive(conn, row, now, lease)
        and row.session_epoch not in request.previous_epochs
    ):
        alarm(conn, agent, request.epoch, row, now)
        return _fenced("another copy of this agent writes for the site")
    fence = row.fence if request.epoch == row.session_epoch else row.fence + 1
    values = {"session_epoch": request.epoch, "fence": fence, "lease_until": now + lease}
    conn.execute(update(t.agent).where(t.agent.c.id == agent.id).values(values))
    agents = count(conn, t.agent, t.agent.c.replaced_at.is_(None))
    spread = min(agents * SPREAD_PER_AGENT_MS, LONGEST_SPREAD_MS)
    return SessionGrant(fence=fence, lease_seconds=int(lease.total_seconds()), spread_ms=spread)


def check_fence(conn: Connection, row: Row[Any], fence: int | None, now: datetime, lease: timedelta) -> None:
    """The right one prolongs the lease. Raises Fenced for a stale one."""
    if fence is None:
        return
    if fence != row.fence:
        raise _fenced(f"the fence is {row.fence}, not {fence}")
    # Not at every push: an update of the row costs as much as an item.
    if row.lease_until is None or not now + lease / 2 <= row.lease_until <= now + lease + SLACK:
        conn.execute(update(t.agent).where(t.agent.c.id == row.id).values(lease_until=now + lease))


def _is_alive(conn: Connection, row: Row[Any], now: datetime, lease: timedelta) -> bool:
    """A lease that ends later than one can was given by a clock that was ahead: it holds from when that was set
    back."""
    if row.lease_until is None or row.lease_until <= now:
        return False
    given = watch.back_at(conn, now) if lies_ahead(row.lease_until, now + lease) else now
    return given + lease > now


def alarm_of_push(conn: Connection, agent: Agent, epoch: str, now: datetime) -> None:
    """In a transaction of its own: the one of the push is undone. Without a holder (a restored central) it is none."""
    row = lock_site(conn, agent)
    if row.session_epoch is not None:
        alarm(conn, agent, epoch, row, now)


def alarm(conn: Connection, agent: Agent, epoch: str, holder: Row[Any], now: datetime) -> None:
    """One alert for an agent: each start of a copy is another epoch, and a copy in a loop of restarts is still one."""
    alerts.happened(
        conn,
        agent.site_id,
        "fenced",
        now,
        subject=agent.id,
        epoch=epoch,
        holder_epoch=holder.session_epoch,
        holder_fence=holder.fence,
    )


def _fenced(why: str) -> Fenced:
    return Fenced(f"This session may not write: {why}.")
