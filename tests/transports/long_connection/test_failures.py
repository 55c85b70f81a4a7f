"""The table: what each failure means for the next attempt. Errors are made as the libraries make them."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import httpx2
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidMessage, InvalidStatus, InvalidURI
from websockets.http11 import Response

from reserve_listener.errors import ConfigError
from reserve_listener.net.reaching import UnreachableError
from reserve_listener.transports.long_connection.endpoint import read_answer
from reserve_listener.transports.long_connection.failures import (
    ConnectionLostError,
    EndpointError,
    Kind,
    classify,
)


def refused(status: int = 403, **headers: str) -> InvalidStatus:
    """A handshake answered with plain HTTP, headers as given (`_` for `-`)."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return InvalidStatus(Response(status, "refused", Headers(named), b"refused\n"))


def through_the_sdk(error: Exception) -> Exception:
    """The error as the SDK's `_connect` passes it on: another exception, raised while it handles the first."""
    try:
        try:
            raise error
        except InvalidStatus as first:
            if first.response.headers.get("handshake-status") == "514":
                int(first.response.headers.get("handshake-autherrcode", "none"))
            raise ConnectionError("514: what the SDK made of it")  # noqa: B904  # so does the SDK
    except (ConnectionError, ValueError) as second:
        return second


def answered(code: Any, *, status: int = 200, retry_after: str | None = None) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        read_answer(status, retry_after, b'{"code": %d, "msg": "why"}' % code, encrypted=True)
    return caught.value


PASSING, REFUSED, CREDENTIALS = Kind.PASSING, Kind.REFUSED, Kind.REFUSED_CREDENTIALS


@pytest.mark.parametrize(
    ("code", "kind", "hinted"),
    [
        (1, PASSING, False),
        (1000040343, PASSING, False),
        (1000040345, PASSING, False),
        (1000040350, REFUSED, True),
        (403, CREDENTIALS, True),
        (514, CREDENTIALS, True),
        (1000040344, CREDENTIALS, True),
        (1000040346, CREDENTIALS, True),
        (2, PASSING, True),
        (77, PASSING, True),
        (-1, PASSING, True),
        (1000040347, PASSING, True),
        (999999999999, PASSING, True),
    ],
)
def test_codes_of_the_endpoint(code: int, kind: Kind, hinted: bool) -> None:  # noqa: FBT001  # a column of the table
    """Only codes that say that the app or its secret is wrong count as that; busy ones and unknown ones may pass."""
    failure = classify(answered(code))
    assert failure.kind is kind
    assert failure.reason == f"the endpoint refused with code {code}: why"
    assert (failure.hint is not None) == hinted
    assert not failure.by_server


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 429, 500, 502, 503])
def test_http_statuses_of_the_endpoint(status: int) -> None:
    """An HTTP status says nothing about the app: whatever it is, it may pass."""
    failure = classify(answered(0, status=status, retry_after="7"))
    assert (failure.kind, failure.reason, failure.retry_after_s) == (PASSING, f"HTTP {status} why", 7.0)


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
@pytest.mark.parametrize("code", [1, 514, 1000040344, 1000040345, 1000040346, 1000040350])
def test_a_known_code_counts_whatever_the_http_status(status: int, code: int) -> None:
    """What the platform says of the app is heard beside an HTTP error, too, with the server's wish."""
    alone = classify(answered(code))
    failure = classify(answered(code, status=status, retry_after="7"))
    assert (failure.kind, failure.reason, failure.hint) == (alone.kind, alone.reason, alone.hint)
    assert failure.retry_after_s == 7.0


@pytest.mark.parametrize(("status", "code"), [(403, 403), (500, 2), (404, 77), (503, 503)])
def test_a_gateway_that_repeats_its_status(status: int, code: int) -> None:
    """HTTP 403 with `{"code": 403}` is any gateway's wording, and says as little of the app as an unknown code does."""
    failure = classify(answered(code, status=status))
    assert (failure.kind, failure.reason) == (PASSING, f"HTTP {status} why")


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("3", 3.0), ("0", 0.0), ("", None), ("-1", None), ("1.5", None), ("soon", None), (None, None), ("٣", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("9" * 400, 999999999999.0)],
)  # fmt: skip
def test_the_wish_of_the_server(retry_after: str | None, seconds: float | None) -> None:
    """A whole number of seconds in Retry-After, or a date, is a wish; anything else is none."""
    assert classify(answered(0, status=503, retry_after=retry_after)).retry_after_s == seconds
    assert classify(answered(1, retry_after=retry_after)).retry_after_s == seconds


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"{}", b'{"code":"0"}', b'{"code":null}', b'{"code":true}', b"\xff",
     b"[" * 10_000, b'{"code":0}', b'{"code":0,"data":null}', b'{"code":0,"data":[]}', b'{"code":0,"data":{"URL":5}}'],
)  # fmt: skip
def test_garbage_of_the_endpoint(body: bytes) -> None:
    """An answer that is none of the platform's may pass: a captive portal, a proxy's page."""
    with pytest.raises(EndpointError) as caught:
        read_answer(200, None, body, encrypted=True)
    failure = classify(caught.value)
    assert failure.kind is PASSING
    assert failure.reason.startswith("the endpoint's answer")


HANDSHAKES = [
    ({"handshake_status": "403", "handshake_msg": "no"}, REFUSED, "the handshake was refused: no"),
    ({"Handshake_Status": "403", "Handshake_Msg": "no"}, REFUSED, "the handshake was refused: no"),
    (
        {"handshake_status": "514", "handshake_msg": "full", "handshake_autherrcode": "1000040350"},
        REFUSED,
        "the handshake was refused: full",
    ),
    (
        {"handshake_status": "514", "handshake_msg": "old ticket", "handshake_autherrcode": "1000040344"},
        PASSING,
        "the handshake was refused: old ticket",
    ),
    ({"handshake_status": "514", "handshake_msg": "auth"}, PASSING, "the handshake was refused: auth"),
    (
        {"handshake_status": "514", "handshake_msg": "auth", "handshake_autherrcode": "many"},
        PASSING,
        "the handshake was refused: auth",
    ),
    ({"handshake_status": "500", "handshake_msg": "oops"}, PASSING, "the handshake was refused: oops"),
    ({"handshake_status": "abc", "handshake_msg": "odd"}, PASSING, "the handshake was refused: odd"),
    ({"handshake_status": "9" * 5000, "handshake_msg": "odd"}, PASSING, "the handshake was refused: odd"),
    ({"handshake_msg": "only words"}, PASSING, "the handshake was refused: only words"),
]


@pytest.mark.parametrize(("headers", "kind", "reason"), HANDSHAKES)
def test_headers_of_a_refused_handshake(headers: dict[str, str], kind: Kind, reason: str) -> None:
    """403 and too many connections are refusals at the slow pace, never final; everything else may pass."""
    failure = classify(refused(403, **headers))
    assert (failure.kind, failure.reason) == (kind, reason)
    assert (failure.hint is not None) == (kind is REFUSED)


@pytest.mark.parametrize(("headers", "kind", "reason"), HANDSHAKES)
def test_a_refused_handshake_seen_through_the_sdk(headers: dict[str, str], kind: Kind, reason: str) -> None:
    """The SDK puts its own exception before the refusal, or stumbles over it: the verdict is the same."""
    failure = classify(through_the_sdk(refused(403, **headers)))
    assert (failure.kind, failure.reason) == (kind, reason)


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 429, 500, 502, 503])
def test_a_handshake_refused_by_plain_http(status: int) -> None:
    """Without the platform's headers it is some server on the way: it may pass, and its wish is heard."""
    failure = classify(refused(status, retry_after="9"))
    assert (failure.kind, failure.retry_after_s) == (PASSING, 9.0)
    assert str(status) in failure.reason


def test_the_hint_for_too_many_connections() -> None:
    """Of the two meanings of a refused handshake each has its own advice."""
    full = classify(refused(handshake_status="514", handshake_autherrcode="1000040350")).hint
    forbidden = classify(refused(handshake_status="403")).hint
    assert full is not None
    assert "50 connections" in full
    assert forbidden is not None
    assert "custom" in forbidden


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-3, "Temporary failure in name resolution"), "gaierror: [Errno -3] Temporary failure in name resolution"),
        (ConnectionResetError(104, "Connection reset by peer"), "ConnectionResetError: [Errno 104] Connection reset by peer"),
        (ConnectionRefusedError(), "ConnectionRefusedError"),
        (TimeoutError(), "no answer in time"),
        (TimeoutError("the attempt took longer than 30 s"), "the attempt took longer than 30 s"),
        (UnreachableError("TCP connect to h:443 failed: Connection refused", hint="x"), "TCP connect to h:443 failed: Connection refused"),
        (httpx2.ConnectTimeout(""), "ConnectTimeout"),
        (httpx2.ConnectError("All connection attempts failed"), "ConnectError: All connection attempts failed"),
        (httpx2.RemoteProtocolError("garbage"), "RemoteProtocolError: garbage"),
        (InvalidMessage("did not receive a valid HTTP response"), "InvalidMessage: did not receive a valid HTTP response"),
        (ConnectionClosedError(None, None), "ConnectionClosedError: no close frame received or sent"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "SSLError: [SSL: WRONG_VERSION_NUMBER]"),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
    ],
)  # fmt: skip
def test_troubles_of_the_network(error: Exception, reason: str) -> None:
    """Names, sockets, timeouts, garbage: they may pass, and the reason says what it was."""
    failure = classify(error)
    assert (failure.kind, failure.reason, failure.by_server) == (PASSING, reason, False)


@pytest.mark.parametrize("by_server", [True, False])
def test_a_lost_connection(by_server: bool) -> None:  # noqa: FBT001  # a column of the table
    """A loss may pass; who closed it is remembered, for the nonce."""
    failure = classify(ConnectionLostError("closed by the server, code 1012", by_server=by_server))
    assert (failure.kind, failure.reason, failure.by_server) == (
        PASSING,
        "closed by the server, code 1012",
        by_server,
    )


def test_a_secret_file_that_cannot_be_read() -> None:
    """A configuration that went wrong while the daemon runs is waited for at the slow pace, and is not final."""
    failure = classify(ConfigError("lark.app_secret_file: no such file"))
    assert (failure.kind, failure.reason) == (REFUSED, "lark.app_secret_file: no such file")


@pytest.mark.parametrize(
    "error",
    [
        InvalidURI(
            "wss://u@h/ws?device_id=1&access_key=AAAA&ticket=BBBB", "username provided without password"
        ),
        RuntimeError("POST failed: AppSecret: BBBB, access_key=AAAA"),
        refused(handshake_status="514", handshake_msg="ticket=BBBB is used"),
        EndpointError("access_key=AAAA", code=403),
        ConnectionLostError("closed by the server, code 1008: ticket=BBBB", by_server=True),
    ],
)
def test_no_reason_holds_a_credential(error: Exception) -> None:
    """The address is a credential: what a library quotes of it does not reach the reason."""
    reason = classify(error).reason
    assert "AAAA" not in reason
    assert "BBBB" not in reason


@pytest.mark.parametrize(
    "error",
    [
        EndpointError("bad\nMAINPID=1\x1b[2J\u202eevil", code=1),
        ConnectionLostError("closed by the server, code 1008: a\r\nWATCHDOG=trigger\x9b", by_server=True),
        refused(handshake_status="500", handshake_msg="x\x1b]0;title\x07" * 1_000),
        UnreachableError("a proxy's page\n" * 1_000, hint="x"),
        RuntimeError("two\nlines"),
    ],
)
def test_every_reason_is_one_clean_line(error: Exception) -> None:
    """Whatever the platform or a proxy says comes out as one line of bounded length that drives no terminal."""
    reason = classify(error).reason
    assert reason.isprintable()
    assert len(reason) <= 500
