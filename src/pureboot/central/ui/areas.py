"""The pages there are, in the order of the navigation.

To add one: a module with `routes` (an `APIRouter` of `PageRoute`s), its templates in a folder of its name, a line here.
"""

from fastapi import APIRouter
from fastapi.responses import Response

from pureboot.central.edge import AsViewer
from pureboot.central.ui import (
    alerts,
    conflicts,
    content,
    live,
    nodes,
    people,
    sign_in,
    site,
    sites,
    static_files,
    workflows,
)
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.view import Area, Ui
from pureboot.core.errors import NotFound
from pureboot.core.roles import Role

start = APIRouter(route_class=PageRoute, include_in_schema=False)


@start.get("/")
async def start_page(view: Ui, _: AsViewer) -> Response:
    return view.go("/sites")


@start.get("/missing")
async def missing(_: AsViewer) -> Response:
    """Where an address that is none of ours leads a browser."""
    raise NotFound("There is no page at this address.", hint="The links above lead to all there are.")


AREAS = (
    Area("Sites", "/sites"),
    Area("Nodes", "/nodes"),
    Area("Conflicts", "/conflicts"),
    Area("Workflows", "/workflows"),
    Area("Content", "/content"),
    Area("Alerts", "/alerts", badge=True),
    Area("People", "/people", Role.ADMIN),
)
# Open routes first: they ask nobody who it is.
OPEN_ROUTES = (static_files.routes, sign_in.open_routes)
ROUTES = (
    start,
    sign_in.routes,
    live.routes,
    sites.routes,
    site.routes,
    nodes.routes,
    conflicts.routes,
    workflows.routes,
    content.routes,
    alerts.routes,
    people.routes,
)
