"""The agent's HTTP face, where no route is to blame."""

import logging

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from pureboot.agent.app import create_app


async def read(request: Request) -> Response:
    return Response(await request.body())


async def test_a_machine_that_dies_while_it_speaks_is_no_failure_of_the_agent(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    answered: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answered.append(message)

    with caplog.at_level(logging.INFO):
        await create_app([Route("/", read, methods=["POST"])], max_body_bytes=100)(scope, receive, send)
    assert caplog.records == []
    assert answered[0]["status"] == 400
