"""Who has signed in, and which forms are ours.

What must stay true: nobody gets a cookie without the token; a cookie contains only its expiry, and is valid only until the token
changes; a form is accepted only with the CSRF token issued for the same cookie.
"""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Scope

    from reserve_listener.web.access import Access

COOKIE: Final = "reserve_listener"
LASTS_S: Final = 7 * 86_400
"""Who looks once a week stays signed in."""


class Sessions:
    """Cookies of those who have shown the token."""

    def __init__(self, access: Access, public_url: str | None) -> None:
        self._access = access
        self._public = urlsplit(public_url or "")

    def begin(self) -> str:
        """The value of a new cookie."""
        text = f"{int(time.time()) + LASTS_S}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._access.seal(f'session {text}')}"

    def of(self, scope: Scope) -> str | None:
        """The session of a request: its cookie, if that is one of ours and still counts."""
        value = cookies(scope).get(COOKIE, "")
        text, _, seal = value.rpartition(".")
        until = text.partition(".")[0]
        if not self._access.has_token or not hmac.compare_digest(
            seal.encode("utf-8", "surrogateescape"), self._access.seal(f"session {text}").encode()
        ):
            return None
        return value if until.isdecimal() and int(until) > time.time() else None

    def word(self, session: str) -> str:
        """What a form of this session must bring."""
        return self._access.seal(f"form {session}")

    def is_own(self, session: str | None, given: str) -> bool:
        """Whether a form is from a page that this session was given."""
        if session is None:
            return False
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.word(session).encode())

    def is_secure(self, scope: Scope) -> bool:
        """Whether the browser speaks TLS, with us or with the proxy at `public_url`."""
        host = Headers(scope=scope).get("host", "")
        return scope["scheme"] == "https" or (self._public.scheme == "https" and self._public.netloc == host)

    def comes_from_here(self, scope: Scope) -> bool:
        """Whether a form was sent by a page of ours, as far as the browser says."""
        headers = Headers(scope=scope)
        if (site := headers.get("sec-fetch-site")) is not None:
            return site in ("same-origin", "none")
        origin = headers.get("origin")
        local = str((scope.get("server") or ("",))[0])
        return origin is None or self._access.knows_host(urlsplit(origin).netloc, local)


def cookies(scope: Scope) -> Mapping[str, str]:
    """What a request brings."""
    return cookie_parser(Headers(scope=scope).get("cookie", ""))


def local_path(text: str) -> str:
    r"""Where to go on to: a path of ours. `//host` and `/\host` would lead to somebody else's."""
    is_path = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_path and "\\" not in text else "/"
