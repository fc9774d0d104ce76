"""The sites, those with problems first."""

from fastapi import APIRouter
from fastapi.responses import Response

from pureboot.central import sites
from pureboot.central.edge import AsViewer, Central, Cursor
from pureboot.central.sites import SiteFilter
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.view import Ui
from pureboot.wire.messages import AgentStatus

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 50


@routes.get("/sites")
async def site_list(
    central: Central, view: Ui, _: AsViewer, q: str = "", status: str = "", cursor: Cursor = None
) -> Response:
    chosen = AgentStatus(status) if status in list(AgentStatus) else None
    wanted = SiteFilter(q, chosen, order="problems")

    found, fleet = await central.db.read(lambda conn: sites.overview(conn, cursor, ROWS, view.now, wanted))
    return view.page("sites/list.html", found=found, fleet=fleet, q=q, status=chosen, cursor=cursor)
