"""A heartbeat: what an agent says of its site is kept, and what waits for it is handed out."""

from datetime import datetime

from sqlalchemy import Connection, select, update

from pureboot.central import commands, outages, sites, watch
from pureboot.central import tables as t
from pureboot.central.accounts import Agent
from pureboot.central.bodies import SiteQueue
from pureboot.central.sql import locked
from pureboot.core.errors import Unauthenticated
from pureboot.wire.beats import BeatReport
from pureboot.wire.messages import AgentMetrics, Heartbeat, HeartbeatAnswer


def heard(conn: Connection, agent: Agent, beat: Heartbeat, now: datetime) -> HeartbeatAnswer:
    """Raises Unauthenticated where the site was removed."""
    row = conn.execute(locked(select(t.agent).where(t.agent.c.id == agent.id))).first()
    if row is None:
        raise Unauthenticated("This agent's site was removed.", code="unknown_token")
    metrics, report = beat.metrics, beat.metrics.report
    outages.ended(conn, row, metrics, watch.back_at(conn, now), now)
    conn.execute(
        update(t.agent)
        .where(t.agent.c.id == agent.id)
        .values(
            last_seen=now,
            interval_seconds=beat.interval_seconds,
            version=metrics.version[:100],
            metrics=metrics.model_dump(mode="json", exclude={"report"}),
            report=report.to_keep() if report else None,
        )
    )
    commands.settle(conn, agent.site_id, report.commands_done if report else [], now)
    return HeartbeatAnswer(commands=commands.hand_out(conn, agent.site_id, report, now))


def queue(conn: Connection, ref: str) -> SiteQueue:
    """The outbox of the site as its agent told it last. Raises NotFound for no site."""
    site = sites.find(conn, ref)
    mine = (t.agent.c.site_id == site.id, t.agent.c.replaced_at.is_(None))
    row = conn.execute(select(t.agent).where(*mine)).first()
    metrics = AgentMetrics.model_validate(row.metrics if row else {})
    report = BeatReport.model_validate((row and row.report) or {})
    return SiteQueue(
        site_id=site.id,
        told_at=row.last_seen if row else None,
        epoch=report.epoch,
        pending=metrics.pending_queue_items,
        failed=metrics.failed_queue_items,
        items=report.failed_items,
        commands=commands.recent(conn, site.id),
    )
