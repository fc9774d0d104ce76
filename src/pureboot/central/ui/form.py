"""What a form sent: read once, bounded, and turned into the body that the API takes too."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel

from pureboot.central.edge import BoundedRequest
from pureboot.core.errors import Invalid, Malformed
from pureboot.wire.messages import valid

CSRF = "_csrf"
# Of a form, whoever sends it: it is read before anybody has said who they are.
MOST_FIELDS, MOST_BYTES = 2000, 512 * 1024
URLENCODED = "application/x-www-form-urlencoded"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Form:
    """Names may repeat, as boxes that are ticked do."""

    fields: tuple[tuple[str, str], ...] = ()

    def get(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.fields if key == name), default)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def new_password(self) -> str:
        """Raises Invalid where it was not typed the same twice."""
        if self.get("password") != self.get("password_again"):
            raise Invalid("password: the two are not the same.", hint="Type it twice.")
        return self.get("password")

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)

    def without(self, *names: str) -> "Form":
        return Form(tuple((key, value) for key, value in self.fields if key not in names))

    def body(
        self, model: type[M], *, none: Collection[str] = (), many: Collection[str] = (), skip: Collection[str] = ()
    ) -> M:
        """The fields that the model has and the form sent. Empty text in `none` means None; `many` are one a line.

        Raises Invalid.
        """
        values: dict[str, object] = {}
        for name in [name for name in model.model_fields if name not in skip]:
            if name in many and self.has(name):
                values[name] = [line.strip() for line in self.get(name).splitlines() if line.strip()]
            elif self.has(name):
                text = self.get(name)
                values[name] = None if name in none and not text.strip() else text
        return valid(model, values)


async def read(request: BoundedRequest) -> Form:
    """Raises Malformed, or TooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.plain_body(MOST_BYTES)
    if not body:
        return Form()
    if kind != URLENCODED:
        raise Malformed("This is no form.", hint=f"Send it as {URLENCODED}.")
    # A quarter of a second for the worst: in a thread, so that nobody else waits for it.
    return await asyncio.to_thread(_parsed, body)


def _parsed(body: bytes) -> Form:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise Malformed("The form cannot be read.", hint=f"It is UTF-8 with up to {MOST_FIELDS} fields.") from None
    return Form(tuple((_storable(name), _storable(value)) for name, value in pairs))


def _storable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\r\n", "\n")
