"""People who may sign in. One is named by the name that history calls them."""

from fastapi import APIRouter

from pureboot.central import people
from pureboot.central.bodies import PersonCreate, PersonPatch, PersonView
from pureboot.central.edge import AsAdmin, Central, Cursor, GuardedRoute, Limit
from pureboot.wire.messages import ListPage

routes = APIRouter(route_class=GuardedRoute, tags=["people"])


@routes.get("/people")
async def list_people(central: Central, _: AsAdmin, limit: Limit = 100, cursor: Cursor = None) -> ListPage[PersonView]:
    return await central.db.read(lambda conn: people.page(conn, cursor, limit))


@routes.post("/people", status_code=201)
async def add_person(central: Central, _: AsAdmin, body: PersonCreate) -> PersonView:
    now, hashed = central.clock.now(), await central.passwords.hash(body.password)
    return await central.db.write(lambda conn: people.add(conn, body.name, body.role, hashed, now))


@routes.get("/people/{name}")
async def get_person(central: Central, _: AsAdmin, name: str) -> PersonView:
    return await central.db.read(lambda conn: people.find(conn, name))


@routes.patch("/people/{name}")
async def change_person(central: Central, _: AsAdmin, name: str, patch: PersonPatch) -> PersonView:
    now = central.clock.now()
    hashed = None if patch.password is None else await central.passwords.hash(patch.password)
    return await central.db.write(
        lambda conn: people.change(conn, name, now, role=patch.role, password_hash=hashed, disabled=patch.disabled)
    )


@routes.delete("/people/{name}", status_code=204)
async def remove_person(central: Central, _: AsAdmin, name: str) -> None:
    await central.db.write(lambda conn: people.remove(conn, name))
