"""How the story is told: a live picture on a terminal, a line for each phase elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Scene:
    """The site at one moment. Counts are None while its agent does not answer."""

    central: str = "-"
    link: str = "-"
    queue: int | None = None
    conflicts: int | None = None
    boots: int = 0
    slowest: float = 0.0


@dataclass(slots=True)
class Phase:
    title: str
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    outcome: str = ""
    failed: bool = False

    def end(self, outcome: str, *, failed: bool = False) -> None:
        self.seconds = time.monotonic() - self.began
        self.outcome, self.failed = outcome, failed


class Audience(Protocol):
    def begin(self, phase: Phase) -> None: ...

    def end(self, phase: Phase) -> None: ...

    def see(self, scene: Scene) -> None: ...


class Lines:
    """One line for each phase, when it is over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def begin(self, phase: Phase) -> None:
        """A line is only written when its outcome is known."""

    def end(self, phase: Phase) -> None:
        at = time.monotonic() - self._began
        mark = "FAILED" if phase.failed else "ok"
        self._console.print(
            f"{at:5.1f} s  {mark:<6}  {phase.title}: {phase.outcome}", soft_wrap=True, highlight=False, markup=False
        )

    def see(self, scene: Scene) -> None:
        """The lines say it."""


class Picture:
    """All phases with their outcomes, and the site below them."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._phases: list[Phase] = []
        self._scene = Scene()

    def begin(self, phase: Phase) -> None:
        self._phases.append(phase)
        self._draw()

    def end(self, phase: Phase) -> None:
        self._draw()

    def see(self, scene: Scene) -> None:
        self._scene = scene
        self._draw()

    def render(self) -> RenderableType:
        return Group(self._story(), Text(), self._site())

    def _draw(self) -> None:
        self._live.update(self.render())

    def _story(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(width=2)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(ratio=1)
        table.add_column(justify="right", style="dim")
        for phase in self._phases:
            took = "" if phase.seconds is None else f"{phase.seconds:.1f} s"
            table.add_row(_mark(phase), phase.title, Text(phase.outcome), took)
        return table

    def _site(self) -> Table:
        scene = self._scene
        table = Table(
            "central", "link", "queue", "conflicts", "boots", "slowest boot", title="the site", title_justify="left"
        )
        table.add_row(
            Text(scene.central, style="green" if scene.central == "up" else "red"),
            Text(scene.link, style="green" if scene.link == "online" else "yellow"),
            _count(scene.queue),
            _count(scene.conflicts),
            str(scene.boots),
            f"{scene.slowest:.2f} s",
        )
        return table


def _mark(phase: Phase) -> RenderableType:
    if phase.seconds is None:
        return Spinner("dots")
    return Text("✗", style="red") if phase.failed else Text("✓", style="green")


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


@contextmanager
def choose(*, json: bool) -> Iterator[Audience]:
    console = Console(stderr=json)
    if json or not console.is_terminal or console.is_dumb_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield Picture(live)
