"""A TFTP client as the RFCs have it, without a socket, and a network that loses, doubles and delays what it carries."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from pureboot.tftp.packets import Ack, Data, Error, OptionsAck, Packet, dump, parse
from pureboot.tftp.transfer import Outcome, Transfer

# Seconds after which the client says its last word again.
PATIENCE = 1.0


@dataclass
class Reader:
    """Takes blocks in order, acknowledges each window, and the last good block of a window with a gap (RFC 7440)."""

    blksize: int = 512
    window: int = 1
    content: bytearray = field(default_factory=bytearray)
    whole: bool = False
    error: Error | None = None
    options: dict[str, str] = field(default_factory=dict)
    last_word: bytes = b""
    _blocks: int = 0
    _acked: int = 0
    _told_gap: bool = False

    def take(self, datagram: bytes) -> list[bytes]:
        match parse(datagram):
            case OptionsAck(options):
                return self._agree(dict(options))
            case Data(block, payload):
                return self._block(block, payload)
            case Error() as error:
                self.error = error
        return []

    def _agree(self, options: dict[str, str]) -> list[bytes]:
        self.options = options
        self.blksize = int(options.get("blksize", self.blksize))
        self.window = int(options.get("windowsize", self.window))
        return [] if self._blocks else self._say(Ack(0))

    def _block(self, number: int, payload: bytes) -> list[bytes]:
        ahead = (number - self._blocks) & 0xFFFF
        if ahead == 1 and not self.whole:
            return self._next(payload)
        if ahead == 0 or self.whole:
            return self._say(Ack(self._blocks & 0xFFFF))
        if ahead > 0x7FFF or self._told_gap:
            return []
        self._told_gap = True
        self._acked = self._blocks
        return self._say(Ack(self._blocks & 0xFFFF))

    def _next(self, payload: bytes) -> list[bytes]:
        self.content += payload
        self.whole = len(payload) < self.blksize
        self._blocks += 1
        self._told_gap = False
        if not self.whole and self._blocks - self._acked < self.window:
            return []
        self._acked = self._blocks
        return self._say(Ack(self._blocks & 0xFFFF))

    def _say(self, packet: Packet) -> list[bytes]:
        self.last_word = dump(packet)
        return [self.last_word]


@dataclass(frozen=True, slots=True)
class Weather:
    """Of a hundred datagrams, each way. A late one arrives up to 30 ms later than those behind it."""

    lost: int = 0
    doubled: int = 0
    late: int = 0


def run(transfer: Transfer, reader: Reader, weather: Weather, random: Random, *, until: float = 600.0) -> int:
    """Lets them talk until the transfer is over, from time 0 on. Returns how many datagrams the server sent."""
    network = _Network(weather, random)
    sent = network.carry("reader", transfer.start(0.0), 0.0)
    heard = 0.0
    now = 0.0
    while transfer.outcome is Outcome.UNDER_WAY:
        due = min(transfer.deadline, heard + PATIENCE)
        if network.next_arrival <= due:
            now, to, datagram = network.arrive()
            if to == "reader":
                heard = now
                network.carry("server", reader.take(datagram), now)
            else:
                sent += network.carry("reader", transfer.received(datagram, now), now)
            continue
        now = due
        if now == transfer.deadline:
            sent += network.carry("reader", transfer.timed_out(now), now)
        else:
            heard = now
            network.carry("server", [reader.last_word] if reader.last_word else [], now)
        assert now < until, "it never ends"
    while network.next_arrival < float("inf"):
        _, to, datagram = network.arrive()
        if to == "reader":
            reader.take(datagram)
    return sent


class _Network:
    def __init__(self, weather: Weather, random: Random) -> None:
        self._weather, self._random = weather, random
        self._under_way: list[tuple[float, int, str, bytes]] = []
        self._count = 0

    @property
    def next_arrival(self) -> float:
        return self._under_way[0][0] if self._under_way else float("inf")

    def carry(self, to: str, datagrams: Iterable[bytes], now: float) -> int:
        sent = list(datagrams)
        for datagram in sent:
            if not self._happens(self._weather.lost):
                self._post(to, datagram, now)
            if self._happens(self._weather.doubled):
                self._post(to, datagram, now)
        return len(sent)

    def arrive(self) -> tuple[float, str, bytes]:
        when, _, to, datagram = heapq.heappop(self._under_way)
        return when, to, datagram

    def _post(self, to: str, datagram: bytes, now: float) -> None:
        delay = 0.001 + (self._random.random() * 0.03 if self._happens(self._weather.late) else 0.0)
        self._count += 1
        heapq.heappush(self._under_way, (now + delay, self._count, to, datagram))

    def _happens(self, per_hundred: int) -> bool:
        return self._random.random() * 100 < per_hundred
