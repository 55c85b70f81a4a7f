"""What a card looks like: golden texts in both languages, and the platform's bounds for any event."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from reserve_listener.daemon.alerts.conditions import page_of
from reserve_listener.daemon.alerts.words import LANGUAGES as ALERT_WORDS, Words
from reserve_listener.intake.terms import TERMS
from reserve_listener.simulator.openapi import cards as platform
from reserve_listener.sinks.feishu_card.cards import Look, alert_card, alert_text, change_card, change_text

if TYPE_CHECKING:
    from collections.abc import Iterator

BOT_BYTES: Final = 20_000
MOST_ELEMENTS: Final = 180
MENTION: Final = re.compile(r"<\s*/?\s*(at|person)\b|@\s*_?(all|everyone|所有人)", re.IGNORECASE)

# Each tag that is used, with the properties that the platform knows of it: one more, and it refuses the card.
KNOWN: Final = {
    "plain_text": {"tag", "content", "text_size", "text_color"},
    "text_tag": {"tag", "text", "color"},
    "div": {"tag", "text"},
    "button": {"tag", "text", "type", "behaviors"},
    "table": {"tag", "page_size", "row_height", "row_max_height", "header_style", "columns", "rows"},
}
HEADER: Final = {"title", "subtitle", "text_tag_list", "template"}


def event(changes: Any = None, **data: Any) -> dict[str, Any]:
    """An event as a sink receives it."""
    config = {
        "approve_config": {
            "approval_switch": True,
            "approval_condition": "conditional",
            "meeting_duration": 1,
        },
        "time_config": {"time_switch": True, "days_in_advance": 30, "max_duration": 2},
    }
    named = {"scope_id": "omm_ada", "scope_type": "room", "scope_name": "3F-Ada", "scope_path": ["Beijing", "Tower A"]}  # fmt: skip
    body = {"id": "e1", "subject": "omm_ada", "time": "2026-11-26T06:07:03.000Z"}
    return body | {"data": named | config | {"revision": 7, "changes": changes} | data}


def alert(name: str = "sink_down", state: str = "firing", **data: Any) -> dict[str, Any]:
    """An alert as a sink receives it."""
    told = {
        "alert": name, "state": state, "since": "2026-11-26T06:00:00.000Z", "summary": "The sink crm is down.",
        "detail": "HTTP 503. Its deliveries wait and are retried.",
    }  # fmt: skip
    return {"subject": name, "time": "2026-11-26T06:20:00.000Z", "data": told | data}


def change(path: str, before: Any, after: Any, **more: Any) -> dict[str, Any]:
    """One value."""
    return {"path": path, "before": before, "after": after} | more


def elements(card: Any) -> Iterator[dict[str, Any]]:
    """All that has a tag."""
    if isinstance(card, dict):
        if "tag" in card:
            yield card
        for value in card.values():
            yield from elements(value)
    elif isinstance(card, list):
        for value in card:
            yield from elements(value)


def keeps_the_bounds(card: dict[str, Any]) -> None:
    """Bytes, elements, properties, tables, texts; and nobody is notified."""
    written = msgspec.json.encode(card)
    assert len(written) <= BOT_BYTES
    assert not MENTION.search(json.dumps(card, ensure_ascii=False))
    assert card.keys() == {"schema", "config", "header", "body"}
    assert card["schema"] == "2.0"
    assert card["config"].keys() == {"update_multi", "width_mode", "summary"}
    assert card["header"].keys() <= HEADER
    assert 1 <= len(card["header"]["title"]["content"]) <= 120
    assert len(card["header"].get("text_tag_list", [])) <= 3
    found = list(elements(card))
    assert len(found) <= MOST_ELEMENTS
    for one in found:
        assert one.keys() <= KNOWN[one["tag"]]
    tables = [one for one in card["body"]["elements"] if one["tag"] == "table"]
    assert len(tables) <= 1
    for table in tables:
        assert 1 <= table["page_size"] <= 10
        assert {column["data_type"] for column in table["columns"]} == {"text"}
        names = {column["name"] for column in table["columns"]}
        assert all(row.keys() == names for row in table["rows"])
    texts = [text for one in found for text in (one.get("content"),) if text is not None]
    texts += [cell for table in tables for row in table["rows"] for cell in row.values()]
    assert all(text and "\n" not in text and len(text) <= 1_000 for text in texts)


def keeps_the_bounds_of_text(text: str) -> None:
    """Bytes; and nobody is notified."""
    assert 1 <= len(msgspec.json.encode(text)) <= BOT_BYTES
    assert not MENTION.search(text)


ZH, EN = Look("zh", None), Look("en", None)
FOREIGN: Final = st.one_of(
    st.text(max_size=400),
    st.sampled_from(("<at id=all></at>", '<at user_id="all">所有人</at>', "@all @_all @所有人", "a" * 5_000, "\ud83d", "**b** [x](http://x)", "𠮷" * 300, '"\\' * 200)),
)  # fmt: skip
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | FOREIGN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FOREIGN, inner, max_size=4),
    max_leaves=12,
)
PATHS: Final = st.sampled_from([term.path for term in TERMS]) | FOREIGN
CHANGES: Final = st.one_of(
    st.none(),
    JSON,
    st.lists(
        st.fixed_dictionaries({"path": PATHS}, optional={"before": JSON, "after": JSON, "effective": JSON})
        | st.fixed_dictionaries({"path": PATHS}, optional={"added": JSON, "removed": JSON}),
        max_size=30,
    ),
)
DATA: Final = JSON | st.fixed_dictionaries(
    {},
    optional={
        "scope_id": FOREIGN, "scope_type": st.sampled_from(("room", "level")) | JSON, "scope_name": FOREIGN,
        "scope_path": st.lists(FOREIGN, max_size=6) | JSON, "changes": CHANGES, "superseded": st.booleans(),
        "origin": st.just("reconcile") | JSON, "summary": FOREIGN, "approve_config": JSON, "time_config": JSON,
        "reserve_scope_config": JSON,
        "alert": st.sampled_from(("gap", "test")) | JSON, "state": st.sampled_from(("firing", "resolved")),
        "since": st.just("0001-01-01T00:00:00Z") | JSON, "detail": FOREIGN,
    },
)  # fmt: skip
BODIES: Final = st.fixed_dictionaries(
    {"data": DATA}, optional={"time": FOREIGN, "subject": JSON, "test": JSON}
)
LOOKS: Final = st.builds(
    Look,
    st.sampled_from(("en", "zh")),
    st.sampled_from((None, "https://rooms.corp.example", "https://rooms.corp.example/limits/")),
)


@example(bodies=[{"data": {"changes": [{"path": "", "before": "", "after": " "}]}}], look=EN)
@given(bodies=st.lists(BODIES, min_size=1, max_size=5), look=LOOKS)
def test_any_events_make_a_card_within_the_bounds(bodies: list[dict[str, Any]], look: Look) -> None:
    """Whatever stands in them, the platform takes the card, and the text in its place; and nobody is notified."""
    card = change_card(bodies, look)
    keeps_the_bounds(card)
    platform.check(card)
    assert platform.pinged("interactive", card) == set()
    keeps_the_bounds_of_text(change_text(bodies, look))


@given(body=BODIES, look=LOOKS)
def test_any_alert_makes_a_card_within_the_bounds(body: dict[str, Any], look: Look) -> None:
    """The same for alerts."""
    card = alert_card(body, look)
    keeps_the_bounds(card)
    platform.check(card)
    keeps_the_bounds_of_text(alert_text(body, look))


@pytest.mark.parametrize("count", [2, 37, 500])
@pytest.mark.parametrize("name", ["3F", "会议室" * 100, '"\\' * 30, "𠮷" * 60])
def test_many_rooms_fold_into_one_card(count: int, name: str) -> None:
    """However long their names: the title counts them, the first stand in the table, and the others are counted."""
    bodies = [
        event([change("time_config.max_duration", 24, 2)], scope_id=f"omm_{n}", scope_name=f"{n} {name}", scope_path=[name] * 5)
        for n in range(count)
    ]  # fmt: skip
    card = change_card(bodies, EN)
    keeps_the_bounds(card)
    keeps_the_bounds_of_text(change_text(bodies, EN))
    assert card["header"]["title"]["content"] == f"{count} rooms changed"
    rows = card["body"]["elements"][0]["rows"]
    shown = len(rows)
    assert 2 <= shown <= 20
    assert [row["place"].split()[0] for row in rows] == [str(n) for n in range(shown)]
    left = [one["text"]["content"] for one in card["body"]["elements"][1:]]
    assert (f"and {count - shown} more" in left) == (count > shown)


@pytest.mark.parametrize(
    "name", ["<at id=all></at>", '<AT user_id="all">x</AT>', "@all", "@所有人", "< at id=all>"]
)
def test_a_name_notifies_nobody(name: str) -> None:
    """A mention in a room's name is shown and is none, in a card and in the text in its place."""
    bodies = [event([change("time_config.max_duration", 24, name)], scope_name=name, scope_path=[name])]
    for several in (bodies, bodies * 2):
        keeps_the_bounds(change_card(several, EN))
        keeps_the_bounds_of_text(change_text(several, EN))
    assert "at id=all" in change_text([event(scope_name="<at id=all>")], EN)


def test_people_are_named_as_the_event_names_them() -> None:
    """A known approver stands in the event's own sentence; in another language than its, they are counted."""
    sealed = event([change("time_config.max_duration", 24, 2)], summary="approver Li Lei added")
    for look, named in ((Look("en", None, "en"), True), (Look("zh", None, "en"), False)):
        assert ("Li Lei" in json.dumps(change_card([sealed], look))) is named


def test_a_test_of_alerts_is_marked_once() -> None:
    """The state is the mark: a second tag with the same word would say nothing."""
    tags = alert_card(alert("test") | {"test": True}, EN)["header"]["text_tag_list"]
    assert [tag["text"]["content"] for tag in tags] == ["test"]


def test_a_name_is_cut_between_characters() -> None:
    """A long name of characters beyond the 16-bit plane stays text; half of one is shown as what it is."""
    title = change_card([event(scope_name="𠮷" * 100)], ZH)["header"]["title"]["content"]
    assert title == "𠮷" * 59 + "…"
    assert change_card([event(scope_name="\ud83d")], ZH)["header"]["title"]["content"] == "\\ud83d"


def test_the_button_leads_to_the_page() -> None:
    """Of the room for one, of all changes for several and for alerts; without an address there is none."""
    look = Look("en", "https://rooms.corp.example")
    one, several = [event()], [event(), event(scope_id="omm_b")]
    found = [
        [one["behaviors"][0]["default_url"] for one in elements(card) if one["tag"] == "button"]
        for card in (change_card(one, look), change_card(several, look), alert_card(alert(), look))
    ]
    page = "https://rooms.corp.example/"
    assert found == [[f"{page}scopes/omm_ada"], [page], [page]]
    assert [one for one in elements(change_card(one, EN)) if one["tag"] == "button"] == []


@pytest.mark.parametrize("words", ALERT_WORDS.values(), ids=ALERT_WORDS)
@pytest.mark.parametrize("ending", ["", "/", "/limits", "/limits/"])
def test_an_alert_leads_to_where_more_is_told_of_it(words: Words, ending: str) -> None:
    """By the button alone: the line with the address is not said twice, and what stands before it stays whole."""
    public = f"https://rooms.corp.example{ending}"
    look = Look("en", public)
    page = f"{public.rstrip('/')}/"
    for name, url in (("disconnected", page), ("sink_down", f"{page}deliveries")):
        link = words.page.format(url=page_of(name, public))
        told = alert()
        told["data"] |= {"alert": name, "detail": f"To see why, run: reserve-listener sinks list\n{link}"}
        card = alert_card(told, look)
        (button,) = [one for one in elements(card) if one["tag"] == "button"]
        assert button["behaviors"][0]["default_url"] == url
        assert "sinks list" in json.dumps(card)
        assert json.dumps(card).count("https://rooms") == 1
        assert alert_text(told, look).endswith(f"\n{url}")
