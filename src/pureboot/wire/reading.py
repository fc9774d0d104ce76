"""Reading JSON from strangers."""

from typing import Any

import pydantic_core

from pureboot.core.errors import Malformed


def read_json(data: bytes) -> Any:
    """Raises Malformed for what is not JSON (RFC 8259), and for what Python's own reader lets through and nothing can
    store or send again: NaN, Infinity, half a character (`\\ud800`), a thousand brackets."""
    try:
        return pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None
