"""Reading what machines send: JSON or a form, unknown fields ignored, errors in one sentence."""

from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from pureboot.core.errors import Malformed
from pureboot.wire.messages import explain
from pureboot.wire.reading import read_json

Body = TypeVar("Body", bound=BaseModel)

# What machines send has a dozen.
FORM_FIELDS = 100


def read_limit(request: Request) -> int:
    """Rows of a page. Raises Malformed."""
    try:
        return min(1000, max(1, int(request.query_params.get("limit", "100"))))
    except ValueError:
        raise Malformed("'limit' is no number.") from None


async def read_body(request: Request, kind: type[Body]) -> Body:
    raw = await request.body()
    if request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        parsed: object = _form(raw)
    else:
        parsed = _json(raw)
    try:
        return kind.model_validate(parsed)
    except ValidationError as error:
        raise explain(error) from None


def _form(raw: bytes) -> object:
    try:
        return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS))
    except ValueError:
        raise Malformed(f"The form has more than {FORM_FIELDS} fields.") from None


def _json(raw: bytes) -> object:
    parsed = read_json(raw)
    if not isinstance(parsed, dict):
        raise Malformed("The body is no JSON object.", hint='Send {"field": "value", …}.')
    return parsed
