"""Sites: a location with its own agent."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from pureboot.central import alerts, epochs
from pureboot.central import tables as t
from pureboot.central.accounts import Beat, beats, status_of
from pureboot.central.bodies import SiteHealth, SitePatch, SiteView
from pureboot.central.clock import new_id
from pureboot.central.positions import close_feed, open_feed, publish
from pureboot.central.sql import count, locked, one, page_by, rows_of, tally
from pureboot.core.errors import Clash, Invalid, NotFound
from pureboot.wire.messages import AgentMetrics, ListPage, SiteDocument, SiteFields

_REF = one("ref")
_NAMED = select(t.site).where(or_(t.site.c.id == _REF, t.site.c.name == _REF)).order_by(t.site.c.id)
_NAMED_LOCKED = locked(_NAMED)


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
    conn.execute(insert(t.site), row)
    open_feed(conn, row["id"])
    publish(conn, row["id"], "site", row["id"], 1)
    return SiteDocument.model_validate(row)


def change(conn: Connection, ref: str, patch: SitePatch, now: datetime) -> SiteDocument:
    site = find(conn, ref, lock=True)
    current = site.model_dump(include=set(SiteFields.model_fields))
    values = _checked(conn, SiteFields.model_validate(current | patch.model_dump(exclude_unset=True)), site.id)
    row = {**values, "version": site.version + 1, "updated_at": now}
    conn.execute(update(t.site).where(t.site.c.id == site.id).values(row))
    publish(conn, site.id, "site", site.id, site.version + 1)
    return find(conn, site.id)


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
    above: str | None = parent.id
    while above is not None:
        if above == id:
            raise Invalid("parent_id: a site cannot lie inside itself.", code="circle")
        above = conn.execute(select(t.site.c.parent_id).where(t.site.c.id == above)).scalar()


def remove(conn: Connection, ref: str) -> None:
    """Raises Clash while it has nodes or sites below it. Its agent's credential ends with it."""
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
    conn.execute(delete(t.site).where(t.site.c.id == site.id))


def view(conn: Connection, ref: str, now: datetime) -> SiteView:
    site = find(conn, ref)
    return _view(site, beats(conn, [site.id]).get(site.id), now)


def page(conn: Connection, cursor: str | None, limit: int, now: datetime) -> ListPage[SiteView]:
    rows, more = page_by(conn, select(t.site), t.site.c.name, cursor, limit)
    heard = beats(conn, [row.id for row in rows])
    items = [_view(document(row), heard.get(row.id), now) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].name if more else None)


def _view(site: SiteDocument, beat: Beat | None, now: datetime) -> SiteView:
    return SiteView(
        **site.model_dump(), agent_status=status_of(beat, now), agent_last_seen=beat.last_seen if beat else None
    )


def health(conn: Connection, ref: str, now: datetime) -> SiteHealth:
    site = find(conn, ref)
    beat = beats(conn, [site.id]).get(site.id)
    nodes = select(t.node.c.state, func.count()).where(t.node.c.home_site_id == site.id, t.node.c.deleted_at.is_(None))
    counts = tally(conn, nodes.group_by(t.node.c.state))
    pending = (t.sync_conflict.c.site_id == site.id, t.sync_conflict.c.status == "pending")
    return SiteHealth(
        site_id=site.id,
        agent_status=status_of(beat, now),
        agent_last_seen=beat.last_seen if beat else None,
        agent_id=beat.agent_id if beat else None,
        metrics=AgentMetrics.model_validate(beat.metrics) if beat and beat.last_seen else None,
        nodes=counts,
        nodes_total=sum(counts.values()),
        conflicts_pending=count(conn, t.sync_conflict, *pending),
        notices=alerts.notices(conn, site.id),
        epoch_gaps=epochs.gaps(conn, site.id),
    )
