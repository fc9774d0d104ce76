"""Content: files of any size, which agents fetch too."""

import base64
import re

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from pureboot.central import content
from pureboot.central.content import check_path
from pureboot.central.edge import AsAdmin, AsReader, AsViewer, Central, Cursor, GuardedRoute, Limit
from pureboot.core.errors import Malformed, NotFound
from pureboot.wire.messages import ContentCategory, ContentDocument, ListPage

routes = APIRouter(route_class=GuardedRoute, tags=["content"])


class File(FileResponse):
    # Measured: 64 KiB is half as fast, 1 MiB holds 254 MB for 64 slow readers.
    chunk_size = 256 * 1024


@routes.get("/content")
async def list_content(
    central: Central,
    _: AsViewer,
    category: ContentCategory | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[ContentDocument]:
    return await central.db.read(lambda conn: content.page(conn, category, cursor, limit))


@routes.put("/content/{category}/{path:path}")
async def put_content(
    central: Central, _: AsAdmin, category: ContentCategory, path: str, request: Request
) -> ContentDocument:
    """The body is the file. `Content-SHA256` (hex) or `Digest: sha-256=` (base64) says what must arrive."""
    name = check_path(path)
    upload = await central.shelf.receive(request.stream(), _expected(request))
    now = central.clock.now()
    return await central.db.write(lambda conn: content.put(conn, central.shelf, category, name, upload, now))


def _expected(request: Request) -> str | None:
    if told := request.headers.get("content-sha256"):
        hexadecimal = told.lower().removeprefix("sha256:")
    elif told := request.headers.get("digest"):
        hexadecimal = _from_base64(re.sub(r"^sha-256=", "", told, flags=re.IGNORECASE))
    else:
        return None
    if not re.fullmatch(r"[0-9a-f]{64}", hexadecimal):
        raise Malformed("The digest in the header is not a SHA-256.", code="malformed_digest")
    return f"sha256:{hexadecimal}"


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except ValueError:  # binascii's, and what a letter beyond ASCII raises
        return ""


@routes.head("/content/{category}/{path:path}", include_in_schema=False)
@routes.get("/content/{category}/{path:path}", response_class=FileResponse)
async def get_content(
    central: Central, _: AsReader, category: ContentCategory, path: str, request: Request
) -> Response:
    found = await central.db.read(lambda conn: content.find(conn, category, path))
    headers = {"ETag": f'"{found.digest}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    file = central.shelf.path(found.digest)
    if not file.is_file():
        raise NotFound(f"The file of {found.name} is gone from central's disk.", code="content_lost", hint="Put it.")
    return File(file, headers=headers, media_type="application/octet-stream")


@routes.delete("/content/{category}/{path:path}", status_code=204)
async def delete_content(central: Central, _: AsAdmin, category: ContentCategory, path: str) -> None:
    now = central.clock.now()
    await central.db.write(lambda conn: content.remove(conn, category, path, now))
