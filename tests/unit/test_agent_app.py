"""The agent's HTTP face, where no route is to blame."""

import json
import logging

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from pureboot.agent.app import create_app
from pureboot.core.errors import StorageFull


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


async def echo(request: Request) -> Response:
    match body := await request.body():
        case b"full":
            raise StorageFull("No room.", retry_after=60)
        case b"bug":
            raise LookupError
        case _:
            return Response(body + b" by " + request.path_params["way"].encode())


async def asked(path: str, *parts: bytes) -> tuple[int, bytes]:
    """The answer to a body that arrives in parts; after an empty one the machine is gone."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    incoming = list(parts)
    answered: list[Message] = []

    async def receive() -> Message:
        part = incoming.pop(0)
        message = {"type": "http.request", "body": part, "more_body": bool(incoming)}
        return message if part else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answered.append(message)

    quick = Route("/{way}", echo, methods=["POST"])
    app = create_app([Route("/", read, methods=["POST"])], max_body_bytes=100, quick=[quick])
    await app(scope, receive, send)
    return answered[0]["status"], answered[1]["body"]


async def test_what_is_asked_most_goes_past_the_app_and_all_else_does_not() -> None:
    assert await asked("/quick", b"one ", b"two") == (200, b"one two by quick")
    assert await asked("/", b"one ", b"two") == (200, b"one two")


@pytest.mark.parametrize(
    ("body", "status", "code"), [(b"full", 507, "storage_full"), (b"bug", 500, "internal"), (b"x" * 101, 413, None)]
)
async def test_its_errors_are_those_of_the_app(body: bytes, status: int, code: str | None) -> None:
    answered, document = await asked("/quick", body)
    assert answered == status
    if code:
        assert json.loads(document)["error"]["code"] == code
    if status == 413:
        assert (answered, document) == await asked("/", body)


async def test_its_body_is_counted_as_it_arrives() -> None:
    assert (await asked("/quick", *[b"x" * 60] * 1000))[0] == 413


async def test_a_machine_that_dies_while_it_reports_is_no_failure_either(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert await asked("/quick", b"one ", b"") == (400, b"")
    assert caplog.records == []
