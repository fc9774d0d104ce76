"""One transfer on its way: its state machine, its socket and its file."""

import contextlib
import logging
from collections.abc import Callable, Sequence

from pureboot.tftp import packets
from pureboot.tftp.layout import Layouts
from pureboot.tftp.packets import Error, ErrorCode, ReadRequest
from pureboot.tftp.served import Served
from pureboot.tftp.sockets import Arrival, TransferSocket
from pureboot.tftp.transfer import Outcome, Transfer

log = logging.getLogger(__name__)

# An ACK has four bytes; of an ERROR's text this much is read.
ANSWER_SIZE = 256

_UNKNOWN_TID = packets.dump(Error(ErrorCode.UNKNOWN_TID, "This port serves another transfer."))


class Delivery:
    """Takes `sock` and `served` over. `ended` is called once, after both are closed. The server moves datagrams from
    `receive` to `received` and what that gives to `answer`."""

    def __init__(
        self,
        arrival: Arrival,
        request: ReadRequest,
        served: Served,
        sock: TransferSocket,
        now: float,
        *,
        layouts: Layouts,
        ended: Callable[["Delivery"], None],
    ) -> None:
        self.arrival = arrival
        self.name = request.name
        self.transfer = Transfer(served, request.options, now, layouts)
        self.fd, self.stray_fd = sock.fileno(), sock.stray.fileno()
        self._served, self._sock, self._ended = served, sock, ended
        self._is_open = True
        self.receive, self.received, self._send_one = sock.receive, self.transfer.received, sock.send_one

    def begin(self, now: float) -> None:
        """Also when the client asks the same again."""
        self._out(self.transfer.start(now))

    def answer(self, datagrams: Sequence[bytes]) -> None:
        if self.transfer.outcome is Outcome.UNDER_WAY and len(datagrams) == 1:
            try:  # cheaper than `suppress`, and this is done for every block
                self._send_one(datagrams[0])
            except OSError:  # no room: lost, and sent again
                return
        else:
            self._out(datagrams)

    def failed(self, error: OSError) -> None:
        """Nothing could be received. That nobody listens there, the client's machine says by ICMP; all else passes."""
        if isinstance(error, ConnectionRefusedError):
            self.transfer.gone()
            self.close()

    def stray(self, _: float) -> None:
        """Somebody else sent something to this port (RFC 1350, 4): they are told, the transfer is not."""
        with contextlib.suppress(OSError):
            datagram, sender = self._sock.stray.recvfrom(ANSWER_SIZE)
            if not datagram.startswith(b"\0\5"):
                self._sock.stray.sendto(_UNKNOWN_TID, sender)

    def timed_out(self, now: float) -> None:
        self._out(self.transfer.timed_out(now))

    def abort(self, message: str) -> None:
        self._out(self.transfer.abort(message))

    def close(self) -> None:
        """Idempotent."""
        if self._is_open:
            self._is_open = False
            self._sock.close()
            self._served.close()
            self._ended(self)

    def _out(self, datagrams: Sequence[bytes]) -> None:
        try:
            self._sock.send(datagrams)
        except ConnectionRefusedError:
            self.transfer.gone()
        if self.transfer.outcome is not Outcome.UNDER_WAY:
            self.close()
