"""The pictures of the README and the docs: the exhibition as a browser shows it. `make pictures` writes them anew."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

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
