"""The site on one page, for whoever stands at it: it needs nothing but this agent, so it works with the WAN cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from pureboot.agent.conflicts import Conflict
from pureboot.agent.queue import QueueItem
from pureboot.wire.messages import ReadinessReport

# Rows of each table: a page, no export. The API and the commands have all of them.
ROWS = 50
# Nothing is loaded from anywhere, nothing runs, and no other page may frame it.
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class View:
    """`status` is what the API's status route says."""

    name: str
    status: dict[str, Any]
    readiness: ReadinessReport
    queue: Sequence[QueueItem]
    conflicts: Sequence[Conflict]


def render(view: View) -> str:
    """Every text in it is escaped, whoever made it."""
    return _PAGE.render(view=view, s=view.status, rows=ROWS)


def _duration(seconds: int) -> str:
    return str(timedelta(seconds=seconds))


def _moment(when: str | None) -> str:
    return f"{when[:10]} {when[11:19]} UTC" if when else "never"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _page() -> Template:
    environment = Environment(
        loader=PackageLoader("pureboot.agent.ui", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": _duration, "moment": _moment, "size": _size}
    return environment.get_template("status.html")


_PAGE = _page()
