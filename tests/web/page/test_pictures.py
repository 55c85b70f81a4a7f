"""The pictures of the README and the docs: the exhibition as a browser shows it. `make pictures` writes them anew."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from reserve_listener.sinks.feishu_card.cards import Look, alert_card, change_card
from tests.sinks.card_page import page_of
from tests.web.page.exhibition import LATE, WELL, that_day
from tests.web.page.test_browser import ADA, shown

if TYPE_CHECKING:
    from tests.backends import Backend
    from tests.web.page.chromium import Page

FOLDER = Path(__file__).parents[3] / "docs" / "page"
LIMIT_BYTES = 150_000


class Picture(NamedTuple):
    """What is shown, how the daemon is, and how it is looked at. `first`: what is done to the page before."""

    name: str
    path: str
    how: dict[str, Any]
    size: tuple[int, int]
    language: str = "en"
    dark: bool = False
    first: str = "0"


PICTURES = (
    Picture("changes", "/", WELL, (1180, 760), first="document.querySelector('.feed details').open = true"),
    Picture("late-dark", "/", LATE, (1180, 760), dark=True, first="document.querySelector('#what-to-do').open = true"),
    Picture("room-zh", f"/scopes/{ADA}", WELL, (1180, 760), language="zh-CN"),
    Picture("deliveries", "/deliveries", LATE, (1180, 700), first="document.querySelector('#sinks details').open = true"),
    Picture("phone", "/", LATE, (360, 700)),
)  # fmt: skip


@pytest.mark.parametrize("wanted", PICTURES, ids=lambda wanted: str(wanted.name))
async def test_the_docs_show_the_page(
    backend: Backend, page: Page, monkeypatch: pytest.MonkeyPatch, wanted: Picture
) -> None:
    """A small picture of its size is in the docs under its name; written only when asked for, since fonts differ."""
    await page.size(*wanted.size)
    await page.look(dark=wanted.dark)
    await page.speak(wanted.language)
    with that_day(monkeypatch):
        async with shown(backend, page, **wanted.how) as url:
            await page.open(url + wanted.path)
            await page.run(wanted.first)
            png = await page.picture(whole=False)
    assert struct.unpack(">II", png[16:24]) == wanted.size
    file = FOLDER / f"{wanted.name}.png"
    if os.environ.get("PICTURES"):
        file.write_bytes(png)
    assert file.stat().st_size < LIMIT_BYTES
    assert f"page/{file.name}" in (FOLDER.parent / "page.md").read_text()


ROOMS = ("3F-Ada", "西湖厅", "Boardroom", "5F-Turing", "5F-Lovelace", "Orchard", "九寨沟", "Nimbus")


def changed(room: str, number: int, place: tuple[str, ...], *changes: tuple[str, Any, Any]) -> dict[str, Any]:
    """An event as sinks receive it."""
    data = {
        "scope_id": f"omm_{number}",
        "scope_type": "room",
        "scope_name": room,
        "scope_path": list(place),
        "approve_config": {
            "approval_switch": True,
            "approval_condition": "conditional",
            "meeting_duration": 1,
        },
        "time_config": {"time_switch": True, "days_in_advance": 30, "max_duration": 2},
        "revision": 4,
        "changes": [{"path": path, "before": before, "after": after} for path, before, after in changes],
    }
    return {"id": "e", "subject": f"omm_{number}", "time": "2026-11-26T06:07:03.000Z", "data": data}


def alert(state: str) -> dict[str, Any]:
    """An alert as sinks receive it."""
    summary = 'sink "booking" is down' if state == "firing" else 'sink "booking" delivers again'
    data = {"alert": "sink_down", "state": state, "since": "2026-11-26T05:58:00.000Z", "summary": summary}
    told = {"firing": "HTTP 503: the room calendar is being updated. 12 deliveries wait; nothing is lost.", "resolved": "It was down for 12 minutes."}  # fmt: skip
    detail = told[state]
    return {"subject": "sink_down", "time": "2026-11-26T06:10:00.000Z", "data": data | {"detail": detail}}


async def test_the_docs_show_the_cards(page: Page, tmp_path: Path) -> None:
    """One change, many in one card, an alert and its end: as JSON they are what is posted."""
    en, zh = Look("en", "https://rooms.corp.example"), Look("zh", "https://rooms.corp.example")
    one = changed(
        "3F-Ada", 0, ("Shanghai HQ", "Tower B", "3F"),
        ("approve_config.approval_switch", False, True), ("time_config.max_duration", 1, 2),
    )  # fmt: skip
    many = [
        changed(f"{ROOMS[number % 8]} {number + 1}", number, ("上海总部", "A 座"), ("time_config.max_duration", 24, 2 + number % 3))
        for number in range(37)
    ]  # fmt: skip
    cards = [change_card([one], en), change_card(many, zh), alert_card(alert("firing"), en), alert_card(alert("resolved"), en)]  # fmt: skip
    (tmp_path / "cards.html").write_text(page_of(cards))
    await page.size(980, 780)
    await page.open(f"file://{tmp_path}/cards.html")
    png = await page.picture(whole=True)
    file = FOLDER / "cards.png"
    if os.environ.get("PICTURES"):
        file.write_bytes(png)
    assert file.stat().st_size < LIMIT_BYTES
    assert f"page/{file.name}" in (FOLDER.parent / "sink-feishu_card.md").read_text()
