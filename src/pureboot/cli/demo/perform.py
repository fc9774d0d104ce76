"""Plays the story on a stage before an audience, and keeps what it proved."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from pydantic import ValidationError

from pureboot.cli.demo import stage as scenery
from pureboot.cli.demo.stage import Stage
from pureboot.cli.demo.story import PERSON, Broken, Story
from pureboot.cli.demo.view import Audience, Phase, Scene
from pureboot.core.errors import PureBootError
from pureboot.simulator.machine import Unheard
from pureboot.simulator.program import DidNotStart

# What a phase is called, and how it is played; what it returns is told.
Act = tuple[str, Callable[[], Awaitable[str]]]

# Seconds between two looks at the site for the picture.
GLANCE = 0.4
# What a broken promise looks like from outside, whichever of the parts broke it.
EXPECTED = (Broken, DidNotStart, Unheard, PureBootError, httpx2.HTTPError, ValidationError)


@dataclass(slots=True)
class Summary:
    ok: bool = False
    seconds: float = 0.0
    phases: list[Phase] = field(default_factory=list)
    checked: dict[str, Any] = field(default_factory=dict)
    boots: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        phases = [
            {"title": p.title, "ok": not p.failed, "outcome": p.outcome, "seconds": round(p.seconds or 0, 3)}
            for p in self.phases
        ]
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "phases": phases,
            "checked": self.checked,
            "boots": self.boots,
            "kept": self.kept,
            "logs": self.logs,
        }

    def lines(self) -> list[str]:
        logs = [f"\nThe end of {name}'s log:\n{text}" for name, text in self.logs.items()]
        kept = [f"{name:>12}  {value}" for name, value in self.kept.items()]
        verdict = "Nothing was lost." if self.ok else "The demo failed; the phase that did says how."
        return [*logs, "", f"{verdict} ({self.seconds:.0f} s)", *kept]


async def perform(
    audience: Audience, *, machines: int, keep: bool = False, write: Callable[[Stage, int], Story] = Story
) -> Summary:
    _stop_on_sigterm()
    summary, began = Summary(), time.monotonic()
    async with scenery.set_up(keep=keep) as stage:
        story = write(stage, machines)
        watching = asyncio.create_task(_watch(stage, story, audience))
        try:
            summary.ok = await _tell([*story.phases(), *([story.epilogue()] if keep else [])], audience, summary)
        finally:
            watching.cancel()
        summary.checked = _checked(story)
        summary.boots = {"count": len(story.boots), "slowest_seconds": round(_slowest(story), 3)}
        if not summary.ok:
            summary.logs = {program.name: program.tail() for program in (stage.central, stage.agent)}
        if keep:
            summary.kept = _kept(stage)
    summary.seconds = time.monotonic() - began
    return summary


async def _tell(phases: Sequence[Act], audience: Audience, summary: Summary) -> bool:
    for title, act in phases:
        phase = Phase(title)
        summary.phases.append(phase)
        audience.begin(phase)
        try:
            phase.end(await act())
        except EXPECTED as error:
            phase.end(str(error) or type(error).__name__, failed=True)
        audience.end(phase)
        if phase.failed:
            return False
    return True


async def _watch(stage: Stage, story: Story, audience: Audience) -> None:
    while True:
        audience.see(await _glance(stage, story))
        await asyncio.sleep(GLANCE)


async def _glance(stage: Stage, story: Story) -> Scene:
    health = await stage.agent_health()
    central = "up" if stage.central.running else "dead"
    boots, slowest = len(story.boots), _slowest(story)
    if health is None:
        return Scene(central, "agent dead", boots=boots, slowest=slowest)
    return Scene(
        central,
        "online" if health.is_online else "offline",
        health.pending_queue_items,
        health.conflicts_pending,
        boots,
        slowest,
    )


def _slowest(story: Story) -> float:
    return max((boot.seconds for boot in story.boots), default=0.0)


def _checked(story: Story) -> dict[str, Any]:
    if story.comparison is None:
        return {}
    return {
        "acknowledged": story.comparison.acknowledged,
        "found": story.comparison.found,
        "missing": list(story.comparison.missing),
        "twice": list(story.comparison.twice),
        "out_of_order": list(story.comparison.out_of_order),
    }


def _kept(stage: Stage) -> dict[str, Any]:
    pids = " ".join(str(program.pid) for program in stage.programs if program.running)
    return {
        "central": stage.central_url,
        "agent": stage.agent_url,
        "sign in": f"{stage.central_url}/ as {PERSON}, password {stage.password}",
        "admin token": str(stage.token_file),
        "folder": str(stage.folder),
        "try": f"PUREBOOT_URL={stage.central_url} PUREBOOT_TOKEN_FILE={stage.token_file} pureboot node list",
        "to stop": f"kill -9 {pids}; rm -r {stage.folder}",
    }


def _stop_on_sigterm() -> None:
    """What Ctrl-C does, for who stops it by `kill`: the stage is struck."""
    task = asyncio.current_task()
    if task is not None:
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
