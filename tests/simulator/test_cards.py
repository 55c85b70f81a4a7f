"""The simulated platform refuses the cards that the platform refuses, and tells whom a message pings."""

from __future__ import annotations

from typing import Any

import pytest

from reserve_listener.simulator.openapi import cards
from reserve_listener.simulator.openapi.cards import RefusedCardError

AT_ALL = "<at id=all></at>"


def plain(text: str) -> dict[str, Any]:
    return {"tag": "plain_text", "content": text}


def table(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    names = [("limit", "text"), ("after", "text")]
    columns = [{"name": name, "display_name": name, "data_type": kind} for name, kind in names]
    return {"tag": "table", "page_size": 10, "columns": columns, "rows": rows} | more


def card(*elements: dict[str, Any], **header: Any) -> dict[str, Any]:
    return {
        "schema": "2.0",
        "config": {"update_multi": True, "width_mode": "fill"},
        "header": {"title": plain("3F-Ada"), "template": "orange"} | header,
        "body": {"elements": list(elements)},
    }


def panel(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"tag": "collapsible_panel", "header": {"title": plain("more")}, "elements": list(elements)}


def nested(depth: int) -> dict[str, Any]:
    element: dict[str, Any] = {"tag": "hr"}
    for _ in range(depth):
        element = panel(element)
    return element


BUTTON = {
    "tag": "button",
    "text": plain("history"),
    "behaviors": [{"type": "open_url", "default_url": "https://rooms.example/scopes/omm_1"}],
}
ROW = {"limit": "at most", "after": "2 h"}


@pytest.mark.parametrize(
    "good",
    [
        card(),
        card({"tag": "div", "text": plain("at most 24 h → 2 h per booking")}, table([ROW] * 40), BUTTON),
        card({"tag": "div", "fields": [{"is_short": True, "text": plain("before")}]}),
        card(*[table([ROW])] * cards.TABLES),
        card(*[{"tag": "hr"}] * 190),
        card(nested(cards.DEEPEST)),
        card({"tag": "markdown", "content": f"{AT_ALL} <at id=ou_1></at>"}),
        card(
            subtitle=plain("Floor 3"),
            text_tag_list=[{"tag": "text_tag", "text": plain("new"), "color": "blue"}],
        ),
        card({"tag": "hr", "element_id": "rule_1"}, {"tag": "hr", "element_id": "rule_2"}),
    ],
)
def test_a_card_within_the_bounds_is_taken(good: dict[str, Any]) -> None:
    """Every element that a card may need, up to the documented bounds."""
    cards.check(good)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("no card", cards.NOT_A_CARD),
        ({"header": {}, "body": {"elements": []}}, cards.NOT_A_CARD),  # without schema it is a card of 1.0
        ({"schema": "2.0"}, cards.NOT_A_CARD),
        (card() | {"elements": []}, cards.NOT_A_CARD),
        (card({"tag": "div", "text": plain("a"), "colour": "red"}), cards.NOT_A_CARD),
        (card({"tag": "div", "text": plain("a") | {"i18n": {}}}), cards.NOT_A_CARD),
        (card(template="pink"), cards.NOT_A_CARD),
        (card(title="3F-Ada"), cards.NOT_A_CARD),
        (card(text_tag_list=[{"tag": "text_tag", "text": plain("new")}] * 4), cards.NOT_A_CARD),
        (card(text_tag_list=[{"tag": "text_tag", "text": plain("new"), "color": "grey"}]), cards.NOT_A_CARD),
        (card({"tag": "note", "elements": []}), cards.GONE_IN_2),
        (card({"tag": "header"}), cards.NOT_A_CARD),
        (card({"tag": "blink"}), cards.NOT_A_CARD),
        (card(*[{"tag": "hr"}] * 200), cards.TOO_MANY),
        (card(*[table([ROW])] * (cards.TABLES + 1)), cards.TOO_MANY),
        (card(panel(table([ROW]))), cards.NOT_A_CARD),
        (card(nested(cards.DEEPEST + 1)), cards.NOT_A_CARD),
        (card(table([ROW], page_size=11)), cards.NOT_A_CARD),
        (card(table([ROW], columns=[])), cards.NOT_A_CARD),
        (card(table([ROW | {"before": "24 h"}])), cards.BAD_ROW),
        (card(table([{"limit": 24}])), cards.BAD_ROW),
        (card({"tag": "hr", "element_id": "1st"}), cards.NOT_A_CARD),
        (card({"tag": "hr", "element_id": "a" * 21}), cards.NOT_A_CARD),
        (card(*[{"tag": "hr", "element_id": "same"}] * 2), cards.NOT_A_CARD),
        (card({"tag": "markdown", "content": "<at id=somebody></at>"}), cards.BAD_PERSON),
    ],
)
def test_a_card_beyond_the_bounds_is_refused(bad: Any, code: int) -> None:
    """Each with the code that the platform gives, an unknown property and the sixth table among them."""
    with pytest.raises(RefusedCardError) as refused:
        cards.check(bad)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("msg_type", "content", "whom"),
    [
        ("interactive", card({"tag": "markdown", "content": f"hello {AT_ALL}"}), {"all"}),
        ("interactive", card({"tag": "div", "text": {"tag": "lark_md", "content": AT_ALL}}), {"all"}),
        ("interactive", card({"tag": "div", "text": plain(AT_ALL)}, title=plain(AT_ALL)), set()),
        ("interactive", card(table([{"limit": AT_ALL, "after": AT_ALL}])), set()),
        (
            "interactive",
            card(table([{"room": AT_ALL}], columns=[{"name": "room", "data_type": "lark_md"}])),
            {"all"},
        ),
        ("interactive", card({"tag": "markdown", "content": "&#60;at id=all&#62;"}), set()),
        ("text", {"text": '<at user_id="all">everyone</at>'}, {"all"}),
        ("text", {"text": "room @all"}, set()),
    ],
)
def test_whom_a_message_pings(msg_type: str, content: dict[str, Any], whom: set[str]) -> None:
    """A mention counts where markup is read, and nowhere else."""
    assert cards.pinged(msg_type, content) == whom


def test_all_that_a_card_says() -> None:
    """Texts at any depth, in order."""
    said = list(cards.texts({"a": ["one", {"b": "two"}], "c": 3}))
    assert said == ["one", "two"]
