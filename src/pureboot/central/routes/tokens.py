"""Tokens of programs and people. One is named by the name that history calls it."""

from fastapi import APIRouter

from pureboot.central import tokens
from pureboot.central.bodies import NewToken, TokenCreate, TokenView
from pureboot.central.edge import AsAdmin, Central, Cursor, GuardedRoute, Limit
from pureboot.wire.messages import ListPage

routes = APIRouter(route_class=GuardedRoute, tags=["people"])


@routes.get("/tokens")
async def list_tokens(central: Central, _: AsAdmin, limit: Limit = 100, cursor: Cursor = None) -> ListPage[TokenView]:
    return await central.db.read(lambda conn: tokens.page(conn, cursor, limit))


@routes.post("/tokens", status_code=201)
async def create_token(central: Central, _: AsAdmin, body: TokenCreate) -> NewToken:
    """The token is shown only here."""
    now = central.clock.now()
    return await central.db.write(lambda conn: tokens.create(conn, body, now))


@routes.delete("/tokens/{name:path}", status_code=204)
async def revoke_token(central: Central, _: AsAdmin, name: str) -> None:
    await central.db.write(lambda conn: tokens.revoke(conn, name))
