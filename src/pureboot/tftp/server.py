"""The TFTP server: one port for requests, and for each transfer a port of its own.

The sockets are not the event loop's. They are in an epoll of ours, of which the loop watches one descriptor: a hundred
ACKs that wait cost it one wake-up, and each of them a look-up, two system calls and the transfer's own step.
"""

import asyncio
import logging
import select
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pureboot.core.errors import Malformed, PureBootError
from pureboot.tftp import packets
from pureboot.tftp.delivery import ANSWER_SIZE, Delivery
from pureboot.tftp.layout import Layouts
from pureboot.tftp.packets import OCTET, Error, ErrorCode, ReadRequest, WriteRequest
from pureboot.tftp.served import Asked, Files, Served
from pureboot.tftp.sockets import Address, Arrival, RequestSocket, TransferSocket
from pureboot.tftp.transfer import Outcome

log = logging.getLogger(__name__)

# Seconds between two looks at the deadlines; the nearest is five of them away.
TICK = 0.01
# Sockets that are served before the event loop has its turn again: about a millisecond.
READY_AT_ONCE = 64
REQUESTS_AT_ONCE = 32

Ready = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Transfers at once. What is beyond gets no answer: firmware then asks again by itself, every few seconds, while an
    ERROR would end its boot. Each takes three descriptors and some 64 KiB."""

    total: int = 256
    per_client: int = 64


class TftpServer:
    """Serves `files` on `host` and `port` from `start` to `stop`; port 0 lets the system choose.

    Counts in plain attributes. When a transfer ends: `transfers` that were done, `bytes_sent` and acknowledged,
    `resends` (of a window or an answer). At once: `errors` (requests refused; also transfers that failed here or fell
    silent), `put_off` (requests beyond the limits).
    """

    def __init__(
        self,
        files: Files,
        host: str,
        port: int,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = port
        self.transfers = self.bytes_sent = self.resends = self.errors = self.put_off = 0
        self._files, self._host, self._limits, self._clock = files, host, limits or Limits(), clock
        self._deliveries: dict[Address, Delivery] = {}
        self._opening: dict[Address, asyncio.Task[None]] = {}
        self._of_client: Counter[str] = Counter()
        self._by_fd: dict[int, Delivery] = {}
        self._others: dict[int, Ready] = {}
        self._layouts = Layouts()

    @property
    def active(self) -> int:
        """Transfers under way, and requests whose file is being looked for."""
        return len(self._deliveries) + len(self._opening)

    async def start(self) -> None:
        """Raises SettingsError where the port cannot be had."""
        self._requests = RequestSocket(self._host, self.port)
        self.port = self._requests.port
        self._epoll = select.epoll()
        self._others[self._requests.fileno()] = self._take_requests
        self._epoll.register(self._requests.fileno(), select.EPOLLIN)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._serve)
        self._sweeping: asyncio.TimerHandle | None = None

    async def stop(self) -> None:
        """Clients are told, so that firmware goes on to what it would do next."""
        self._loop.remove_reader(self._epoll.fileno())
        for task in (opening := list(self._opening.values())):
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for delivery in list(self._deliveries.values()):
            delivery.abort("The server is stopping.")
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._epoll.close()
        self._requests.close()

    def _serve(self) -> None:
        """First everything is taken, then everything is answered: clients that are woken one upon the other cost less
        than those that fall asleep in between, and meanwhile more has arrived for the next turn."""
        now = self._clock()
        by_fd = self._by_fd
        answers = []
        for fd, _ in self._epoll.poll(0, READY_AT_ONCE):
            if (delivery := by_fd.get(fd)) is None:
                # One that was closed a moment ago may still be among them.
                self._others.get(fd, _ignore)(now)
                continue
            try:
                answer = delivery.received(delivery.receive(ANSWER_SIZE), now)
            except OSError as error:
                delivery.failed(error)
                continue
            if answer:
                answers.append((delivery, answer))
            elif delivery.transfer.outcome is not Outcome.UNDER_WAY:
                delivery.close()
        for delivery, answer in answers:
            delivery.answer(answer)

    def _sweep(self) -> None:
        self._serve()  # what has arrived is heard before anybody counts as silent
        now = self._clock()
        for delivery in [each for each in self._deliveries.values() if each.transfer.deadline <= now]:
            delivery.timed_out(now)
        if self._deliveries:
            self._sweeping = self._loop.call_later(TICK, self._sweep)
        else:
            self._sweeping = None
            self._layouts.forget()

    def _take_requests(self, now: float) -> None:
        for _ in range(REQUESTS_AT_ONCE):
            try:
                arrival = self._requests.receive()
            except OSError:
                return
            self._take(arrival, now)

    def _take(self, arrival: Arrival, now: float) -> None:
        """What is no request is not answered: it is nobody's, and an answer to a forged sender only does harm."""
        try:
            packet = packets.parse(arrival.datagram)
        except Malformed as error:
            if arrival.datagram[:2] in (b"\0\1", b"\0\2"):
                self._refuse(arrival, ErrorCode.ILLEGAL_OPERATION, error.message)
            return
        match packet:
            case WriteRequest():
                self._refuse(arrival, ErrorCode.ACCESS_VIOLATION, "This server is read-only.")
            case ReadRequest(mode=mode) if mode != OCTET:
                self._refuse(arrival, ErrorCode.ILLEGAL_OPERATION, "Files are sent in octet (binary) mode only.")
            case ReadRequest():
                self._take_read(arrival, packet, now)

    def _take_read(self, arrival: Arrival, request: ReadRequest, now: float) -> None:
        """A client is its address and port. One that repeats its request has not heard us yet; one that asks for
        something else, or after a silence, has begun anew, as boot ROMs do from the same port."""
        client = arrival.client
        if client in self._opening:
            return
        if (under_way := self._deliveries.get(client)) is not None:
            if under_way.arrival.datagram == arrival.datagram and not under_way.transfer.is_abandoned(now):
                under_way.begin(now)
                return
            under_way.transfer.gone()
            under_way.close()
        if self.active >= self._limits.total or self._of_client[client[0]] >= self._limits.per_client:
            self._put_off(arrival, "the limit of transfers is reached")
            return
        self._of_client[client[0]] += 1
        self._opening[client] = asyncio.create_task(self._open(arrival, request), name=f"tftp {request.name}")

    async def _open(self, arrival: Arrival, request: ReadRequest) -> None:
        begun = False
        try:
            served = await self._files.find(Asked(request.name, arrival.client[0], arrival.local[0]))
            if served is None:
                self._refuse(arrival, ErrorCode.NOT_FOUND, "There is no such file.")
            else:
                begun = self._begin(arrival, request, served)
        except PureBootError as error:
            self._refuse(arrival, ErrorCode.UNDEFINED, error.message)
        except Exception:  # whatever looking stumbles over, the machine is told at once and boots on
            log.exception("tftp: a file could not be looked for: %r", request.name)
            self._refuse(arrival, ErrorCode.UNDEFINED, "The server failed at this file.")
        finally:
            del self._opening[arrival.client]
            if not begun:
                self._leave(arrival)

    def _begin(self, arrival: Arrival, request: ReadRequest, served: Served) -> bool:
        try:
            sock = TransferSocket(arrival.local, arrival.client)
        except OSError as error:  # no descriptor or port is left, or no way to the client
            served.close()
            self._put_off(arrival, str(error))
            return False
        now = self._clock()
        delivery = Delivery(arrival, request, served, sock, now, layouts=self._layouts, ended=self._ended)
        self._deliveries[arrival.client] = self._by_fd[delivery.fd] = delivery
        self._others[delivery.stray_fd] = delivery.stray
        for fd in (delivery.fd, delivery.stray_fd):
            self._epoll.register(fd, select.EPOLLIN)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(TICK, self._sweep)
        delivery.begin(now)
        return True

    def _ended(self, delivery: Delivery) -> None:
        # Closed descriptors leave the epoll by themselves.
        del self._by_fd[delivery.fd], self._others[delivery.stray_fd], self._deliveries[delivery.arrival.client]
        self._leave(delivery.arrival)
        transfer = delivery.transfer
        self.bytes_sent += transfer.bytes_acked
        self.resends += transfer.resends
        if transfer.outcome is Outcome.DONE:
            self.transfers += 1
        elif transfer.outcome in (Outcome.SILENCE, Outcome.FAILED):
            self.errors += 1
            log.warning("tftp: %r did not reach %s: %s", delivery.name, delivery.arrival.client[0], transfer.outcome)
        else:
            log.debug("tftp: %r for %s: %s", delivery.name, delivery.arrival.client[0], transfer.outcome)

    def _leave(self, arrival: Arrival) -> None:
        host = arrival.client[0]
        self._of_client[host] -= 1
        if not self._of_client[host]:
            del self._of_client[host]

    def _refuse(self, arrival: Arrival, code: ErrorCode, message: str) -> None:
        self.errors += 1
        log.info("tftp: %s is refused: %s (%r)", arrival.client[0], message, arrival.datagram[2:130])
        self._requests.answer(arrival, packets.dump(Error(code, message)))

    def _put_off(self, arrival: Arrival, why: str) -> None:
        self.put_off += 1
        log.warning("tftp: %s has to ask again: %s", arrival.client[0], why)


def _ignore(_: float) -> None:
    pass
