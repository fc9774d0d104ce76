"""Alerts: what an operator should know of the sites."""

from fastapi import APIRouter

from pureboot.central import alerts, sites
from pureboot.central.bodies import Alert
from pureboot.central.edge import AsOperator, AsViewer, Central, Cursor, GuardedRoute, Limit
from pureboot.wire.messages import ListPage

routes = APIRouter(route_class=GuardedRoute, tags=["alerts"])


@routes.get("/alerts")
async def list_alerts(
    central: Central,
    _: AsViewer,
    status: alerts.Status = "open",
    site: str | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[Alert]:
    """The newest first; `open` are those that stand, acknowledged or not."""
    return await central.db.read(
        lambda conn: alerts.page(conn, status, sites.find(conn, site).id if site else None, cursor, limit),
    )


@routes.post("/alerts/{alert}/acknowledge")
async def acknowledge(central: Central, person: AsOperator, alert: str) -> Alert:
    """Somebody has seen it. What happened ends with it; what lasts stands on."""
    now = central.clock.now()
    return await central.db.write(lambda conn: alerts.acknowledge(conn, alert, person.name, now))
