"""A site's outages as a picture: bars on a line of time, drawn on the server, and the same in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pureboot.central.bodies import Outage
from pureboot.central.ui.render import duration, moment

WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
NAMES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}

# Units of the picture from left to right; one narrower than this is not seen.
WIDTH, NARROWEST = 1000.0, 3.0
# Between two marks of the axis, and how one is written.
_MARKS = {
    "24h": (timedelta(hours=4), "%H:%M"),
    "7d": (timedelta(days=1), "%m-%d"),
    "30d": (timedelta(days=5), "%m-%d"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """`kind`: missed heartbeats, offline, or a time from before the site had an agent that was heard."""

    x: float
    width: float
    kind: Literal["degraded", "offline", "unheard"]
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """`summary` says what the bars show."""

    window: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]
    summary: str


def draw(outages: Sequence[Outage], window: str, heard_since: datetime | None, now: datetime) -> Picture:
    """`heard_since`: before it nothing is known; None: nothing is known at all. The newest stands at the right."""
    begin = now - WINDOWS[window]
    shown = [outage for outage in outages if (outage.ended_at or now) > begin and outage.began_at < now]
    scale = _Scale(begin, now)
    unheard = min(max(heard_since or now, begin), now)
    bars = [scale.bar(begin, unheard, "unheard", "Not heard of yet")] if unheard > begin else []
    bars += [scale.bar(max(o.began_at, begin), o.ended_at or now, _kind(o), _title(o, now)) for o in shown]
    return Picture(window, tuple(bars), tuple(_marks(scale, window)), _summary(shown, window, begin, heard_since, now))


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: datetime
    end: datetime

    def x(self, when: datetime) -> float:
        return round(WIDTH * ((when - self.begin) / (self.end - self.begin)), 1)

    def bar(self, begin: datetime, end: datetime, kind: Literal["degraded", "offline", "unheard"], title: str) -> Bar:
        left, right = self.x(begin), self.x(min(end, self.end))
        width = max(right - left, NARROWEST)
        return Bar(min(left, WIDTH - width), width, kind, title)


def _kind(outage: Outage) -> Literal["degraded", "offline"]:
    return "offline" if outage.offline_at else "degraded"


def _title(outage: Outage, now: datetime) -> str:
    length = duration((outage.ended_at or now) - outage.began_at)
    if outage.ended_at is None:
        return f"Since {moment(outage.began_at)}, {length} so far"
    return f"{moment(outage.began_at)}, for {length}"


def _marks(scale: _Scale, window: str) -> Iterator[Mark]:
    step, form = _MARKS[window]
    # From a round hour or day, so that the marks stand still while time goes on.
    at = scale.begin.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while at < scale.end:
        if 0.02 * WIDTH < scale.x(at) < 0.98 * WIDTH:
            yield Mark(scale.x(at), at.strftime(form))
        at += step


def _summary(shown: Sequence[Outage], window: str, begin: datetime, heard_since: datetime | None, now: datetime) -> str:
    if heard_since is None:
        return "This site has never been heard of."
    if not shown:
        return f"Heard all the time in the last {NAMES[window]}."
    lengths = [(o.ended_at or now) - max(o.began_at, begin) for o in shown]
    count = f"{len(shown)} outage{'s' if len(shown) > 1 else ''}"
    lasts = " One lasts." if any(o.ended_at is None for o in shown) else ""
    total, longest = duration(sum(lengths, timedelta(0))), duration(max(lengths))
    return f"{count} in the last {NAMES[window]}: {total} in all, the longest {longest}.{lasts}"
