"""How central is."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

import pureboot
from pureboot.central.bodies import Health
from pureboot.central.edge import AsViewer, Central, GuardedRoute, OpenRoute
from pureboot.central.generation import generation_of
from pureboot.central.metrics import census

open_routes = APIRouter(route_class=OpenRoute, tags=["status"])
routes = APIRouter(route_class=GuardedRoute, tags=["status"])


@open_routes.get("/health")
async def health(central: Central) -> Health:
    return Health(version=pureboot.__version__, generation=await central.db.read(generation_of))


@routes.get("/metrics", response_class=Response)
async def metrics(central: Central, _: AsViewer) -> Response:
    now = central.clock.now()
    seen = await central.db.read(lambda conn: census(conn, now))
    return Response(central.metrics.render(seen), media_type=CONTENT_TYPE_LATEST)
