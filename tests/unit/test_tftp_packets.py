"""TFTP datagrams: there and back, and no bytes that do harm."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pureboot.core.errors import Malformed
from pureboot.tftp.packets import (
    Ack,
    Data,
    Error,
    ErrorCode,
    OptionsAck,
    Packet,
    ReadRequest,
    WriteRequest,
    acknowledged,
    dump,
    parse,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
lower = texts.map(str.lower).filter(lambda text: text == text.lower())
options = st.dictionaries(lower.filter(bool), texts, max_size=5).map(lambda found: tuple(found.items()))
numbers = st.integers(0, 0xFFFF)
packets = st.one_of(
    st.builds(ReadRequest, texts, lower, options),
    st.builds(WriteRequest, texts, lower, options),
    st.builds(Data, numbers, st.binary()),
    st.builds(Ack, numbers),
    st.builds(Error, numbers, texts),
    st.builds(OptionsAck, options),
)


@given(packets)
def test_what_is_written_is_read_as_the_same(packet: Packet) -> None:
    assert parse(dump(packet)) == packet


@given(st.binary() | st.tuples(st.integers(0, 7), st.binary()).map(lambda pair: bytes([0, pair[0]]) + pair[1]))
@example(b"\0\1")
@example(b"\0\1a\0")
@example(b"\0\1a\0octet")
@example(b"\0\3\0")
@example(b"\0\5\0")
@example(b"\0\6blksize")
def test_whatever_arrives_is_a_packet_or_malformed(datagram: bytes) -> None:
    try:
        packet = parse(datagram)
    except Malformed:
        return
    assert parse(dump(packet)) == packet


@given(st.binary() | packets.map(dump))
def test_an_ack_is_seen_at_a_glance(datagram: bytes) -> None:
    try:
        packet = parse(datagram)
    except Malformed:
        packet = None
    assert acknowledged(datagram) == (packet.block if isinstance(packet, Ack) else -1)


@pytest.mark.parametrize(
    ("datagram", "packet"),
    [
        (b"\0\1undionly.kpxe\0octet\0", ReadRequest("undionly.kpxe")),
        # As OVMF asks.
        (
            b"\0\1ipxe.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0",
            ReadRequest("ipxe.efi", "octet", (("tsize", "0"), ("blksize", "1468"), ("windowsize", "4"))),
        ),
        (b"\0\1a\0OCTET\0BlkSize\x001432\0", ReadRequest("a", "octet", (("blksize", "1432"),))),
        # Padding, an option cut off, an option given twice, a name that is no text.
        (b"\0\1a\0octet\0\0\0\0\0\0", ReadRequest("a")),
        (b"\0\1a\0octet\0tsize\x000\0blksize\x0014", ReadRequest("a", "octet", (("tsize", "0"),))),
        (b"\0\1a\0octet\0tsize\x000\0tsize\x001\0", ReadRequest("a", "octet", (("tsize", "0"),))),
        (b"\0\1\xff/\0octet\0", ReadRequest("\N{REPLACEMENT CHARACTER}/")),
        (b"\0\2a\0netascii\0", WriteRequest("a", "netascii")),
        (b"\0\3\x01\x02xyz", Data(0x102, b"xyz")),
        (b"\0\4\xff\xff", Ack(0xFFFF)),
        (b"\0\5\0\1No such file\0", Error(ErrorCode.NOT_FOUND, "No such file")),
        (b"\0\5\0\0no zero at its end", Error(0, "no zero at its end")),
        (b"\0\6blksize\x001432\0", OptionsAck((("blksize", "1432"),))),
    ],
)
def test_datagrams_are_read_as_the_rfcs_have_them(datagram: bytes, packet: Packet) -> None:
    assert parse(datagram) == packet


@pytest.mark.parametrize("datagram", [b"", b"\0", b"\0\0", b"\0\7", b"\1\4\0\0", b"\0\1a", b"\0\2a\0octet", b"\0\4\0"])
def test_what_is_no_packet_is_malformed(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        parse(datagram)
