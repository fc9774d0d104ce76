"""The site on one page, for whoever stands at it: it needs nothing but this agent, so it works with the WAN cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from pureboot.agent.boots import Boot
from pureboot.agent.conflicts import Conflict
from pureboot.agent.queue import QueueItem
from pureboot.core.errors import PureBootError
from pureboot.wire.messages import ReadinessReport

# Rows of each table: a page, no export. The API and the commands have all of them.
ROWS = 50
# Nothing is loaded from elsewhere, nothing runs but the page's own file, and no other page may frame it or take its
# forms.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class View:
    """`status` is what the API's status route says. `boots`: the newest first. `done` and `error`: what became of what
    a person just asked for."""

    status: dict[str, Any]
    readiness: ReadinessReport
    queue: Sequence[QueueItem]
    conflicts: Sequence[Conflict]
    boots: Sequence[Boot]
    missing: Sequence[str]
    version: str
    done: str
    error: PureBootError | None

    @property
    def name(self) -> str:
        site = self.status["site"]
        return str(site["name"]) if site else "not heard of yet"

    @property
    def failed(self) -> list[QueueItem]:
        return [item for item in self.queue if item.status == "failed"]

    @property
    def waiting(self) -> list[QueueItem]:
        return [item for item in self.queue if item.status != "failed"]


def render(view: View) -> str:
    """Every text in it is escaped, whoever made it."""
    return _PAGE.render(view=view, s=view.status, rows=ROWS)


def _duration(seconds: int) -> str:
    return str(timedelta(seconds=seconds))


def _moment(when: datetime | str | None) -> str:
    text = when.astimezone(UTC).isoformat() if isinstance(when, datetime) else when
    return f"{text[:10]} {text[11:19]} UTC" if text else "never"


def _clock(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%H:%M:%S")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


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
    environment.filters |= {
        "duration": _duration,
        "moment": _moment,
        "clock": _clock,
        "size": _size,
        "percent": _percent,
        "path": lambda text: quote(text, safe=""),
    }
    return environment.get_template("status.html")


_PAGE = _page()
