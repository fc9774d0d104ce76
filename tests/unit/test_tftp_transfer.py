"""One TFTP transfer: what goes out when what comes in, and over a network that does its worst."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.tftp.layout import Changed, Layouts
from pureboot.tftp.packets import Ack, Data, Error, OptionsAck, dump, parse
from pureboot.tftp.served import Text
from pureboot.tftp.transfer import (
    FIRST_WAIT,
    LIVELY,
    LONGEST_SILENCE,
    LONGEST_WAIT,
    MAX_RESENDS,
    NOTHING,
    SHORTEST_WAIT,
    Agreed,
    Outcome,
    Transfer,
    agree,
)
from tests.support.tftp import Reader, Weather, run

SMALL_BLOCKS = (("blksize", "8"),)
WINDOWS_OF_4 = (("blksize", "8"), ("windowsize", "4"))


def content_of(size: int) -> bytes:
    return Random(size).randbytes(size)


def transfer_of(content: bytes, options: tuple[tuple[str, str], ...] = ()) -> Transfer:
    return Transfer(Text(content), options, 0.0, Layouts())


def ack(block: int) -> bytes:
    return dump(Ack(block))


def blocks(datagrams: object) -> list[int]:
    assert isinstance(datagrams, (list, tuple))
    found = [parse(datagram) for datagram in datagrams]
    return [packet.block for packet in found if isinstance(packet, Data)]


class Shrinking:
    """Half of it is gone when the second half is read."""

    size = 200_000
    version = 1

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size / 2:
            raise Changed("The file changed while it was sent.")
        return bytes(length)


class Unreadable:
    size = 10
    version = 2

    def read(self, offset: int, length: int) -> bytes:
        raise OSError(5, "Input/output error")


# What the options come to


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        ({}, Agreed()),
        ({"blksize": "1432", "tsize": "0"}, Agreed(1432, 1, LONGEST_WAIT, (("blksize", "1432"), ("tsize", "5000")))),
        # As OVMF asks, in its order.
        (
            {"tsize": "0", "blksize": "1468", "windowsize": "4"},
            Agreed(1468, 4, LONGEST_WAIT, (("tsize", "5000"), ("blksize", "1468"), ("windowsize", "4"))),
        ),
        ({"timeout": "2"}, Agreed(longest_wait=2.0, answer=(("timeout", "2"),))),
        ({"blksize": "65535"}, Agreed(blksize=65464, answer=(("blksize", "65464"),))),
        ({"windowsize": "65535"}, Agreed(window=64, answer=(("windowsize", "64"),))),
        (
            {"blksize": "65464", "windowsize": "64"},
            Agreed(65464, 4, answer=(("blksize", "65464"), ("windowsize", "4"))),
        ),
        # What means nothing is left out.
        ({"blksize": "7"}, Agreed()),
        ({"blksize": "-1", "windowsize": "0", "timeout": "0", "tsize": "x", "multicast": ""}, Agreed()),
        ({"timeout": "256", "blksize": "1" * 40, "windowsize": "\N{SUPERSCRIPT TWO}"}, Agreed()),
    ],
)
def test_options_are_answered_within_what_the_rfcs_allow(asked: dict[str, str], agreed: Agreed) -> None:
    assert agree(tuple(asked.items()), size=5000) == agreed


# Step by step


def test_without_options_the_first_answer_is_the_first_block() -> None:
    transfer = transfer_of(content_of(513))
    assert [parse(d) for d in transfer.start(0.0)] == [Data(1, content_of(513)[:512])]
    assert [parse(d) for d in transfer.received(ack(1), 0.0)] == [Data(2, content_of(513)[512:])]
    assert transfer.received(ack(2), 0.0) == NOTHING
    assert transfer.outcome is Outcome.DONE
    assert transfer.bytes_acked == 513


def test_options_are_acknowledged_before_the_first_block_and_again_until_the_client_has_heard() -> None:
    transfer = transfer_of(content_of(20), SMALL_BLOCKS)
    agreed = [dump(OptionsAck((("blksize", "8"),)))]
    assert transfer.start(0.0) == agreed
    assert transfer.timed_out(transfer.deadline) == agreed
    assert transfer.timed_out(transfer.deadline) == agreed
    assert blocks(transfer.received(ack(0), 1.0)) == [1]


@pytest.mark.parametrize(("size", "last"), [(0, 1), (7, 1), (8, 2), (9, 2), (16, 3)])
def test_the_last_block_is_shorter_than_the_rest_if_need_be_empty(size: int, last: int) -> None:
    transfer = transfer_of(content_of(size), SMALL_BLOCKS)
    transfer.start(0.0)
    sent = [parse(d) for block in range(last) for d in transfer.received(ack(block), 0.0)]
    assert [packet.block for packet in sent if isinstance(packet, Data)] == list(range(1, last + 1))
    assert b"".join(packet.payload for packet in sent if isinstance(packet, Data)) == content_of(size)
    transfer.received(ack(last), 0.0)
    assert transfer.outcome is Outcome.DONE


def test_a_window_is_sent_at_once_and_the_next_when_all_of_it_is_acknowledged() -> None:
    transfer = transfer_of(content_of(60), WINDOWS_OF_4)
    transfer.start(0.0)
    assert blocks(transfer.received(ack(0), 0.0)) == [1, 2, 3, 4]
    assert blocks(transfer.received(ack(4), 0.0)) == [5, 6, 7, 8]


def test_an_ack_from_the_middle_of_a_window_makes_the_next_begin_there() -> None:
    transfer = transfer_of(content_of(60), WINDOWS_OF_4)
    transfer.start(0.0)
    transfer.received(ack(0), 0.0)
    assert blocks(transfer.received(ack(2), 0.0)) == [3, 4, 5, 6]
    assert blocks(transfer.received(ack(6), 0.0)) == [7, 8]


def test_a_duplicate_ack_starts_nothing() -> None:
    transfer = transfer_of(content_of(60), WINDOWS_OF_4)
    transfer.start(0.0)
    transfer.received(ack(0), 0.0)
    assert transfer.received(ack(0), 0.0) == NOTHING
    assert blocks(transfer.received(ack(4), 0.0)) == [5, 6, 7, 8]
    assert [transfer.received(ack(block), 0.0) for block in (0, 2, 4, 4)] == [NOTHING] * 4


def test_an_ack_of_the_future_is_ignored() -> None:
    transfer = transfer_of(content_of(60), WINDOWS_OF_4)
    transfer.start(0.0)
    assert transfer.received(ack(1), 0.0) == NOTHING
    transfer.received(ack(0), 0.0)
    assert [transfer.received(ack(block), 0.0) for block in (5, 8, 0x7FFF, 0xFFFF)] == [NOTHING] * 4
    assert transfer.outcome is Outcome.UNDER_WAY


def test_if_every_ack_comes_twice_every_block_goes_out_once() -> None:
    transfer = transfer_of(content_of(8000), SMALL_BLOCKS)
    transfer.start(0.0)
    sent = [
        block
        for acked in range(1001)
        for _ in range(2)
        for block in blocks(transfer.received(ack(acked), acked / 1000))
    ]
    assert sent == list(range(1, 1002))


def test_after_block_65535_comes_block_0() -> None:
    content = content_of(8 * 65_600 + 3)
    reader = Reader()
    run(transfer_of(content, (("blksize", "8"), ("windowsize", "64"))), reader, Weather(), Random(0))
    assert reader.whole
    assert reader.content == content


def test_an_error_from_the_client_ends_it() -> None:
    transfer = transfer_of(content_of(60), (("tsize", "0"),))
    transfer.start(0.0)
    assert transfer.received(dump(Error(8, "only the size was wanted")), 0.0) == NOTHING
    assert transfer.outcome is Outcome.ENDED_BY_CLIENT


@given(st.binary(max_size=40))
def test_whatever_a_client_sends_brings_nothing_down(datagram: bytes) -> None:
    transfer = transfer_of(content_of(60), WINDOWS_OF_4)
    transfer.start(0.0)
    transfer.received(datagram, 0.0)


def test_a_client_that_repeats_its_request_gets_the_same_answer_until_it_has_heard() -> None:
    transfer = transfer_of(content_of(60), SMALL_BLOCKS)
    first = transfer.start(0.0)
    assert transfer.start(0.1) == first
    transfer.received(ack(0), 0.2)
    assert transfer.start(0.3) == NOTHING
    assert not transfer.is_abandoned(0.3)
    assert transfer.is_abandoned(0.3 + LIVELY)


def test_a_file_that_changes_ends_with_an_error_that_says_so() -> None:
    transfer = Transfer(Shrinking(), (), 0.0, Layouts())
    datagrams = transfer.start(0.0)
    block = 0
    while transfer.outcome is Outcome.UNDER_WAY:
        block += 1
        assert blocks(datagrams) == [block]
        datagrams = transfer.received(ack(block), 0.0)
    assert [parse(d) for d in datagrams] == [Error(0, "The file changed while it was sent.")]
    assert transfer.outcome is Outcome.FAILED


def test_a_file_that_cannot_be_read_ends_with_an_error() -> None:
    transfer = Transfer(Unreadable(), (), 0.0, Layouts())
    assert [parse(d) for d in transfer.start(0.0)] == [Error(0, "The file cannot be read.")]


class Counting(Text):
    reads = 0

    def read(self, offset: int, length: int) -> bytes:
        type(self).reads += 1
        return super().read(offset, length)


def test_a_file_that_many_fetch_is_read_once_and_another_version_of_it_anew() -> None:
    layouts = Layouts()
    for content in (content_of(100_000), content_of(100_000), content_of(100_001)):
        reader = Reader()
        run(Transfer(Counting(content), (("blksize", "1024"),), 0.0, layouts), reader, Weather(), Random(0))
        assert reader.content == content
    assert Counting.reads == 2 * 2


# Time


def test_what_is_not_acknowledged_is_sent_again_later_and_later_and_a_bounded_number_of_times() -> None:
    transfer = transfer_of(content_of(60))
    first = transfer.start(0.0)
    waits, now = [], 0.0
    for _ in range(MAX_RESENDS):
        waits.append(transfer.deadline - now)
        now = transfer.deadline
        assert transfer.timed_out(now) == first
    assert waits[:4] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT]
    assert waits[4:] == pytest.approx([LONGEST_WAIT] * (MAX_RESENDS - 4))
    assert [parse(d) for d in transfer.timed_out(transfer.deadline)] == [Error(0, "No answer for too long.")]
    assert transfer.outcome is Outcome.SILENCE
    assert 20 < now < 60


def round_trips(transfer: Transfer, seconds: float, first: int, count: int, now: float) -> float:
    for block in range(first, first + count):
        now += seconds
        transfer.received(ack(block), now)
    return now


def test_the_wait_follows_the_round_trip() -> None:
    transfer = transfer_of(content_of(100_000))
    transfer.start(0.0)
    now = round_trips(transfer, 0.0005, 1, 60, 0.0)
    assert transfer.deadline - now == pytest.approx(SHORTEST_WAIT)
    now = round_trips(transfer, 0.04, 61, 40, now)
    assert 0.04 < transfer.deadline - now < 0.2


def test_a_client_that_has_become_slow_is_not_sent_everything_twice_for_ever() -> None:
    transfer = transfer_of(content_of(100_000))
    transfer.start(0.0)
    now = round_trips(transfer, 0.0005, 1, 60, 0.0)
    for block in range(61, 121):
        answered = now + 0.4
        while transfer.deadline < answered:
            transfer.timed_out(transfer.deadline)
        now = answered
        transfer.received(ack(block), now)
    assert transfer.resends < 10


def test_a_timeout_that_the_client_asks_for_bounds_the_wait() -> None:
    transfer = transfer_of(content_of(60), (("timeout", "1"),))
    transfer.start(0.0)
    now = 0.0
    for _ in range(6):
        assert transfer.deadline - now <= 1.0
        now = transfer.deadline
        transfer.timed_out(now)


@pytest.mark.parametrize("acked", [False, True], ids=["from the start", "in the middle"])
def test_no_timeout_that_a_client_asks_for_makes_its_silence_hold_a_place_for_long(acked: bool) -> None:
    transfer = transfer_of(content_of(600), (("timeout", "255"),))
    transfer.start(0.0)
    heard_at = 20.0 if acked else 0.0
    if acked:
        transfer.start(10.0)  # it asks again, and is there
        transfer.received(ack(0), heard_at)
    while transfer.outcome is Outcome.UNDER_WAY:
        transfer.timed_out(transfer.deadline)
    assert transfer.outcome is Outcome.SILENCE
    assert 20 < transfer.deadline - heard_at <= LONGEST_SILENCE
    assert transfer.resends < MAX_RESENDS


def test_a_client_that_goes_on_asking_is_not_silent() -> None:
    transfer = transfer_of(content_of(600), (("timeout", "255"),))
    for asked in range(10):
        now = asked * 0.9 * LONGEST_SILENCE
        while transfer.deadline < now:
            transfer.timed_out(transfer.deadline)
        assert transfer.start(now)
    assert transfer.outcome is Outcome.UNDER_WAY


# A bad network

weathers = st.builds(Weather, st.integers(0, 12), st.integers(0, 20), st.integers(0, 20))


@given(st.integers(0, 4000), st.integers(8, 64), st.integers(1, 20), weathers, st.integers(0))
def test_the_whole_file_arrives_through_loss_doubles_and_delays(
    size: int, blksize: int, window: int, weather: Weather, seed: int
) -> None:
    transfer = transfer_of(content_of(size), (("blksize", str(blksize)), ("windowsize", str(window))))
    reader = Reader()
    run(transfer, reader, weather, Random(seed))
    assert transfer.outcome is Outcome.DONE
    assert reader.whole
    assert reader.content == content_of(size)


@given(st.integers(0, 3000), st.integers(1, 8), st.integers(30, 95), st.integers(0))
def test_through_the_worst_network_it_ends_with_the_whole_file_or_an_outcome_that_says_so(
    size: int, window: int, lost: int, seed: int
) -> None:
    transfer = transfer_of(content_of(size), (("blksize", "64"), ("windowsize", str(window))))
    reader = Reader()
    run(transfer, reader, Weather(lost, 10, 10), Random(seed), until=10_000)
    assert transfer.outcome in (Outcome.DONE, Outcome.SILENCE)
    assert content_of(size).startswith(reader.content)
    if transfer.outcome is Outcome.DONE:
        assert reader.whole
        assert reader.content == content_of(size)


@pytest.mark.parametrize(("window", "times"), [(1, 1.0), (4, 2.1), (16, 2.1)])
def test_doubled_datagrams_do_not_multiply_the_stream(window: int, times: float) -> None:
    """The reader acknowledges every copy of a block. For a window that may mean a loss, once in a round trip."""
    content = content_of(64 * 2000)
    transfer = transfer_of(content, (("blksize", "64"), ("windowsize", str(window))))
    reader = Reader()
    sent = run(transfer, reader, Weather(doubled=30), Random(window))
    assert reader.content == content
    assert sent <= 2001 * times + 1
