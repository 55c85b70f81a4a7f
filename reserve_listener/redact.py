"""What must not leave: pure functions that take credentials out of payloads and texts (ARCHITECTURE.md, invariant 7).

Payloads come from anybody and are read on the event loop, so `blank_tokens` takes linear time for every input: patterns
are possessive, each piece is looked at once a level, and levels are bounded.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from reserve_listener.text import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEPTH: Final = 8
"""How deep JSON within JSON is read. The platform's is one deep; what is nested deeper is blanked whole."""

SHORTEST_VALUE: Final = 4
"""A configured secret that is shorter is known by its key only: `s` or `abc` would blank letters in every word, and the log would
tell nobody anything. No real one is so short: an app's has 32 characters, and three are guessed in a moment."""

_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# The key as it stands in most payloads, with what begins its value.
_PLAIN: Final = re.compile(rb'"[tT][oO][kK][eE][nN]"\s*+:\s*+(?:"((?:[^"\\]++|\\.)*+\\?)|[\[{])', re.DOTALL)
_USUAL: Final = b'"token":"'
# What stands between two quotes that are not escaped, be it a string or what separates strings.
_PIECE: Final = re.compile(r'((?:[^"\\]++|\\.)*+\\?)(?:"|\Z)', re.DOTALL)
_COLON: Final = re.compile(r"\s*+:\s*+")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
# `key=value`, `"key": "value"`, `key: value` of the names that carry credentials on the long connection (the URL's
# access_key and ticket), in the endpoint's answer and in the event.
_SECRET_IN_TEXT: Final = re.compile(
    r"""(?ix)
    ( (?<![a-z]) (?: access_key | ticket | app_?secret | token | verification_token | encrypt_key | authorization
                   | signing_secret )
      ["'\\]* \s* [=:] \s* ["'\\]* (?: (?: bearer | basic ) \s+ )? )
    (?! missing; | not\ set\b | No\ such\ file | Permission\ denied )  # what our own errors say of a key, or of a file so named
    [^\s"'&,;\\}\])]+
    """
)


def blank_tokens(raw: bytes, values: Sequence[str] = ()) -> bytes:
    """A payload, JSON or not, without verification tokens, and otherwise byte for byte what it was.

    Blank is what stands under a key `token` at any depth, in JSON that is a string of JSON too, however it is escaped and
    wherever it is cut off; and each of `values` wherever it stands.
    """
    # One key, and no quote that is not what it seems to be: as the platform writes it.
    before, key, rest = raw.partition(_USUAL)
    if key and b"\\" not in raw and (end := rest.find(b'"')) >= 0:
        blank = b"".join((before, key, rest[end:]))
        if blank.lower().count(b"token") == 1 and not any(_may_hold(blank, value) for value in values):
            return blank
    found = list(_PLAIN.finditer(raw))
    if b"\\u" not in raw and all(each[1] is not None for each in found):
        blank = _without(raw, [each.span(1) for each in found])
        # Escapes of other kinds make no letters, so there is nothing else in it.
        hidden = blank.lower().count(b"token") > len(found)
        if not hidden and not any(_may_hold(blank, value) for value in values):
            return blank
    # One character a byte, so that places in the text are places in the payload.
    text = raw.decode("latin-1")
    return _without(raw, sorted(_tokens(text, _spellings(values), DEPTH)))


def _may_hold(raw: bytes, value: str) -> bool:
    return value.encode("utf-8", "replace") in raw or not value.isalnum()


def _spellings(values: Sequence[str]) -> frozenset[str]:
    """Values as they are once escapes are read, and as bytes of UTF-8 look, a character each."""
    worth = [value for value in values if len(value) >= SHORTEST_VALUE]
    return frozenset(worth) | {value.encode("utf-8", "replace").decode("latin-1") for value in worth}


def _without(raw: bytes, spans: list[tuple[int, int]]) -> bytes:
    kept, at = [], 0
    for start, end in spans:
        if start >= at:
            kept.append(raw[at:start])
        at = max(at, end)
    return b"".join((*kept, raw[at:]))


def _tokens(text: str, values: frozenset[str], depth: int) -> Iterator[tuple[int, int]]:
    """Where in a text of JSON (or of what is left of it) there is something to blank: (start, end)."""
    for value in values:
        start = text.find(value)
        while start >= 0:
            yield start, start + len(value)
            start = text.find(value, start + len(value))
    value_of = _ValueOfToken()
    for piece in _PIECE.finditer(text):
        start, end = piece.span(1)
        if value_of.holds(piece[1]):
            yield start, end
        elif "\\" in piece[1] and _is_worth_reading(piece[1], values):
            yield from ((start + each, start + last) for each, last in _within(piece[1], values, depth))


class _ValueOfToken:
    """Follows the pieces of a text and knows which of them are, or are within, the value of a key `token`.

    It asks for no parity of quotes: what is left of a payload may begin within a string.
    """

    def __init__(self) -> None:
        self._after_key = False
        self._next = False
        self._open = 0

    def holds(self, piece: str) -> bool:
        """Whether this piece, the next one in order, is to be blank."""
        if self._next:
            self._next = False
            return True
        if self._after_key and (colon := _COLON.match(piece)):
            self._look_into(piece[colon.end() :])
        elif self._open:
            self._look_into(piece)
        else:
            self._after_key = is_token_key(piece)
            return False
        self._after_key = False
        return False

    def _look_into(self, separator: str) -> None:
        """A string comes next: right after the colon, or within an array or object that is not closed yet."""
        closed = separator.count("]") + separator.count("}")
        self._open = max(0, self._open + separator.count("[") + separator.count("{") - closed)
        self._next = not separator or self._open > 0


def is_token_key(piece: str) -> bool:
    """Whether a string is the key, whichever of its letters are escaped."""
    if "\\" in piece and len(piece) <= len("\\u0074") * len("token"):
        piece = _unescaped(piece)[0]
    return len(piece) == len("token") and piece.lower() == "token"


def _is_worth_reading(piece: str, values: frozenset[str]) -> bool:
    r"""Whether a string with escapes can hold anything to blank. Of escapes only `\u` makes letters."""
    return "\\u" in piece or "token" in piece.lower() or any(not v.isalnum() or v in piece for v in values)


def _within(piece: str, values: frozenset[str], depth: int) -> Iterator[tuple[int, int]]:
    """What is to blank in a string with escapes: it may be JSON itself."""
    text, places, shifts = _unescaped(piece)
    if not depth:
        yield 0, len(piece)
        return
    for start, end in _tokens(text, values, depth - 1):
        yield _source(start, places, shifts), _source(end, places, shifts)


def _unescaped(piece: str) -> tuple[str, list[int], list[int]]:
    """A string of JSON read; where in it there was an escape, and how much longer all was up to and with that one."""
    places: list[int] = []
    shifts: list[int] = []

    def read(escape: re.Match[str]) -> str:
        shift = shifts[-1] if shifts else 0
        places.append(escape.start() - shift)
        shifts.append(shift + escape.end() - escape.start() - 1)
        return chr(int(escape[1], 16)) if escape[1] else _ESCAPES.get(escape[2], escape[2])

    return _ESCAPE.sub(read, piece), places, shifts


def _source(place: int, places: list[int], shifts: list[int]) -> int:
    before = bisect_left(places, place)
    return place + (shifts[before - 1] if before else 0)


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text for the log: the configured secrets and everything that looks like a credential masked."""
    for secret in secrets:
        if len(secret) >= SHORTEST_VALUE:
            text = text.replace(secret, MASK)
    return _SECRET_IN_TEXT.sub(rf"\1{MASK}", text)
