"""Wrong passwords are slowed, by name and by address, and what is remembered of them is bounded."""

import pytest

from pureboot.central.patience import FORGOTTEN_AFTER, FREE_BY_ADDRESS, FREE_BY_NAME, LONGEST, REMEMBERED, Patience
from pureboot.core.errors import TooManyRequests


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


def wait_of(patience: Patience, name: str, address: str) -> float:
    """What the next try has to wait; it is made where it need not."""
    try:
        patience.take(name, address)
    except TooManyRequests as error:
        return error.retry_after
    return 0.0


def test_the_wait_doubles_up_to_a_bound(watch: Watch) -> None:
    patience = Patience(watch)
    waits = []
    for number in range(FREE_BY_NAME + 12):
        while wait := wait_of(patience, "kim", str(number)):
            waits.append(wait)
            watch.now += wait
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == LONGEST


def test_another_name_from_another_address_is_free(watch: Watch) -> None:
    patience = Patience(watch)
    for number in range(FREE_BY_NAME + 1):
        assert wait_of(patience, "kim", str(number)) == 0
    assert wait_of(patience, "kim", "elsewhere") > 0
    assert wait_of(patience, "lee", "elsewhere") == 0


def test_many_names_from_one_address_are_slowed_too(watch: Watch) -> None:
    patience = Patience(watch)
    for number in range(FREE_BY_ADDRESS + 1):
        assert wait_of(patience, str(number), "there") == 0
    assert wait_of(patience, "one more", "there") > 0


def test_the_right_password_forgives_the_name_and_its_own_try(watch: Watch) -> None:
    patience = Patience(watch)
    for _ in range(10 * FREE_BY_ADDRESS):
        patience.take("kim", "there")
        patience.right("kim", "there")
    assert wait_of(patience, "kim", "there") == 0


def test_the_right_password_makes_nobody_else_at_the_address_wait(watch: Watch) -> None:
    patience = Patience(watch)
    for number in range(FREE_BY_ADDRESS + 1):
        patience.take(str(number), "there")
    wait = wait_of(patience, "kim", "there")
    assert wait > 0
    watch.now += wait
    patience.take("kim", "there")
    patience.right("kim", "there")
    assert wait_of(patience, "lee", "there") == 0
    # Who was wrong makes them wait all the same.
    assert wait_of(patience, "lee", "there") > wait


@pytest.mark.parametrize("pause", [FORGOTTEN_AFTER / 2, FORGOTTEN_AFTER + 1], ids=["half", "over"])
def test_an_hour_without_a_wrong_try_forgets_them(watch: Watch, pause: float) -> None:
    """Right ones in between prolong nothing."""
    patience = Patience(watch)
    for number in range(FREE_BY_ADDRESS):
        patience.take(str(number), "there")
    for _ in range(3):
        watch.now += pause / 3
        patience.take("kim", "there")
        patience.right("kim", "there")
    waits = [wait_of(patience, str(number), "there") for number in range(2)]
    assert waits == ([0, 1] if pause < FORGOTTEN_AFTER else [0, 0])


def test_it_remembers_only_so_many(watch: Watch) -> None:
    patience = Patience(watch)
    for _ in range(FREE_BY_NAME + 1):
        patience.take("kim", "there")
    for number in range(REMEMBERED):
        patience.take(f"n{number}", f"a{number}")
    assert wait_of(patience, "kim", "elsewhere") == 0
