"""Reading JSON from strangers."""

import math
import re
from collections.abc import Iterator
from typing import Any

import pydantic_core

from pureboot.core.errors import Malformed


def read_json(data: bytes) -> Any:
    """Raises Malformed for what is not JSON (RFC 8259), and for what Python's own reader lets through and nothing can
    store or send again: NaN, Infinity, half a character (`\\ud800`), a thousand brackets."""
    try:
        value = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None
    if _may_overflow(data) and not _is_finite(value):
        raise Malformed("The body holds a number that is too large.")
    return value


def _may_overflow(data: bytes) -> bool:
    """Whether a number in it may be too large: then it has become infinite without a word, and is `null` when it is
    sent on. Costs less than the reading itself; the walk that makes sure costs more."""
    return _LONG in data.translate(_TO_ZERO) or _EXPONENT.search(b" " + data) is not None


# Only a number stands right behind one of these characters: ids, of which a push is full, often have digits beside an
# e, too.
_EXPONENT = re.compile(rb"[\[:,\s]-?\d[\d.]*[eE]\+?\d\d\d")
_LONG = b"0" * 200
_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")


def levels(value: Any) -> Iterator[list[Any]]:
    """A document level by level, without recursion: how deep it is, a stranger has decided."""
    level = [value]
    while level:
        yield level
        level = [child for item in level for child in _children(item)]


def _is_finite(value: Any) -> bool:
    return all(math.isfinite(item) for level in levels(value) for item in level if isinstance(item, float))


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
