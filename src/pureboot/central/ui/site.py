"""One site: how its agent is and was, what waits there for a person, and what it may do alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from sqlalchemy import Connection, select

from pureboot.central import commands, heartbeats, outages, sites
from pureboot.central import tables as t
from pureboot.central.bodies import CommandView, GiveUpBody, Outage, SiteHealth, SitePatch, SiteQueue, SiteView
from pureboot.central.edge import AsAdmin, AsOperator, AsViewer, Central, Services
from pureboot.central.sql import one, rows_of
from pureboot.central.ui.form import Form
from pureboot.central.ui.outage_picture import NAMES, WINDOWS, Picture, draw
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.view import Ui, View
from pureboot.central.ui.visit import PostedForm
from pureboot.core.errors import PureBootError
from pureboot.wire.beats import BeatReport

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

Item = Annotated[str, Path(max_length=64)]

# Sites that may be named as the one above.
CHOICES = 1000
# Outages that the page lists.
LISTED = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """A site as its page shows it, all of one moment."""

    site: SiteView
    health: SiteHealth
    queue: SiteQueue
    report: BeatReport
    picture: Picture
    outages: list[Outage]
    names: dict[str, str]


@routes.get("/sites/{site}")
async def site_page(central: Central, view: Ui, _: AsViewer, site: str, window: str = "24h") -> Response:
    return await _show(central, view, site, window=window)


@routes.post("/sites/{site}")
async def change(central: Central, view: Ui, _: AsAdmin, site: str, form: PostedForm) -> Response:
    try:
        none = ("parent_id", "offline_default_action", "offline_install_max_age", "version")
        patch = form.body(SitePatch, none=none, many=("cache_patterns",))
        changed = await central.db.write(lambda conn: sites.change(conn, site, patch, view.now))
    except PureBootError as error:
        return await _show(central, view, site, error=error, form=form)
    return view.go(f"/sites/{changed.id}", "The site is changed; its agent learns of it now.")


@routes.post("/sites/{site}/sync")
async def sync(central: Central, view: Ui, person: AsOperator, site: str) -> Response:
    return await _ask(central, view, site, "sync", person.name)


@routes.post("/sites/{site}/queue/{item}/requeue")
async def requeue(central: Central, view: Ui, person: AsOperator, site: str, item: Item) -> Response:
    return await _ask(central, view, site, "requeue", person.name, item_id=item)


@routes.post("/sites/{site}/queue/{item}/discard")
async def discard(central: Central, view: Ui, person: AsOperator, site: str, item: Item, form: PostedForm) -> Response:
    try:
        about = {"item_id": item, "reason": form.body(GiveUpBody).reason}
        asked = await commands.send(central.db, site, "discard", view.now, person=person.name, **about)
    except PureBootError as error:
        return await _show(central, view, site, error=error, reasons={item: form.get("reason")})
    return _asked(view, asked)


async def _ask(central: Services, view: View, ref: str, command: commands.Name, person: str, **about: str) -> Response:
    try:
        asked = await commands.send(central.db, ref, command, view.now, person=person, **about)
    except PureBootError as error:
        return await _show(central, view, ref, error=error)
    return _asked(view, asked)


def _asked(view: View, command: CommandView) -> Response:
    return view.go(f"/sites/{command.site_id}#queue", "The site's agent is asked; below stands what becomes of it.")


async def _show(
    central: Services,
    view: View,
    ref: str,
    *,
    window: str = "24h",
    error: PureBootError | None = None,
    form: Form | None = None,
    reasons: Mapping[str, str] | None = None,
) -> Response:
    """`form`: settings that were refused; `reasons`: those of items that were not given up."""
    window = window if window in WINDOWS else "24h"
    shown = await central.db.read(lambda conn: _read(conn, view, ref, window))
    return view.page("sites/site.html", shown=shown, windows=NAMES, error=error, form=form, reasons=reasons or {})


_AGENTS = select(t.agent).where(t.agent.c.site_id == one("site"))


def _read(conn: Connection, view: View, ref: str, window: str) -> Shown:
    site = sites.view(conn, ref, view.now)
    agents = rows_of(conn, _AGENTS, site=site.id)
    report = next((row.report for row in agents if row.replaced_at is None), None)
    # Who has never been heard is silent since nobody knows when.
    heard_since = min((row.created_at for row in agents if row.last_seen), default=None)
    recent = outages.since(conn, site.id, view.now - WINDOWS[window])
    return Shown(
        site=site,
        health=sites.health(conn, site.id, view.now),
        queue=heartbeats.queue(conn, site.id),
        report=BeatReport.model_validate(report or {}),
        picture=draw(recent, window, heard_since, view.now),
        outages=recent[::-1][:LISTED],
        names=sites.names(conn, CHOICES),
    )
