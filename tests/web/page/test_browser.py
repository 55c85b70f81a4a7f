"""The page in a real browser: under its own CSP, live, by mouse and by keyboard, for everybody."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.clock import now_ms
from reserve_listener.errors import StoreError
from reserve_listener.model import Outcome
from reserve_listener.simulator import Receiver, sample_event
from reserve_listener.store import open_reader
from reserve_listener.web.access import Access
from reserve_listener.web.reads import Reads
from tests.daemon_process import until
from tests.helpers import append, delivery
from tests.web import looking
from tests.web.furnished import changed, place
from tests.web.looking import looked_into
from tests.web.page.exhibition import DEAF, LATE, WELL, Told, exhibition, id_of, that_day
from tests.web.page.test_forms import HOSTILE
from tests.web.serving import TOKEN, a_site, served
from tests.web.test_health import watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from reserve_listener.simulator import HttpServer, Simulator
    from tests.backends import Backend
    from tests.web.page.chromium import Page

ADA = id_of("3F-Ada")
PATHS = (
    "/",
    f"/scopes/{ADA}",
    "/scopes",
    "/deliveries",
    "/?q=tower",
    "/?kind=time_config",
    "/scopes/nowhere",
)
LIMIT_BYTES = 100_000
NARROW = 360


@pytest.fixture
def then(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The day of the exhibition."""
    with that_day(monkeypatch):
        yield


@asynccontextmanager
async def shown(backend: Backend, page: Page, **how: Any) -> AsyncIterator[str]:
    """The exhibition, to somebody who has signed in; its address."""
    access = Access(token=TOKEN)
    async with exhibition(backend, actions=Told(**(how or WELL)), access=access) as (_store, client):
        url = str(client.base_url).rstrip("/")
        await sign_in(page, url)
        yield url


async def sign_in(page: Page, url: str, token: str = TOKEN) -> None:
    """By the form, as a person does."""
    await page.open(f"{url}/login")
    await page.write("#token", token)
    await page.loaded(page.press("Enter"))


# -- for everybody ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.usefixtures("then")
async def test_all_of_it_loads_and_fits_a_phone(backend: Backend, page: Page, language: str) -> None:
    """Without a word in the console, in both languages, nothing wider than 360 px, and less than 100 kB with all it needs."""
    await page.speak(language)
    async with shown(backend, page, **LATE) as url:
        for path in PATHS:
            await page.open(url + path)
            assert await page.run("document.documentElement.lang.slice(0, 2)") == language[:2]
            assert await page.run("document.fonts.ready.then(() => document.styleSheets.length)") == 1
            loaded = await page.run(
                "performance.getEntries().reduce((sum, one) => sum + (one.encodedBodySize || 0), 0)"
            )
            assert 0 < loaded < LIMIT_BYTES, path
            await page.size(NARROW)
            await page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
            assert await page.run("document.documentElement.scrollWidth") <= NARROW, path
            rows = "[...document.querySelectorAll('.places th[scope=row]')].map((one) => one.offsetWidth)"
            assert all(width > NARROW * 3 / 4 for width in await page.run(rows)), path
            await page.size(1180)
        assert page.failed == [f"404 {url}/scopes/nowhere"]
        page.complaints = [one for one in page.complaints if "/scopes/nowhere" not in one]


AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("how", [WELL, LATE, DEAF], ids=["well", "late", "deaf"])
@pytest.mark.usefixtures("then")
async def test_everybody_can_read_it(backend: Backend, page: Page, how: dict[str, Any], look: str) -> None:
    """axe-core has nothing to say of any page, opened up, in light and dark: neither serious nor slight."""
    await page.look(dark=look == "dark")
    async with shown(backend, page, **how) as url:
        await page.open(f"{url}/deliveries")
        assert await check(page) == []
        if how is not WELL:
            for path in ("/", "/login"):
                await page.open(url + path)
                assert await check(page) == [], path
            return
        for path in PATHS:
            await page.open(url + path)
            assert await check(page) == [], path
        page.complaints.clear()


async def check(page: Page) -> list[str]:
    """What axe-core finds, with the places."""
    await page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    await page.run(f"{AXE}; 0")
    found: list[str] = await page.run(
        "axe.run().then((told) => told.violations.map((one) => `${one.impact} ${one.id}: ${one.help} `"
        " + one.nodes.map((node) => node.html + ' ' + node.failureSummary).slice(0, 3).join('; ')))"
    )
    return found


@pytest.mark.usefixtures("then")
async def test_dark_is_dark_and_paper_has_no_buttons(backend: Backend, page: Page) -> None:
    """Colours follow the browser; what cannot be pressed on paper is not printed, and what to do is printed opened."""
    ground = "getComputedStyle(document.body).backgroundColor"
    async with shown(backend, page, **LATE) as url:
        await page.open(f"{url}/?kind=time_config")
        light = await page.run(ground)
        await page.look(dark=True)
        assert await page.run(ground) != light
        await page.look(media="print")
        for gone in ("nav", "[role=search]", ".actions", ".filter"):
            assert await page.run(f"document.querySelector('{gone}').checkVisibility()") is False, gone
        assert await page.run("document.querySelector('#what-to-do li').checkVisibility()") is True


@pytest.mark.usefixtures("then")
async def test_the_language_is_switched_and_stays(backend: Backend, page: Page) -> None:
    """By the link at the top; the next page is in it as well."""
    async with shown(backend, page) as url:
        await page.open(f"{url}/?kind=time_config")
        await page.loaded(page.click(".language"))
        assert "单次可预定时长上限" in await page.text("#feed")
        assert await page.run("document.querySelector('#kind').value") == "time_config"
        await page.open(f"{url}/scopes/{ADA}")
        assert "审批人新增李雷" in await page.text("#history")


async def test_it_works_by_keyboard(backend: Backend, page: Page) -> None:
    """The first stop leads past the head of the page; each stop is seen; a change opens with Enter."""
    async with looked_into(backend, actions=Told(**WELL)) as (store, client):
        await append(store, changed("ev-1", "omm_a", now_ms()))
        await page.open(str(client.base_url))
        await page.run("window.isTheSame = true")
        await page.press("Tab")
        assert await page.run("document.activeElement.className") == "skip"
        await page.press("Enter")
        await page.until("location.hash === '#main'")
        for _ in range(10):
            await page.press("Tab")
            seen = "getComputedStyle(document.activeElement).outlineStyle + document.activeElement.outerHTML"
            assert not (await page.run(seen)).startswith("none"), await page.run(seen)
            if await page.run("document.activeElement.matches('.feed summary')"):
                break
        await page.press("Enter")
        await page.until("document.querySelector('.feed details').open")
        assert "event ev-1" in await page.text(".feed")
        assert await page.run("window.isTheSame")


async def test_nothing_of_it_needs_a_script(backend: Backend, page: Page) -> None:
    """Search, filter, a room, the other language, a retry: all by links and forms."""
    actions = Told(**WELL)
    access = Access(token=TOKEN)
    async with looked_into(backend, "booking", actions=actions, access=access) as (store, client):
        await store.keep_places([place("room", "omm_a", "Ada", None), place("room", "omm_b", "Bob", None)])
        for number, scope in enumerate(("omm_a", "omm_b")):
            await append(store, changed(f"ev-{number}", scope, now_ms()))
        await store.settle("booking", [Outcome.dead(delivery(1), error="410 Gone")])
        await page.ask("Emulation.setScriptExecutionDisabled", value=True)
        await sign_in(page, str(client.base_url).rstrip("/"))
        assert await page.run("document.documentElement.className") == ""
        await page.write("[name=q]", "bob")
        await page.loaded(page.click("[role=search] button"))
        assert "ev-1" in await page.run("document.querySelector('#feed').textContent")
        assert "ev-0" not in await page.run("document.querySelector('#feed').textContent")
        await page.loaded(page.click(".to-filter"))
        assert await page.run("document.querySelector('[name=q]').value") == "bob"
        await page.run("document.querySelector('#type').value = 'level'")
        await page.loaded(page.click("#filter button"))
        assert "No change matches." in await page.text("#feed")
        await page.loaded(page.click(".brand a"))
        await page.loaded(page.click("#feed .where"))
        assert "Limits now" in await page.text()
        await page.loaded(page.click(".language"))
        assert "当前预定限制" in await page.text()
        await page.loaded(page.click("nav a:last-child"))
        await page.loaded(page.click("#dead form[action='/dead-letters'] button"))
        assert "已重试：7" in await page.text(".done")
        assert [asked[0] for asked in actions.asked if asked[0] != "status"] == ["retry"]


# -- live ------------------------------------------------------------------------------------------------------------------------


async def test_a_change_arrives_by_itself(
    tmp_path: Path, platform: Simulator, server: HttpServer, page: Page
) -> None:
    """Pushed by the platform, heard by a real daemon, on top of the feed without a reload; the keyboard and what is open stay."""
    async with watched(tmp_path, platform, server) as (_daemon, client):
        platform.push(sample_event(event_id="ev-first", scope_id="omm_a"))
        await page.open(str(client.base_url))
        await page.until("document.querySelector('#feed')?.textContent.includes('ev-first')")
        await page.run("window.isTheSame = true")
        await page.run("document.querySelector('.feed details').open = true")
        await page.run("document.querySelector('.feed summary').focus()")
        platform.push(sample_event(event_id="ev-second", scope_id="omm_b"))
        await page.until("document.querySelector('.feed li')?.textContent.includes('ev-second')")
        assert await page.run("window.isTheSame")
        assert await page.run("document.querySelector('.feed li:nth-child(2) details').open")
        assert await page.run(
            "document.activeElement === document.querySelector('.feed li:nth-child(2) summary')"
        )
        await page.until(
            "document.querySelector('#announce').textContent.startsWith('The page has new changes')"
        )
        assert await page.run("document.querySelectorAll('.feed .fresh').length") == 1


async def test_a_page_that_is_old_says_so(page: Page) -> None:
    """While the daemon does not answer; once it does, the page shows how it is now, by itself."""
    actions = Told(**WELL)
    async with served(a_site(actions=actions, reads=Reads(nothing))) as client:
        port = client.base_url.port
        await page.open(str(client.base_url))
        await page.until("document.querySelector('#stale').hidden")
    await page.until("!document.querySelector('#stale').hidden")
    assert "What you see may be out of date" in await page.text("#stale")
    actions.how.update(DEAF)
    async with served(a_site(actions=actions, reads=Reads(nothing)), listen=f"127.0.0.1:{port}"):
        await page.until("document.querySelector('#verdict').textContent.includes('Not working')")
        assert await page.run("document.querySelector('#stale').hidden")
    page.complaints.clear()


async def test_a_page_without_a_store_has_all_once_it_is_back(
    backend: Backend, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it tries again, and does; the stream that was refused is asked for again, and changes arrive."""
    is_away = True
    monkeypatch.setattr(looking, "open_reader", lambda url: nothing() if is_away else open_reader(url))
    async with looked_into(backend, actions=Told(**WELL)) as (store, client):
        await append(store, changed("ev-1", "omm_a", now_ms()))
        await page.open(str(client.base_url))
        await page.until("document.querySelector('#unread')")
        await page.until("performance.getEntriesByName(new URL('/api/v1/stream', location).href).length")
        is_away = False
        await page.until("document.querySelector('#feed')?.textContent.includes('ev-1')")
        for number in range(2, 5):  # the first may come before the stream is there
            await append(store, changed(f"ev-{number}", "omm_b", now_ms()))
            await page.until(f"document.querySelector('#feed').textContent.includes('ev-{number}')")
        assert await page.run("stream.readyState === EventSource.OPEN")
        page.complaints.clear()


def nothing() -> Any:
    """A store that cannot be read."""
    raise StoreError("the disk is gone")


async def test_what_is_selected_is_not_taken_away(backend: Backend, page: Page) -> None:
    """Who copies an id keeps it until the selection is gone; then the feed catches up."""
    async with looked_into(backend, actions=Told(**WELL)) as (store, client):
        await append(store, changed("ev-1", "omm_a", now_ms()))
        await page.open(str(client.base_url))
        await page.run("getSelection().selectAllChildren(document.querySelector('.feed .what'))")
        await append(store, changed("ev-2", "omm_b", now_ms()))
        await page.until(
            "performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'fetch').length"
        )
        assert await page.run("getSelection().toString().length") > 0
        assert "ev-2" not in await page.run("document.querySelector('#feed').textContent")
        await page.run("getSelection().removeAllRanges()")
        await append(store, changed("ev-3", "omm_b", now_ms()))
        await page.until("document.querySelector('#feed').textContent.includes('ev-3')")


@pytest.mark.usefixtures("then")
async def test_the_search_answers_while_it_is_typed(backend: Backend, page: Page) -> None:
    """Rooms and their changes, without a reload; the address can be sent to somebody, and leads to the same."""
    async with shown(backend, page) as url:
        await page.open(f"{url}/scopes")
        await page.run("window.isTheSame = true")
        await page.write("[name=q]", "lovelace")
        await page.until("document.querySelector('.matches')?.textContent.includes('5F-Lovelace')")
        assert await page.run("location.pathname + location.search") == "/?q=lovelace"
        assert await page.run("document.querySelectorAll('.matches li').length") == 1
        assert await page.run("document.activeElement.name") == "q"
        assert await page.run("window.isTheSame")
        await page.write("[name=q]", "no such room")
        await page.until("document.querySelector('#feed')?.textContent.includes('There is no room')")
        await page.loaded(page.run("history.back()"))
        assert await page.run("location.pathname + location.search") == "/scopes"
        await page.open(f"{url}/?q=lovelace")
        assert "5F-Lovelace" in await page.text(".matches")
        await page.loaded(page.click(".matches a"))
        assert await page.text("h1") == "5F-Lovelace"


@pytest.mark.usefixtures("then")
async def test_a_room_has_its_history(backend: Backend, page: Page) -> None:
    """From the feed by its name; each change with what was before, told apart for those who do not see the colours too."""
    async with shown(backend, page) as url:
        await page.open(url)
        await page.loaded(page.click(f"#feed a[href='/scopes/{ADA}']"))
        assert await page.text("h1") == "3F-Ada"
        row = await page.text("#history .diff tbody tr:last-child")
        assert row == "Longest booking before: 1 h → after: 2 h"
        assert await page.run("getComputedStyle(document.querySelector('.diff del')).textDecorationLine") == (
            "line-through"
        )
        assert await page.run("document.querySelector('.bookable .open').getBoundingClientRect().width") > 50


# -- acting ----------------------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_retried_and_another_dropped(
    tmp_path: Path, platform: Simulator, receiver: Receiver, server: HttpServer, page: Page
) -> None:
    """With a real daemon: a wrong token is refused in words, the right one lets in; a press of the button delivers."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    receiver.answer = 400
    token = f'token_file = "{tmp_path}/token"'
    async with watched(tmp_path, platform, server, status=token) as (daemon, client):
        for name in ("ev-first", "ev-second"):
            assert await platform.push(sample_event(event_id=name, scope_id=f"omm_{name}")).answered() == 200
        await until(lambda: daemon.query("SELECT count(*) FROM deliveries WHERE state = 2") == [(2,)])
        url = str(client.base_url).rstrip("/")
        await page.open(f"{url}/deliveries")
        await page.write("#token", "guess")
        await page.loaded(page.press("Enter"))
        assert "This token is wrong." in await page.text("[role=alert]")
        assert page.failed == [f"403 {url}/login"]
        page.complaints.clear()
        await page.write("#token", TOKEN)
        await page.loaded(page.press("Enter"))
        assert await page.run("location.pathname") == "/deliveries"

        receiver.answer = 200
        await page.loaded(page.click(button("retry", "ev-first")))
        assert await page.text(".done") == "Retried: 1"
        await until(lambda: [one.headers["webhook-id"] for one in receiver.received].count("ev-first") == 2)
        await page.until("!document.querySelector('#dead').textContent.includes('ev-first')")
        await page.loaded(page.click(button("drop", "ev-second")))
        assert "Drop for good?" in await page.text("h1")
        await page.loaded(page.click(".ask .danger"))
        assert await page.text(".done") == "Dropped: 1"
        assert "No delivery has been given up." in await page.text("#dead")
        assert len([one for one in receiver.received if one.headers["webhook-id"] == "ev-second"]) == 1

        await page.loaded(page.click("footer button"))
        assert await page.run("location.pathname") == "/login"


def button(do: str, event_id: str) -> str:
    """The button of a dead letter."""
    return f"form:has([name=do][value={do}]):has([name=event_id][value='{event_id}']) button"


async def test_no_foreign_text_becomes_a_script(backend: Backend, page: Page) -> None:
    """Whatever stands in names, ids, people, errors and searches stays text, also when it comes live; the CSP has nothing to stop."""
    hostile_id = "omm_\"'><img src=x onerror=window.hit=1>/../?&#"
    reason = HOSTILE + "<svg onload=window.hit=1>"
    actions = Told(**LATE | {"version": HOSTILE, "problem": reason})
    access = Access(token=TOKEN)
    async with looked_into(backend, "booking", actions=actions, access=access) as (store, client):
        await store.keep_places(
            [place("room", hostile_id, reason, "omb_x"), place("level", "omb_x", reason, None)]
        )
        await store.keep_people({"ou_x": reason})
        await append(store, changed("ev-1", hostile_id, now_ms()))
        await store.settle("booking", [Outcome.dead(delivery(1), error=reason)])
        url = str(client.base_url).rstrip("/")
        await sign_in(page, url)
        someone = {"allow_all_users": 0, "allow_users": [{"open_id": "ou_x"}]}
        await append(store, changed(f"ev-{reason}", hostile_id, now_ms(), members=someone))
        await page.until("document.querySelectorAll('.feed li').length === 2")
        await page.write("[name=q]", "<img")
        await page.until("document.querySelector('.matches')")
        for path in ("/", "/scopes", "/deliveries", "/?q=%3Cimg%20src%3Dx%20onerror%3Dwindow.hit%3D1%3E"):
            await page.open(url + path)
            await page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
            assert await page.run("document.images.length") == 0, path
            assert await page.run("window.hit") is None, path
        await page.open(url)
        await page.loaded(page.click("#feed .where"))
        assert "<img src=x" in await page.text("h1")
        assert await page.run("document.images.length") == 0
        assert page.failed == []
