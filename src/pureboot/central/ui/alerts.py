"""What an operator should know of the sites, and that it was seen."""

from fastapi import APIRouter
from fastapi.responses import Response

from pureboot.central import alerts, sites
from pureboot.central.edge import AsOperator, AsViewer, Central, Cursor
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.render import query
from pureboot.central.ui.view import Ui
from pureboot.central.ui.visit import PostedForm

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 50


@routes.get("/alerts")
async def alert_list(
    central: Central, view: Ui, _: AsViewer, status: str = "open", site: str = "", cursor: Cursor = None
) -> Response:
    wanted: alerts.Status = "all" if status == "all" else "open"
    found, about = await central.db.read(
        lambda conn: (
            alerts.page(conn, wanted, sites.find(conn, site).id if site else None, cursor, ROWS),
            sites.find(conn, site) if site else None,
        )
    )
    return view.page("alerts/list.html", found=found, about=about, status=wanted, cursor=cursor)


@routes.post("/alerts/{alert}/acknowledge")
async def acknowledge(central: Central, view: Ui, person: AsOperator, alert: str, form: PostedForm) -> Response:
    await central.db.write(lambda conn: alerts.acknowledge(conn, alert, person.name, view.now))
    status = "all" if form.get("status") == "all" else ""
    return view.go(f"/alerts{query(status=status, site=form.get('site'))}", "It is noted that you have seen it.")
