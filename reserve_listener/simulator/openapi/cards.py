"""Which cards (JSON 2.0) the platform accepts, by the documented bounds, or by lower ones where tests have found them.

An unknown property or tag makes the platform refuse the whole card. Whatever is not named here is unknown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_A_CARD: Final = 200621
TOO_MANY: Final = 11310
GONE_IN_2: Final = 200861
BAD_ROW: Final = 200914
BAD_PERSON: Final = 100290

ELEMENTS: Final = 199
"""The page says 200; 180 passed and 200 were refused."""
TABLES: Final = 5
COLUMNS: Final = 50
LARGEST_PAGE: Final = 10
DEEPEST: Final = 5
HEADER_TAGS: Final = 3

TEMPLATES: Final = frozenset(
    [
        "blue",
        "wathet",
        "turquoise",
        "green",
        "yellow",
        "orange",
        "red",
        "carmine",
        "violet",
        "purple",
        "indigo",
        "grey",
        "default",
    ]
)
TAG_COLOURS: Final = frozenset(
    [
        "neutral",
        "blue",
        "turquoise",
        "lime",
        "orange",
        "violet",
        "indigo",
        "wathet",
        "green",
        "yellow",
        "red",
        "purple",
        "carmine",
    ]
)
ONLY_IN_1: Final = frozenset({"note", "action", "fallback"})
MARKUP: Final = frozenset({"markdown", "lark_md"})
"""Tags, and types of table cells, whose text is read as markup."""

_TEXT: Final = "content i18n_content"
_BLOCK: Final = (
    "direction padding horizontal_spacing horizontal_align vertical_spacing vertical_align elements"
)
_PROPERTIES: Final = {
    "": "schema config card_link header body",
    "config": "streaming_mode streaming_config summary locales enable_forward update_multi width_mode"
    " use_custom_translation enable_forward_interaction style",
    "header": "title subtitle text_tag_list i18n_text_tag_list template icon padding",
    "body": _BLOCK,
    "plain_text": f"{_TEXT} text_size text_align text_color lines",
    "lark_md": f"{_TEXT} text_size text_align text_color lines",
    "markdown": f"margin {_TEXT} text_align text_size icon",
    "div": "margin text fields icon width",
    "field": "is_short text",
    "hr": "margin",
    "text_tag": "text color",
    "standard_icon": "token color size",
    "custom_icon": "img_key size",
    "button": "margin type size width text icon hover_tips disabled disabled_tips confirm behaviors name",
    "behavior": "type default_url pc_url ios_url android_url value",
    "column_set": "margin horizontal_spacing horizontal_align flex_mode background_style action columns",
    "column": f"margin background_style width weight action {_BLOCK}",
    "collapsible_panel": f"margin expanded background_color header border {_BLOCK}",
    "panel_header": "title background_color vertical_align padding width icon icon_position icon_expanded_angle",
    "table": "margin page_size row_height row_max_height freeze_first_column header_style columns rows",
    "table_column": "name display_name data_type width horizontal_align vertical_align format date_format",
}
_KNOWN: Final = {
    kind: frozenset([*names.split(), "tag", "element_id"]) for kind, names in _PROPERTIES.items()
}
_UNTAGGED: Final = {
    "config": "config", "header": "header", "body": "body", "fields": "field", "behaviors": "behavior",
}  # fmt: skip
"""Objects without a tag, by the key under which they stand."""
_CELLS: Final[dict[str, type | tuple[type, ...]]] = {
    "text": str,
    "lark_md": str,
    "markdown": str,
    "number": (int, float),
    "date": int,
}
_ELEMENT_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,19}", re.ASCII)
_AT: Final = re.compile(r"<at\s+(?:id|user_id|ids)\s*=\s*[\"']?([^\s\"'>]+)", re.IGNORECASE)


class RefusedCardError(Exception):
    """The platform does not accept such a card. `code`: the inner one."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def check(card: Any) -> None:
    """Raise `RefusedCardError` if the platform would not show the card."""
    if not isinstance(card, dict) or card.get("schema") != "2.0":
        raise RefusedCardError(NOT_A_CARD, 'the card is no object with "schema": "2.0"')
    _Check().run(card)


def pinged(msg_type: str, content: dict[str, Any]) -> set[str]:
    """Whom a message pings: `all`, or people's ids. Where text is not markup, a tag is just text."""
    if msg_type == "text":
        return set(_AT.findall(str(content.get("text", ""))))
    return {found for text in _markup(content) for found in _AT.findall(text)}


def texts(value: Any) -> Iterator[str]:
    """All texts of a card."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def _markup(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _markup(each)
    elif isinstance(value, dict):
        if value.get("tag") in MARKUP:
            yield from texts(value)
        elif value.get("tag") == "table":
            names = [one["name"] for one in value["columns"] if one.get("data_type") in MARKUP]
            yield from (str(row[name]) for row in value["rows"] for name in names if name in row)
        else:
            yield from _markup(list(value.values()))


class _Check:
    def __init__(self) -> None:
        self._elements = 0
        self._tables = 0
        self._ids: set[str] = set()

    def run(self, card: dict[str, Any]) -> None:
        """Check the whole card."""
        self._object(card, "", 0)
        header, body = card.get("header", {}), card.get("body")
        if not isinstance(body, dict) or not isinstance(body.get("elements"), list):
            raise RefusedCardError(NOT_A_CARD, "body.elements is no list")
        _expect("template", header.get("template", "default"), TEMPLATES)
        if len(header.get("text_tag_list", [])) > HEADER_TAGS:
            raise RefusedCardError(NOT_A_CARD, f"more than {HEADER_TAGS} tags in the header")
        if header and not _is_text(header.get("title")):
            raise RefusedCardError(NOT_A_CARD, "header.title is no text")
        if self._elements > ELEMENTS:
            raise RefusedCardError(TOO_MANY, f"{self._elements} elements")
        if self._tables > TABLES:
            raise RefusedCardError(TOO_MANY, f"{self._tables} tables")

    def _object(self, found: dict[str, Any], kind: str, depth: int) -> None:
        if unknown := set(found) - _KNOWN[kind]:
            raise RefusedCardError(NOT_A_CARD, f"unknown property {min(unknown)} of {kind or 'the card'}")
        if "tag" in found:
            self._elements += 1
        self._name(found.get("element_id"))
        if kind == "text_tag":
            _expect("color", found.get("color", "neutral"), TAG_COLOURS)
        if kind in MARKUP | {"plain_text"}:
            _text(found)
        elif kind == "table":
            self._table(found)
        else:
            for key, value in found.items():
                for each in value if isinstance(value, list) else [value]:
                    self._below(each, key, kind, depth)

    def _below(self, value: Any, key: str, parent: str, depth: int) -> None:
        if not isinstance(value, dict):
            return
        tag = value.get("tag")
        if tag is None:
            kind = "panel_header" if parent == "collapsible_panel" and key == "header" else _UNTAGGED.get(key)
            if kind is not None:
                self._object(value, kind, depth)
            return
        if tag in ONLY_IN_1:
            raise RefusedCardError(GONE_IN_2, f"unsupported tag {tag} in 2.0")
        if tag not in _KNOWN or tag in _UNTAGGED.values() or tag == "":
            raise RefusedCardError(NOT_A_CARD, f"unknown tag {tag!r}")
        if tag == "table" and parent != "body":
            raise RefusedCardError(NOT_A_CARD, "a table that is not at the root of body")
        deeper = depth + (tag in ("column_set", "collapsible_panel"))
        if deeper > DEEPEST:
            raise RefusedCardError(NOT_A_CARD, f"containers deeper than {DEEPEST}")
        self._object(value, tag, deeper)

    def _name(self, element_id: Any) -> None:
        if element_id is None:
            return
        if (
            not isinstance(element_id, str)
            or not _ELEMENT_ID.fullmatch(element_id)
            or element_id in self._ids
        ):
            raise RefusedCardError(NOT_A_CARD, f"element_id {element_id!r}")
        self._ids.add(element_id)

    def _table(self, table: dict[str, Any]) -> None:
        self._tables += 1
        columns, rows = table.get("columns"), table.get("rows")
        if not isinstance(columns, list) or not 1 <= len(columns) <= COLUMNS or not isinstance(rows, list):
            raise RefusedCardError(NOT_A_CARD, "columns or rows of a table")
        if not 1 <= table.get("page_size", 5) <= LARGEST_PAGE:
            raise RefusedCardError(NOT_A_CARD, "page_size of a table")
        for column in columns:
            self._object(column, "table_column", 0)
        kinds = {column["name"]: _CELLS.get(column.get("data_type", "text")) for column in columns}
        for row in rows:
            for name, value in row.items():
                if (kind := kinds.get(name)) is None or not isinstance(value, kind):
                    raise RefusedCardError(BAD_ROW, f"{name} of a row")


def _is_text(value: Any) -> bool:
    return isinstance(value, dict) and value.get("tag") in ("plain_text", "lark_md")


def _text(found: dict[str, Any]) -> None:
    told = [found.get("content"), *found.get("i18n_content", {}).values()]
    if not all(isinstance(each, str) for each in told):
        raise RefusedCardError(NOT_A_CARD, "content is no text")
    if found["tag"] in MARKUP:
        for person in (each for text in told for each in _AT.findall(text)):
            if person != "all" and not person.startswith("ou_"):
                raise RefusedCardError(BAD_PERSON, f"invalid user id {person}")


def _expect(name: str, value: Any, allowed: frozenset[str]) -> None:
    if value not in allowed:
        raise RefusedCardError(NOT_A_CARD, f"{name} {value!r}")
