"""How keys and values appear in messages: on one line, shortened, and without credentials."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from reserve_listener.net.url_secrets import is_ordinary
from reserve_listener.text import MASK

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST: Final = 80
_HUGE: Final = 10**18
_SECRET_WORDS: Final = (
    "secret",
    "token",
    "passw",
    "passphrase",
    "key",
    "proxy",
    "credential",
    "ticket",
    "authorization",
    "cookie",
    "signature",
    "session",
)
_SECRET_WHOLE_WORDS: Final = frozenset({"auth", "jwt", "pass", "pat", "pin", "pwd", "sid", "sig"})
SECRET_OF_LIBPQ: Final = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
"""Settings of libpq's, in the query of a store's URL, that are nobody's business."""
_SECRET_VALUE: Final = re.compile(r"(?i)\A(?:(?:bearer|basic|digest)\s+\S|whsec_\S)")
# One long word of letters and digits, without a folder and an ending. A name that is taken for it loses little: the
# message still has the key.
_RANDOM_WORD: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+=_-]{16,}")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_USERINFO: Final = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_QUERY: Final = re.compile(r"(://[^?]*)\?.*", re.DOTALL)


def suggests_secret(key: str) -> bool:
    """Whether a key's name says that its value is nobody's business."""
    lower = key.lower()
    words = set(re.split(r"[^a-z]+", lower))
    return any(word in lower for word in _SECRET_WORDS) or bool(words & _SECRET_WHOLE_WORDS)


def is_secret_value(text: str) -> bool:
    """Whether a text is a credential by its look, whatever its key is called."""
    return _SECRET_VALUE.match(text) is not None


def is_header_name(text: str) -> bool:
    """Whether a text can be the name of a header."""
    return _HEADER_NAME.fullmatch(text) is not None


def header_name(text: str) -> str:
    """A name of a header as it is shown. One that is none ends where it goes wrong: the value may have slipped in."""
    if is_header_name(text):
        return text
    start = _HEADER_NAME.match(text)
    return quoted(f"{start[0][:40] if start else ''}…")


def secret_path_text(path: Path) -> str:
    """The path of a secret's file, unless it looks as if the secret itself were given in its place."""
    text = str(path)
    if is_secret_value(text) or _RANDOM_WORD.fullmatch(text) or ":/" in text:  # a URL, as pathlib has it
        return "the file (its name looks like a secret and is not shown)"
    return path_text(path)


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


def public_sink_url(text: str) -> str:
    """A sink's URL as above, with what could be a secret in its path masked, too."""
    head, slashes, rest = public_url(text).partition("://")
    path, mark, query = rest.partition("?")
    parts = (part if is_ordinary(part) else MASK for part in path.split("/")[1:])
    return f"{head}{slashes}{'/'.join((path.partition('/')[0], *parts))}{mark}{query}"


def public_store_url(text: str) -> str:
    """A store's URL without its passwords; all else that it sets may be seen."""
    parts = urlsplit(text)
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    query = (
        f"{key}={MASK}" if key in SECRET_OF_LIBPQ else f"{key}{sign}{value}"
        for key, sign, value in (each.partition("=") for each in parts.query.split("&"))
    )
    netloc = f"{user}{colon and f':{MASK}'}{at}{hosts}"
    return urlunsplit(parts._replace(netloc=netloc, query="&".join(query)))


def shown(value: Any) -> str:
    """A value that was found, short. Of tables and arrays only the kind, since secrets may stand in them."""
    if value == []:
        return "an empty array"
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
