"""Content: the files that workflows name."""

from fastapi import APIRouter
from fastapi.responses import Response

from pureboot.central import content
from pureboot.central.edge import AsAdmin, AsViewer, Central, Cursor
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.view import Ui
from pureboot.central.ui.visit import PostedForm
from pureboot.wire.messages import ContentCategory

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 100


@routes.get("/content")
async def content_list(central: Central, view: Ui, _: AsViewer, category: str = "", cursor: Cursor = None) -> Response:
    chosen = ContentCategory(category) if category in list(ContentCategory) else None
    found, totals = await central.db.read(lambda conn: (content.page(conn, chosen, cursor, ROWS), content.totals(conn)))
    return view.page(
        "content/list.html", found=found, totals=totals, categories=list(ContentCategory), chosen=chosen, cursor=cursor
    )


@routes.post("/content/delete")
async def delete(central: Central, view: Ui, _: AsAdmin, form: PostedForm) -> Response:
    category, path = form.get("category"), form.get("path")
    chosen = ContentCategory(category) if category in list(ContentCategory) else ContentCategory.IMAGES
    await central.db.write(lambda conn: content.remove(conn, chosen, path, view.now))
    return view.go("/content", f"{chosen}/{path} is deleted; the sites learn of it now.")
