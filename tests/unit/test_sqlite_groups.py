"""Writes that share a transaction: each comes out as if it had been alone."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.storage.sqlite import Store, Transaction

SCHEMA = [
    """
    CREATE TABLE note (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE);
    CREATE TABLE counted (notes INTEGER NOT NULL);
    INSERT INTO counted VALUES (0);
    CREATE TRIGGER counts AFTER INSERT ON note BEGIN UPDATE counted SET notes = notes + 1; END;
    """
]
INSERT = "INSERT INTO note (text) VALUES"


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "a.db", SCHEMA)
    yield store
    store.close()


def texts(tx: Transaction | sqlite3.Connection) -> list[str]:
    return [row["text"] for row in tx.execute("SELECT text FROM note ORDER BY id")]


def together(store: Store, *works: Callable[[Transaction], object]) -> list[object]:
    """What each came to, made in one group."""

    async def write() -> list[object]:
        return await asyncio.gather(*(store.write(work) for work in works), return_exceptions=True)

    return asyncio.run(write())


def adds(text: str) -> Callable[[Transaction], object]:
    return lambda tx: tx.insert(INSERT, [text])


def fails(tx: Transaction) -> None:
    raise LookupError


class TestRowsThatAreHandedIn:
    def test_go_in_in_their_order_however_many(self, store: Store) -> None:
        together(store, *(adds(f"{number}") for number in range(231)))
        assert store.read_now(texts) == [f"{number}" for number in range(231)]

    def test_are_there_for_the_next_statement(self, store: Store) -> None:
        assert together(store, adds("a"), texts, adds("b"), texts) == [None, ["a"], None, ["a", "b"]]

    def test_of_two_kinds_each_keeps_its_place(self, store: Store) -> None:
        shouted = "INSERT INTO note (text) SELECT upper(column1) FROM (VALUES"

        def work(tx: Transaction) -> list[str]:
            tx.insert(INSERT, ["a"])
            tx.execute(f"{shouted} (?))", ["b"])
            tx.insert(INSERT, ["c"])
            return texts(tx)

        assert together(store, work) == [["a", "B", "c"]]

    def test_that_cannot_go_in_fail_their_own_write_though_another_comes_upon_it(self, store: Store) -> None:
        results = together(store, adds("a"), adds("a"), texts, adds("b"))
        assert [type(result) for result in results] == [type(None), sqlite3.IntegrityError, list, type(None)]
        assert store.read_now(texts) == ["a", "b"]

    def test_of_which_none_can_go_in_fail_nobody_elses_write(self, store: Store) -> None:
        together(store, adds("a"))
        results = together(store, adds("a"), texts)
        assert (type(results[0]), results[1]) == (sqlite3.IntegrityError, ["a"])

    def test_that_cannot_go_in_at_the_very_end_fail_their_own_write(self, store: Store) -> None:
        results = together(store, adds("a"), adds("b"), adds("a"))
        assert [type(result) for result in results] == [type(None), type(None), sqlite3.IntegrityError]
        assert store.read_now(texts) == ["a", "b"]

    @pytest.mark.parametrize("value", ["\ud800", 2**63], ids=["no text", "no number"])
    @pytest.mark.parametrize("last", [(), (texts,)], ids=["at the very end", "though another comes upon it"])
    def test_that_are_no_value_of_the_file_fail_their_own_write(
        self, store: Store, value: object, last: tuple[Callable[[Transaction], object], ...]
    ) -> None:
        """Python refuses them before SQLite sees them."""
        results = together(store, lambda tx: tx.insert(INSERT, [value]), adds("a"), adds("b"), *last)
        assert [isinstance(result, ValueError | OverflowError) for result in results[:3]] == [True, False, False]
        assert results[3:] == [["a", "b"] for _ in last]
        assert store.read_now(texts) == ["a", "b"]
        assert together(store, adds("after")) == [None]


class TestAWriteThatFails:
    def test_having_changed_nothing_costs_the_others_nothing(self, store: Store) -> None:
        ran = []

        def work(tx: Transaction) -> None:
            ran.append("work")
            tx.insert(INSERT, ["a"])

        def looks_and_fails(tx: Transaction) -> None:
            texts(tx)
            fails(tx)

        results = together(store, work, looks_and_fails)
        assert (ran, type(results[1]), store.read_now(texts)) == (["work"], LookupError, ["a"])

    def test_having_changed_something_leaves_nothing_of_it(self, store: Store) -> None:
        seen: list[str] = []

        def work(tx: Transaction) -> None:
            tx.after_commit(lambda: seen.append("never"))
            tx.insert(INSERT, ["never"])
            fails(tx)

        def sees(tx: Transaction) -> None:
            tx.after_commit(lambda: seen.append("once"))

        results = together(store, adds("a"), sees, work, adds("b"))
        assert [type(result) for result in results] == [type(None), type(None), LookupError, type(None)]
        assert (store.read_now(texts), seen) == (["a", "b"], ["once"])

    def test_takes_what_it_found_out_with_it_and_nothing_else(self, store: Store) -> None:
        def found(tx: Transaction) -> None:
            tx.known["first"] = "kept"

        def work(tx: Transaction) -> None:
            tx.known["last"] = "never"
            tx.insert(INSERT, ["never"])
            fails(tx)

        assert together(store, found, work, lambda tx: dict(tx.known))[2] == {"first": "kept"}


def test_what_was_asked_for_when_the_store_closes_is_on_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db", SCHEMA)

    async def write() -> None:
        asked = asyncio.create_task(store.write(adds("a")))
        await asyncio.sleep(0)
        store.close()
        await asked

    asyncio.run(write())
    with sqlite3.connect(tmp_path / "a.db") as connection:
        assert connection.execute("SELECT text FROM note").fetchall() == [("a",)]


# A write as a list of steps: a row handed in, a row inserted at once, a look at all, a failure.
STEPS = st.lists(
    st.tuples(st.sampled_from(["hand in", "insert", "look", "fail"]), st.sampled_from("abcdefgh")), max_size=4
)


@given(writes=st.lists(STEPS, max_size=8))
def test_a_group_comes_to_what_its_writes_come_to_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, writes: list[list[tuple[str, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("group")
    grouped, alone = Store(folder / "grouped.db", SCHEMA), Store(folder / "alone.db", SCHEMA, threaded=False)
    try:
        works = [lambda tx, steps=steps: do(tx, steps) for steps in writes]
        results = together(grouped, *works)
        expected = [together(alone, work)[0] for work in works]
        assert list(map(repr, results)) == list(map(repr, expected))
        assert grouped.read_now(state) == alone.read_now(state)
    finally:
        grouped.close()
        alone.close()


def do(tx: Transaction, steps: list[tuple[str, str]]) -> list[list[str]]:
    looks = []
    for step, text in steps:
        if step == "hand in":
            tx.insert(INSERT, [text])
        elif step == "insert":
            tx.execute(f"{INSERT} (?)", [text])
        elif step == "look":
            looks.append(texts(tx))
        else:
            fails(tx)
    return looks


def state(connection: sqlite3.Connection) -> tuple[list[str], int]:
    return texts(connection), connection.execute("SELECT notes FROM counted").fetchone()[0]
