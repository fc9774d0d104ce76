"""Who may sign in."""

from fastapi import APIRouter
from fastapi.responses import Response

from pureboot.central import people
from pureboot.central.bodies import PersonCreate, PersonPatch
from pureboot.central.edge import AsAdmin, Central, Cursor, Services
from pureboot.central.ui.form import Form
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.view import Ui, View
from pureboot.central.ui.visit import PostedForm
from pureboot.core.errors import PureBootError

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 100


@routes.get("/people")
async def person_list(central: Central, view: Ui, _: AsAdmin, cursor: Cursor = None) -> Response:
    return await _list(central, view, cursor=cursor)


@routes.post("/people")
async def add(central: Central, view: Ui, _: AsAdmin, form: PostedForm) -> Response:
    try:
        body = form.body(PersonCreate)
        hashed = await central.passwords.hash(form.new_password())
        added = await central.db.write(lambda conn: people.add(conn, body.name, body.role, hashed, view.now))
    except PureBootError as error:
        return await _list(central, view, error=error, form=form)
    return view.go("/people", f"{added.name} can sign in now, as {added.role}.")


@routes.get("/people/{name}")
async def person(central: Central, view: Ui, _: AsAdmin, name: str) -> Response:
    return await _one(central, view, name)


@routes.post("/people/{name}")
async def change(central: Central, view: Ui, _: AsAdmin, name: str, form: PostedForm) -> Response:
    """One form for the role and whether they may sign in."""
    try:
        patch = form.body(PersonPatch)
        changed = await central.db.write(
            lambda conn: people.change(conn, name, view.now, role=patch.role, disabled=patch.disabled)
        )
    except PureBootError as error:
        return await _one(central, view, name, error=error)
    return view.go("/people", f"{changed.name} is changed.")


@routes.post("/people/{name}/password")
async def set_password(central: Central, view: Ui, _: AsAdmin, name: str, form: PostedForm) -> Response:
    try:
        hashed = await central.passwords.hash(form.new_password())
        await central.db.write(lambda conn: people.change(conn, name, view.now, password_hash=hashed))
    except PureBootError as error:
        return await _one(central, view, name, error=error)
    return view.go("/people", f"{name} has a new password, and is signed out everywhere.")


@routes.post("/people/{name}/remove")
async def remove(central: Central, view: Ui, _: AsAdmin, name: str) -> Response:
    try:
        await central.db.write(lambda conn: people.remove(conn, name))
    except PureBootError as error:
        return await _one(central, view, name, error=error)
    return view.go("/people", f"{name} is removed.")


async def _list(
    central: Services,
    view: View,
    cursor: str | None = None,
    error: PureBootError | None = None,
    form: Form | None = None,
) -> Response:
    found = await central.db.read(lambda conn: people.page(conn, cursor, ROWS))
    return view.page("people/list.html", found=found, cursor=cursor, error=error, form=form or Form())


async def _one(central: Services, view: View, name: str, error: PureBootError | None = None) -> Response:
    found = await central.db.read(lambda conn: people.find(conn, name))
    return view.page("people/person.html", found=found, error=error)
