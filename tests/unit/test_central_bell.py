"""Waking those who wait."""

from pureboot.central.bell import Bell


async def test_only_those_who_listen_for_it_wake() -> None:
    bell = Bell()
    with bell.listen("attic", "*") as attic, bell.listen("cellar", "*") as cellar:
        bell.ring(["attic"])
        assert (attic.is_set(), cellar.is_set()) == (True, False)
        bell.ring(["*"])
        assert cellar.is_set()


async def test_who_no_longer_listens_is_forgotten() -> None:
    bell = Bell()
    with bell.listen("attic") as event:
        pass
    bell.ring(["attic"])
    assert not event.is_set()


async def test_a_closed_bell_lets_everybody_go_and_nobody_wait() -> None:
    bell = Bell()
    with bell.listen("attic") as before:
        bell.close()
        assert before.is_set()
    with bell.listen("attic") as after:
        assert after.is_set()
