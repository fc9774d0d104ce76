"""A DHCP client in a packet: what a kind of firmware would be told to boot."""

import asyncio
import random
import socket
import struct
from dataclasses import dataclass

_MAGIC = b"\x63\x82\x53\x63"
_DISCOVER, _END = 1, 255
_MESSAGE_TYPE, _VENDOR_CLASS, _USER_CLASS, _ARCHITECTURE, _BOOT_FILE, _TFTP_SERVER = 53, 60, 77, 93, 67, 66
_WANTED = bytes([1, 3, 6, 43, 60, _TFTP_SERVER, _BOOT_FILE])


@dataclass(frozen=True)
class Offer:
    """`address`: 0.0.0.0 from a proxy. `server`: where TFTP is, as siaddr says."""

    address: str
    server: str
    file: str
    vendor_class: str


def discover(mac: str, architecture: int, *, vendor: str = "PXEClient", user_class: str = "") -> bytes:
    hardware = bytes.fromhex(mac.replace(":", ""))
    transaction = random.getrandbits(32)
    fixed = struct.pack("!BBBBIHH4s4s4s4s16s", 1, 1, 6, 0, transaction, 0, 0x8000, *[bytes(4)] * 4, hardware)
    options = {
        _MESSAGE_TYPE: bytes([_DISCOVER]),
        55: _WANTED,
        _VENDOR_CLASS: f"{vendor}:Arch:{architecture:05}:UNDI:003000".encode(),
        _ARCHITECTURE: struct.pack("!H", architecture),
        94: b"\1\3\0",
        97: b"\0" + hardware.rjust(16, b"\0"),
    }
    if user_class:
        options[_USER_CLASS] = user_class.encode()
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return (fixed.ljust(236, b"\0") + _MAGIC + body + bytes([_END])).ljust(300, b"\0")


def offer(packet: bytes) -> Offer:
    address, server = (socket.inet_ntoa(packet[start : start + 4]) for start in (16, 20))
    options = _options(packet[240:])
    file = options.get(_BOOT_FILE) or packet[108:236]
    return Offer(address, server, _text(file), _text(options.get(_VENDOR_CLASS, b"")))


def _options(rest: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while rest and rest[0] != _END:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        found[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return found


def _text(value: bytes) -> str:
    return value.split(b"\0")[0].decode()


async def ask(interface: str, packet: bytes, within: float = 20) -> Offer:
    """The first offer that comes to it, and not to an earlier one; the question is repeated once a second, as firmware
    does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.setblocking(False)
        sock.bind(("", 68))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within):
            while True:
                await loop.sock_sendto(sock, packet, ("255.255.255.255", 67))
                try:
                    async with asyncio.timeout(1):
                        while (answer := await loop.sock_recv(sock, 2048))[4:8] != packet[4:8]:
                            pass
                        return offer(answer)
                except TimeoutError:
                    continue
