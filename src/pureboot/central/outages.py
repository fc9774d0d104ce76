"""When a site's agent was not heard: noticed by the watch while it lasts, ended by the heartbeat that ends it.

From here a cut WAN, a stopped agent and a central that was away look alike. So an outage keeps what each side knows of
it, and says no more than that.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from pureboot.central import tables as t
from pureboot.central.accounts import DEGRADED_WITHIN, ONLINE_WITHIN
from pureboot.central.bodies import Outage
from pureboot.central.clock import lies_ahead, new_id
from pureboot.central.sql import locked, one, rows_of
from pureboot.core.errors import Malformed
from pureboot.wire.messages import AgentMetrics, ListPage

# Of each site; a site whose line flickers every ten minutes has a week of them.
MOST = 1000
KEPT = timedelta(days=365)


def notice(conn: Connection, back_at: datetime, now: datetime) -> None:
    """Opens an outage for each site whose agent has missed more than it may. `back_at`: since when central has been
    there to hear; what was missed before that is nobody's silence yet."""
    for row in _silent(conn, back_at, now):
        if lies_ahead(row.last_seen, now):
            _put_back(conn, row, back_at)
            _open(conn, row, back_at, now)
        else:
            _open(conn, row, row.last_seen, now)
        if _missed(row, back_at, now) > DEGRADED_WITHIN:
            _standing(conn, row.site_id, offline_at=now)


def ended(conn: Connection, agent: Row[Any], metrics: AgentMetrics, central_back_at: datetime, now: datetime) -> None:
    """The heartbeat that ends an outage, also one so short, or so hidden by central's own, that nobody had noticed it,
    and one that is open although the clock, which was set back, tells of no silence. Under the lock of the agent, whose
    row is as it was before."""
    silence = None if agent.last_seen is None else now - agent.last_seen
    if silence is not None and silence > ONLINE_WITHIN * _interval(agent):
        _open(conn, agent, agent.last_seen, now)
    elif silence is not None and not rows_of(conn, _OPEN, site=agent.site_id):
        return
    told = metrics.report.last_outage if metrics.report and silence is not None else None
    if told and silence is not None and timedelta(seconds=told.ended_seconds_ago) > silence:
        told = None  # it tells of one before this
    was_away = agent.last_seen is not None and central_back_at > agent.last_seen
    _begun_by(conn, agent.site_id, now)
    ours = t.site_outage.c
    conn.execute(
        update(t.site_outage)
        .where(ours.site_id == agent.site_id, ours.ended_at.is_(None))
        .values(
            ended_at=now,
            agent_offline_seconds=told.seconds if told else None,
            agent_back_at=now - timedelta(seconds=told.ended_seconds_ago) if told else None,
            agent_uptime_seconds=metrics.uptime_seconds,
            central_back_at=central_back_at if was_away else None,
        )
    )


def cut_short(conn: Connection, now: datetime) -> None:
    """The clock was set back. What had begun before now, and ended by a clock that was ahead, had ended by now."""
    ours = t.site_outage.c
    conn.execute(update(t.site_outage).where(ours.began_at <= now, ours.ended_at > now).values(ended_at=now))


def page(conn: Connection, site_id: str, cursor: str | None, limit: int) -> ListPage[Outage]:
    """The newest first."""
    ours = t.site_outage.c
    query = select(t.site_outage).where(ours.site_id == site_id)
    if cursor is not None:
        began = conn.execute(select(ours.began_at).where(ours.id == cursor, ours.site_id == site_id)).scalar()
        if began is None:
            raise Malformed("This cursor is not one that the list gave out, or what it stood at is forgotten.")
        query = query.where((ours.began_at < began) | ((ours.began_at == began) & (ours.id < cursor)))
    rows = conn.execute(query.order_by(ours.began_at.desc(), ours.id.desc()).limit(limit + 1)).all()
    items = [_view(row) for row in rows[:limit]]
    return ListPage(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


def since(conn: Connection, site_id: str, moment: datetime) -> list[Outage]:
    """Those that reach beyond `moment`, the oldest first."""
    ours = t.site_outage.c
    query = select(t.site_outage).where(ours.site_id == site_id, ours.ended_at.is_(None) | (ours.ended_at > moment))
    return [_view(row) for row in conn.execute(query.order_by(ours.began_at, ours.id))]


def forget(conn: Connection, now: datetime) -> None:
    ours = t.site_outage.c
    conn.execute(delete(t.site_outage).where(ours.ended_at < now - KEPT))
    crowded = select(ours.site_id).group_by(ours.site_id).having(func.count() > MOST)
    for site_id in conn.execute(crowded).scalars().all():
        newest = select(ours.id).where(ours.site_id == site_id).order_by(ours.began_at.desc()).limit(MOST)
        conn.execute(
            delete(t.site_outage).where(ours.site_id == site_id, ours.ended_at.is_not(None), ours.id.not_in(newest))
        )


def account(outage: Outage) -> str:
    """What is known of it, in words."""
    if outage.ended_at is None:
        return "It lasts. From here a cut line, a stopped agent and a stopped host look alike."
    told = list(_known(outage))
    return " ".join(told) or "The agent noticed no outage: its heartbeats did not arrive."


def _known(outage: Outage) -> Iterator[str]:
    length = (outage.ended_at - outage.began_at).total_seconds() if outage.ended_at else 0.0
    if outage.central_back_at is not None:
        yield "Central itself was away for some of it."
    if outage.agent_uptime_seconds is not None and outage.agent_uptime_seconds < length:
        yield "The agent was started again meanwhile, so it was down for some of it."
    elif outage.agent_back_at is not None:
        yield "The agent ran all the time and did not reach central."


def _silent(conn: Connection, back_at: datetime, now: datetime) -> list[Row[Any]]:
    """Looked for without a lock, then looked at under it: a heartbeat may come meanwhile."""
    agents = t.agent.c
    current = (agents.replaced_at.is_(None), agents.last_seen.is_not(None))
    columns = select(agents.id, agents.site_id, agents.last_seen, agents.interval_seconds)

    def silent(rows: list[Row[Any]]) -> list[Row[Any]]:
        return [row for row in rows if _missed(row, back_at, now) > ONLINE_WITHIN]

    ids = [row.id for row in silent(list(conn.execute(columns.where(*current))))]
    if not ids:
        return []
    query = locked(columns.where(*current, agents.id.in_(ids)).order_by(agents.id))
    return silent(list(conn.execute(query)))


def _missed(agent: Row[Any], back_at: datetime, now: datetime) -> float:
    """How many heartbeats long its silence is. What was heard by a clock that was ahead counts as heard when that was
    set back: central has been there since then, and before it nobody knows."""
    heard = back_at if lies_ahead(agent.last_seen, now) else max(agent.last_seen, back_at)
    silence: timedelta = now - heard
    return silence / _interval(agent)


def _interval(agent: Row[Any]) -> timedelta:
    return timedelta(seconds=agent.interval_seconds)


_OPEN = select(t.site_outage.c.id).where(t.site_outage.c.site_id == one("site"), t.site_outage.c.ended_at.is_(None))


def _open(conn: Connection, agent: Row[Any], began_at: datetime, now: datetime) -> None:
    """Unless one is open."""
    if rows_of(conn, _OPEN, site=agent.site_id):
        return
    row = {
        "id": new_id(),
        "site_id": agent.site_id,
        "agent_id": agent.id,
        "began_at": began_at,
        "noticed_at": now,
    }
    conn.execute(insert(t.site_outage), row)


def _put_back(conn: Connection, agent: Row[Any], moment: datetime) -> None:
    """Its last sign of life was stored by a clock that was ahead: it counts as one of `moment`, when that was set back.
    Not before it is silent, so that a clock that is behind for a little while takes nothing that is true away."""
    conn.execute(update(t.agent).where(t.agent.c.id == agent.id).values(last_seen=moment))
    _begun_by(conn, agent.site_id, moment)


def _begun_by(conn: Connection, site_id: str, moment: datetime) -> None:
    """The outage that is open, which began in the future by a clock that was ahead."""
    ours = t.site_outage.c
    conn.execute(
        update(t.site_outage)
        .where(ours.site_id == site_id, ours.ended_at.is_(None), ours.began_at > moment)
        .values(began_at=moment)
    )


def _standing(conn: Connection, site_id: str, offline_at: datetime) -> None:
    ours = t.site_outage.c
    conn.execute(
        update(t.site_outage)
        .where(ours.site_id == site_id, ours.ended_at.is_(None), ours.offline_at.is_(None))
        .values(offline_at=offline_at)
    )


def _view(row: Row[Any]) -> Outage:
    outage = Outage.model_validate(row._asdict())
    return outage.model_copy(update={"account": account(outage)})
