"""What central counts, and what it looks up when somebody scrapes it."""

from collections import Counter as Tally
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from sqlalchemy import Connection, func, select

from pureboot.central import alerts
from pureboot.central import tables as t
from pureboot.central.accounts import beats, status_of
from pureboot.central.bodies import Severity
from pureboot.central.sql import count, tally
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import AgentStatus, Outcome, PushAnswer


@dataclass(frozen=True, slots=True)
class Census:
    sites: dict[str, int]
    nodes: dict[str, int]
    conflicts_pending: int
    alerts: dict[str, int]
    alerts_unseen: int


def census(conn: Connection, now: datetime) -> Census:
    ids = list(conn.execute(select(t.site.c.id)).scalars())
    heard = beats(conn, ids)
    nodes = select(t.node.c.state, func.count()).where(t.node.c.deleted_at.is_(None)).group_by(t.node.c.state)
    return Census(
        sites=Tally(status_of(heard.get(id), now) for id in ids),
        nodes=tally(conn, nodes),
        conflicts_pending=count(conn, t.sync_conflict, t.sync_conflict.c.status == "pending"),
        alerts=alerts.tallied(conn),
        alerts_unseen=alerts.unseen(conn),
    )


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._sites = Gauge("pureboot_central_sites", "Sites by status.", ["status"], registry=self.registry)
        self._nodes = Gauge("pureboot_central_nodes", "Nodes by state.", ["state"], registry=self.registry)
        self._pending = Gauge("pureboot_central_conflicts_pending", "Open conflicts.", registry=self.registry)
        self._alerts = Gauge("pureboot_central_alerts", "Alerts that stand.", ["severity"], registry=self.registry)
        self._unseen = Gauge(
            "pureboot_central_alerts_unacknowledged", "Those nobody has acknowledged.", registry=self.registry
        )
        self._pushes = Counter("pureboot_central_pushes", "Pushes that were answered.", registry=self.registry)
        self._items = Counter(
            "pureboot_central_push_items", "Items of pushes, by outcome.", ["outcome"], registry=self.registry
        )
        for outcome in Outcome:
            self._items.labels(outcome.value)

    def pushed(self, answer: PushAnswer) -> None:
        self._pushes.inc()
        for result in answer.results:
            self._items.labels(result.outcome.value).inc()

    def render(self, now: Census) -> bytes:
        for status in AgentStatus:
            self._sites.labels(status.value).set(now.sites.get(status, 0))
        for state in NodeState:
            self._nodes.labels(state.value).set(now.nodes.get(state, 0))
        self._pending.set(now.conflicts_pending)
        for severity in get_args(Severity):
            self._alerts.labels(severity).set(now.alerts.get(severity, 0))
        self._unseen.set(now.alerts_unseen)
        return generate_latest(self.registry)
