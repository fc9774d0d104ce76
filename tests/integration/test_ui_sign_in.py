"""Signing in to central's pages: what holds, what ends, and what is not lost."""

import html
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from pureboot.central import people, ui
from pureboot.central.patience import FREE_BY_NAME
from pureboot.central.ui.held import SECRETS
from tests.support.browser import PASSWORD, Visitor, add_person, browser, form_token, signed_in
from tests.support.central import BASE_URL, RunningCentral, SetClock, running_central
from tests.support.disk import small_disk

ANOTHER = "staple that horse"


async def test_without_a_session_a_page_leads_to_the_sign_in_and_back(central: RunningCentral) -> None:
    await add_person(central, "kim", "viewer")
    client = browser(central)
    answer = await client.get("/sites?q=attic")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/sites%3Fq%3Dattic")
    page = await client.get(answer.headers["location"])
    assert 'name="next" value="/sites?q=attic"' in page.text
    fields = {"name": " KIM ", "password": PASSWORD, "next": "/sites?q=attic"}
    answer = await client.post("/sign-in", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sites?q=attic")
    assert (await client.get("/sites")).status_code == 200


@pytest.mark.parametrize(
    "next", ["https://evil", "//evil", "/\\evil", "evil", "", "/a\r\nSet-Cookie: b=c", "javascript:0"]
)
async def test_next_leads_to_our_own_pages_only(central: RunningCentral, next: str) -> None:
    await add_person(central, "kim", "viewer")
    answer = await browser(central).post("/sign-in", data={"name": "kim", "password": PASSWORD, "next": next})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_the_first_sign_in_page_says_how_to_make_a_person(central: RunningCentral) -> None:
    assert "pureboot person add" in (await central.anybody.get("/sign-in")).text


async def test_the_cookie_and_the_headers_are_strict(central: RunningCentral) -> None:
    await add_person(central, "kim", "viewer")
    answer = await browser(central).post("/sign-in", data={"name": "kim", "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    page = await central.anybody.get("/sign-in")
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-frame-options"] == "DENY"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


async def test_over_https_the_cookie_is_secure(central: RunningCentral) -> None:
    await add_person(central, "kim", "viewer")
    fields = {"name": "kim", "password": PASSWORD}
    answer = await central.client().post("https://central/sign-in", data=fields)
    assert "Secure" in answer.headers["set-cookie"]


async def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(central: RunningCentral) -> None:
    await add_person(central, "kim", "viewer")
    client = browser(central)
    wrong = await client.post("/sign-in", data={"name": "kim", "password": "nonsense nonsense"})
    unknown = await client.post("/sign-in", data={"name": "lee", "password": "nonsense nonsense"})
    assert wrong.status_code == unknown.status_code == 401
    assert steady(wrong.text).replace("kim", "lee") == steady(unknown.text)
    assert "set-cookie" not in wrong.headers


def steady(page: str) -> str:
    return re.sub(r'data-now="[^"]*"', "", page)


async def test_many_wrong_passwords_are_slowed(central: RunningCentral) -> None:
    await add_person(central, "kim", "viewer")
    client = browser(central)
    for _ in range(FREE_BY_NAME + 1):
        assert (await client.post("/sign-in", data={"name": "kim", "password": "nonsense"})).status_code == 401
    answer = await client.post("/sign-in", data={"name": "kim", "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_disabled_person_is_out_at_once(central: RunningCentral) -> None:
    visitor = await signed_in(central, "viewer", "kim")
    await central.ask("PATCH", "/people/kim", json={"disabled": True})
    assert (await visitor.get("/sites")).status_code == 303
    answer = await browser(central).post("/sign-in", data={"name": "kim", "password": PASSWORD})
    assert answer.status_code == 401
    await central.ask("PATCH", "/people/kim", json={"disabled": False})
    assert (await visitor.get("/sites")).status_code == 303


async def test_a_new_password_signs_out_everywhere(central: RunningCentral) -> None:
    visitor = await signed_in(central, "viewer", "kim")
    await central.ask("PATCH", "/people/kim", json={"password": "another long one"})
    assert (await visitor.get("/sites")).status_code == 303


async def test_anybody_changes_their_own_password_and_is_signed_out_everywhere_else(central: RunningCentral) -> None:
    here = await signed_in(central, "viewer", "kim")
    elsewhere = browser(central)
    await elsewhere.post("/sign-in", data={"name": "kim", "password": PASSWORD})
    assert 'href="/password"' in (await here.get("/sites")).text
    answer = await here.post("/password", password_before=PASSWORD, password=ANOTHER, password_again=ANOTHER)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "Your password is changed" in (await here.get("/sites")).text
    assert (await elsewhere.get("/sites")).status_code == 303
    old, new = [
        (await browser(central).post("/sign-in", data={"name": "kim", "password": password})).status_code
        for password in (PASSWORD, ANOTHER)
    ]
    assert (old, new) == (401, 303)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"password_before": "nonsense nonsense", "password": ANOTHER, "password_again": ANOTHER}, 401),
        ({"password": ANOTHER, "password_again": ANOTHER}, 401),
        ({"password_before": PASSWORD, "password": ANOTHER, "password_again": "another one still"}, 422),
        ({"password_before": PASSWORD, "password": "short", "password_again": "short"}, 422),
        ({"password_before": PASSWORD}, 422),
    ],
)
async def test_a_password_that_is_not_changed_stays_and_so_does_the_session(
    central: RunningCentral, fields: dict[str, str], status: int
) -> None:
    visitor = await signed_in(central, "viewer", "kim")
    answer = await visitor.post("/password", **fields)
    assert (answer.status_code, "Your password" in answer.text) == (status, True)
    assert (await visitor.get("/sites")).status_code == 200
    again = await browser(central).post("/sign-in", data={"name": "kim", "password": PASSWORD})
    assert again.status_code == 303


async def test_whoever_finds_an_open_browser_cannot_try_passwords_without_end(central: RunningCentral) -> None:
    visitor = await signed_in(central, "viewer", "kim")
    fields = {"password_before": "nonsense", "password": ANOTHER, "password_again": ANOTHER}
    tried = [(await visitor.post("/password", **fields)).status_code for _ in range(FREE_BY_NAME + 2)]
    assert tried == [401] * (FREE_BY_NAME + 1) + [429]


async def test_a_password_that_is_changed_while_it_is_checked_lets_nobody_in(
    central: RunningCentral, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_person(central, "kim", "viewer")
    write = central.db.write

    async def late(work: Callable[[Connection], Any]) -> Any:
        await write(lambda conn: people.change(conn, "kim", clock.now(), password_hash="another"))
        return await write(work)

    monkeypatch.setattr(central.db, "write", late)
    answer = await browser(central).post("/sign-in", data={"name": "kim", "password": PASSWORD})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


async def test_signing_out_ends_the_session_itself(central: RunningCentral) -> None:
    visitor = await signed_in(central, "viewer")
    cookie = visitor.client.cookies["pureboot_session"]
    assert (await visitor.post("/sign-out")).status_code == 303
    answer = await central.anybody.get("/sites", headers={"Cookie": f"pureboot_session={cookie}"})
    assert answer.status_code == 303


async def test_a_session_that_began_by_a_clock_that_was_ahead_lasts_no_longer_for_it(
    central: RunningCentral, clock: SetClock
) -> None:
    clock.advance(400 * 86_400)
    person = await signed_in(central, "operator")
    clock.advance(-400 * 86_400)
    assert (await person.get("/sites")).status_code == 303


async def test_a_session_ends_when_it_lies_idle_and_in_any_case(central: RunningCentral, clock: SetClock) -> None:
    visitor = await signed_in(central, "viewer")
    for _ in range(14):
        clock.advance(5 * 3600)
        assert (await visitor.get("/sites")).status_code == 200
    clock.advance(5 * 3600)
    assert (await visitor.get("/sites")).status_code == 303

    idle = await signed_in(central, "operator")
    clock.advance(8 * 3600)
    assert (await idle.get("/sites")).status_code == 303


async def test_a_page_that_refreshes_itself_keeps_nobody_signed_in(central: RunningCentral, clock: SetClock) -> None:
    visitor = await signed_in(central, "viewer")
    live = {"HX-Request": "true", "X-Live": "true"}
    for hours in (3, 3):
        clock.advance(hours * 3600)
        assert (await visitor.get("/sites", headers=live)).status_code == 200
    clock.advance(3 * 3600)
    answer = await visitor.get("/sites", headers=live)
    assert answer.status_code == 401
    assert answer.headers["hx-retarget"] == "#notices"


async def test_with_a_full_disk_one_can_still_look(tmp_path: Path, clock: SetClock) -> None:
    with small_disk(tmp_path / "disk", "8M") as disk:
        async with running_central(disk / "central", clock) as central:
            visitor = await signed_in(central, "operator")
            with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
            for _ in range(3):
                clock.advance(120)
                assert (await visitor.get("/nodes")).status_code == 200
                assert (await central.admin.post("/api/v1/sites", json={"name": "attic"})).status_code == 507


async def test_a_form_without_the_sessions_token_does_nothing(central: RunningCentral) -> None:
    visitor = await signed_in(central)
    fields = {"name": "lee", "role": "admin", "password": PASSWORD, "password_again": PASSWORD}
    for token in ("", "0" * 64, form_token((await (await signed_in(central, "viewer")).get("/sites")).text)):
        answer = await visitor.client.post("/people", data={"_csrf": token, **fields})
        assert answer.status_code == 403
    assert (await central.admin.get("/api/v1/people/lee")).status_code == 404
    assert (await visitor.post("/people", **fields)).status_code == 303
    assert (await central.admin.get("/api/v1/people/lee")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_what_another_site_sends_is_refused_with_the_right_token_too(
    central: RunningCentral, headers: dict[str, str]
) -> None:
    visitor = await signed_in(central)
    token = form_token((await visitor.get("/people")).text)
    answer = await visitor.client.post("/sign-out", data={"_csrf": token}, headers=headers)
    assert answer.status_code == 403
    answer = await visitor.client.post("/sign-in", data={"name": "x", "password": "y"}, headers=headers)
    assert answer.status_code == 403
    assert (await visitor.get("/people")).status_code == 200


async def test_a_session_opens_no_api(central: RunningCentral) -> None:
    visitor = await signed_in(central)
    assert (await visitor.get("/api/v1/sites")).status_code == 401


def hidden(page: str) -> dict[str, str]:
    pairs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
    return {html.unescape(name): html.unescape(value) for name, value in pairs}


@pytest.mark.parametrize("htmx", [{}, {"HX-Request": "true"}], ids=["form", "htmx"])
async def test_an_ended_session_loses_nothing_that_was_typed(
    central: RunningCentral, clock: SetClock, htmx: dict[str, str]
) -> None:
    visitor = await signed_in(central, "admin", "kim")
    typed = {"name": 'lee"<b>', "role": "viewer", "password": "typed secret", "password_again": "typed secret"}
    token = form_token((await visitor.get("/people")).text)
    clock.advance(100 * 3600)
    headers = {"Referer": f"{BASE_URL}/people?cursor=a", **htmx}
    answer = await visitor.client.post("/people", data={"_csrf": token, **typed}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers.get("hx-retarget") == ("body" if htmx else None)
    kept = hidden(answer.text)
    assert kept == {"next": "/people?cursor=a", "held_path": "/people", "held.name": 'lee"<b>', "held.role": "viewer"}
    assert "typed secret" not in answer.text

    wrong = await visitor.client.post("/sign-in", data=kept | {"name": "kim", "password": "nonsense nonsense"})
    assert hidden(wrong.text) == kept
    back = await visitor.client.post("/sign-in", data=kept | {"name": "kim", "password": PASSWORD})
    assert back.status_code == 200
    assert "lee&#34;&lt;b&gt;" in back.text
    again = hidden(back.text[back.text.index("<main") :])
    assert again.pop("_csrf") not in ("", token)
    assert again == {"name": 'lee"<b>', "role": "viewer"}
    # It is sent by a click, never by itself.
    assert (await central.ask("GET", "/people"))["items"][0]["name"] == "kim"


def test_no_field_for_a_password_is_carried_through_the_sign_in() -> None:
    templates = "".join(file.read_text() for file in (Path(ui.__file__).parent / "templates").rglob("*.html"))
    assert set(re.findall(r'field\("(\w+)",[^}]*type="password"', templates)) == set(SECRETS)


async def test_what_was_typed_under_the_session_before_can_be_sent_under_the_new_one(central: RunningCentral) -> None:
    visitor = await signed_in(central, "admin", "kim")
    token = form_token((await visitor.get("/people")).text)
    await visitor.client.post("/sign-in", data={"name": "kim", "password": PASSWORD})
    answer = await visitor.client.post("/people/kim", data={"_csrf": token, "role": "admin", "disabled": "false"})
    assert answer.status_code == 403
    again = hidden(answer.text[answer.text.index("<main") :])
    assert again.pop("_csrf") != token
    assert again == {"role": "admin", "disabled": "false"}


@pytest.mark.parametrize("referer", ["http://[", "http://[/nodes", "nonsense"])
async def test_a_page_that_is_none_leads_to_the_start(central: RunningCentral, referer: str) -> None:
    answer = await browser(central).post("/people", data={"name": "lee"}, headers={"Referer": referer})
    assert (answer.status_code, hidden(answer.text)) == (
        401,
        {"next": "/", "held_path": "/people", "held.name": "lee"},
    )


async def test_a_form_too_long_to_keep_says_so(central: RunningCentral) -> None:
    answer = await browser(central).post("/people", data={"name": "x" * 300_000})
    assert answer.status_code == 401
    assert "too long" in answer.text
    assert "xxx" not in answer.text


async def test_a_held_form_leads_to_our_own_pages_only(central: RunningCentral) -> None:
    await add_person(central, "kim", "admin")
    fields = {"name": "kim", "password": PASSWORD, "held_path": "https://evil/", "next": "//evil", "held.a": "b"}
    answer = await browser(central).post("/sign-in", data=fields)
    assert "evil" not in answer.text


async def test_a_role_that_is_too_small_is_told_on_a_page(central: RunningCentral) -> None:
    viewer: Visitor = await signed_in(central, "viewer")
    answer = await viewer.get("/people")
    assert answer.status_code == 403
    assert "needs the role admin" in answer.text
    assert 'href="/people"' not in answer.text
