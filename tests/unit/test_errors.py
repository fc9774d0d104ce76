"""One error tree, one status and one body for each, and back again from an answer."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pureboot.core import errors
from pureboot.core.errors import (
    Busy,
    CentralUnavailable,
    Clash,
    Fenced,
    Forbidden,
    Gone,
    IllegalEdge,
    Invalid,
    Malformed,
    NotFound,
    PureBootError,
    SettingsError,
    StaleVersion,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from pureboot.wire.errors import body_of, from_answer, headers_of, status_of

STATUS = {
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Clash: 409,
    Fenced: 409,
    IllegalEdge: 409,
    StaleVersion: 409,
    Gone: 410,
    TooLarge: 413,
    Invalid: 422,
    TooManyRequests: 429,
    Busy: 503,
    CentralUnavailable: 503,
    StorageFull: 507,
    # Nobody meets these two over HTTP: the one is every error's base, the other ends the program at its start.
    PureBootError: 500,
    SettingsError: 500,
}
# Several errors share a status; the code tells them apart, and an answer comes back as the one that stands for all.
COMES_BACK_AS = {
    Fenced: Clash,
    IllegalEdge: Clash,
    StaleVersion: Clash,
    CentralUnavailable: Busy,
    PureBootError: CentralUnavailable,
    SettingsError: CentralUnavailable,
}


def tree(kind: type[PureBootError]) -> Iterator[type[PureBootError]]:
    """The errors of core, of whatever module; other modules may derive their own from them."""
    if kind.__module__ == errors.__name__:
        yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = list(tree(PureBootError))
names = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def drawn() -> dict[str, str]:
    """Each error's base, as the drawing at the top of the module has it."""
    bases: dict[str, str] = {}
    line_of_descent: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?(\w+)", line):
            depth = len(found[1]) // 4 + ("── " in line)
            line_of_descent[depth:] = [found[2]]
            bases[found[2]] = line_of_descent[depth - 1] if depth else ""
    return bases


def test_the_drawing_shows_every_error_under_its_base():
    bases = {kind.__name__: "" if kind is PureBootError else kind.__base__.__name__ for kind in KINDS if kind.__base__}
    assert drawn() == bases


def test_every_error_has_a_status():
    assert {kind: status_of(kind("It is so.")) for kind in KINDS} == STATUS


def test_an_error_that_a_module_derives_for_itself_has_its_bases_status():
    class Taken(Clash):
        code = "taken"

    assert status_of(Taken("Somebody else has it.")) == 409


@names
def test_every_error_has_a_code_of_its_own(kind):
    assert re.fullmatch("[a-z_]+", kind.code)
    assert [other for other in KINDS if other.code == kind.code] == [kind]


@names
def test_an_error_shows_its_message_its_code_and_its_hint_and_nothing_else(kind):
    error = kind("Something is wrong.", hint="Mend it.", code="special")
    assert str(error) == "Something is wrong."
    assert body_of(error) == {"error": {"code": "special", "message": "Something is wrong.", "hint": "Mend it."}}


@names
def test_without_a_word_about_them_code_and_hint_are_the_kinds_own(kind):
    assert body_of(kind("So."))["error"] == {"code": kind.code, "message": "So.", "hint": kind.hint}


def test_whoever_is_busy_says_when_to_come_back_in_whole_seconds_and_nobody_else_does():
    assert headers_of(Busy("Later.", retry_after=0.2)) == {"Retry-After": "1"}
    assert headers_of(TooManyRequests("Slower.", retry_after=7)) == {"Retry-After": "7"}
    assert headers_of(StorageFull("Full.")) == {"Retry-After": "1"}
    assert headers_of(NotFound("Gone.")) == {}


@names
def test_an_answer_is_the_error_it_was_made_from(kind):
    sent = kind("Something is wrong.", hint="Mend it.", code="special")
    got = from_answer(status_of(sent), body_of(sent), retry_after=None)
    assert type(got) is COMES_BACK_AS.get(kind, kind)
    assert body_of(got) == body_of(sent)


@names
def test_an_answer_keeps_what_the_kind_itself_says(kind):
    got = from_answer(status_of(kind("So.")), body_of(kind("So.")), retry_after=None)
    assert body_of(got) == body_of(kind("So."))


def test_a_wait_that_was_asked_for_is_kept():
    got = from_answer(429, {}, retry_after=12.5)
    assert isinstance(got, TooManyRequests)
    assert got.retry_after == 12.5


@pytest.mark.parametrize(
    "body",
    [
        None,
        "<html>Bad Gateway</html>",
        [],
        {},
        {"error": "no"},
        {"error": None},
        {"error": {}},
        {"error": {"message": ""}},
        {"detail": "Not Found"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 418, 422, 429, 500, 502, 503, 504, 507])
def test_an_answer_that_is_not_ours_still_gives_a_sentence(status, body):
    error = from_answer(status, body, retry_after=None)
    assert error.message == f"It answered HTTP {status}."
    assert error.code == type(error).code


@pytest.mark.parametrize("status", [500, 501, 502, 504, 520])
def test_a_server_in_trouble_is_central_out_of_reach(status):
    assert isinstance(from_answer(status, None, retry_after=None), CentralUnavailable)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner),
)


@given(
    st.integers(400, 599),
    anything
    | st.fixed_dictionaries({"error": st.fixed_dictionaries({"code": anything, "message": st.text(min_size=600)})}),
)
def test_no_answer_makes_a_long_message_or_another_error(status, body):
    error = from_answer(status, body, retry_after=None)
    assert len(error.message) <= 500
    assert len(error.hint) <= 500
    assert len(error.code) <= 100
