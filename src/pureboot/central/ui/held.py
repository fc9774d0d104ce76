"""What somebody typed while their session ended: carried through the sign-in, shown again, never sent by itself."""

from typing import Any

from fastapi import Request

from pureboot.central.ui.form import CSRF, Form
from pureboot.central.ui.visit import own_path, parts_of

# What is kept; a longer form has to be typed again.
MOST_FIELDS, MOST_CHARACTERS = 500, 200_000
_FIELD = "held."
_PATH = "held_path"
SECRETS = ("password", "password_again", "password_before")


def form(request: Request, typed: Form) -> dict[str, Any]:
    """For the sign-in page after a form that nobody was signed in for."""
    back = parts_of(request.headers.get("referer", ""))
    next_path = own_path(back.path + (f"?{back.query}" if back.query else "")) if back.path else "/"
    fields = typed.without(CSRF, *SECRETS).fields
    if len(fields) > MOST_FIELDS or sum(len(name) + len(value) for name, value in fields) > MOST_CHARACTERS:
        return context(next_path, lost=True)
    return context(next_path, own_path(request.url.path), fields)


def again(sign_in: Form) -> dict[str, Any]:
    """The same, from the sign-in form itself: after a wrong password, or once the person is signed in."""
    fields = tuple((name.removeprefix(_FIELD), value) for name, value in sign_in.fields if name.startswith(_FIELD))
    path = sign_in.get(_PATH)
    return context(own_path(sign_in.get("next")), own_path(path) if path else "", fields)


def context(
    next_path: str, held_path: str = "", held_fields: tuple[tuple[str, str], ...] = (), *, lost: bool = False
) -> dict[str, Any]:
    return {"next": next_path, "held_path": held_path, "held_fields": held_fields, "lost": lost, "name": ""}
