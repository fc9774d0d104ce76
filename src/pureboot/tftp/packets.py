"""TFTP's datagrams, from bytes to values and back.

RFC 1350 has the packets, RFC 2347 the options of a request and the packet that answers them (OACK). Numbers are two
bytes, the larger one first; texts end with a zero byte.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from pureboot.core.errors import Malformed

# A request fits into 512 bytes (RFC 2347); what firmware pads it with to a fixed length is ignored.
OCTET = "octet"

_NUMBERS = Struct("!HH")
_pack = _NUMBERS.pack

Options = tuple[tuple[str, str], ...]
"""In the order of the packet, names in lower case, each name once."""


class Opcode(IntEnum):
    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """RFC 1350; the last one RFC 2347."""

    UNDEFINED = 0
    NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TID = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    BAD_OPTIONS = 8


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """`name` is whatever the client wrote, a path of no file system; `mode` is in lower case."""

    name: str
    mode: str = OCTET
    options: Options = ()


@dataclass(frozen=True, slots=True)
class WriteRequest:
    name: str
    mode: str = OCTET
    options: Options = ()


@dataclass(frozen=True, slots=True)
class Data:
    """`block` has 16 bits: after 65,535 it begins again at 0."""

    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    block: int


@dataclass(frozen=True, slots=True)
class Error:
    """`code` is one of ErrorCode, or what a client made up."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class OptionsAck:
    options: Options


Packet = ReadRequest | WriteRequest | Data | Ack | Error | OptionsAck


def parse(datagram: bytes) -> Packet:
    """Raises Malformed, whatever the bytes are, and nothing else."""
    if len(datagram) < 2:
        raise Malformed("A TFTP packet has at least two bytes.")
    body = datagram[2:]
    match int.from_bytes(datagram[:2], "big"):
        case Opcode.RRQ:
            return ReadRequest(*_request(body))
        case Opcode.WRQ:
            return WriteRequest(*_request(body))
        case Opcode.DATA:
            return Data(_number(body), body[2:])
        case Opcode.ACK:
            return Ack(_number(body))
        case Opcode.ERROR:
            return Error(_number(body), _text(body[2:].partition(b"\0")[0]))
        case Opcode.OACK:
            return OptionsAck(_options(body.split(b"\0")))
        case opcode:
            raise Malformed(f"TFTP has no packet {opcode}.")


def dump(packet: Packet) -> bytes:
    match packet:
        case ReadRequest(name, mode, options):
            return _opcode(Opcode.RRQ) + _texts(name, mode) + _dump_options(options)
        case WriteRequest(name, mode, options):
            return _opcode(Opcode.WRQ) + _texts(name, mode) + _dump_options(options)
        case Data(block, payload):
            return data_header(block) + payload
        case Ack(block):
            return _NUMBERS.pack(Opcode.ACK, block)
        case Error(code, message):
            return _NUMBERS.pack(Opcode.ERROR, code) + _texts(message)
        case OptionsAck(options):
            return _opcode(Opcode.OACK) + _dump_options(options)


def data_header(block: int) -> bytes:
    """What stands before the payload of a DATA packet; of a larger number its 16 lowest bits."""
    return _pack(3, block & 0xFFFF)


def acknowledged(datagram: bytes) -> int:
    """The block that a datagram acknowledges; -1 if it is no ACK. As `parse`, at a tenth of its price: there is one for
    every window of every transfer."""
    if len(datagram) < 4 or datagram[1] != 4 or datagram[0]:
        return -1
    return datagram[2] << 8 | datagram[3]


def _request(body: bytes) -> tuple[str, str, Options]:
    fields = body.split(b"\0")
    if len(fields) < 3:
        raise Malformed("A TFTP request names a file and a mode, each with a zero byte at its end.")
    return _text(fields[0]), _text(fields[1]).lower(), _options(fields[2:])


def _options(fields: list[bytes]) -> Options:
    """Up to the first empty name: the rest is padding. Of an option given twice the first counts, and one that is cut
    off (its value has no zero byte) not at all."""
    options: dict[str, str] = {}
    for name, value in zip(fields[:-1:2], fields[1:-1:2], strict=False):
        if not name:
            break
        options.setdefault(_text(name).lower(), _text(value))
    return tuple(options.items())


def _number(body: bytes) -> int:
    if len(body) < 2:
        raise Malformed("The TFTP packet is cut short.")
    return int.from_bytes(body[:2], "big")


def _text(field: bytes) -> str:
    return field.decode(errors="replace")


def _opcode(opcode: Opcode) -> bytes:
    return opcode.to_bytes(2, "big")


def _texts(*texts: str) -> bytes:
    return b"".join(text.encode(errors="replace").replace(b"\0", b"") + b"\0" for text in texts)


def _dump_options(options: Options) -> bytes:
    return b"".join(_texts(name, value) for name, value in options)
