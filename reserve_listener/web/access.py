"""Who may use `[status] listen`, under which host names, and the headers of every answer.

What must stay true: a foreign page cannot make a browser read from here (`Host`, against DNS rebinding); if there is a token,
only the health checks answer without it; and no answer goes out without the headers.
"""

from __future__ import annotations

import hmac
import math
import re
import socket
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders

from reserve_listener.net.addresses import ip_address, is_loopback
from reserve_listener.observability.throttle import Throttle
from reserve_listener.web.guesses import Guesses
from reserve_listener.web.replies import problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from reserve_listener.web.page import Page

HEALTH_PATHS: Final = frozenset({"/livez", "/healthz", "/readyz"})
"""Asked by probes that know no token and call us by whatever name they like; told is no more than whether it works."""

HEADERS: Final = {
    "content-security-policy": "default-src 'self'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

API: Final = "/api/"
SAFE: Final = frozenset({"GET", "HEAD"})
TOLD_EVERY_S: Final = 1.0

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+)(:\d{0,5})?")

log = structlog.get_logger("status")


@dataclass(frozen=True)
class Trial:
    """What came of showing a token. `wait_s`: a wrong one after too many others; how long until they are forgotten."""

    is_right: bool
    wait_s: float = 0.0

    @property
    def retry_after(self) -> str:
        """The same for the header."""
        return str(math.ceil(self.wait_s))


class Access:
    """The rules. `token`: None when there is none, then all may read and nobody act."""

    def __init__(self, *, token: str | None = None, allowed_hosts: Collection[str] = ()) -> None:
        self._token = None if token is None else token.encode()
        self._allowed_hosts = frozenset(map(_plain, allowed_hosts))
        self._guesses = Guesses()

    @property
    def has_token(self) -> bool:
        """Whether there is one: without it there are no actions."""
        return self._token is not None

    def is_token(self, text: bytes | str) -> bool:
        """Whether this is the token; in the same time whatever it is."""
        return self._token is not None and hmac.compare_digest(_digest(_bytes(text)), _digest(self._token))

    def seal(self, text: str) -> str:
        """A mark on a text that nobody can make who does not have the token."""
        return hmac.new(
            self._token or b"", b"page " + text.encode("utf-8", "surrogateescape"), "sha256"
        ).hexdigest()

    def try_token(self, text: bytes | str, client: str) -> Trial:
        """Whether this is the token; if not, whether `client` has brought too many wrong ones."""
        if self.is_token(text):  # first: nobody's guesses may keep out who has the token
            self._guesses.succeeded(client)
            return Trial(is_right=True)
        if (wait_s := self._guesses.wait_s(client)) > 0:
            return Trial(is_right=False, wait_s=wait_s)
        self._guesses.failed(client, _bytes(text))
        return Trial(is_right=False)

    def knows_host(self, host: str, local: str) -> bool:
        """Whether a `Host` means us. `local`: the address that the connection came in at."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = _plain(match[1])
        return is_loopback(name) or name in self._allowed_hosts or _is_ours(name, local)


def bearer(headers: Headers) -> bytes | None:
    """The token in a request's head; None: there is none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip(" ").encode("latin-1") if kind.lower() == "bearer" else None


def _digest(token: bytes) -> bytes:
    """Of one length, so that a comparison does not take the longer for a token of the right one."""
    return blake2b(token).digest()


def _bytes(text: bytes | str) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_ours(name: str, local: str) -> bool:
    """Whether this is an address of this machine: the one that was connected to, or one that can be listened on."""
    address = ip_address(name)
    if address is None or address.is_unspecified or address.is_multicast:
        return False
    if address == ip_address(local):
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004  # IPv4
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.bind((str(address), 0))
    except OSError:
        return False
    return True


def with_headers(app: ASGIApp) -> ASGIApp:
    """The app with `HEADERS` added to every answer."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, send_with_headers)

    return answer


class Guard:
    """An ASGI app before another one: refuses who may not ask, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, access: Access, page: Page) -> None:
        self._app = app
        self._access = access
        self._page = page
        self._throttle = Throttle(TOLD_EVERY_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Nothing but HTTP is served."""
        await with_headers(self._refusal(scope) or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer for who may not ask; None: goes on."""
        if scope["path"] in HEALTH_PATHS:
            return None
        headers = Headers(scope=scope)
        if not self._access.knows_host(headers.get("host", ""), _address(scope, "server")):
            return self._refused(
                scope,
                HTTPStatus.MISDIRECTED_REQUEST,
                "this host name (Host) is not one of the daemon's; add it to status.allowed_hosts",
            )
        if not self._access.has_token:
            return None
        if (token := bearer(headers)) is not None:
            return self._tried(scope, token)
        return None if self._may_browse(scope) else self._unknown(scope)

    def _tried(self, scope: Scope, token: bytes) -> Response | None:
        """The same for who brings a token in the header."""
        trial = self._access.try_token(token, _address(scope, "client"))
        if trial.wait_s > 0:
            detail = "this token is wrong, and so were too many before it; the right one is always accepted"
            headers = {"retry-after": trial.retry_after}
            return self._refused(scope, HTTPStatus.TOO_MANY_REQUESTS, detail, headers)
        return None if trial.is_right else self._unknown(scope)

    def _unknown(self, scope: Scope) -> Response:
        """For who has not shown the token: how to."""
        if answer := self._page.sign_in(scope):
            return answer
        detail = "send the token of status.token_file: Authorization: Bearer …"
        return self._refused(scope, HTTPStatus.UNAUTHORIZED, detail, {"www-authenticate": "Bearer"})

    def _may_browse(self, scope: Scope) -> bool:
        """What goes without the header. To act through the API takes the token itself: cookies go where others send them."""
        if any(scope["path"].startswith(prefix) for prefix in self._page.public):
            return True
        reads = scope["method"] in SAFE or not scope["path"].startswith(API)
        return reads and self._page.is_signed_in(scope)

    def _refused(self, scope: Scope, status: HTTPStatus, detail: str, headers: Any = None) -> Response:
        client = _address(scope, "client")
        self._throttle.tell(
            status.phrase, log.warning, "status.refused", status=status, reason=detail, client=client
        )
        return self._page.lost(scope, status, detail) or problem(status, detail, headers)


def _address(scope: Scope, side: str) -> str:
    return str((scope.get(side) or ("unknown",))[0])
