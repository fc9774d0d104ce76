"""How a handler answers: with a page, or by leading on to one."""

import base64
import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup

from pureboot.central.accounts import Person
from pureboot.central.edge import services
from pureboot.central.ui.form import CSRF
from pureboot.central.ui.render import render
from pureboot.central.ui.visit import Visit, own_path, visit_of
from pureboot.core.errors import PureBootError
from pureboot.core.roles import Role
from pureboot.wire.errors import headers_of, status_of

FLASH = "pureboot_flash"
# Bytes of a message that travels in a cookie.
LONGEST_FLASH = 1000

Tone = Literal["good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the navigation, and the role that its pages need. `badge`: it shows how many alerts nobody has seen."""

    title: str
    path: str
    role: Role = Role.VIEWER
    badge: bool = False


@dataclass(frozen=True, slots=True)
class View:
    request: Request
    visit: Visit
    areas: tuple[Area, ...]
    now: datetime

    @property
    def person(self) -> Person | None:
        return self.visit.session.person if self.visit.session else None

    @property
    def here(self) -> str:
        """The address of this page, to come back to."""
        query = self.request.url.query
        return self.request.url.path + (f"?{query}" if query else "")

    def may(self, role: str) -> bool:
        return self.person is not None and self.person.role.reaches(Role(role))

    def page(self, template: str, code: int = 200, /, **context: Any) -> Response:
        """Every template finds the view as `view`; an `error` in the context gives the page its status."""
        error = context.setdefault("error", None)
        flash = self._flash()
        html = render(template, view=self, person=self.person, now=self.now, flash=flash, **context)
        if isinstance(error, PureBootError):
            answer = HTMLResponse(html, status_of(error), headers_of(error))
        else:
            answer = HTMLResponse(html, code)
        if flash:
            answer.delete_cookie(FLASH, path="/")
        return answer

    def go(self, path: str, said: str = "", tone: Tone = "good") -> Response:
        """To a page of ours after something was done; `said` is shown there, once."""
        answer = RedirectResponse(own_path(path), 303)
        if said:
            value = _sealed(self.visit.token, {"text": said[:LONGEST_FLASH], "tone": tone})
            answer.set_cookie(FLASH, value, max_age=60, httponly=True, samesite="lax", secure=self.is_secure, path="/")
        return answer

    @property
    def is_secure(self) -> bool:
        return self.request.url.scheme == "https"

    @property
    def news_count(self) -> int:
        """What this page is as new as."""
        return services(self.request).news.count

    @property
    def csrf(self) -> Markup:
        """The hidden field that every form of a page has."""
        return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF, self.visit.form_token)

    def is_in(self, area: Area) -> bool:
        path = self.request.url.path
        return path == area.path or path.startswith(f"{area.path}/")

    def _flash(self) -> dict[str, str] | None:
        return _opened(self.visit.token, self.request.cookies.get(FLASH, ""))


def _sealed(token: str, message: dict[str, str]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(message).encode()).decode()
    return f"{body}.{_seal(token, body)}"


def _opened(token: str, value: str) -> dict[str, str] | None:
    """None for what this session has not sealed."""
    body, _, seal = value.partition(".")
    if not token or not body or not hmac.compare_digest(_seal(token, body).encode(), seal.encode()):
        return None
    message: dict[str, str] = json.loads(base64.urlsafe_b64decode(body))
    return message


def _seal(token: str, body: str) -> str:
    return hmac.digest(token.encode(), f"flash {body}".encode(), "sha256").hex()


def view_of(request: Request) -> View:
    areas: tuple[Area, ...] = request.app.state.areas
    return View(request, visit_of(request), areas, services(request).clock.now())


Ui = Annotated[View, Depends(view_of)]
