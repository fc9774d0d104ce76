"""Errors as HTTP: one status per kind, one body for all."""

import math
from typing import Any

from pureboot.core import errors

_STATUS: list[tuple[type[errors.PureBootError], int]] = [
    # The first match counts, so a subclass stands before its base.
    (errors.Malformed, 400),
    (errors.Invalid, 422),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Clash, 409),
    (errors.Gone, 410),
    (errors.TooLarge, 413),
    (errors.TooManyRequests, 429),
    (errors.StorageFull, 507),
    (errors.Busy, 503),
]


def status_of(error: errors.PureBootError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: errors.PureBootError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "hint": error.hint}}


def headers_of(error: errors.PureBootError) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(error.retry_after))} if isinstance(error, errors.Busy) else {}


def from_answer(status: int, body: object, retry_after: float | None) -> errors.PureBootError:
    """The error an answer stands for, whoever sent it; a body that is not ours still gives a sentence."""
    detail = body.get("error") if isinstance(body, dict) else None
    detail = detail if isinstance(detail, dict) else {}
    message = str(detail.get("message") or f"It answered HTTP {status}.")[:500]
    hint = str(detail.get("hint") or "")[:500]
    kind = next((kind for kind, known in _STATUS if known == status), None)
    if kind is None:
        kind = errors.CentralUnavailable if status >= 500 else errors.PureBootError
    code = str(detail.get("code") or kind.code)[:100]
    if issubclass(kind, errors.Busy):
        return kind(message, hint=hint, code=code, retry_after=1.0 if retry_after is None else retry_after)
    return kind(message, hint=hint, code=code)
