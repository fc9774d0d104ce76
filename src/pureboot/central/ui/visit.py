"""A browser's request: whose it is, whether it was meant, and what happens where nobody is signed in."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import SplitResult, quote, urlsplit

from fastapi import Depends, Request

from pureboot.central import alerts, browsers
from pureboot.central.browsers import Session, form_token
from pureboot.central.edge import BoundedRequest, services
from pureboot.central.ui.form import CSRF, Form, read
from pureboot.core.errors import Busy, Forbidden, StorageFull

COOKIE = "pureboot_session"
SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Visit:
    """`token` is the cookie; it is empty where nobody is signed in. `unseen`: alerts that nobody has acknowledged."""

    session: Session | None
    token: str
    form: Form
    unseen: int = 0

    @property
    def form_token(self) -> str:
        return form_token(self.token) if self.session else ""


def visit_of(request: Request) -> Visit:
    visit: Visit = request.state.visit
    return visit


def _form(request: Request) -> Form:
    return visit_of(request).form


PostedForm = Annotated[Form, Depends(_form)]


async def receive(request: BoundedRequest) -> Visit:
    """Raises Forbidden for what another site made the browser send, before anything else is looked at."""
    safe = request.method in SAFE
    if not safe:
        _check_origin(request)
    form = Form() if safe else await read(request)
    token = request.cookies.get(COOKIE, "")
    session = await _session(request, token) if token else None
    unseen = await services(request).db.read(alerts.unseen) if session else 0
    return Visit(session, token, form, unseen)


async def _session(request: Request, token: str) -> Session | None:
    central = services(request)
    now, life = central.clock.now(), central.session_life
    session = await central.db.read(lambda conn: browsers.find(conn, token, life, now))
    # A page that refreshes itself does not keep anybody signed in.
    if session is not None and session.stale and not is_live(request):
        key = session.key
        # Where nothing can be written, one can still look; the next page notes it.
        with suppress(StorageFull, Busy):
            await central.db.write(lambda conn: browsers.touch(conn, key, now))
    return session


def is_meant(visit: Visit, request: Request) -> bool:
    """Whether the form comes from a page of this session, which knows its token."""
    sent = visit.form.get(CSRF) or request.headers.get("x-csrf-token", "")
    return request.method in SAFE or browsers.same_token(visit.form_token, sent)


def _check_origin(request: Request) -> None:
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    ours = site in ("same-origin", "none") if site else origin is None or parts_of(origin).netloc == _host(request)
    if not ours:
        raise Forbidden("Another site sent this.", code="cross_site", hint="Open central's own page and do it there.")


def _host(request: Request) -> str:
    return request.headers.get("host", "")


def is_htmx(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def is_live(request: Request) -> bool:
    """Asked for by the page itself, because something changed."""
    return request.headers.get("x-live") == "true"


def parts_of(address: str) -> SplitResult:
    """None of them has anything in it where this is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def own_path(text: str) -> str:
    """A path of ours, or the start: never an address of somebody else's."""
    plain = text.startswith("/") and not text.startswith("//") and text.isprintable() and "\\" not in text
    return text if plain else "/"


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def sign_in_path(request: Request) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"/sign-in?next={quote(request.url.path + query, safe='/')}"
