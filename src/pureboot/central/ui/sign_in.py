"""Signing in and out, and the password that one signs in with."""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import Connection

from pureboot.central import browsers, people
from pureboot.central.edge import AsViewer, Central, Services
from pureboot.central.ui import held
from pureboot.central.ui.form import Form
from pureboot.central.ui.page_route import OpenPageRoute, PageRoute
from pureboot.central.ui.view import Ui, View
from pureboot.central.ui.visit import COOKIE, PostedForm, Visit, address_of, own_path
from pureboot.core.errors import PureBootError, Unauthenticated

open_routes = APIRouter(route_class=OpenPageRoute, include_in_schema=False)
routes = APIRouter(route_class=PageRoute, include_in_schema=False)


@open_routes.get("/sign-in")
async def show(central: Central, view: Ui, next: str = "/") -> Response:
    if view.person:
        return view.go(own_path(next))
    nobody_yet = not await central.db.read(people.anybody)
    return view.page("sign-in.html", **held.context(own_path(next)), nobody_yet=nobody_yet)


@open_routes.post("/sign-in")
async def sign_in(central: Central, view: Ui, form: PostedForm) -> Response:
    """What was held is shown again, to be sent by the person."""
    name, kept = people.plain(form.get("name"))[:200], held.again(form)
    try:
        token = await _let_in(central, name, form.get("password"), address_of(view.request))
    except PureBootError as error:
        return view.page("sign-in.html", **kept | {"name": name}, error=error)
    answer = await _held_again(central, view, token, kept) if kept["held_path"] else view.go(kept["next"])
    _give(answer, token, central, view)
    return answer


def _give(answer: Response, token: str, central: Services, view: View) -> None:
    longest = int(central.session_life.longest.total_seconds())
    answer.set_cookie(COOKIE, token, max_age=longest, httponly=True, samesite="lax", secure=view.is_secure, path="/")


async def _let_in(central: Services, name: str, password: str, address: str, *, new_password: str | None = None) -> str:
    """The new session's cookie. A new password ends the sessions before. Raises Invalid for one that is none, and
    Unauthenticated, in the same time for a name that nobody has."""
    central.patience.take(name, address)
    hashed = await central.db.read(lambda conn: people.password_of(conn, name))
    wrong = Unauthenticated(
        "This name and password do not belong together.", code="wrong_password", hint="Both are checked as one."
    )
    if not await central.passwords.matches(hashed, password):
        raise wrong
    central.patience.right(name, address)
    now = central.clock.now()
    new_hash = None if new_password is None else await central.passwords.hash(new_password)

    def begin(conn: Connection) -> str:
        # Whoever changes the password meanwhile ends the session, too, or is seen here.
        if people.password_of(conn, name, lock=True) != hashed:
            raise wrong
        if new_hash is not None:
            people.change(conn, name, now, password_hash=new_hash)
        return browsers.begin(conn, name, central.session_life, now)

    return await central.db.write(begin)


async def _held_again(central: Services, view: View, token: str, kept: dict[str, Any]) -> Response:
    now, life = central.clock.now(), central.session_life
    session = await central.db.read(lambda conn: browsers.find(conn, token, life, now))
    return replace(view, visit=Visit(session, token, Form())).page("held.html", **kept)


@routes.post("/sign-out")
async def sign_out(central: Central, view: Ui) -> Response:
    token = view.visit.token
    await central.db.write(lambda conn: browsers.end(conn, token))
    central.news.end(browsers.key_of(token))
    answer = view.go("/sign-in")
    answer.delete_cookie(COOKIE, path="/")
    return answer


@routes.get("/password")
async def own_password(view: Ui) -> Response:
    return view.page("password.html")


@routes.post("/password")
async def change_own_password(central: Central, view: Ui, person: AsViewer, form: PostedForm) -> Response:
    """Whoever finds a browser that somebody left open does not know the password until now."""
    before, address = form.get("password_before"), address_of(view.request)
    try:
        token = await _let_in(central, person.name, before, address, new_password=form.new_password())
    except PureBootError as error:
        return view.page("password.html", error=error)
    central.news.end(browsers.key_of(view.visit.token))
    mine = replace(view, visit=Visit(None, token, Form()))
    answer = mine.go("/", "Your password is changed, and you are signed out everywhere else.")
    _give(answer, token, central, view)
    return answer
