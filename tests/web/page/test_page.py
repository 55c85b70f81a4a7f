"""The page over HTTP: what it shows of rooms and their changes, in which language, and how it is searched and filtered."""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import escape

from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.model import Outcome
from reserve_listener.web.access import Access
from reserve_listener.web.answers import ConnectionStatus, Gap, Reason, SinkStatus
from reserve_listener.web.page import pictures
from reserve_listener.web.page.rendering import templates
from reserve_listener.web.page.times import Times
from reserve_listener.web.page.words import CHINESE, ENGLISH, LANGUAGES, preferred
from tests.helpers import append, delivery, event
from tests.web.furnished import HOUR_MS, changed, furnish, place
from tests.web.looking import looked_into
from tests.web.page.exhibition import LATE, Told
from tests.web.serving import TOKEN, a_site, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

LIMIT_BYTES = 100_000


@asynccontextmanager
async def office(
    backend: Backend, *sinks: str, **parts: Any
) -> AsyncIterator[tuple[Store, httpx2.AsyncClient]]:
    """The page over a furnished store."""
    async with looked_into(backend, *sinks, **parts) as (store, client):
        await furnish(store, now_ms())
        yield store, client


async def text_of(client: httpx2.AsyncClient, path: str, *, language: str = "en", status: int = 200) -> str:
    """What a person reads of a page: the words without the marks, blanks as one."""
    answer = await client.get(path, headers={"accept-language": language, "accept": "text/html"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return words_of(answer.text)


def words_of(html: str) -> str:
    """The same of a page that is there."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).strip()


def changes_in(html: str) -> list[str]:
    """The events whose changes a page shows, in its order."""
    return re.findall(r'id="change-\d+".*?<code class="id">(ev-\d+)</code>', html, re.DOTALL)


async def shown(client: httpx2.AsyncClient, path: str) -> list[str]:
    """The same of a page of the site."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return changes_in(answer.text)


async def test_the_feed_tells_changes_in_sentences(backend: Backend) -> None:
    """Rooms by name and where they are, ids beside, the newest first, under their day and its zone."""
    async with office(backend) as (_store, client):
        text = await text_of(client, "/")
        assert re.search(
            r"Today, \w+ \d+ \w+ \d{4} UTC\S* \d\d:\d\d 7 min ago 3F-Ada Tower B › 3F approval now required",
            text,
        )
        assert "at most 24 h → 2 h per booking" in text
        assert "omm_ada · event ev-7" in text
        assert "Tower B level bookable daily 07:45–22:00 → 08:00–20:00" in text
        assert await shown(client, "/") == [f"ev-{number}" for number in (7, 6, 5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=ada", [7, 0]),
        ("q=3F-ADA", [7, 0]),
        ("q=omm_board", [6, 1]),
        ("q=ev-4", [4]),
        ("q=Tower+B", [7, 5, 4, 3, 2, 0]),
        ("q=%E8%A5%BF%E6%B9%96", []),
        ("q=nowhere", []),
        ("kind=approve_config", [7]),
        ("kind=reserve_scope_config", [6]),
        ("kind=time_config", [7, 5, 4]),
        ("kind=nonsense", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("type=level", [5, 2]),
        ("type=room&kind=time_config", [7, 4]),
        ("level=omb_a", [6, 1]),
        ("level=omb_b", [7, 5, 4, 3, 2, 0]),
        ("level=omb_b&q=turing", [4, 3]),
        ("level=omb_a&q=turing", []),
        ("level=omb_nowhere", []),
        ("before=3", [1, 0]),
        ("before=99999999999999999999", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("before=x", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("since=2999-01-01", []),
        ("until=2020-01-01", []),
        ("since=2020-01-01&until=2999-01-01", [7, 6, 5, 4, 3, 2, 1, 0]),
        ("since=nonsense", [7, 6, 5, 4, 3, 2, 1, 0]),
    ],
)
async def test_the_feed_is_searched_and_filtered(backend: Backend, query: str, expected: list[int]) -> None:
    """By name, id, event, kind of change, level with all that is in it, and day; what is no value of a field is none."""
    async with office(backend) as (_store, client):
        assert await shown(client, f"/?{query}") == [f"ev-{number}" for number in expected]


async def test_the_filter_is_there_for_who_asks(backend: Backend) -> None:
    """Its fields cost a browser more than the changes: the page is painted without them, and a link leads to them and back."""
    async with office(backend) as (_store, client):
        html = (await client.get("/?q=turing")).text
        assert 'id="filter"' not in html
        opened = unescape(re.findall(r'class="to-filter" href="([^"]+)"', html)[0])
        html = (await client.get(opened)).text
        assert html.count('id="filter"') == 1
        assert 'name="q" value="turing"' in html
        back = unescape(re.findall(r'class="to-filter" href="([^"]+)"', html)[0])
        assert back == "/?q=turing"
        narrowed = (await client.get("/?type=room")).text
        assert 'id="filter"' in narrowed
        assert "to-filter" not in narrowed


async def test_a_day_has_its_changes_and_no_others(backend: Backend) -> None:
    """Both ends of the filter are days here, the last one whole."""
    async with looked_into(backend) as (store, client):
        noon = int(time.mktime((2026, 3, 10, 12, 0, 0, 0, 0, -1))) * 1000
        for number, days in enumerate((-1, 0, 1)):
            await append(store, changed(f"ev-{number}", "omm_a", noon + days * 24 * HOUR_MS))
        assert await shown(client, "/?since=2026-03-10&until=2026-03-10") == ["ev-1"]
        assert await shown(client, "/?since=2026-03-10") == ["ev-2", "ev-1"]
        assert await shown(client, "/?until=2026-03-10") == ["ev-1", "ev-0"]


async def test_a_long_feed_comes_in_pages(backend: Backend) -> None:
    """From the newest to the first by the links alone, nothing missing and nothing twice, the filter kept."""
    async with looked_into(backend) as (store, client):
        at_ms = now_ms() - HOUR_MS
        for number in range(95):
            await append(store, changed(f"ev-{number}", f"omm_{number % 2}", at_ms + number))
        for query, numbers in (("/", range(95)), ("/?q=omm_1", range(1, 95, 2))):
            seen, path = [], query
            while path:
                html = (await client.get(path)).text
                seen += changes_in(html)
                match = re.search(r'rel="next" href="([^"]+)"', html)
                path = unescape(match[1]) if match else ""
            assert seen == [f"ev-{number}" for number in reversed(numbers)]


async def test_what_is_searched_for_is_listed_by_name(backend: Backend) -> None:
    """Rooms and levels that match, with links to their pages; what is nowhere is said."""
    async with office(backend) as (_store, client):
        html = (await client.get("/?q=a")).text
        assert '<a class="where" href="/scopes/omm_ada">3F-Ada</a>' in html
        assert "There is no room, level or event like “<b>”." in unescape(
            (await client.get("/?q=%3Cb%3E", headers={"accept-language": "en"})).text
        )
        assert 'name="q" value="3F-Ada"' in (await client.get("/?q=3F-Ada")).text


async def test_a_rooms_page_has_its_limits_and_history(backend: Backend) -> None:
    """In words, as a picture of the day, value by value; and each change with what stood there before."""
    async with office(backend) as (_store, client):
        text = await text_of(client, "/scopes/omm_ada")
        assert "3F-Ada Tower B › 3F omm_ada Limits now bookings over 1 h need approval" in text
        assert "Longest booking 2 h" in text
        assert "Longest booking before: 24 h → after: 2 h" in text
        assert "Approval before: not required → after: required" in text
        assert "Approvers added: + ou_lilei" in text
        html = (await client.get("/scopes/omm_ada", headers={"accept-language": "en"})).text
        assert 'aria-label="Bookable from 08:00 to 20:00"' in html
        assert 'x="33.333%" y="2" width="50.0%"' in html
        assert "Approval bookings over 1 h" in text
        assert "Bookable 08:00–20:00" in text
        assert changes_in(html) == ["ev-7", "ev-0"]


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"time": {"start_time": "0", "end_time": "86400"}},
            "Time limits Bookable all day Bookable ahead 30 days",
        ),
        ({"time": {"time_switch": 0}}, "Time limits Time limits off"),
        ({"time": {"start_time": "72000", "end_time": "28800"}}, "Bookable from 20:00 Bookable until 08:00"),
        ({"approve": {"approval_switch": 1}}, "Approval every booking Approvers none"),
        (
            {"approve": {"approval_switch": 1, "approval_condition": 1}},
            "Approval bookings over 3 h Approvers none",
        ),
        ({"approve": {"approval_switch": 0}}, "Booking approval Approval not required Time limits"),
        ({"members": {"allow_all_users": 1}}, "Who may book all members as of"),
        ({"members": {"new_key": [1]}}, "reserve_scope_config.new_key [1]"),
    ],
)
async def test_limits_are_told_as_people_say_them(
    backend: Backend, sections: dict[str, Any], told: str
) -> None:
    """What several keys say stands in one line, what has no effect is left out, and what is new to us is shown as it came."""
    async with looked_into(backend) as (store, client):
        await append(store, changed("ev-1", "omm_a", now_ms(), **sections))
        assert told in await text_of(client, "/scopes/omm_a")


@pytest.mark.parametrize(
    ("ago_ms", "told"),
    [
        (0, "just now"), (-1_500, "just now"), (-30_000, "in a moment"), (-60_000, "in 60 s"), (44_000, "just now"), (46_000, "46 s ago"),
        (89 * 60_000, "89 min ago"), (91 * 60_000, "2 h ago"), (47 * HOUR_MS, "47 h ago"), (72 * HOUR_MS, "3 days ago"),
    ],
)  # fmt: skip
def test_times_are_told_from_now(ago_ms: int, told: str) -> None:
    """As exactly as people do."""
    at = Times(ENGLISH, 1_795_673_343_000).at(1_795_673_343_000 - ago_ms)
    assert at is not None
    assert at.ago == told


async def test_a_levels_page_lists_what_is_in_it(backend: Backend) -> None:
    """Rooms and levels right below, with their limits as far as they are known."""
    async with office(backend) as (_store, client):
        text = await text_of(client, "/scopes/omb_12f")
        assert "Nothing is known of this room or level yet." in text
        assert re.search(r"In this level .* Boardroom Tower A › 12F omm_board no approval", text)
        assert "西湖厅 Tower A › 12F omm_lake limits not known yet" in text


async def test_all_rooms_are_listed_along_the_levels(backend: Backend) -> None:
    """With their limits, also those of which nothing was heard; in pages."""
    async with office(backend) as (store, client):
        html = (await client.get("/scopes")).text
        assert re.findall(r'scope="row"><a class="where" href="/scopes/(\w+)"', html) == [
            *("omb_hq", "omb_a", "omb_12f", "omm_board", "omm_lake"),
            *("omb_b", "omb_3f", "omm_ada", "omb_5f", "omm_turing"),
        ]
        await store.keep_places([place("room", f"omm_{n}", f"Room {n:03}", "omb_3f") for n in range(150)])
        first, second = (await client.get("/scopes")).text, (await client.get("/scopes?page=2")).text
        found = re.findall(r'scope="row"><a class="where" href="/scopes/(\w+)"', first + second)
        assert len(found) == len(set(found)) == 160
        for page in ("0", "-1", "999999999999999999999", "x", "٣"):
            assert (await client.get("/scopes", params={"page": page})).status_code == 200


async def test_a_room_that_is_gone_says_so(backend: Backend) -> None:
    """Its history stays, and it is marked everywhere."""
    async with office(backend) as (store, client):
        await store.mark_gone("room", "omm_ada")
        assert "It was deleted on the platform (noticed" in await text_of(client, "/scopes/omm_ada")
        assert "3F-Ada Tower B › 3F deleted" in await text_of(client, "/")


async def test_a_room_that_nobody_knows_is_not_found(backend: Backend) -> None:
    """In words, with 404; ids that a browser would take for parts of the path have a page too."""
    async with office(backend) as (store, client):
        assert "No known room or level has the id “omm_nowhere”." in await text_of(
            client, "/scopes/omm_nowhere", status=404
        )
        await append(store, changed("ev-dots", "..", now_ms()))
        assert 'href="/scopes?id=.."' in (await client.get("/")).text
        assert "ev-dots" in await text_of(client, "/scopes?id=..")


async def test_tenants_are_named_only_when_there_are_several(backend: Backend) -> None:
    """Of one nobody needs to be told which."""
    async with office(backend) as (store, client):
        assert "Tenant" not in await text_of(client, "/")
        await append(store, event("ev-8", tenant="another"))
        assert "Tenant another" in await text_of(client, "/")


async def test_a_late_change_and_one_found_by_asking_say_so(backend: Backend) -> None:
    """A late one stands where it came in, with the time when it did."""
    async with office(backend) as (store, client):
        await append(store, changed("ev-late", "omm_ada", now_ms() - 30 * HOUR_MS, time={"max_duration": 5}))
        assert re.search(r"3F-Ada Tower B › 3F arrived late .*?event ev-late", await text_of(client, "/"))


@pytest.mark.parametrize(
    ("accepted", "usual", "expected"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "en", "zh"),
        ("en-GB", "zh", "en"),
        ("fr, zh;q=0.2, en;q=0.1", "en", "zh"),
        ("de", "zh", "zh"),
        ("", "en", "en"),
        ("zh;q=0", "en", "en"),
        ("en;q=x, zh", "en", "zh"),
        ("*", "zh", "zh"),
    ],
)
def test_the_browser_says_in_which_language(accepted: str, usual: str, expected: str) -> None:
    """The best that we have, else that of the configuration."""
    assert preferred(accepted, usual) == expected


async def test_the_page_is_in_both_languages(backend: Backend) -> None:
    """Sentences are told anew; the switch is remembered over the browser's language."""
    async with office(backend) as (_store, client):
        chinese = await text_of(client, "/", language="zh-CN")
        assert "单次可预定时长上限 24 → 2 小时" in chinese
        assert "每日可预定时间范围 07:45–22:00 → 08:00–20:00" in chinese
        assert "预定审批 超过 1 小时的预定" in await text_of(client, "/scopes/omm_ada", language="zh")
        switched = await client.get("/?lang=zh&kind=time_config", headers={"accept-language": "en"})
        assert switched.headers["set-cookie"].startswith("reserve_listener_language=zh; HttpOnly;")
        assert "单次可预定时长上限" in await text_of(client, "/", language="en")
        assert (await client.get("/?lang=xx")).status_code == 200


def test_both_languages_have_the_same_words() -> None:
    """A word that one lacks would be a page that fails."""
    assert set(ENGLISH) == set(CHINESE)
    for key, text in ENGLISH.items():
        assert text.count("{}") == CHINESE[key].count("{}"), key


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_every_word_can_be_written(words: dict[str, str]) -> None:
    """A template finds each by its key, also those that are the name of something that a dictionary can do."""
    environment = templates().environment
    for key, text in words.items():
        if key.isidentifier():
            assert environment.from_string(f"{{{{ words.{key} }}}}").render(words=words) == escape(text), key


SINK = SinkStatus(
    name="booking", state="down", pending=12, dead_letters=0, last_error="503 Service Unavailable",
    failing_since="2026-11-26T05:58:00.000Z", next_attempt="2026-11-26T06:12:00.000Z",
)  # fmt: skip


async def test_a_sink_that_is_down_is_told_in_words(backend: Backend) -> None:
    """What it means, since when, what to do; and the daemon's own words for whoever is on call."""
    reason = Reason(part="sink booking", since=SINK.failing_since, reason="down: 503", hint="probed")
    told = Told(status="degraded", reasons=[reason], sinks=[SINK])
    async with office(backend, actions=told) as (_store, client):
        text = await text_of(client, "/")
        assert re.search(
            r"Needs a look booking is not accepting anything · since \S+ .*\d\d:\d\d UTC\S* \(.* ago\)",
            text,
        )
        assert "nothing is lost" in text
        assert "The daemon says: down: 503 (probed)" in text
        assert "booking down 12 waiting Last error: 503 Service Unavailable" in text
        assert "booking 无法接收" in await text_of(client, "/", language="zh")


async def test_a_gap_and_a_silent_store_are_told_as_they_are(backend: Backend) -> None:
    """Nothing is claimed that is not known: neither that nothing is lost, nor that there are no sinks."""
    began = "2026-11-26T05:58:00.000Z"
    gap = Reason(part="gap", since=began, reason="changes may have been missed", hint=None)
    silent = Reason(part="store", since=began, reason="what is in it is not known: no answer", hint=None)
    told = Told(status="degraded", reasons=[gap])
    async with office(backend, actions=told) as (_store, client):
        text = await text_of(client, "/")
        assert "Needs a look changes may have been missed while the daemon was offline" in text
        assert "Nothing compares the rooms with the platform" in text
        assert "nothing is lost" not in text
        told.how["reasons"] = [silent]
        text = await text_of(client, "/")
        assert "the store cannot be read" in text
        assert "Where changes go Not known at the moment." in text
        assert "nothing is lost" not in text
        assert "可能有遗漏" not in await text_of(client, "/", language="zh")
        sink_down = Reason(part="sink booking", since=began, reason="down: 503", hint=None)
        told.how |= {"reasons": [sink_down, gap], "sinks": [SINK]}
        text = await text_of(client, "/", language="zh")
        assert "另有 1 项" in text
        assert text.count("前往“投递”页面") == 1
        assert "前往“投递”页面" not in await text_of(client, "/deliveries", language="zh")


async def test_no_connection_and_no_store_are_failing(backend: Backend) -> None:
    """Both in words; and a gap of the last day is in the picture of the connection."""
    began = "2026-11-26T05:58:00.000Z"
    reasons = [
        Reason(part="connection", since=began, reason="not connected: waiting", hint=None),
        Reason(part="store", since=began, reason="pushes are answered 500: disk full", hint=None),
        Reason(part="something new", since=None, reason="as yet unknown", hint="look"),
    ]
    gap = Gap(from_="2026-11-26T01:00:00.000Z", to="2026-11-26T02:00:00.000Z", found=3)
    told = Told(
        status="failing", reasons=reasons, problem="disk full", gaps=[gap],
        connection=ConnectionStatus(state="waiting", text="waiting"),
    )  # fmt: skip
    async with office(backend, actions=told) as (_store, client):
        text = await text_of(client, "/")
        assert "Not working not connected to the platform, so no changes arrive · since" in text
        assert "changes cannot be stored and are refused" in text
        assert "as yet unknown" in text
        assert "3 changes were found by asking afterwards" in text


async def test_a_store_that_cannot_be_read_is_said(backend: Backend) -> None:
    """With 503; what is known without it still stands on the page."""

    class Broken:
        """Reads that fail."""

        async def ask(self, look: Any) -> Any:
            """See `Reads`."""
            raise StoreError("the disk is gone")

    told = Told()
    async with looked_into(backend, actions=told) as (_store, client):
        pass
    from tests.web.serving import a_site, served  # noqa: PLC0415

    async with served(a_site(actions=told, reads=Broken())) as client:
        for path in ("/", "/scopes", "/scopes/omm_a", "/deliveries"):
            text = await text_of(client, path, status=503)
            assert "All is well" in text
            assert "The store cannot be read at the moment" in text


async def test_dead_letters_are_listed(backend: Backend) -> None:
    """Which sink, which room, why; without a token there is nothing to press."""
    async with office(backend, "booking") as (store, client):
        await store.settle("booking", [Outcome.dead(delivery(8), error="410 Gone")])
        for path in ("/", "/deliveries"):
            html = (await client.get(path, headers={"accept-language": "en"})).text
            assert re.search(
                r"booking · 3F-Ada Tower B › 3F 410 Gone .* 1 attempt · event ev-7", words_of(html)
            )
            assert 'method="post"' not in html
        assert "set status.token_file and sign in" in await text_of(client, "/deliveries")


async def test_the_last_day_is_drawn(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes and slowest delivery hour by hour; what took over a minute is late."""
    monkeypatch.setattr(pictures, "PATIENCE_S", 10.0)
    async with office(backend, "booking") as (store, client):
        await store.settle("booking", [Outcome.delivered(delivery(seq)) for seq in (7, 8)])
        html = (await client.get("/", headers={"accept-language": "en"})).text
        text = words_of(html)
        assert re.search(r"Changes an hour \d changes", text)
        assert re.search(r"Delivery 2 over a minute, slowest 2 h", text)
        assert len(re.findall(r'<rect class="bar late"', html)) >= 2


async def test_a_change_of_hundreds_of_people_is_short(backend: Backend) -> None:
    """Some by name, the others by their number: the page stays small whatever was changed."""
    async with looked_into(backend) as (store, client):
        for number in range(30):
            crowd = [{"open_id": f"ou_{number:016x}_{one:016x}"} for one in range(300)]
            members = {"allow_all_users": 0, "allow_users": crowd}
            await append(store, changed(f"ev-{number}", "omm_a", now_ms() - number, members=members))
        for path in ("/", "/scopes/omm_a"):
            answer = await client.get(path, headers={"accept-language": "en"})
            assert len(answer.content) < LIMIT_BYTES, path
            assert "and 5" in words_of(answer.text)


async def test_pages_are_small_and_say_nothing_inline(backend: Backend) -> None:
    """All that a browser loads for the page is within 100 kB; no style, no script, no address of anybody else."""
    async with looked_into(backend) as (store, client):
        for number in range(60):
            await append(
                store,
                changed(f"ev-{number}", f"omm_{number}", now_ms() - number, time={"max_duration": number}),
            )
        for path in ("/", "/scopes/omm_1", "/scopes", "/deliveries"):
            html = (await client.get(path)).text
            links = re.findall(r'(?:href|src)="(/assets/[^"]+)"', html)
            assets = [await client.get(link) for link in links]
            assert {asset.status_code for asset in assets} == {200}
            assert all("immutable" in asset.headers["cache-control"] for asset in assets)
            assert len(html.encode()) + sum(len(asset.content) for asset in assets) < LIMIT_BYTES
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/assets/)", html)
            assert not re.search(r"""(href|src|action)=["'](?!/|#)""", html)


BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(("language", "text"), [("en", "There is no such page"), ("zh-CN", "没有这个页面")])
async def test_a_browser_at_a_wrong_address_gets_a_page(language: str, text: str) -> None:
    """In its language, with a way back; a program gets a problem, and so does a browser that asks the API."""
    asked = BROWSER | {"accept-language": language}
    async with served(a_site()) as client:
        for path in ("/nowhere", "/deliveries/x", "/assets/none.css", "/<script>"):
            answer = await client.get(path, headers=asked)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert text in answer.text
            assert '<a href="/">' in answer.text
            assert (await client.get(path)).headers["content-type"] == "application/problem+json"
        answer = await client.post("/deliveries", headers=asked)
        assert (answer.status_code, text in answer.text) == (405, True)
        answer = await client.get("/api/v1/nowhere", headers=asked)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_browser_under_a_wrong_name_is_told_what_to_do() -> None:
    """Nothing else: what the daemon knows is not for whoever makes a browser come by another name."""
    async with served(a_site(actions=Told(**LATE))) as client:
        answer = await client.get("/", headers=BROWSER | {"host": "rooms.corp.example"})
        assert (answer.status_code, "status.allowed_hosts" in answer.text) == (421, True)
        assert "booking" not in answer.text
        assert 'href="/"' not in answer.text.partition("<main")[2]


async def test_a_stranger_at_a_wrong_address_learns_nothing() -> None:
    """What is open to all has no pages but its own; the verdict is for who has signed in."""
    async with served(a_site(access=Access(token=TOKEN), actions=Told(**LATE))) as client:
        answer = await client.get("/assets/none.css", headers=BROWSER)
        assert answer.status_code == 404
        for secret in ("Needs a look", "booking", "times in"):
            assert secret not in answer.text
