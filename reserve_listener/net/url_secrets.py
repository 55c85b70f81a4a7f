"""What of a sink's URL is secret: whoever knows a bot's path or a key in the query can post there. A leaf.

What must stay true: all but usual words of path and query counts as secret, since nobody can tell a token from a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORTEST_SECRET: Final = 4
"""What is shorter cannot be told from a part of a word, and masking it would garble every text."""

_ORDINARY: Final = frozenset(
    [
        "api",
        "apis",
        "bot",
        "callback",
        "callbacks",
        "event",
        "events",
        "false",
        "feishu",
        "hook",
        "hooks",
        "http",
        "ingest",
        "json",
        "lark",
        "listener",
        "meeting-rooms",
        "message",
        "messages",
        "notify",
        "open-apis",
        "post",
        "push",
        "receive",
        "reserve",
        "reserve-listener",
        "room",
        "rooms",
        "send",
        "services",
        "true",
        "update",
        "updates",
        "webhook",
        "webhooks",
    ]
)
"""Words of paths and queries that are nobody's secret, and that messages would miss."""
_VERSION: Final = re.compile(r"v[0-9]{1,3}")


def is_ordinary(word: str) -> bool:
    """Whether a part of a path or a query is a usual word. Anything else may be what lets one post there."""
    lower = word.lower()
    return len(word) < SHORTEST_SECRET or lower in _ORDINARY or _VERSION.fullmatch(lower) is not None


def secret_texts(url: str, *, shortest: int = SHORTEST_SECRET) -> Iterator[str]:
    """What of a URL may be secret, in the forms in which a log or an answer could quote it.

    That is each part of the path and of the query that is no usual word, and the whole, if there is such a part. `shortest`:
    parts with fewer characters are left out, where masking them would garble too much.
    """
    parts = urlsplit(url)
    # Keys of the query as well: one without a value may be a token.
    words = [
        word for word in re.split(r"[/?&;=]", f"{parts.path}?{parts.query}") if not is_ordinary(unquote(word))
    ]
    if words:
        target = url.partition("://")[2].removeprefix(parts.netloc)
        for text in (url, target, *words):
            yield from dict.fromkeys(form for form in _forms(text) if len(form) >= shortest)


def _forms(text: str) -> Iterator[str]:
    decoded = unquote(text)
    yield from (text, decoded, unquote_plus(text))
    yield quote(text, safe="%/?&=:;+,@!$'()*~#[]")  # as HTTP clients send it
    yield quote(decoded, safe="")
