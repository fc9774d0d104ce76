"""Central's HTTP: the routes and how they fail. Everything they work with is handed in."""

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer

import pureboot
from pureboot.central.edge import GuardedRoute, Services, answer_errors
from pureboot.central.routes import (
    agents,
    alerts,
    conflicts,
    content,
    nodes,
    people,
    sites,
    status,
    sync,
    tokens,
    workflows,
)
from pureboot.central.ui.areas import AREAS, OPEN_ROUTES, ROUTES
from pureboot.central.ui.page_route import PageRoute


def create_app(services: Services) -> FastAPI:
    # The pages of docs_url load their script from a CDN; a site without Internet has none.
    app = FastAPI(title="PureBoot central", version=pureboot.__version__, docs_url=None, redoc_url=None)
    app.state.services = services
    app.router.redirect_slashes = False
    answer_errors(app)
    app.include_router(status.open_routes)
    app.include_router(agents.open_routes, prefix="/api/v1")
    # For the description only; GuardedRoute is what asks.
    token = Depends(HTTPBearer(auto_error=False))
    app.include_router(status.routes, dependencies=[token])
    for part in (sites, conflicts, nodes, workflows, content, people, tokens, agents, sync, alerts):
        app.include_router(_guarded(part.routes), prefix="/api/v1", dependencies=[token])
    app.state.areas = AREAS
    for routes in OPEN_ROUTES:
        app.include_router(routes)
    for routes in ROUTES:
        app.include_router(_guarded(routes))
    return app


def _guarded(routes: APIRouter) -> APIRouter:
    """Raises where a route would be open by mistake."""
    if not all(isinstance(route, GuardedRoute | PageRoute) for route in routes.routes):
        raise TypeError("a route does not ask who it is")
    return routes
