"""What is done to the processes and lines of a fleet while it works: chosen by a seed, so that it can be done again."""

import asyncio
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.support.fleet import Fleet
from tests.support.line import Line
from tests.support.programs import Program


@dataclass(frozen=True)
class Fault:
    """Begins `after` seconds of peace, and `lasts` so many."""

    after: float
    kind: str
    lasts: float


@dataclass(frozen=True)
class Plan:
    """Faults for each victim, one after the other; those of two victims overlap as they like."""

    seed: str
    seconds: float

    def faults(self, victim: str, kinds: Mapping[str, float], calm: tuple[float, float]) -> Iterator[Fault]:
        """`kinds`: each with the longest it lasts. `calm`: the shortest and the longest pause before each."""
        chance = random.Random(f"{self.seed}/{victim}")
        spent = 0.0
        while True:
            kind = chance.choice(list(kinds))
            fault = Fault(chance.uniform(*calm), kind, chance.uniform(0.1, kinds[kind]))
            spent += fault.after + fault.lasts
            if spent > self.seconds:
                return
            yield fault


class Havoc:
    """`told`: what was done, and when, in seconds."""

    def __init__(self, fleet: Fleet, plan: Plan) -> None:
        self._fleet, self._plan = fleet, plan
        self._began = time.monotonic()
        self.told: list[str] = []

    async def rages(self) -> None:
        """Returns once all that was broken is whole again."""
        plan = self._plan
        processes, lines = {"kill -9": 1.0, "SIGSTOP": 3.0}, {"cut": 1.5, "stalled": 4.0, "deaf": 2.0}
        async with asyncio.TaskGroup() as group:
            faults = list(plan.faults("central", processes, (0.5, 3.5)))
            group.create_task(self._strikes("central", self._fleet.central, faults))
            for site in self._fleet.sites:
                faults = list(plan.faults(f"agent of {site.name}", processes, (3.0, 7.0)))
                group.create_task(self._strikes(f"agent of {site.name}", site.agent, faults))
                faults = list(plan.faults(f"line of {site.name}", lines, (0.3, 3.0)))
                group.create_task(self._disturbs(f"line of {site.name}", site.line, faults))

    async def _strikes(self, name: str, program: Program, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await asyncio.sleep(fault.after)
            self._tell(name, fault)
            if fault.kind == "kill -9":
                await program.kill()
                await asyncio.sleep(fault.lasts)
                await program.start()
            else:
                program.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts)
                program.signal(signal.SIGCONT)

    async def _disturbs(self, name: str, line: Line, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await asyncio.sleep(fault.after)
            self._tell(name, fault)
            match fault.kind:
                case "cut" | "stalled" | "deaf" as state:
                    line.turn(state)
            await asyncio.sleep(fault.lasts)
            line.turn("up")

    def _tell(self, name: str, fault: Fault) -> None:
        self.told.append(f"{time.monotonic() - self._began:6.2f} s  {name}: {fault.kind} for {fault.lasts:.2f} s")
