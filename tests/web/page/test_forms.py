"""The login, and what the page's forms do to dead letters and sinks: only for who has the token, and only from the page itself."""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from reserve_listener.clock import now_ms
from reserve_listener.errors import NotFoundError, StoreError
from reserve_listener.model import EventQuery, Outcome
from reserve_listener.web.access import Access
from reserve_listener.web.page import session
from reserve_listener.web.page.session import COOKIE, LASTS_S, local_path
from tests.helpers import append, delivery
from tests.web.furnished import changed, place
from tests.web.looking import looked_into
from tests.web.page.exhibition import Told
from tests.web.serving import BEARER, TOKEN, a_site, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from tests.backends import Backend

FROM_HERE = {"sec-fetch-site": "same-origin"}
HTML = {"accept": "text/html"}


def guarded(**more: Any) -> Access:
    """With a token, and nobody has failed yet."""
    return Access(token=TOKEN, **more)


async def sign_in(client: httpx2.AsyncClient, token: str = TOKEN, **more: Any) -> httpx2.Response:
    """As the form does."""
    return await client.post("/login", data={"token": token, **more}, headers=FROM_HERE)


async def word_of(client: httpx2.AsyncClient, path: str = "/deliveries") -> str:
    """What the forms of this session bring."""
    match = re.search(r'name="form" value="(\w+)"', (await client.get(path)).text)
    assert match is not None
    return match[1]


@asynccontextmanager
async def with_a_dead_letter(backend: Backend) -> AsyncIterator[tuple[Told, httpx2.AsyncClient]]:
    """A site with one delivery that was given up, and a browser that has signed in."""
    actions = Told()
    async with looked_into(backend, "booking", actions=actions, access=guarded()) as (store, client):
        await append(store, changed("ev-1", "omm_a", now_ms()))
        await store.settle("booking", [Outcome.dead(delivery(1), error="410 Gone")])
        await sign_in(client)
        yield actions, client


def done(actions: Told) -> list[tuple[Any, ...]]:
    """What the daemon was asked to do."""
    return [asked for asked in actions.asked if asked != ("status",)]


# -- the login -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/scopes", "/scopes/omm_a?lang=zh", "/deliveries", "/nowhere"])
async def test_a_browser_is_led_to_the_login_and_back(path: str) -> None:
    """Every page asks for the token first; what it is there is not told before."""
    async with served(a_site(access=guarded())) as client:
        answer = await client.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store")
        login = await client.get(answer.headers["location"])
        assert login.status_code == 200
        assert 'autocomplete="current-password"' in login.text
        assert not re.search(r"reserve-listener \d", login.text)
        match = re.search(r'name="next" value="([^"]*)"', login.text)
        assert match is not None
        assert unescape(match[1]) == path
        assert (await sign_in(client, next=path)).headers["location"] == path


async def test_the_cookie_is_for_this_site_alone() -> None:
    """No script reads it, no other site sends it; it says nothing of the token, and Secure where the browser speaks TLS."""
    public = "https://rooms.corp.example"
    site = a_site(access=guarded(allowed_hosts=["rooms.corp.example"]), public_url=public)
    async with served(site) as client:
        cookie = (await sign_in(client)).headers["set-cookie"]
        name, *flags = cookie.split("; ")
        assert name.startswith(f"{COOKIE}=")
        assert TOKEN not in cookie
        assert {flag.lower() for flag in flags} == {
            "httponly", f"max-age={LASTS_S}", "path=/", "samesite=strict",
        }  # fmt: skip
        headers = FROM_HERE | {"host": "rooms.corp.example"}
        answer = await client.post("/login", data={"token": TOKEN}, headers=headers)
        assert "; Secure" in answer.headers["set-cookie"]


async def test_a_wrong_token_is_refused_in_words() -> None:
    """403 without a cookie; a line in the log without what was given."""
    with capture_logs() as lines:
        async with served(a_site(access=guarded())) as client:
            answer = await client.post(
                "/login", data={"token": "gu3ss", "next": "/scopes"}, headers={"accept-language": "zh"}
            )
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "令牌不正确。" in answer.text
    assert 'name="next" value="/scopes"' in answer.text
    assert "gu3ss" not in answer.text + str(lines)
    assert [line["client"] for line in lines if line["event"] == "status.wrong_token"] == ["127.0.0.1"]


@pytest.mark.parametrize(
    "where",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\/evil.example", "javascript:alert(1)", "/\n/evil", "", "x",
     "/a\r\nset-cookie: x=y", "/\t/evil.example", "/ok\\..\\evil"],
)  # fmt: skip
async def test_the_login_leads_nowhere_else(where: str) -> None:
    """`next` is a path of ours, or the front page."""
    assert local_path(where) == "/"
    async with served(a_site(access=guarded())) as client:
        answer = await sign_in(client, next=where)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_a_cookie_counts_only_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, of another token, for a longer time or after its time it is none."""
    access = guarded()
    async with served(a_site(access=access)) as client:
        await sign_in(client)
        value = client.cookies[COOKIE]
        until, rest = value.split(".", 1)
        forged = [
            value[:-1] + ("0" if value[-1] != "0" else "1"),
            f"{int(until) + 1}.{rest}",
            "",
            ".",
            "x.y.z",
            "é",
        ]
        other = session.Sessions(Access(token="another"), None).begin()
        none = session.Sessions(Access(), None).begin()
        for one in (*forged, other, none):
            client.cookies.clear()
            headers = {b"cookie": f"{COOKIE}={one}".encode()}
            assert (await client.get("/api/v1/status", headers=headers)).status_code == 401, one
        good = {"cookie": f"{COOKIE}={value}"}
        assert (await client.get("/api/v1/status", headers=good)).status_code == 200
        began = time.time()
        monkeypatch.setattr(time, "time", lambda: began + LASTS_S + 2)
        assert (await client.get("/api/v1/status", headers=good)).status_code == 401


async def test_signing_out_takes_a_form_of_the_page() -> None:
    """Somebody else's page cannot do it; afterwards the cookie is gone."""
    async with served(a_site(access=guarded())) as client:
        await sign_in(client)
        assert (await client.post("/logout", data={"form": "x"})).status_code == 403
        # The page itself needs a store to show; what stands in its forms is what `Sessions` says.
        word = session.Sessions(guarded(), None).word(client.cookies[COOKIE])
        answer = await client.post("/logout", data={"form": word}, headers=FROM_HERE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert COOKIE not in client.cookies
        assert (await client.get("/", headers=HTML)).status_code == 303


async def test_without_a_token_there_is_no_login_and_nothing_to_press() -> None:
    """The forms' addresses do not exist."""
    async with served(a_site(actions=Told())) as client:
        for path in ("/login", "/logout", "/dead-letters", "/sinks"):
            assert (await client.post(path, data={"do": "drop", "all": "1"})).status_code == 404, path


async def test_the_cookie_does_not_act_through_the_api(backend: Backend) -> None:
    """It reads there; to act takes the token in the header, which no other site can make a browser send."""
    async with with_a_dead_letter(backend) as (actions, client):
        assert (await client.get("/api/v1/status")).status_code == 200
        for path in ("dead-letters/drop", "sinks/booking/disable", "reconnect"):
            answer = await client.post(f"/api/v1/{path}", json={"all": True}, headers=FROM_HERE)
            assert answer.status_code == 401, path
        assert done(actions) == []


# -- forms ---------------------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_retried(backend: Backend) -> None:
    """That one and no other; afterwards the page says what was done, at an address that does it no second time."""
    async with with_a_dead_letter(backend) as (actions, client):
        given = {
            "form": await word_of(client),
            "do": "retry",
            "sink": "booking",
            "event_id": "ev-1",
            "next": "/?x=1",
        }
        answer = await client.post("/dead-letters", data=given, headers=FROM_HERE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/?done=retry&count=7")
        assert done(actions) == [("retry", EventQuery(sink="booking", event_id="ev-1"))]
        page = await client.get(answer.headers["location"], headers={"accept-language": "en"})
        assert '<p class="done" role="status">Retried: 7</p>' in page.text


async def test_dropping_asks_first(backend: Backend) -> None:
    """One or all; only the second form does it."""
    async with with_a_dead_letter(backend) as (actions, client):
        word = await word_of(client)
        one = {"form": word, "do": "drop", "sink": "booking", "event_id": "ev-1"}
        every = {"form": word, "do": "drop", "all": "1"}
        for given, text in ((one, "The delivery of event ev-1 to booking"), (every, "All dead letters")):
            answer = await client.post(
                "/dead-letters", data=given, headers=FROM_HERE | {"accept-language": "en"}
            )
            assert answer.status_code == 200
            assert text in unescape(answer.text)
            assert done(actions) == []
            asked = dict(
                re.findall(r'name="(\w+)" value="([^"]*)"', answer.text.partition('class="card ask"')[2])
            )
            assert (await client.post("/dead-letters", data=asked, headers=FROM_HERE)).status_code == 303
            assert done(actions) == [
                ("drop", EventQuery(sink="booking", event_id="ev-1") if given is one else EventQuery())
            ]
            actions.asked.clear()


@pytest.mark.parametrize(
    "given",
    [
        {}, {"do": "drop"}, {"do": "drop", "sure": "1"}, {"do": "retry"}, {"do": "retry", "sink": "booking"},
        {"do": "retry", "event_id": "ev-1"}, {"do": "drop", "sure": "1", "sink": "", "event_id": ""},
        {"do": "replay", "all": "1"}, {"do": "retry", "all": "1", "sink": "booking", "event_id": "ev-1"},
        {"do": "drop", "sure": "1", "all": "0"},
    ],
)  # fmt: skip
async def test_a_form_that_names_nothing_does_nothing(backend: Backend, given: dict[str, str]) -> None:
    """Never everything by accident."""
    async with with_a_dead_letter(backend) as (actions, client):
        word = await word_of(client)
        answer = await client.post("/dead-letters", data={"form": word, **given}, headers=FROM_HERE)
        assert answer.status_code == 409
        assert done(actions) == []


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/dead-letters", {"do": "retry", "all": "1"}),
        ("/dead-letters", {"do": "drop", "all": "1", "sure": "1"}),
        ("/sinks", {"do": "disable", "sink": "booking"}),
    ],
)
async def test_somebody_elses_page_can_do_nothing(backend: Backend, path: str, given: dict[str, str]) -> None:
    """Without the word of the session, with one of another, or sent by another site, even with the cookie."""
    async with with_a_dead_letter(backend) as (actions, client):
        word = await word_of(client)
        host = {"host": str(client.base_url.netloc, "ascii")}
        tries: list[tuple[dict[str, str], dict[str, str]]] = [
            ({}, FROM_HERE),
            ({"form": ""}, FROM_HERE),
            ({"form": "é"}, FROM_HERE),
            ({"form": session.Sessions(guarded(), None).word("another")}, FROM_HERE),
            ({"form": word}, {"sec-fetch-site": "cross-site"}),
            ({"form": word}, {"sec-fetch-site": "same-site"}),
            ({"form": word}, {"origin": "https://evil.example"}),
            ({"form": word}, {"origin": "null"}),
        ]
        for form, headers in tries:
            answer = await client.post(path, data=given | form, headers=headers | host)
            assert answer.status_code == 403, (form, headers)
        client.cookies.clear()
        assert (await client.post(path, data=given | {"form": word}, headers=FROM_HERE)).status_code == 401
        assert done(actions) == []


async def test_a_sink_is_disabled_and_enabled(backend: Backend) -> None:
    """By the button beside it."""
    async with with_a_dead_letter(backend) as (actions, client):
        word = await word_of(client)
        for do, on in (("disable", False), ("enable", True)):
            given = {"form": word, "do": do, "sink": "booking"}
            answer = await client.post("/sinks", data=given, headers=FROM_HERE)
            assert answer.status_code == 303
            assert done(actions)[-1] == ("booking", on)
        assert (
            await client.post("/sinks", data={"form": word, "do": "x"}, headers=FROM_HERE)
        ).status_code == 409


async def test_a_sink_that_is_not_there_is_the_same_for_all(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """404 in the API and on the page, which may be older than a reload."""
    async with with_a_dead_letter(backend) as (actions, client):
        word = await word_of(client)

        async def missing(name: str, *, on: bool) -> bool:
            raise NotFoundError(f'the daemon has no sink "{name}" to switch {on}')

        monkeypatch.setattr(actions, "switch_sink", missing)
        form = {"form": word, "do": "enable", "sink": "gone"}
        answer = await client.post("/sinks", data=form, headers=FROM_HERE)
        assert answer.status_code == 404
        assert "no sink &#34;gone&#34;" in answer.text
        assert (await client.post("/api/v1/sinks/gone/enable", headers=BEARER)).status_code == 404


async def test_what_went_wrong_is_said(backend: Backend) -> None:
    """In the daemon's words, made safe; nothing is done twice by loading again."""
    async with with_a_dead_letter(backend) as (actions, client):
        word = await word_of(client)
        actions.error = StoreError("the disk is <full>\x1b[31m")
        answer = await client.post(
            "/dead-letters", data={"form": word, "do": "retry", "all": "1"}, headers=FROM_HERE
        )
        assert answer.status_code == 503
        assert "the disk is &lt;full&gt;" in answer.text
        assert "\x1b" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"form=" + b"x" * 20_000, 413),
        (b"&".join(b"a%d=1" % one for one in range(50)), 403),
        (b"\xff\xfe%", 403),
    ],
)
async def test_a_strange_body_is_bounded(backend: Backend, body: bytes, status: int) -> None:
    """Too long, too many fields, no text."""
    async with with_a_dead_letter(backend) as (actions, client):
        headers = FROM_HERE | {"content-type": "application/x-www-form-urlencoded"}
        assert (await client.post("/dead-letters", content=body, headers=headers)).status_code == status
        assert done(actions) == []


# -- what stands on every page ---------------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202e\x1b[31m</title><script>alert(1)</script>"


async def test_every_foreign_text_is_escaped(backend: Backend) -> None:
    """Names, ids, errors, searches: in HTML, in attributes and in addresses; what controls a terminal or turns text is seen."""
    hostile_id = "omm_\"'><script>alert(1)</script>/../?&#"
    actions = Told(version=HOSTILE)
    async with looked_into(backend, "booking", actions=actions, access=guarded()) as (store, client):
        await store.keep_places(
            [place("room", hostile_id, HOSTILE, "omb_x"), place("level", "omb_x", HOSTILE, None)]
        )
        await append(store, changed(f"ev-{HOSTILE}", hostile_id, now_ms()))
        user = {"open_id": f"ou_{HOSTILE}"}
        await append(
            store,
            changed(
                "ev-2",
                hostile_id,
                now_ms(),
                members={"allow_all_users": 0, "allow_users": [user], HOSTILE: HOSTILE},
            ),
        )
        await store.settle("booking", [Outcome.dead(delivery(1), error=HOSTILE)])
        await sign_in(client)
        front = (await client.get("/")).text
        match = re.search(r'class="where" href="([^"]+)"', front)
        assert match is not None
        assert re.fullmatch(r"/scopes/[\w%.~-]+", match[1])
        assert (await client.get(unescape(match[1]))).status_code == 200
        for path in (match[1], "/", "/scopes", "/deliveries", "/?" + str(_query(q=HOSTILE, level=HOSTILE, since=HOSTILE)),
                     "/scopes/%3Cscript%3Ealert(1)%3C/script%3E", "/?done=%3Cscript%3E&count=1"):  # fmt: skip
            html = (await client.get(unescape(path))).text
            assert "<script>" not in html, path
            assert "<img" not in html, path
            assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html), path
            assert (
                html.count("<title>") == html.count("</title>") - html.count("</title></rect>")
                or "<svg" in html
            )


def _query(**given: str) -> httpx2.QueryParams:
    import httpx2  # noqa: PLC0415

    return httpx2.QueryParams(given)


@pytest.mark.parametrize("path", ["/", "/scopes", "/deliveries", "/login", "/assets/app.css"])
async def test_pages_know_their_host(path: str) -> None:
    """A page of somebody else's that calls us by its own name reads nothing, not even the login."""
    async with served(a_site(access=guarded(), actions=Told())) as client:
        answer = await client.get(path, headers=HTML | {"host": "evil.example"})
        assert answer.status_code == 421
        assert answer.headers["content-security-policy"] == "default-src 'self'"
