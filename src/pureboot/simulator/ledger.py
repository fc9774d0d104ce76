"""What machines were told is safe, and whether central has it: exactly once, and in order for each node."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import Lenient


class Kind(StrEnum):
    """What an item is at central: a row of the node's events, or of its history."""

    EVENT = "event"
    EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One item that an agent has taken. `queue_id` is its id at the agent and `item_id` at central.

    A report that stands for a step of the node is two of them; `what` is the report's name in both.
    """

    queue_id: str
    mac: MacAddress
    what: str
    status: str
    kind: Kind = Kind.EVENT


@dataclass(frozen=True, slots=True)
class InstallServed:
    """An install script that a machine was given; its attempt was committed before."""

    mac: MacAddress
    attempt: int
    token: str


class Ledger:
    """Every promise an agent made to the machines of one run, in the order in which they heard it."""

    def __init__(self) -> None:
        self._acknowledged: dict[str, Acknowledged] = {}
        self._installs: dict[tuple[MacAddress, str], InstallServed] = {}

    @property
    def acknowledged(self) -> list[Acknowledged]:
        return list(self._acknowledged.values())

    @property
    def installs(self) -> list[InstallServed]:
        return list(self._installs.values())

    def note(self, promise: Acknowledged) -> None:
        """An answer that a machine got a second time, to the same report, is one promise."""
        self._acknowledged.setdefault(promise.queue_id, promise)

    def note_install(self, served: InstallServed) -> None:
        """An attempt is known by its token: firmware that asks twice is given the same."""
        self._installs.setdefault((served.mac, served.token), served)


class HistoryRow(Lenient):
    seq: int
    from_state: NodeState | None
    to_state: NodeState
    attempt: int
    triggered_by: str
    item_id: str | None = None
    forced: bool = False
    occurred_at: datetime


class EventRow(Lenient):
    seq: int
    event: str
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What central holds of one node, oldest first."""

    mac: MacAddress
    history: tuple[HistoryRow, ...]
    events: tuple[EventRow, ...]

    def ids(self, kind: Kind) -> list[str]:
        rows: tuple[HistoryRow | EventRow, ...] = self.events if kind is Kind.EVENT else self.history
        return [row.item_id for row in rows if row.item_id]


@dataclass(frozen=True, slots=True)
class Comparison:
    acknowledged: int
    found: int
    missing: tuple[str, ...]
    twice: tuple[str, ...]
    out_of_order: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.missing or self.twice or self.out_of_order)


def compare(ledger: Ledger, accounts: Iterable[Account]) -> Comparison:
    by_mac = {account.mac: account for account in accounts}
    promised = {promise.mac for promise in ledger.acknowledged} | {served.mac for served in ledger.installs}
    nobody = [Account(mac, (), ()) for mac in promised - by_mac.keys()]
    everyone = [*by_mac.values(), *nobody]
    missing = [line for account in everyone for line in _missing(account, ledger)]
    return Comparison(
        acknowledged=len(ledger.acknowledged) + len(ledger.installs),
        found=len(ledger.acknowledged) + len(ledger.installs) - len(missing),
        missing=tuple(missing),
        twice=tuple(line for account in everyone for line in _twice(account, ledger)),
        out_of_order=tuple(line for account in everyone for line in _out_of_order(account, ledger)),
    )


def _promised(account: Account, ledger: Ledger, kind: Kind) -> list[Acknowledged]:
    return [p for p in ledger.acknowledged if p.mac == account.mac and p.kind is kind]


def _attempts(account: Account) -> Counter[int]:
    return Counter(row.attempt for row in account.history if row.to_state is NodeState.INSTALLING)


def _served(account: Account, ledger: Ledger) -> Counter[int]:
    return Counter(served.attempt for served in ledger.installs if served.mac == account.mac)


def _missing(account: Account, ledger: Ledger) -> list[str]:
    lost = [
        f"{account.mac}: {promise.what} ({kind} {promise.queue_id})"
        for kind in Kind
        for promise in _promised(account, ledger, kind)
        if promise.queue_id not in account.ids(kind)
    ]
    unbegun = _served(account, ledger) - _attempts(account)
    return lost + [f"{account.mac}: install, attempt {attempt}" for attempt in unbegun.elements()]


def _twice(account: Account, ledger: Ledger) -> list[str]:
    """By id, and by what happened: a report repeated under a new id would be as wrong."""
    again = [f"{account.mac}: {id}" for kind in Kind for id, n in Counter(account.ids(kind)).items() if n > 1]
    promised = Counter(promise.what for promise in _promised(account, ledger, Kind.EVENT))
    held = Counter(row.event for row in account.events if row.event in promised)
    more = [f"{account.mac}: {name}, {count} times too often" for name, count in (held - promised).items()]
    begun = _attempts(account) - _served(account, ledger)
    return again + more + [f"{account.mac}: install, attempt {attempt}" for attempt in begun.elements()]


def _out_of_order(account: Account, ledger: Ledger) -> list[str]:
    """Rows in the order of their promises; and each edge from where the one before it led."""
    wrong = []
    for kind in Kind:
        order = {promise.queue_id: position for position, promise in enumerate(_promised(account, ledger, kind))}
        held = [order[id] for id in account.ids(kind) if id in order]
        if held != sorted(held):
            wrong.append(f"{account.mac}: {kind}s {held}")
    for before, after in zip(account.history, account.history[1:], strict=False):
        if after.from_state is not before.to_state:
            wrong.append(f"{account.mac}: {before.to_state}, then from {after.from_state}")
    return wrong
