"""Names with an event's ids in them: `rooms.{tenant_key}.{scope_id}`.

What must stay true: two ids that differ make two names that differ, and no id reaches beyond its place in a name, whatever is
in it: a room's id is foreign text.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS: Final = ("tenant_key", "scope_type", "scope_id")
_TENANT: Final = "/tenants/"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_OTHER: Final = re.compile(rb"[^A-Za-z0-9_-]")


class _Data(msgspec.Struct, gc=False):
    scope_type: Any = None


class _Event(msgspec.Struct, gc=False):
    source: str
    subject: str
    data: _Data


_decode: Final = msgspec.json.Decoder(_Event).decode


def template(text: str) -> str:
    """A template as it is. Raises ValueError for one that cannot be filled."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        raise ValueError("has a { or } of its own; write {{ or }} for one") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in FIELDS or spec or conversion):
            raise ValueError(
                f"may contain {', '.join(f'{{{field}}}' for field in FIELDS)} and no other {{…}}"
            )
    if not text.isprintable() or " " in text:
        raise ValueError("must be a name without spaces or control characters")
    return text


class Template:
    """Names from events. `escape`: what stands before the hexadecimal digits of a byte that a name may not have."""

    def __init__(self, text: str, *, escape: str = "%") -> None:
        self._text = text
        self._escape = escape
        self._constant = None if any(name for _, name, _, _ in Formatter().parse(text)) else text.format()

    def fill(self, body: bytes) -> str:
        """The name for an event."""
        if self._constant is not None:
            return self._constant
        event = _decode(body)
        tenant = unquote(event.source.partition(_TENANT)[2])
        kind = event.data.scope_type
        scope_type = "" if kind is None else str(kind)  # an alert has neither
        values = zip(FIELDS, (tenant, scope_type, event.subject), strict=True)
        return self._text.format(**{name: token(value, self._escape) for name, value in values})


def token(text: str, escape: str = "%") -> str:
    """An id as letters, digits, - and _; each other byte of its UTF-8 as `escape` and two digits. Nothing is `escape` alone."""
    if _PLAIN.fullmatch(text):
        return text
    replaced: Callable[[re.Match[bytes]], bytes] = lambda found: f"{escape}{found[0][0]:02X}".encode()  # noqa: E731
    return _OTHER.sub(replaced, text.encode("utf-8", "surrogatepass")).decode() or escape
