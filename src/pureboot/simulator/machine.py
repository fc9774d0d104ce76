"""A machine in software: it boots from its site's agent over a real socket, installs itself, and reports.

Two lives, as in a real one: the firmware's, which follows boot scripts, and the installer's and system's, which send
reports and repeat each, under one `report_id`, until somebody has taken it.
"""

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum

import httpx2

from pureboot.core.errors import PureBootError
from pureboot.core.mac import MacAddress
from pureboot.simulator.firmware import Firmware, Hardware, Hung, Kernel, LocalDisk, NotFetched, Outcome, San
from pureboot.simulator.ledger import Acknowledged, InstallServed, Kind, Ledger
from pureboot.wire.errors import from_answer
from pureboot.wire.messages import Lenient


class BootKind(StrEnum):
    LOCAL = "local"
    INSTALL = "install"
    HALT = "halt"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Booted:
    """`seconds` from power-on to the hand-over, downloads included; `offline`: its screen said so."""

    kind: BootKind
    offline: bool
    seconds: float
    screen: tuple[str, ...]
    outcome: Outcome

    @property
    def reason(self) -> str:
        """What the screen said, on one line."""
        return " ".join(line.strip() for line in self.screen if line.strip())


class WriteAnswer(Lenient):
    """What an agent answers to a report. `queue_id` is None where the report said nothing new."""

    status: str
    queue_id: str | None = None
    event_queue_id: str | None = None

    def promises(self, mac: MacAddress, event: str) -> list[Acknowledged]:
        ids = {Kind.EVENT: self.event_queue_id or self.queue_id, Kind.EDGE: self.event_queue_id and self.queue_id}
        return [Acknowledged(id, mac, event, self.status, kind) for kind, id in ids.items() if id]


class Unheard(Exception):
    """Nobody took the report within the machine's patience."""


# Seconds. Between two tries of a report; a real installer's `curl --retry` waits longer.
RETRY_DELAY = 0.2


class Machine:
    def __init__(
        self, hardware: Hardware, agent_url: str, client: httpx2.AsyncClient, ledger: Ledger, *, patience: float = 30.0
    ) -> None:
        """`patience`: seconds a report is repeated."""
        self.hardware = hardware
        self.mac = hardware.mac
        self.disk = "as delivered"
        self._agent_url = agent_url
        self._client = client
        self._ledger = ledger
        self._patience = patience

    async def boot(self) -> Booted:
        """Power on, and follow the scripts to whatever they hand the machine over to."""
        firmware = Firmware(self.hardware, self._fetch)
        began = time.monotonic()
        outcome = await firmware.boot(f"{self._agent_url}/boot.ipxe")
        seconds = time.monotonic() - began
        if isinstance(outcome, Kernel):
            self._ledger.note_install(
                InstallServed(self.mac, _attempt(firmware.screen), outcome.argument("pureboot.token"))
            )
        offline = any("OFFLINE" in line for line in firmware.screen)
        return Booted(_kind(outcome), offline, seconds, tuple(firmware.screen), outcome)

    async def install(self, kernel: Kernel) -> list[Acknowledged]:
        """What an installer does: three reports under the token of its boot script, and a written disk."""
        promises = []
        for event in ("install_started", "install_progress", "install_complete"):
            promises += await self.report(event, token=kernel.argument("pureboot.token"))
        self.disk = kernel.url.partition("?")[0]
        return promises

    async def boot_and_follow(self, *, comes_up: bool = True) -> list[Booted]:
        """Boot; where that is an install, do it and boot again. `comes_up`: the new system says that it is there."""
        booted = await self.boot()
        if not isinstance(booted.outcome, Kernel):
            return [booted]
        await self.install(booted.outcome)
        again = await self.boot()
        if comes_up and again.kind is BootKind.LOCAL:
            await self.report("first_boot")
        return [booted, again]

    async def report(self, event: str, *, token: str = "", message: str = "") -> list[Acknowledged]:
        """Raises PureBootError where the agent refuses the report, Unheard where nobody answers."""
        body = {"mac": str(self.mac), "event": event, "message": message, "report_id": str(uuid.uuid4())}
        if token:
            body["boot_token"] = token
        answer = await self._post_until_taken("/api/v1/report", body)
        promises = answer.promises(self.mac, event)
        for promise in promises:
            self._ledger.note(promise)
        return promises

    async def _post_until_taken(self, path: str, body: dict[str, str]) -> WriteAnswer:
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            try:
                answer = await self._client.post(self._agent_url + path, json=body)
            except httpx2.TransportError:
                await asyncio.sleep(RETRY_DELAY)
                continue
            if answer.is_success:
                return WriteAnswer.model_validate_json(answer.content)
            if answer.status_code < 500:
                raise _refusal(answer)
            await asyncio.sleep(RETRY_DELAY)
        raise Unheard(f"Nobody took {body['event']} of {self.mac} within {self._patience:g} s.")

    async def _fetch(self, url: str) -> bytes:
        try:
            answer = await self._client.get(url)
        except httpx2.TransportError as error:
            raise NotFetched(url) from error
        if not answer.is_success:
            raise NotFetched(url)
        return answer.content


def fleet_hardware(number: int) -> Hardware:
    """The machine of that number: the same MAC, UUID and serial in each run."""
    mac = MacAddress.parse(f"525400{number:06x}")
    strings = {
        "serial": f"SIM{number:05}",
        "manufacturer": "PureBoot Simulator",
        "product": "Machine in software",
        "platform": "pcbios",
        "buildarch": "x86_64",
    }
    return Hardware(mac, uuid.uuid5(uuid.NAMESPACE_OID, str(mac)).bytes, strings)


def _kind(outcome: Outcome) -> BootKind:
    match outcome:
        case LocalDisk():
            return BootKind.LOCAL
        case Kernel() | San():
            return BootKind.INSTALL
        case Hung():
            return BootKind.HUNG
        case _:
            return BootKind.HALT


def _attempt(screen: list[str]) -> int:
    said = re.search(r"attempt (\d+)", " ".join(screen))
    return int(said[1]) if said else 0


def _refusal(answer: httpx2.Response) -> PureBootError:
    try:
        body = answer.json()
    except ValueError:
        body = None
    return from_answer(answer.status_code, body, None)
