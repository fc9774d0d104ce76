"""One reader of MAC addresses: every spelling that firmware and people use, and nothing else."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pureboot.core.errors import Malformed
from pureboot.core.mac import MacAddress

THE_SAME = "52:54:00:aa:bb:01"

octets = st.binary(min_size=6, max_size=6).filter(lambda raw: raw not in (bytes(6), b"\xff" * 6))


@pytest.mark.parametrize(
    "spelling",
    [
        "52:54:00:aa:bb:01",
        "52-54-00-aa-bb-01",
        "5254.00aa.bb01",
        "525400aabb01",
        "52:54:00:AA:BB:01",
        "52-54-00-Aa-bB-01",
        "5254.00AA.BB01",
        "525400AABB01",
        "  52:54:00:aa:bb:01\n",
    ],
)
def test_every_spelling_in_use_is_the_same_address(spelling):
    assert str(MacAddress.parse(spelling)) == THE_SAME


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("   ", id="blanks"),
        pytest.param("52:54:00:aa:bb", id="five octets"),
        pytest.param("52:54:00:aa:bb:01:02", id="seven octets"),
        pytest.param("52:54:00:aa:bb:0g", id="not hex"),
        pytest.param("52:54:00-aa:bb:01", id="mixed separators"),
        pytest.param("5254:00aa:bb01", id="colons in Cisco's places"),
        pytest.param("52.54.00.aa.bb.01", id="dots in the wrong places"),
        pytest.param("5:54:00:aa:bb:01", id="an octet of one digit"),
        pytest.param("52%3A54%3A00%3Aaa%3Abb%3A01", id="still encoded"),
        pytest.param("52:54:00:aa:bb:01\n52:54:00:aa:bb:02", id="two lines"),
        pytest.param("52:54:00:aa:bb:01/../etc", id="a path behind it"),
        pytest.param("${net0/mac}", id="an iPXE setting nobody expanded"),
        pytest.param("５2:54:00:aa:bb:01", id="a digit of another script"),
        pytest.param("00:00:00:00:00:00", id="firmware without an address: zeros"),
        pytest.param("ff:ff:ff:ff:ff:ff", id="broadcast"),
        pytest.param("FF-FF-FF-FF-FF-FF", id="broadcast, as Windows writes it"),
    ],
)
def test_anything_else_is_malformed_and_says_how_to_write_one(text):
    with pytest.raises(Malformed) as refusal:
        MacAddress.parse(text)
    assert refusal.value.code == "malformed_mac"
    assert "52:54:00:aa:bb:01" in refusal.value.hint


@given(st.text(min_size=20))
@example("x" * 100_000)
@example("\U0010ffff" * 100)
def test_the_message_about_a_hostile_text_is_one_short_printable_line(text):
    with pytest.raises(Malformed) as refusal:
        MacAddress.parse(f"?{text}")
    assert len(refusal.value.message) < 500
    assert refusal.value.message.isprintable()


@given(octets)
def test_what_is_written_reads_back_as_the_same_address(raw):
    address = MacAddress.parse(raw.hex())
    assert str(address) == raw.hex(":")
    assert address.hyphenated == raw.hex("-")
    assert MacAddress.parse(str(address)) == MacAddress.parse(address.hyphenated) == address


@given(octets, octets)
def test_addresses_sort_as_their_octets_do(one, other):
    assert (MacAddress.parse(one.hex()) < MacAddress.parse(other.hex())) == (one < other)
