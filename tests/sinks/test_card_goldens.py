"""Cards of the usual changes and alerts, in both languages, as a person reads them: `cards.txt`.

`GOLDEN=1` writes the file anew; what is different then is read by somebody who reads both languages.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from reserve_listener.intake.changes import diff
from reserve_listener.intake.summary import summarise
from reserve_listener.sinks.feishu_card.cards import Look, alert_card, change_card
from tests.intake.test_summary import LIMITS, NAMES, built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FILE: Final = Path(__file__).with_name("cards.txt")
PAGE: Final = "https://rooms.corp.example"
ADA: Final = ("3F-Ada", "Shanghai HQ", "Tower B", "3F")
NOBODY_KNOWS: Final = (None,)
HOURS: Final = '{"start_time": 28800, "end_time": 72000}'
APPROVAL: Final = '{"approval_switch": true, "approval_condition": "conditional", "meeting_duration": 3}'
ADDED: Final = (
    '{"approval_switch": true, "approval_condition": "conditional", "meeting_duration": 3,'
    ' "approvers": [{"id": "1", "open_id": "ou_ada"}, {"id": "2", "open_id": "ou_zhang"}]}'
)


def event(
    before: str | None,
    now: str,
    place: tuple[str | None, ...] = ADA,
    *,
    scope_type: str = "room",
    number: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """As sinks receive it; the last of the names first, as `place`. Without `before` it is the first of its room."""
    known = None if before is None else built(before)
    config = built(now)
    changes = None if known is None else diff(known, config)
    name, *path = place
    names = {"scope_name": name, "scope_path": path} if name is not None else {}
    data = {"scope_id": f"omm_{number}", "scope_type": scope_type, **names, **config, "revision": 4}
    said = {"changes": changes, "summary": summarise(changes, config, "zh", NAMES)}
    return {
        "id": "e",
        "subject": f"omm_{number}",
        "time": "2026-11-26T06:07:03.000Z",
        "data": data | said | more,
    }


def alert(name: str, state: str, summary: str, detail: str) -> dict[str, Any]:
    """As sinks receive it."""
    data = {
        "alert": name,
        "state": state,
        "since": "2026-11-26T05:58:00.000Z",
        "summary": summary,
        "detail": detail,
    }
    return {"subject": name, "time": "2026-11-26T06:10:00.000Z", "data": data}


CHANGES: Final[dict[str, list[dict[str, Any]]]] = {
    "one limit": [event("{}", '{"max_duration": 2}')],
    "several limits": [event("{}", '{"days_in_advance": 60, "start_time": 28800, "end_time": 72000, "max_duration": 2}')],
    "approval, with people added": [event("{}", ADDED)],
    "approval taken away": [event(APPROVAL, "{}")],
    "who may book": [
        event("{}", '{"allow_all_users": false, "allow_depts": [{"id": "3", "open_department_id": "od-sales"}]}')
    ],
    "the switch of the time limits turned off": [event(HOURS, '{"time_switch": false, "max_duration": 2}')],
    "the first that is heard of a room": [event(None, HOURS)],
    "a level": [event("{}", '{"days_in_advance": 7}', ("3F", "Shanghai HQ", "Tower B"), scope_type="level")],
    "a room whose name is not known": [event("{}", '{"max_duration": 2}', NOBODY_KNOWS)],
    "nothing that we know of": [event("{}", '{"+": {"new_config": {"on": true}}}')],
    "a late push": [event(None, HOURS, changes=[], superseded=True)],
    "found by comparing": [event("{}", '{"max_duration": 2}', origin="reconcile")],
    "a name that would notify, and marks of Markdown": [
        event("{}", '{"max_duration": 2}', ("<at id=all></at> **Ada** [x](http://evil.example) @all", "HQ"))
    ],
    "37 rooms at once": [
        event("{}", f'{{"max_duration": {2 + number % 3}}}', (f"Room {number + 1}", "Shanghai HQ", "Tower B"), number=number)
        for number in range(37)
    ],
    "a room twice, and another": [
        event("{}", '{"max_duration": 2}'),
        event('{"max_duration": 2}', '{"max_duration": 4}'),
        event("{}", APPROVAL, ("西湖厅", "Shanghai HQ", "Tower A"), number=1),
    ],
}  # fmt: skip

ALERTS: Final[dict[str, dict[str, Any]]] = {
    "a sink is down": alert("sink_down", "firing", "Sink “booking” is down: HTTP 503", f"12 deliveries wait; nothing is lost.\nreserve-listener sinks test booking\nSee {PAGE}/deliveries"),
    "it delivers again": alert("sink_down", "resolved", "Sink “booking” delivers again", "It was down for 12 minutes."),
    "not connected": alert("disconnected", "firing", "Not connected to the platform", f"It tries again in 18 s.\nSee {PAGE}"),
    "a commit that failed": alert("commit_failing", "firing", "Pushes are answered 500", "database or disk is full"),
    "an alert of a newer version": alert("sun_flares", "firing", "Sun flares", ""),
}  # fmt: skip


@pytest.fixture
def _in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where times are local, whatever this machine's zone is."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_shanghai")
def test_the_cards_read_as_they_should() -> None:
    """Title, place, tags, sentence, table, notes and link of each, word for word."""
    told = "\n".join(_all("zh") + _all("en"))
    if os.environ.get("GOLDEN"):
        FILE.write_text(told, encoding="utf-8")
    assert told.splitlines() == FILE.read_text(encoding="utf-8").splitlines()


def test_the_limits_that_the_cards_start_from_are_known() -> None:
    """An event without differences changes nothing: what the file says is of the differences alone."""
    assert diff(built("{}"), LIMITS) == []


def _all(language: Literal["en", "zh"]) -> list[str]:
    look = Look(language, PAGE)
    cards = {name: change_card(bodies, look) for name, bodies in CHANGES.items()}
    cards |= {name: alert_card(body, look) for name, body in ALERTS.items()}
    return [f"== {language}: {name}\n{_read(card)}\n" for name, card in cards.items()]


def _read(card: Mapping[str, Any]) -> str:
    header = card["header"]
    tags = "".join(f" [{tag['text']['content']}]" for tag in header.get("text_tag_list", ()))
    lines = [f"{header['template'].upper()} {header['title']['content']}{tags}"]
    lines += [f"      {header['subtitle']['content']}"] if "subtitle" in header else []
    for element in card["body"]["elements"]:
        lines += _READ[element["tag"]](element)
    return "\n".join([*lines, f"in the list of chats: {card['config']['summary']['content']}"])


def _table(element: Mapping[str, Any]) -> list[str]:
    columns = element["columns"]
    rows = [[row[column["name"]] for column in columns] for row in element["rows"]]
    return [f"  | {' | '.join(cells)} |" for cells in ([column["display_name"] for column in columns], *rows)]


_READ: Final[dict[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    "div": lambda element: [("  " if "text_color" in element["text"] else "") + element["text"]["content"]],
    "table": _table,
    "button": lambda element: [f"({element['text']['content']}) {element['behaviors'][0]['default_url']}"],
}
