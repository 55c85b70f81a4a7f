"""Changes and alerts as cards (JSON 2.0), and as plain text where a card is refused. Pure.

What must stay true, for any event: a card keeps the platform's bounds (bytes, elements, rows); it holds no property that the
platform does not know, since that refuses the whole card; and foreign text stands only where no markup is read.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from reserve_listener.intake.words import fill
from reserve_listener.sinks.feishu_card import meaning
from reserve_listener.sinks.feishu_card.telling import (
    LONGEST_DETAIL,
    LONGEST_PATH,
    LONGEST_SENTENCE,
    LONGEST_URL,
    STEP,
    Look,
    Told,
    local,
    mapping,
    moment,
    plain,
    span,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Look", "alert_card", "alert_text", "change_card", "change_text"]

Card = dict[str, Any]
Element = dict[str, Any]
Made = TypeVar("Made", Card, str)

LARGEST_BYTES: Final = 18_000
"""A bot's message may have 20 KB, with its signature; what an app sends is escaped once more, and may have 30 KB."""

MOST_ROWS: Final = 20
"""Of a table: two pages of it."""
ROWS_OF_A_PAGE: Final = 10
"""As many as the platform allows: with fewer, most of a card would have to be leafed through."""
HIGHEST_ROW: Final = "160px"
"""A longer cell is cut by the client, and shown whole when it is touched."""
MOST_TAGS: Final = 3
DETAIL_LINES: Final = 4
"""Of an alert's detail; the last is often a command that people copy."""
LONGEST_NOTICE: Final = 200
"""Of what a notification shows of a card."""

URGENT: Final = frozenset({"disconnected", "gap", "commit_failing"})
"""Alerts while which changes are not heard or not taken."""


def change_card(bodies: Sequence[Mapping[str, Any]], look: Look) -> Card:
    """One event as the card of its change; several, in their order, as one card with a row for each."""
    if len(bodies) == 1:
        return _one(told(bodies[0], look), look)
    return _several([told(body, look) for body in bodies], look)


def change_text(bodies: Sequence[Mapping[str, Any]], look: Look) -> str:
    """The same as plain text."""
    if len(bodies) == 1:
        one = told(bodies[0], look)
        return _lines(_titled(one), f"{one.sentence}{_bracketed(one.kinds)}", one.note, one.url)
    many = [told(body, look) for body in bodies]
    return _fitting(
        lambda most: _lines(
            _title_of(many, look),
            *(f"{_titled(one)}{look.words.colon}{_in_row(one)}" for one in many[:most]),
            _left_out(len(many), most, look),
            span((one.at for one in many), look),
            look.page,
        ),
        len(many),
    )


def alert_card(alert: Mapping[str, Any], look: Look) -> Card:
    """An alert that begins, goes on, or has ended."""
    data = mapping(alert.get("data"))
    is_firing = data.get("state") != "resolved"
    state, colour = _state_of(data, look)
    detail, page = _detail(data, look)
    return _card(
        title=_title_of_alert(data, look),
        notice=_summary(data),
        colour=colour,
        tags=[_tag(state, colour)],
        elements=[
            _text(_summary(data)),
            *(_text(line, is_small=True) for line in detail),
            *_note(_times(alert, is_firing=is_firing, look=look)),
            *_button(look.words.open_page if page == look.page else look.words.open_more, page),
        ],
    )


def alert_text(alert: Mapping[str, Any], look: Look) -> str:
    """The same as plain text."""
    data = mapping(alert.get("data"))
    state, _ = _state_of(data, look)
    detail, page = _detail(data, look)
    return _lines(
        f"{_title_of_alert(data, look)}{_bracketed([state])}",
        _summary(data),
        *detail,
        _times(alert, is_firing=data.get("state") != "resolved", look=look),
        page,
    )


# -- changes ------------------------------------------------------------------------------------------------------------


def _one(one: Told, look: Look) -> Card:
    words = look.words
    columns = (("limit", words.limit), ("before", words.before), ("after", words.after))
    rows = [{"limit": row.name, "before": row.before, "after": row.after} for row in one.rows]
    return _fitting(
        lambda most: _card(
            title=one.name,
            subtitle=plain(STEP.join(one.path), LONGEST_PATH),
            notice=f"{one.name}{words.colon}{one.sentence}",
            colour=one.colour,
            tags=[_tag(kind) for kind in one.kinds],
            elements=[
                _text(one.sentence),
                *_table(columns, rows[:most]),
                *_note(_left_out(len(rows), most, look)),
                *_note(one.note),
                *_button(words.open_place, one.url),
            ],
        ),
        len(rows),
    )


def _several(many: Sequence[Told], look: Look) -> Card:
    words, shared = look.words, _shared_path(many)
    kinds = {one.scope[0] for one in many}
    column = words.column.get(kinds.pop() if len(kinds) == 1 else "", words.column[""])
    rows = [
        {"place": plain(STEP.join((*one.path[len(shared) :], one.name)), LONGEST_PATH), "told": _in_row(one)}
        for one in many
    ]
    title = _title_of(many, look)
    return _fitting(
        lambda most: _card(
            title=title,
            subtitle=plain(STEP.join(shared), LONGEST_PATH),
            notice=title,
            colour=meaning.together(one.colour for one in many),
            elements=[
                *_table((("place", column), ("told", words.what_changed)), rows[:most]),
                *_note(_left_out(len(rows), most, look)),
                *_note(span((one.at for one in many), look)),
                *_button(words.open_page, look.page),
            ],
        ),
        len(rows),
    )


def _shared_path(many: Sequence[Told]) -> tuple[str, ...]:
    """The levels that all of them are in."""
    levels = zip(*(one.path for one in many), strict=False)
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _title_of(many: Sequence[Told], look: Look) -> str:
    words, scopes = look.words, {one.scope for one in many}
    kinds = {scope_type for scope_type, _ in scopes}
    kind = kinds.pop() if len(kinds) == 1 else ""
    if len(scopes) == len(many):
        return fill(words.places.get(kind, words.places[""]), len(many))
    if len(scopes) == 1:
        return fill(words.one_place.get(kind, words.one_place[""]), len(many))
    return fill(words.places_and_changes.get(kind, words.places_and_changes[""]), len(scopes), len(many))


def _titled(one: Told) -> str:
    return plain(STEP.join((*one.path, one.name)), LONGEST_PATH)


def _in_row(one: Told) -> str:
    return f"{one.sentence}{_bracketed(one.kinds)}"


def _bracketed(kinds: Sequence[str]) -> str:
    return f" ({', '.join(kinds)})" if kinds else ""


def _left_out(count: int, most: int, look: Look) -> str:
    return fill(look.words.and_more, count - most) if count > most else ""


# -- alerts -------------------------------------------------------------------------------------------------------------


def _title_of_alert(data: Mapping[str, Any], look: Look) -> str:
    name = data.get("alert")
    name = name if isinstance(name, str) else "?"
    return look.words.alerts.get(name) or plain(look.words.alert.format(name), LONGEST_PATH)


def _state_of(data: Mapping[str, Any], look: Look) -> tuple[str, str]:
    if data.get("state") == "resolved":
        return look.words.resolved, "green"
    if data.get("alert") == "test":
        return look.words.test, "blue"
    return look.words.firing, "red" if str(data.get("alert")) in URGENT else "orange"


def _summary(data: Mapping[str, Any]) -> str:
    text = data.get("summary")
    return plain(text, LONGEST_SENTENCE) if isinstance(text, str) and text else "?"


def _detail(data: Mapping[str, Any], look: Look) -> tuple[list[str], str | None]:
    """Line by line; and where the page has more about it, which stands at its end and is a button of the card."""
    text = data.get("detail")
    lines = text.split("\n") if isinstance(text, str) else []
    page = look.page
    if page and lines and (found := lines[-1].find(page.rstrip("/"))) >= 0:
        url = lines.pop()[found:].split()[0]
        page = url if page.rstrip("/") != url and len(url) <= LONGEST_URL else page
    short = [plain(line, LONGEST_DETAIL // DETAIL_LINES) for line in lines[:DETAIL_LINES]]
    return list(filter(None, short)), page


def _times(alert: Mapping[str, Any], *, is_firing: bool, look: Look) -> str:
    since, at = moment(mapping(alert.get("data")).get("since")), moment(alert.get("time"))
    if is_firing or since is None or at is None:
        return "" if since is None else look.words.since.format(local(since))
    return span((since, at), look)


# -- parts of a card ----------------------------------------------------------------------------------------------------


def _card(
    *,
    title: str,
    subtitle: str = "",
    notice: str,
    colour: str,
    tags: Sequence[Element] = (),
    elements: list[Element],
) -> Card:
    header: Card = {"title": _plain_text(title), "template": colour}
    if subtitle:
        header["subtitle"] = _plain_text(subtitle)
    if tags:
        header["text_tag_list"] = list(tags[:MOST_TAGS])
    return {
        "schema": "2.0",
        "config": {
            "update_multi": True,
            "width_mode": "fill",
            "summary": {"content": plain(notice, LONGEST_NOTICE)},
        },
        "header": header,
        "body": {"elements": elements},
    }


def _plain_text(content: str) -> Element:
    return {"tag": "plain_text", "content": content}


def _tag(text: str, colour: str = "neutral") -> Element:
    return {"tag": "text_tag", "text": _plain_text(text), "color": colour}


def _text(content: str, *, is_small: bool = False) -> Element:
    size = {"text_size": "notation", "text_color": "grey"} if is_small else {"text_size": "normal"}
    return {"tag": "div", "text": _plain_text(content) | size}


def _note(content: str) -> list[Element]:
    return [_text(content, is_small=True)] if content else []


def _table(columns: Sequence[tuple[str, str]], rows: list[dict[str, str]]) -> list[Element]:
    if not rows:
        return []
    return [
        {
            "tag": "table",
            "page_size": ROWS_OF_A_PAGE,
            "row_height": "auto",
            "row_max_height": HIGHEST_ROW,
            "header_style": {"background_style": "grey", "text_color": "grey", "bold": False},
            "columns": [
                {"name": name, "display_name": title, "data_type": "text", "width": "auto"}
                for name, title in columns
            ],
            "rows": rows,
        }
    ]


def _button(text: str, url: str | None) -> list[Element]:
    if url is None:
        return []
    opens = {"type": "open_url", "default_url": url}
    return [{"tag": "button", "text": _plain_text(text), "type": "default", "behaviors": [opens]}]


def _lines(*lines: str | None) -> str:
    return "\n".join(filter(None, lines))


def _fitting(make: Callable[[int], Made], count: int) -> Made:
    """With as many rows as the bound leaves room for."""
    most = min(count, MOST_ROWS)
    made = make(most)
    while most and len(msgspec.json.encode(made)) > LARGEST_BYTES:
        most -= 1
        made = make(most)
    return made
