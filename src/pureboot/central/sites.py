"""Sites: a location with its own agent."""

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from pureboot.central import alerts, epochs
from pureboot.central import tables as t
from pureboot.central.accounts import Beat, beats, last_heard, status_after, status_of
from pureboot.central.bodies import Fleet, SiteHealth, SitePatch, SiteView
from pureboot.central.clock import new_id
from pureboot.central.positions import close_feed, open_feed, publish
from pureboot.central.sql import count, locked, one, rows_of, tally
from pureboot.core.errors import Clash, Invalid, Malformed, NotFound, StaleVersion
from pureboot.core.lifecycle import Autonomy
from pureboot.wire.messages import AgentMetrics, AgentStatus, ListPage, SiteDocument, SiteFields, valid

_REF = one("ref")
_NAMED = select(t.site).where(or_(t.site.c.id == _REF, t.site.c.name == _REF)).order_by(t.site.c.id)
_NAMED_LOCKED = locked(_NAMED)
_ALL_LOCKED = locked(select(t.site.c.id).order_by(t.site.c.id))


def find(conn: Connection, ref: str, *, lock: bool = False) -> SiteDocument:
    """By id, or by name. Raises NotFound."""
    found = rows_of(conn, _NAMED_LOCKED if lock else _NAMED, ref=ref)
    for row in sorted(found, key=lambda row: row.id != ref):
        return document(row)
    raise NotFound(f"There is no site {ref[:100]!r}.", code="unknown_site", hint="Use a site's id or its name.")


def named(conn: Connection, ref: str, field: str) -> SiteDocument:
    """The site a field of a request names. Raises Invalid."""
    try:
        return find(conn, ref)
    except NotFound as error:
        raise Invalid(f"{field}: {error.message}", code=error.code, hint=error.hint) from None


def document(row: Row[Any]) -> SiteDocument:
    return SiteDocument.model_validate(row._asdict())


def create(conn: Connection, fields: SiteFields, now: datetime) -> SiteDocument:
    values = _checked(conn, fields, "")
    row = {**values, "id": new_id(), "version": 1, "created_at": now, "updated_at": now}
    row["levels_had"] = [fields.autonomy_level]
    conn.execute(insert(t.site), row)
    open_feed(conn, row["id"])
    publish(conn, row["id"], "site", row["id"], 1)
    return SiteDocument.model_validate(row)


def change(conn: Connection, ref: str, patch: SitePatch, now: datetime) -> SiteDocument:
    if patch.parent_id is not None:
        # What lies above it must stay as it is found: of two that are put into each other at once, the second waits.
        conn.execute(_ALL_LOCKED)
    site = find(conn, ref, lock=True)
    if patch.version is not None and patch.version != site.version:
        raise StaleVersion(f"The site {site.name!r} is at version {site.version}, not {patch.version}.")
    current = site.model_dump(include=set(SiteFields.model_fields))
    sent = patch.model_dump(exclude_unset=True, exclude={"version"})
    values = _checked(conn, valid(SiteFields, current | sent), site.id)
    row = {**values, "version": site.version + 1, "updated_at": now}
    if (level := row["autonomy_level"]) != site.autonomy_level and not ever_had(conn, site.id, level):
        row["levels_had"] = [*_levels_had(conn, site.id), level]
    conn.execute(update(t.site).where(t.site.c.id == site.id).values(row))
    publish(conn, site.id, "site", site.id, site.version + 1)
    return find(conn, site.id)


def ever_had(conn: Connection, id: str, level: Autonomy) -> bool:
    """Whether the site is, or was at any time, of this autonomy level."""
    return level in _levels_had(conn, id)


def _levels_had(conn: Connection, id: str) -> list[str]:
    levels: list[str] = conn.execute(select(t.site.c.levels_had).where(t.site.c.id == id)).scalar_one()
    return levels


def _checked(conn: Connection, fields: SiteFields, id: str) -> dict[str, Any]:
    name = fields.name
    if conn.execute(select(t.site.c.id).where(t.site.c.name == name, t.site.c.id != id)).first():
        raise Clash(f"There is a site {name!r} already.", code="name_taken", hint="Choose another name.")
    if fields.parent_id is not None:
        parent = named(conn, fields.parent_id, "parent_id")
        _check_no_circle(conn, parent, id)
        fields = fields.model_copy(update={"parent_id": parent.id})
    return fields.model_dump(mode="json")


def _check_no_circle(conn: Connection, parent: SiteDocument, id: str) -> None:
    seen = {id}
    above: str | None = parent.id
    while above is not None:
        if above in seen:
            raise Invalid("parent_id: sites cannot lie in a circle.", code="circle", hint="Give one of them no parent.")
        seen.add(above)
        above = conn.execute(select(t.site.c.parent_id).where(t.site.c.id == above)).scalar()


def remove(conn: Connection, ref: str) -> None:
    """Raises Clash while it has nodes, sites below it, or conflicts that wait: nobody could settle them any more. Its
    agent's credential ends with it."""
    site = find(conn, ref, lock=True)
    for table in (t.agent_token, t.agent, t.site_outage, t.alert, t.site_command, t.epoch_account):
        conn.execute(delete(table).where(table.c.site_id == site.id))
    # Whoever is about to publish here waits now, and then finds no feed; what was published before counts below.
    close_feed(conn, site.id)
    if held := count(conn, t.node, t.node.c.home_site_id == site.id, t.node.c.deleted_at.is_(None)):
        raise Clash(
            f"The site {site.name!r} has {held} node(s).", code="site_has_nodes", hint="Move or delete them first."
        )
    if held := count(conn, t.site, t.site.c.parent_id == site.id):
        raise Clash(f"The site {site.name!r} has {held} site(s) below it.", code="site_has_sites")
    conflict = t.sync_conflict.c
    if held := count(conn, t.sync_conflict, conflict.site_id == site.id, conflict.status == "pending"):
        raise Clash(
            f"The site {site.name!r} has {held} conflict(s) that wait.",
            code="site_has_conflicts",
            hint="Settle them first.",
        )
    conn.execute(delete(t.site).where(t.site.c.id == site.id))


def view(conn: Connection, ref: str, now: datetime) -> SiteView:
    return _views(conn, _rows(conn, [find(conn, ref).id]), now)[0]


@dataclass(frozen=True, slots=True)
class SiteFilter:
    """`text` is looked for in names and descriptions. By `problems`: what needs a person comes first."""

    text: str = ""
    status: AgentStatus | None = None
    order: Literal["name", "problems"] = "name"


EVERY_SITE = SiteFilter()


def page(
    conn: Connection, cursor: str | None, limit: int, now: datetime, wanted: SiteFilter = EVERY_SITE
) -> ListPage[SiteView]:
    return overview(conn, cursor, limit, now, wanted)[0]


def overview(
    conn: Connection, cursor: str | None, limit: int, now: datetime, wanted: SiteFilter
) -> tuple[ListPage[SiteView], Fleet]:
    """A page, and all sites in numbers."""
    lines = _lines(conn, now)
    found = sorted((line for line in lines if line.fits(wanted)), key=lambda line: line.place(wanted.order))
    if cursor is not None:
        found = [line for line in found if line.place(wanted.order) > _place(cursor, wanted.order)]
    shown = found[:limit]
    items = _views(conn, _rows(conn, [line.id for line in shown]), now)
    fleet = Fleet(sites=Tally(line.status for line in lines), sites_total=len(lines))
    return ListPage(items=items, next_cursor=shown[-1].cursor(wanted.order) if len(found) > limit else None), fleet


@dataclass(frozen=True, slots=True)
class _Line:
    """What a site is sorted and found by. There are some thousand sites at most, so all of them are looked at."""

    id: str
    name: str
    description: str
    status: AgentStatus
    failed: int
    conflicts: int

    def fits(self, wanted: SiteFilter) -> bool:
        if wanted.status not in (None, self.status):
            return False
        text = wanted.text.strip().casefold()
        return not text or text in self.name.casefold() or text in self.description.casefold()

    def place(self, order: str) -> tuple[int, str]:
        return (self.urgency if order == "problems" else 0), self.name

    def cursor(self, order: str) -> str:
        return f"{self.urgency}:{self.name}" if order == "problems" else self.name

    @property
    def urgency(self) -> int:
        if self.status is AgentStatus.OFFLINE:
            return 0
        if self.failed or self.conflicts:
            return 1
        return {AgentStatus.DEGRADED: 2, AgentStatus.UNKNOWN: 3}.get(self.status, 4)


def _place(cursor: str, order: str) -> tuple[int, str]:
    """Raises Malformed."""
    if order == "name":
        return 0, cursor
    urgency, colon, name = cursor.partition(":")
    if not colon or urgency not in "01234" or len(urgency) != 1:
        raise Malformed("This cursor is not one that a list gave out.", code="malformed_cursor")
    return int(urgency), name


_PENDING = select(t.sync_conflict.c.site_id, func.count()).where(t.sync_conflict.c.status == "pending")
_PENDING = _PENDING.group_by(t.sync_conflict.c.site_id)
_LINES = select(
    t.site.c.id,
    t.site.c.name,
    t.site.c.description,
    t.agent.c.last_seen,
    t.agent.c.interval_seconds,
    t.agent.c.metrics["failed_queue_items"].as_integer().label("failed"),
).join_from(t.site, t.agent, (t.agent.c.site_id == t.site.c.id) & t.agent.c.replaced_at.is_(None), isouter=True)


def _lines(conn: Connection, now: datetime) -> list[_Line]:
    disputed = tally(conn, _PENDING)
    return [
        _Line(id, name, description, status_after(last_seen, interval, now), failed or 0, disputed.get(id, 0))
        for id, name, description, last_seen, interval, failed in conn.execute(_LINES)
    ]


def _rows(conn: Connection, ids: Sequence[str]) -> list[Row[Any]]:
    found = {row.id: row for row in conn.execute(select(t.site).where(t.site.c.id.in_(ids)))}
    return [found[id] for id in ids]


def _views(conn: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[SiteView]:
    ids = [row.id for row in rows]
    heard, last = beats(conn, ids), last_heard(conn, ids)
    nodes = select(t.node.c.home_site_id, func.count()).where(
        t.node.c.home_site_id.in_(ids), t.node.c.deleted_at.is_(None)
    )
    machines = tally(conn, nodes.group_by(t.node.c.home_site_id))
    disputed = tally(conn, _PENDING.where(t.sync_conflict.c.site_id.in_(ids)))
    return [
        SiteView.model_validate(
            {
                **row._asdict(),
                **_told(heard.get(row.id), now),
                "agent_last_seen": last.get(row.id),
                "nodes_total": machines.get(row.id, 0),
                "conflicts_pending": disputed.get(row.id, 0),
            }
        )
        for row in rows
    ]


_TOLD = ("pending_queue_items", "failed_queue_items", "cache_hit_rate", "readiness")


def _told(beat: Beat | None, now: datetime) -> dict[str, Any]:
    """What a site's agent said last. It was checked as it came, and once more with the view it goes into."""
    if beat is None or beat.last_seen is None:
        return {}
    told = {name: beat.metrics[name] for name in _TOLD if name in beat.metrics}
    return {"agent_status": status_of(beat, now), **told}


def health(conn: Connection, ref: str, now: datetime) -> SiteHealth:
    site = find(conn, ref)
    beat = beats(conn, [site.id]).get(site.id)
    nodes = select(t.node.c.state, func.count()).where(t.node.c.home_site_id == site.id, t.node.c.deleted_at.is_(None))
    counts = tally(conn, nodes.group_by(t.node.c.state))
    pending = (t.sync_conflict.c.site_id == site.id, t.sync_conflict.c.status == "pending")
    return SiteHealth(
        site_id=site.id,
        agent_status=status_of(beat, now),
        agent_last_seen=last_heard(conn, [site.id]).get(site.id),
        agent_id=beat.agent_id if beat else None,
        metrics=AgentMetrics.model_validate(beat.metrics) if beat and beat.last_seen else None,
        nodes=counts,
        nodes_total=sum(counts.values()),
        conflicts_pending=count(conn, t.sync_conflict, *pending),
        notices=alerts.notices(conn, site.id),
        epoch_gaps=epochs.gaps(conn, site.id),
    )


def names(conn: Connection, limit: int) -> dict[str, str]:
    """What people call them, by id, in that order."""
    query = select(t.site.c.id, t.site.c.name).order_by(t.site.c.name).limit(limit)
    return {row.id: row.name for row in conn.execute(query)}
