"""The pages' own files: style, script, picture. Their address carries their digest, so a browser may keep them."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from pureboot.central.edge import OpenRoute
from pureboot.central.ui.render import ASSETS, asset, asset_version
from pureboot.core.errors import NotFound

routes = APIRouter(route_class=OpenRoute, include_in_schema=False)


@routes.get("/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    if name not in ASSETS:
        raise NotFound("There is no such file.")
    kept = request.query_params.get("v") == asset_version(name)
    headers = {
        "cache-control": "public, max-age=31536000, immutable" if kept else "no-cache",
        "x-content-type-options": "nosniff",
    }
    return Response(asset(name), media_type=ASSETS[name], headers=headers)
