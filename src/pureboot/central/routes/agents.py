"""Agents: how one is let in, and its heartbeat."""

from fastapi import APIRouter

from pureboot.central import accounts, heartbeats
from pureboot.central.edge import AsCurrentAgent, Central, GuardedRoute, OpenRoute
from pureboot.core.errors import Forbidden
from pureboot.wire.messages import AgentCredential, AgentRegistration, Heartbeat, HeartbeatAnswer

open_routes = APIRouter(route_class=OpenRoute, tags=["agents"])
routes = APIRouter(route_class=GuardedRoute, tags=["agents"])


@open_routes.post("/agents/register", status_code=201)
async def register(central: Central, request: AgentRegistration) -> AgentCredential:
    """Trades a site's one-time token for a credential, which is shown only here."""
    now = central.clock.now()
    return await central.db.write(lambda conn: accounts.register_agent(conn, request, now))


@routes.post("/agents/heartbeat")
async def heartbeat(central: Central, agent: AsCurrentAgent, beat: Heartbeat) -> HeartbeatAnswer:
    if beat.agent_id != agent.id:
        raise Forbidden("This credential is another agent's.", code="not_yours")
    now = central.clock.now()
    return await central.db.write(lambda conn: heartbeats.heard(conn, agent, beat, now))
