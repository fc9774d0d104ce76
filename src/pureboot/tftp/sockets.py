"""UDP as a TFTP server needs it: the address a request came to, a socket of its own for each client, a window in one
system call. Linux: what is not in Python's `socket` is from linux/in.h and linux/udp.h."""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct
from typing import Any

from pureboot.core.errors import SettingsError

IP_PKTINFO = 8
UDP_SEGMENT = 103
# The kernel cuts so many datagrams from one send (UDP_MAX_SEGMENTS before Linux 6.9), and takes so many bytes.
SEGMENTS_AT_ONCE = 64
BYTES_AT_ONCE = 65_000
# The whole of a rack asks within a moment; the default holds some 270 requests.
REQUEST_BUFFER = 1024 * 1024
# Larger than any request: RFC 2347 allows 512 bytes.
REQUEST_SIZE = 2048
# A network card that cannot do it, or a datagram that has to be cut into fragments.
CANNOT_SEGMENT = {errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

_PKTINFO4 = Struct("=i4s4s")
_PKTINFO6 = Struct("=16sI")
_SEGMENT = Struct("=H")

Address = tuple[Any, ...]
"""As sockets have it: host and port first; of IPv6 also flow and scope."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram, who sent it, to which address of ours, and what makes an answer leave from there again."""

    datagram: bytes
    client: Address
    local: Address
    way_back: tuple[tuple[int, int, bytes], ...]


class RequestSocket:
    """Raises SettingsError where the port is taken, not allowed, or the host no address of this machine."""

    def __init__(self, host: str, port: int) -> None:
        self._sock = _bound(host, port)
        self._sock.setblocking(False)
        self.port: int = self._sock.getsockname()[1]
        self.fileno = self._sock.fileno
        self.close = self._sock.close

    def receive(self) -> Arrival:
        """Raises OSError, BlockingIOError where nothing has arrived."""
        datagram, ancillary, _, client = self._sock.recvmsg(REQUEST_SIZE, 128)
        way_back = tuple((level, kind, data) for level, kind, data in ancillary)
        return Arrival(datagram, client, self._local(way_back), way_back)

    def answer(self, arrival: Arrival, datagram: bytes) -> None:
        """One datagram, which may be lost like any other."""
        with contextlib.suppress(OSError):
            self._sock.sendmsg([datagram], arrival.way_back, 0, arrival.client)

    def _local(self, ancillary: Sequence[tuple[int, int, bytes]]) -> Address:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                return str(ip_address(_PKTINFO4.unpack(data)[1])), 0
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                host, interface = _PKTINFO6.unpack(data)
                address = ip_address(host)
                return str(address), 0, 0, interface if address.is_link_local else 0
        return self._sock.getsockname()[0], 0


class TransferSocket:
    """From a free port of the address that the client asked, to the client alone.

    Connected, which halves the price of a datagram. What others send to its port goes to `stray`, a second socket on
    that port which is not connected.
    """

    def __init__(self, local: Address, client: Address) -> None:
        family = socket.AF_INET if len(client) == 2 else socket.AF_INET6
        with contextlib.ExitStack() as undo:
            self._sock = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            self._sock.bind(local)
            # Only now: a port that is chosen with this set may be another transfer's.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.stray = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            self.stray.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.stray.bind(self._sock.getsockname())
            self._sock.connect(client)
            undo.pop_all()
        self.fileno = self._sock.fileno
        self.receive = self._sock.recv
        self.send_one = self._sock.send
        self._cuts_in_kernel = True

    def send(self, datagrams: Sequence[bytes]) -> None:
        """All of one length but the last, which may be shorter. What the kernel has no room for is lost, like what the
        network has no room for. Raises ConnectionRefusedError: the client's machine says that nobody listens there."""
        try:
            if len(datagrams) > 1 and self._cuts_in_kernel:
                self._send_whole(datagrams)
            else:
                for datagram in datagrams:
                    self.send_one(datagram)
        except ConnectionRefusedError:
            raise
        except OSError:
            pass

    def close(self) -> None:
        self.stray.close()
        self._sock.close()

    def _send_whole(self, datagrams: Sequence[bytes]) -> None:
        """The kernel cuts it (UDP generic segmentation offload, udp(7)): one way through the stack for a window."""
        segment = len(datagrams[0])
        at_once = max(1, min(SEGMENTS_AT_ONCE, BYTES_AT_ONCE // segment))
        cut = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(segment))]
        try:
            for first in range(0, len(datagrams), at_once):
                self._sock.sendmsg(datagrams[first : first + at_once], cut)
        except OSError as error:
            if error.errno not in CANNOT_SEGMENT:
                raise
            self._cuts_in_kernel = False
            self.send(datagrams)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
        try:
            _prepare(sock, family)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise SettingsError(
            f"Cannot serve TFTP on {host}, port {port}: {why}.",
            hint="Stop the program that has the port, or give this one the right to it (CAP_NET_BIND_SERVICE). "
            "Or choose another 'tftp_port'; 0 is none.",
        ) from None
    return sock


def _prepare(sock: socket.socket, family: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, REQUEST_BUFFER)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as the HTTP server has it
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
