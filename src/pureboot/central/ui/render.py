"""Templates to HTML. Every text is escaped, whoever made it; what a page cannot show safely it shows as text."""

import hashlib
import math
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

ASSETS = {
    "ui.css": "text/css; charset=utf-8",
    "ui.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
# Control characters, and marks that make a text run backwards or hide: they would let one name look like another.
_UNSEEN = {
    code: "\N{REPLACEMENT CHARACTER}"
    for first, last in (
        (0, 8),
        (11, 31),
        (0x7F, 0x9F),
        (0xAD, 0xAD),
        (0x61C, 0x61C),
        (0x200B, 0x200F),
        (0x2028, 0x202E),
    )
    for code in range(first, last + 1)
} | dict.fromkeys((*range(8288, 8304), 65279), "�")


def render(template: str, **context: Any) -> str:
    return _environment().get_template(template).render(context)


@cache
def asset(name: str) -> bytes:
    return (files("pureboot.central.ui") / "static" / name).read_bytes()


@cache
def asset_version(name: str) -> str:
    return hashlib.sha256(asset(name)).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pureboot.central.ui", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_inert,
    )
    environment.filters |= {
        "moment": moment,
        "relative": relative,
        "size": size,
        "percent": percent,
        "duration": duration,
        "gap_width": gap_width,
        "typed": typed,
        "path": lambda text: quote(str(text), safe=""),
    }
    environment.globals |= {"asset": _asset_address, "query": query}
    return environment


def _inert(value: Any) -> Any:
    """Text as people may see it; markup of our own templates stays as it is."""
    return value.translate(_UNSEEN) if type(value) is str else value


def typed(value: Any) -> Markup:
    """For the value of a field: what is sent again without being touched must be what it was, unseen marks and all."""
    return escape(value)


def _asset_address(name: str) -> str:
    return f"/static/{name}?v={asset_version(name)}"


def query(**fields: Any) -> str:
    """`?a=b`, without what is empty."""
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def moment(when: datetime | None) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC") if when else "never"


def relative(when: datetime | None, now: datetime) -> str:
    if when is None:
        return "never"
    seconds = (now - when).total_seconds()
    text = duration(abs(seconds))
    return "now" if abs(seconds) < 1 else f"{text} ago" if seconds > 0 else f"in {text}"


def duration(seconds: float | timedelta) -> str:
    """In its largest unit, as people say it."""
    total = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if total >= 2 * length:
            return f"{int(total // length)} {unit}"
    return f"{int(total)} s"


def gap_width(seconds: float) -> int:
    """Of 100: a bar that tells half a minute from an hour and a week."""
    return round(min(100, max(4, 100 * math.log(max(seconds, 1)) / math.log(30 * 86400))))


def size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
