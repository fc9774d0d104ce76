"""When an agent tries again."""

from hypothesis import given
from hypothesis import strategies as st

from pureboot.core.backoff import Backoff

chances = st.floats(0, 1, exclude_max=True)
bases = st.floats(0.1, 30)
failures = st.integers(1, 10**6)


def windows(policy: Backoff, upto: int) -> list[float]:
    """The longest wait after each failure in turn."""
    return [policy.delay(n, 1.0) for n in range(1, upto + 1)]


def test_the_window_begins_at_the_base_and_doubles_to_a_minute():
    assert windows(Backoff(base=5), upto=6) == [5, 10, 20, 40, 60, 60]


@given(bases, failures, chances)
def test_the_wait_lies_between_nothing_and_the_cap(base, failed, chance):
    assert 0 <= Backoff(base).delay(failed, chance) <= 60


@given(bases, failures, chances)
def test_the_wait_is_spread_over_the_whole_window(base, failed, chance):
    policy = Backoff(base)
    assert policy.delay(failed, chance) == chance * policy.delay(failed, 1.0)


@given(bases, failures)
def test_one_more_failure_never_narrows_the_window(base, failed):
    policy = Backoff(base)
    assert policy.delay(failed, 1.0) <= policy.delay(failed + 1, 1.0)


@given(bases, failures, chances, st.floats(0, 3600))
def test_what_the_server_asked_for_is_kept_with_a_second_of_spread_on_top(base, failed, chance, asked):
    assert asked <= Backoff(base).delay(failed, chance, asked) <= asked + 1


def test_retry_after_zero_is_an_answer_too():
    assert Backoff(base=5).delay(9, 0.5, retry_after=0) == 0.5
