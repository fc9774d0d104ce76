"""One transfer as a state machine: datagrams and time go in, datagrams and a deadline come out.

No socket and no clock: `now` is handed in, in seconds of any clock that does not run backwards. What it keeps to:

- RFC 1350: a block is sent once its predecessor is acknowledged, and the one that is shorter than the rest is the last.
  So a file whose size is a multiple of the block size ends with an empty block. An ACK that was seen before starts
  nothing (RFC 1123, 4.2.3.1: else one delayed datagram doubles the stream for good, the Sorcerer's Apprentice).
- RFC 2347 to 2349: options are answered by an OACK, which the client acknowledges as block 0; `blksize`, `tsize`,
  `timeout`. What is unknown or out of range is left out of the answer, as if it had not been asked for.
- RFC 7440: `windowsize` blocks are sent at once. An ACK from the middle of a window says that the next one was lost;
  the next window begins there.
- Block numbers have 16 bits and go on at 0 after 65,535.
- What is not acknowledged is sent again, after a fraction of a second: the round trip is measured as in RFC 6298. As
  there, a datagram that was sent twice measures nothing, and the wait stays doubled until one that was sent once does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from pureboot.core.errors import Malformed
from pureboot.tftp import packets
from pureboot.tftp.layout import Changed, Layouts, Source, Stretch
from pureboot.tftp.packets import Error, ErrorCode, Options, OptionsAck, acknowledged

# Seconds before the first datagram is sent again; a LAN answers in a hundredth of it (RFC 6298: 1 s).
FIRST_WAIT = 0.25
# Never sooner, however short the round trip: firmware that writes to a disk stops for a moment.
SHORTEST_WAIT = 0.05
LONGEST_WAIT = 3.0
# Times in a row that a datagram is sent again until the client counts as gone: some 20 to 30 s, as long as firmware
# itself tries.
MAX_RESENDS = 12
# Seconds after which it counts as gone in any case: a `timeout` of 255 s, twelve times, would hold a place for an hour.
LONGEST_SILENCE = 31.0

# Seconds of silence after which a client that had its first block and repeats its request has begun anew: a boot ROM
# whose machine lost its power asks from the same port again. A late copy of the request comes sooner.
LIVELY = 1.0
# Seconds between two measurements of the round trip.
MEASURE_EVERY = 0.01

DEFAULT_BLKSIZE = 512
SMALLEST_BLKSIZE, LARGEST_BLKSIZE = 8, 65_464
# A window is in memory for each transfer, and on its way through switches that hold some hundred kilobytes.
MAX_WINDOW = 64
MAX_WINDOW_BYTES = 256 * 1024


Datagrams = Sequence[bytes]
"""In the order in which they go out. Several are DATA, and all of one length but the last, which may be shorter."""

NOTHING: Datagrams = ()


class Outcome(StrEnum):
    UNDER_WAY = "under way"
    DONE = "done"
    ENDED_BY_CLIENT = "ended by the client"
    GONE = "the client is gone"
    SILENCE = "the client is silent"
    FAILED = "it failed here, and the client was told"


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a request's options come to. `answer` is for the OACK; empty: none is sent. `longest_wait` in seconds."""

    blksize: int = DEFAULT_BLKSIZE
    window: int = 1
    longest_wait: float = LONGEST_WAIT
    answer: Options = ()


def agree(options: Options, size: int) -> Agreed:
    """A smaller number than was asked for is a legal answer to `blksize` and `windowsize`.

    `timeout` (whole seconds, RFC 2349) is taken as the longest wait; resending sooner harms nobody. How often, and
    until when, is not asked for.
    """
    asked = {name: number for name, value in options if (number := _number(value)) is not None}
    answer = {}
    if (blksize := asked.get("blksize", 0)) >= SMALLEST_BLKSIZE:
        answer["blksize"] = min(blksize, LARGEST_BLKSIZE)
    if (window := asked.get("windowsize", 0)) >= 1:
        room = MAX_WINDOW_BYTES // answer.get("blksize", DEFAULT_BLKSIZE)
        answer["windowsize"] = max(1, min(window, MAX_WINDOW, room))
    if "tsize" in asked:
        answer["tsize"] = size
    if 1 <= (timeout := asked.get("timeout", 0)) <= 255:
        answer["timeout"] = timeout
    return Agreed(
        answer.get("blksize", DEFAULT_BLKSIZE),
        answer.get("windowsize", 1),
        float(answer.get("timeout", LONGEST_WAIT)),
        tuple((name, str(answer[name])) for name, _ in options if name in answer),
    )


def _number(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else None


class Transfer:
    """Of `source`, to a client that asked with `options`. Over once `outcome` is no longer UNDER_WAY; until then
    `timed_out` is due at `deadline`."""

    def __init__(self, source: Source, options: Options, now: float, layouts: Layouts) -> None:
        self.outcome = Outcome.UNDER_WAY
        self.deadline = now
        self.heard_at = now
        self.resends = 0
        self._source = source
        self._agreed = agree(options, source.size)
        self._wait = _Wait(self._agreed.longest_wait)
        self._window = self._agreed.window
        self._blocks = source.size // self._agreed.blksize + 1
        self._stretch = Stretch(layouts, source, self._agreed.blksize, self._window)
        # Block numbers in here have no bound. The OACK is block 0.
        self._first_answer = 0 if self._agreed.answer else 1
        self._acked = self._first_answer - 1
        self._in_flight = 0
        self._sent_at = now
        self._resumed_at = -inf
        self._tries = 0

    @property
    def bytes_acked(self) -> int:
        return min(max(0, self._acked) * self._agreed.blksize, self._source.size)

    def start(self, now: float) -> Datagrams:
        """The first answer; also when the client repeats its request, because that answer may have been lost. Once it
        has acknowledged something, a repeat is a late copy and is not answered."""
        if self._acked >= self._first_answer:
            return NOTHING
        self._tries = min(self._in_flight, 1)  # a repeat proves that the client is there, and measures nothing
        self.heard_at = now
        return self._send(now)

    def received(self, datagram: bytes, now: float) -> Datagrams:
        block = acknowledged(datagram)
        if block < 0:
            return self._received_other(datagram)
        ahead = (block - self._acked) & 0xFFFF
        if not 0 < ahead <= self._in_flight:  # seen before, or not sent yet
            return NOTHING
        self._acked += ahead
        self._in_flight -= ahead
        self.heard_at = now
        if self._in_flight and not self._resumes(now):
            return NOTHING
        if self._tries:
            self._tries = 0
        elif now >= self._wait.measured_at + MEASURE_EVERY:
            self._wait.measured(now - self._sent_at, now)
        return self._send(now)

    def timed_out(self, now: float) -> Datagrams:
        """At `deadline` or later."""
        if self._tries == MAX_RESENDS or now >= self.heard_at + LONGEST_SILENCE:
            return self._end(Outcome.SILENCE, "No answer for too long.")
        self._tries += 1
        self.resends += 1
        self._wait.double()
        return self._send(now)

    def abort(self, message: str) -> Datagrams:
        """The client is told why."""
        return self._end(Outcome.FAILED, message)

    def gone(self) -> None:
        """Nobody is left to be told."""
        self.outcome = Outcome.GONE

    def is_abandoned(self, now: float) -> bool:
        """The client has got something, and said nothing for a while: if it asks again now, it has begun anew."""
        return self._acked >= self._first_answer and now > self.heard_at + LIVELY

    def _resumes(self, now: float) -> bool:
        """Not twice within half a round trip: a client that acknowledges every block, or every copy of one, would else
        get a window for each of them. What is not resumed is sent again at the deadline."""
        if now < self._resumed_at + self._wait.round_trip / 2:
            return False
        self._resumed_at = now
        return True

    def _received_other(self, datagram: bytes) -> Datagrams:
        try:
            packet = packets.parse(datagram)
        except Malformed:
            return NOTHING
        if isinstance(packet, Error):
            self.outcome = Outcome.ENDED_BY_CLIENT
        return NOTHING

    def _send(self, now: float) -> Datagrams:
        acked = self._acked
        self._sent_at = now
        self.deadline = min(now + self._wait.seconds, self.heard_at + LONGEST_SILENCE)
        if acked < 0:
            self._in_flight = 1
            return [packets.dump(OptionsAck(self._agreed.answer))]
        self._in_flight = min(self._window, self._blocks - acked)
        if not self._in_flight:
            self.outcome = Outcome.DONE
            return NOTHING
        try:
            return self._stretch.datagrams(acked + 1, self._in_flight)
        except Changed as error:
            return self._end(Outcome.FAILED, str(error))
        except OSError:
            return self._end(Outcome.FAILED, "The file cannot be read.")

    def _end(self, outcome: Outcome, message: str) -> Datagrams:
        self.outcome = outcome
        return [packets.dump(Error(ErrorCode.UNDEFINED, message))]


class _Wait:
    """Seconds until what was sent is sent again (RFC 6298)."""

    def __init__(self, longest: float) -> None:
        self.seconds = min(FIRST_WAIT, longest)
        self.measured_at = -inf
        self._longest = longest
        self.round_trip = 0.0
        self._variation = 0.0

    def measured(self, seconds: float, now: float) -> None:
        self.measured_at = now
        if not self.round_trip:
            self.round_trip, self._variation = seconds, seconds / 2
        else:
            off = seconds - self.round_trip
            self.round_trip += off / 8
            self._variation += (abs(off) - self._variation) / 4
        self.seconds = min(max(self.round_trip + 4 * self._variation, SHORTEST_WAIT), self._longest)

    def double(self) -> None:
        self.seconds = min(2 * self.seconds, self._longest)
        self.measured_at = -inf  # the next one that can be measured is
