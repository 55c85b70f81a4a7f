"""How keys and values appear in messages: on one line, shortened, and without credentials."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

MASK: Final = "********"
_LONGEST: Final = 80
_HUGE: Final = 10**18
_SECRET_WORDS: Final = ("secret", "token", "password", "passwd", "key", "proxy", "credential", "ticket")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_USERINFO: Final = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_QUERY: Final = re.compile(r"(://[^?]*)\?.*", re.DOTALL)


def suggests_secret(key: str) -> bool:
    """Whether a key's name says that its value is nobody's business."""
    return any(word in key.lower() for word in _SECRET_WORDS)


def quoted(text: str, *, bare: bool = False) -> str:
    """A text on one line, in quotes, and cut when it is long. `bare` leaves the quotes off a plain key."""
    if bare and _BARE_KEY.fullmatch(text):
        return text
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def path_text(path: Path) -> str:
    """A path as it is written, unless it holds what would break a line or cannot be printed."""
    text = str(path)
    return text if text.isprintable() else json.dumps(text)


def public_url(text: str) -> str:
    """A text without what a URL may carry in confidence: user name, password and query."""
    return _QUERY.sub(rf"\1?{MASK}", _USERINFO.sub(rf"\1{MASK}@", text))


def shown(value: Any) -> str:
    """A value that was found, short. Of tables and arrays only the kind, since secrets may stand in them."""
    if isinstance(value, str):
        return quoted(public_url(value)) if value else "an empty string"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # str() refuses integers of thousands of digits.
        return str(value) if isinstance(value, float) or abs(value) < _HUGE else "a very large number"
    return kind(value)


def kind(value: Any) -> str:
    """The kind of a TOML value, with its article."""
    names = {
        dict: "a table",
        list: "an array",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "a date or time")
