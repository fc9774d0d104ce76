"""What a heartbeat carries beside its figures: what failed at the site, what central asked for, and what became of it.

All of it travels inside the metrics, whose unknown fields a central of before ignores.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator

from pureboot.core.node import printable

# Failed items a heartbeat shows: a page for a person. There may be more; how many, the metrics say.
MOST_FAILED = 50
# Of a heartbeat, and of its answer; what is left over comes with the next.
MOST_COMMANDS = 100
MOST_NAMES = 20
ERROR_LENGTH = 500
ID_LENGTH = 64
# 68 years, which any calendar and database can count.
MOST_SECONDS = 2**31 - 1

Line = Annotated[str, AfterValidator(lambda text: printable(text, ERROR_LENGTH))]
Id = Annotated[str, AfterValidator(lambda text: printable(text, ID_LENGTH))]
# One that names no zone is of the zone of all times here.
Moment = Annotated[datetime, AfterValidator(lambda when: when if when.tzinfo else when.replace(tzinfo=UTC))]


def _first(most: int) -> BeforeValidator:
    """A longer list is cut, not refused: a heartbeat that is refused tells nothing at all."""
    return BeforeValidator(lambda value: value[:most] if isinstance(value, Sequence) else value)


def _cut(value: Any) -> Any:
    """To what can be: for a clock that ran backwards no site may count as silent."""
    return min(max(value, 0), MOST_SECONDS) if isinstance(value, int | float) else value


Seconds = Annotated[int, BeforeValidator(_cut)]


class FailedItem(BaseModel):
    """An item of the site's outbox that waits for a person."""

    id: Id
    lane: Id
    item_type: Id
    attempts: int = 0
    last_error: Line = ""
    created_at: Moment


class OutageTold(BaseModel):
    """The last outage as the agent saw it: how long it lasted, and how long it is over. No times of day: the site's
    clock may be wrong."""

    seconds: Seconds
    ended_seconds_ago: Seconds


class Command(BaseModel):
    """What central asks for. `id` is empty where central waits for no account of it."""

    id: str = ""
    command: str
    item_id: str = ""
    name: str = ""
    reason: str = ""
    person: str = ""


class CommandDone(BaseModel):
    """`refused`: it could not be done, `message` says why. `unknown`: this agent knows no such command."""

    id: str
    outcome: Literal["done", "refused", "unknown"]
    message: Line = ""


class BeatReport(BaseModel):
    """`obeys`: the commands this agent knows; it tells what became of each until central has heard it.

    `content_missing` names the first of `content_missing_total` files that the site's policy wants and it lacks.
    `damaged_files`: kept aside at the agent's host until somebody has looked at them.
    """

    epoch: Id = ""
    obeys: Annotated[list[Id], _first(MOST_NAMES)] = []
    commands_done: Annotated[list[CommandDone], _first(MOST_COMMANDS)] = []
    failed_items: Annotated[list[FailedItem], _first(MOST_FAILED)] = []
    content_missing: Annotated[list[Line], _first(MOST_NAMES)] = []
    content_missing_total: int = 0
    damaged_files: Annotated[list[Line], _first(MOST_NAMES)] = []
    last_outage: OutageTold | None = None

    def to_keep(self) -> dict[str, Any]:
        """As central stores it."""
        return self.model_dump(mode="json", exclude={"commands_done"})
