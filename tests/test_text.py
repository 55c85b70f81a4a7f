"""Foreign text: nothing in it drives a terminal, ends a line, or hides; and JSON stays what it was."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given, strategies as st

from reserve_listener.text import ESCAPE, escaped_json, page_of, visible, visible_lines

DIRTY = (
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\U000e0041",
    "\ud800",
    "\udfff",
)
# Format characters that are not for hiding: joiners (emoji, Persian), signs that stand before Arabic and Kaithi numbers, and
# the layout of hieroglyphs, shorthand and music.
WANTED = {
    *map(chr, (0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)),
    *map(chr, (*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B))),
}

any_text = st.text(st.one_of(st.characters(), st.sampled_from(DIRTY)))


def is_safe(character: str) -> bool:
    """By Unicode's own table: no control, no format character but those, no separator, no half of a pair."""
    return character in WANTED or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Cs")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("room 3\u3000北京 é 😀", "room 3\u3000北京 é 😀"),
        ("a\nMAINPID=1", "a\\nMAINPID=1"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J\x7f\x85", "\\x9b2J\\x7f\\x85"),
        ("omm_\u202eabc", "omm_\\u202eabc"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0041", "\\U000e0041"),
        ("", ""),
    ],
)
def test_what_drives_or_deceives_is_shown_as_its_escape(text: str, shown: str) -> None:
    """Controls, bidi marks and halves of a pair are seen; letters, emoji and blanks of any script stay."""
    assert visible(text) == shown


def test_every_character_there_is() -> None:
    """Not one of Unicode's that acts or hides is left, and none of the others is touched."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert set(visible(everything, 10**8)) == set(filter(is_safe, everything))


@given(any_text, st.integers(1, 40))
def test_a_visible_text_is_a_safe_piece_of_one_line(text: str, longest: int) -> None:
    """Whatever came in: one line, nothing that acts, bounded, and the same when it is done again."""
    shown = visible(text, longest)
    assert not [character for character in shown if not is_safe(character)]
    assert len(shown) <= longest
    assert visible(shown, longest) == shown
    assert len(shown.splitlines()) <= 1


@given(any_text)
def test_lines_stay_lines(text: str) -> None:
    """Of a text of several lines each is made safe, and nothing is cut off."""
    lines = visible_lines(text).split("\n")
    assert lines == [visible(line, 10**6) for line in text.split("\n")]


def test_the_cut_is_seen() -> None:
    """A text that is too long ends with an ellipsis; one that just fits does not."""
    assert visible("x" * 5, 5) == "x" * 5
    assert visible("x" * 6, 5) == "xxxx…"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
)


@given(json_values, st.sampled_from((None, 2)))
def test_escaped_json_means_the_same_and_is_safe(value: object, indent: int | None) -> None:
    """A program reads what it would have read; a terminal gets line breaks of the layout and nothing else."""
    document = json.dumps(value, ensure_ascii=False, indent=indent)
    escaped = escaped_json(document)
    assert json.loads(escaped) == json.loads(document)
    assert not [character for character in escaped if not is_safe(character) and character != "\n"]


@given(json_values, st.sampled_from(("ascii", "latin-1", "gbk", "utf-8")))
def test_json_in_any_encoding_means_the_same(value: object, encoding: str) -> None:
    """What an encoding cannot express is escaped so that JSON reads it back."""
    document = json.dumps(value, ensure_ascii=False)
    read = json.loads(document.encode(encoding, ESCAPE).decode(encoding))
    assert json.dumps(read) == json.dumps(json.loads(document))


@pytest.mark.parametrize(
    ("scope_id", "path"),
    [
        ("omm_1", "/scopes/omm_1"),
        ("a/b?c#d e", "/scopes/a%2Fb%3Fc%23d%20e"),
        ("西湖", "/scopes/%E8%A5%BF%E6%B9%96"),
        ("..", "/scopes?id=.."),
        ("", "/scopes?id="),
        ("\ud800", "/scopes/%3F"),
    ],
)
def test_a_page_has_an_address_whatever_the_id_is(scope_id: str, path: str) -> None:
    """One piece of a path, or a parameter where a browser would walk up."""
    assert page_of(scope_id) == path
