"""Boot scripts. A boot URL answers 200 with a script, or not with 200: firmware runs whatever it gets, and hangs."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pureboot.agent.boot_service import AgentBootService
from pureboot.core.errors import Malformed
from pureboot.core.mac import MacAddress


def boot_routes(service: AgentBootService) -> list[Route]:
    async def entry(_: Request) -> Response:
        return PlainTextResponse(service.entry())

    async def by_path(request: Request) -> Response:
        return await _answer(service, request.path_params["mac"], request)

    async def by_query(request: Request) -> Response:
        if (mac := request.query_params.get("mac")) is None:
            raise Malformed("The query names no machine.", hint="Ask for /api/v1/boot?mac=52:54:00:aa:bb:01.")
        return await _answer(service, mac, request)

    return [
        Route("/boot.ipxe", entry, methods=["GET", "HEAD"]),
        Route("/boot/{mac}", by_path, methods=["GET", "HEAD"]),
        Route("/api/v1/boot", by_query, methods=["GET", "HEAD"]),
    ]


async def _answer(service: AgentBootService, mac: str, request: Request) -> Response:
    MacAddress.parse(mac)
    if request.method == "HEAD":  # firmware asks before it fetches; that must not begin an install
        answer = PlainTextResponse("", status_code=404 if service.has_no_script(mac) else 200)
        del answer.headers["Content-Length"]  # the script's length is not known before the decision is made
        return answer
    return PlainTextResponse(await service.get_boot_script(mac, request))
