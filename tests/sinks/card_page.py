"""Cards as HTML, roughly as a client shows them: for the pictures in the docs, and for nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COLOURS = {
    "blue": ("#e1eaff", "#1c4cba"),
    "green": ("#d9f5d6", "#186010"),
    "orange": ("#feead2", "#92450b"),
    "red": ("#fde2e2", "#a8201a"),
    "grey": ("#eff0f1", "#373c43"),
    "wathet": ("#d9f3fd", "#046a92"),
    "turquoise": ("#d5f6f2", "#066056"),
}

STYLE = """
body { margin: 0; padding: 20px; background: #f2f3f5; font: 14px/1.5 "Noto Sans CJK SC", sans-serif; color: #1f2329 }
main { display: grid; grid-template-columns: repeat(2, 1fr); gap: 18px; align-items: start }
article { background: #fff; border: 1px solid #dee0e3; border-radius: 8px; overflow: hidden }
header { padding: 10px 14px } h2 { margin: 0; font-size: 16px; font-weight: 600 } header p { margin: 0; font-size: 13px }
.tag { font-size: 12px; border-radius: 4px; padding: 0 5px; margin-left: 8px; background: #fff9; font-weight: 500 }
section { padding: 10px 14px 14px; display: grid; gap: 9px } section p { margin: 0 } .small { font-size: 12px; color: #8f959e }
table { border-collapse: collapse; width: 100%; border: 1px solid #dee0e3 } th { background: #f5f6f7; color: #646a73; font-weight: 400 }
th, td { text-align: left; padding: 4px 9px; border-bottom: 1px solid #e8e9eb; vertical-align: top }
.button { justify-self: start; border: 1px solid #d0d3d6; border-radius: 6px; padding: 3px 12px }
"""


def page_of(cards: Iterable[Mapping[str, Any]]) -> str:
    """All of them on one page."""
    return f"<!doctype html><meta charset=utf-8><title>Cards</title><style>{STYLE}</style><main>{''.join(map(_card, cards))}</main>"


def _card(card: Mapping[str, Any]) -> str:
    header = card["header"]
    back, front = COLOURS.get(header.get("template", "grey"), COLOURS["grey"])
    tags = "".join(
        f'<span class="tag">{_said(tag["text"])}</span>' for tag in header.get("text_tag_list", ())
    )
    below = f"<p>{_said(header['subtitle'])}</p>" if "subtitle" in header else ""
    title = f"<h2>{_said(header['title'])}{tags}</h2>{below}"
    body = "".join(_ELEMENTS[element["tag"]](element) for element in card["body"]["elements"])
    return f'<article><header style="background:{back};color:{front}">{title}</header><section>{body}</section></article>'


def _said(text: Mapping[str, Any]) -> str:
    return escape(text["content"])


def _div(element: Mapping[str, Any]) -> str:
    kind = ' class="small"' if element["text"].get("text_size") == "notation" else ""
    return f"<p{kind}>{_said(element['text'])}</p>"


def _button(element: Mapping[str, Any]) -> str:
    return f'<span class="button">{_said(element["text"])}</span>'


def _table(element: Mapping[str, Any]) -> str:
    names = [column["name"] for column in element["columns"]]
    head = "".join(f"<th>{escape(column['display_name'])}</th>" for column in element["columns"])
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(str(row.get(name, '')))}</td>" for name in names) + "</tr>"
        for row in element["rows"][: element["page_size"]]
    )
    pages = -(-len(element["rows"]) // element["page_size"])
    leaf = f'<p class="small">1 / {pages}</p>' if pages > 1 else ""
    return f"<div><table><tr>{head}</tr>{rows}</table>{leaf}</div>"


_ELEMENTS = {"div": _div, "button": _button, "table": _table}
