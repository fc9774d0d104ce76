"""How many pushes are let in, and when the others may come again."""

from contextlib import ExitStack

import pytest

from pureboot.central.gate import FIRST_GUESS, LONGEST, Gate
from pureboot.core.errors import Busy


class Ticking:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refused(gate: Gate) -> float:
    with pytest.raises(Busy) as caught, gate.admitted():
        pass
    return caught.value.retry_after


def test_as_many_as_allowed_come_in_and_the_next_when_one_has_left():
    gate = Gate(2)
    with gate.admitted():
        with gate.admitted():
            refused(gate)
        with gate.admitted():
            pass


def test_who_failed_has_left_too():
    gate = Gate(1)
    with pytest.raises(ZeroDivisionError), gate.admitted():
        raise ZeroDivisionError
    with gate.admitted():
        pass


def test_each_that_is_refused_gets_a_later_moment():
    gate = Gate(2, Ticking())
    with gate.admitted(), gate.admitted():
        moments = [refused(gate) for _ in range(10)]
    assert moments == sorted(set(moments))
    assert moments[0] > FIRST_GUESS
    assert moments[-1] - moments[0] == pytest.approx(9 * FIRST_GUESS / 2)


def test_nobody_is_sent_away_for_long():
    gate = Gate(1, Ticking())
    with gate.admitted():
        assert max(refused(gate) for _ in range(5000)) == LONGEST


def test_moments_that_have_passed_are_free_again():
    clock = Ticking()
    gate = Gate(1, clock)
    with gate.admitted():
        first, *_ = [refused(gate) for _ in range(100)]
        clock.now += 3600
        assert refused(gate) == pytest.approx(first)


def test_slow_pushes_make_the_waits_longer():
    clock = Ticking()
    gate = Gate(1, clock)
    with gate.admitted():
        quick = refused(gate)
    for _ in range(50):
        with gate.admitted():
            clock.now += 2
    with gate.admitted():
        assert refused(gate) > 10 * quick


def test_those_who_were_served_wait_only_where_many_are_under_way():
    gate = Gate(4)
    with ExitStack() as stack:
        waits = []
        for _ in range(4):
            stack.enter_context(gate.admitted())
            waits.append(gate.after_ms() > 0)
    assert waits == [False, False, True, True]
