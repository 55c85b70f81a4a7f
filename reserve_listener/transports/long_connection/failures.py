"""What a failure to connect, or the loss of a connection, means. Pure; the table is in `tests/transports/long_connection/test_failures.py`.

Endpoint codes and handshake headers: lark_oapi/ws/const.py and `_parse_ws_conn_exception` in lark_oapi/ws/client.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from reserve_listener.delivery.retry import retry_after_s
from reserve_listener.errors import ConfigError
from reserve_listener.net.causes import chain
from reserve_listener.net.reaching import UnreachableError
from reserve_listener.redact import redact
from reserve_listener.text import visible

SYSTEM_BUSY: Final = 1
FORBIDDEN: Final = 403
AUTH_FAILED: Final = 514
INTERNAL_ERROR: Final = 1000040343
NO_CREDENTIAL: Final = 1000040344
STILL_BUSY: Final = 1000040345
INVALID_APP_ID: Final = 1000040346
TOO_MANY_CONNECTIONS: Final = 1000040350

CREDENTIAL_CODES: Final = frozenset({FORBIDDEN, AUTH_FAILED, NO_CREDENTIAL, INVALID_APP_ID})
"""The app or its secret is wrong. Only these may end the daemon at its first start."""
KNOWN_CODES: Final = CREDENTIAL_CODES | {SYSTEM_BUSY, INTERNAL_ERROR, STILL_BUSY, TOO_MANY_CONNECTIONS}
"""These are the platform's whatever the HTTP status that they come with."""

REASON_CHARS: Final = 500
"""What is shown of a reason: more than the platform's words have, and less than a proxy's page."""

HINTS: Final = {
    FORBIDDEN: "the app may not connect: it must be an enabled custom (self-built) app that receives events"
    " through a long connection",
    AUTH_FAILED: "check lark.app_id and lark.app_secret against Credentials & Basic Info in the developer console",
    NO_CREDENTIAL: "check that lark.app_id and lark.app_secret are not empty",
    INVALID_APP_ID: "check lark.app_id, and lark.domain: Feishu apps live on open.feishu.cn, Lark apps on"
    " open.larksuite.com",
    TOO_MANY_CONNECTIONS: "an app may have at most 50 connections: stop other clients of this app",
}


class Kind(Enum):
    """How to go on."""

    PASSING = "passing"
    """Try again with backoff."""
    REFUSED = "refused"
    """Try again at the slow pace: somebody has to mend something."""
    REFUSED_CREDENTIALS = "refused_credentials"
    """As REFUSED; final for an app that was never connected."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, classified. `reason` and `hint` are for people; `retry_after_s` is the server's own wish."""

    kind: Kind
    reason: str
    hint: str | None = None
    retry_after_s: float | None = None
    by_server: bool = False
    """The server closed a connection that worked: the first retry is spread by its ReconnectNonce."""


class EndpointError(Exception):
    """The endpoint answered, but not with an address. `code` is its own; `status`, of HTTP, counts when there is none."""

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.where = ""
        """Host and port that answered, once it is known."""


class ConnectionLostError(Exception):
    """A connection that worked is gone. `by_server`: it was closed from the other side."""

    def __init__(self, message: str, *, by_server: bool) -> None:
        super().__init__(message)
        self.by_server = by_server


def classify(error: BaseException) -> Failure:
    """What `error` means for the next attempt. The reason is one line for people, without control characters or credentials."""
    failure = _classified(error)
    return replace(failure, reason=visible(redact(failure.reason), REASON_CHARS))


def _classified(error: BaseException) -> Failure:  # a table, written as one
    if isinstance(error, EndpointError):
        return _endpoint(error)
    if isinstance(error, ConnectionLostError):
        return Failure(Kind.PASSING, str(error), by_server=error.by_server)
    if isinstance(error, ConfigError):  # a secret's file that cannot be read just now
        return Failure(Kind.REFUSED, str(error))
    for link in chain(error):
        headers = _handshake_headers(link)
        if headers is not None:
            return _handshake(error, headers)
    if isinstance(error, TimeoutError):
        return Failure(Kind.PASSING, str(error) or "no answer in time")
    return _unreachable(error)


def _unreachable(error: BaseException) -> Failure:
    if isinstance(error, UnreachableError):
        return Failure(Kind.PASSING, str(error), error.hint)
    return Failure(Kind.PASSING, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _endpoint(error: EndpointError) -> Failure:
    wish_s = retry_after_s(error.retry_after, now_s=time.time())
    if error.code is None:
        hint = "check lark.domain, and whether a proxy or a login portal answers instead"
        reason = f"{error} (from {error.where})" if error.where else str(error)
        return Failure(Kind.PASSING, reason, hint, wish_s)
    reason = f"the endpoint refused with code {error.code}: {error}"
    if error.code not in KNOWN_CODES:
        hint = "if this persists, look up the code in the platform's documentation"
        return Failure(Kind.PASSING, reason, hint, wish_s)
    return Failure(_kind(error.code), reason, HINTS.get(error.code), wish_s)


def _kind(code: int) -> Kind:
    if code in CREDENTIAL_CODES:
        return Kind.REFUSED_CREDENTIALS
    return Kind.REFUSED if code == TOO_MANY_CONNECTIONS else Kind.PASSING


def _handshake(error: BaseException, headers: dict[str, str]) -> Failure:
    """A refused WebSocket handshake: by the platform's headers, or plain HTTP, which may pass."""
    status, auth_code = (
        _integer(headers.get("handshake-status")),
        _integer(headers.get("handshake-autherrcode")),
    )
    message = headers.get("handshake-msg", "")
    wish_s = retry_after_s(headers.get("retry-after"), now_s=time.time())
    if status == FORBIDDEN or (status == AUTH_FAILED and auth_code == TOO_MANY_CONNECTIONS):
        code = auth_code if status == AUTH_FAILED and auth_code is not None else FORBIDDEN
        return Failure(Kind.REFUSED, f"the handshake was refused: {message}", HINTS.get(code), wish_s)
    if message:
        return Failure(Kind.PASSING, f"the handshake was refused: {message}", retry_after_s=wish_s)
    return replace(_unreachable(error), retry_after_s=wish_s)


def _handshake_headers(error: BaseException) -> dict[str, str] | None:
    """The answer's headers of a websockets `InvalidStatus`, lower-cased; None for anything else."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None)
    raw_items = getattr(headers, "raw_items", None)
    if raw_items is None or not hasattr(response, "status_code"):
        return None
    return {str(key).lower(): str(value) for key, value in raw_items()}


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
