"""Opening a push: what gets through and what does not, beside the SDK's own dispatcher."""

from __future__ import annotations

import contextlib
import importlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from reserve_listener.intake import normalize
from reserve_listener.lark import encryption
from reserve_listener.transports.long_connection import sdk
from reserve_listener.transports.webhook.push import (
    Challenge,
    Credentials,
    Payload,
    PushRefusedError,
    open_push,
)
from tests.pushing import KEY, TOKEN, challenge, event, sealed, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOW_S = 1_790_000_000.0
BOTH = Credentials(encrypt_key=KEY, verification_token=TOKEN)
TOKEN_ONLY = Credentials(verification_token=TOKEN)
KEY_ONLY = Credentials(encrypt_key=KEY)
NEITHER = Credentials()


def opened(
    body: bytes, headers: Mapping[str, str] | None = None, credentials: Credentials = BOTH
) -> Challenge | Payload:
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    return open_push(body, lower, credentials, now_s=NOW_S, freshness_s=86_400)


def refused(
    body: bytes, headers: Mapping[str, str] | None = None, credentials: Credentials = BOTH
) -> PushRefusedError:
    with pytest.raises(PushRefusedError) as caught:
        opened(body, headers, credentials)
    assert caught.value.public in ("bad request", "unauthorized")
    return caught.value


@pytest.mark.parametrize("credentials", [BOTH, KEY_ONLY])
def test_an_encrypted_and_signed_push_is_opened_byte_for_byte(credentials: Credentials) -> None:
    """The payload is exactly what the platform encrypted, odd spacing and unknown keys included."""
    plain = b' {"schema":"2.0", "x": 1.50,' + event()[1:]
    body = sealed(plain)
    assert opened(body, signed(body, at_s=NOW_S), credentials) == Payload(plain)


@pytest.mark.parametrize("credentials", [TOKEN_ONLY, NEITHER])
def test_without_a_key_the_token_decides(credentials: Credentials) -> None:
    """A plain push with the right token gets through, whatever its signature headers say."""
    plain = event()
    assert opened(plain, {encryption.SIGNATURE: "nonsense"}, credentials) == Payload(plain)
    if credentials.verification_token:
        assert refused(event(token="wrong"), credentials=credentials).status == 401
        assert refused(msgspec.json.encode({"header": {}}), credentials=credentials).status == 401
        assert refused(b'{"header":{"token":5}}', credentials=credentials).status == 401


@pytest.mark.parametrize("with_signature", [True, False])
@pytest.mark.parametrize("credentials", [BOTH, KEY_ONLY, TOKEN_ONLY, NEITHER])
def test_a_challenge_is_answered_with_and_without_a_signature(
    credentials: Credentials, *, with_signature: bool
) -> None:
    """Challenges come without signature headers; the token in them is checked when there is one to check."""
    body = sealed(challenge()) if credentials.encrypt_key else challenge()
    headers = signed(body, at_s=NOW_S) if with_signature else {}
    assert opened(body, headers, credentials) == Challenge("c-0123")
    if credentials.verification_token:
        for token in ("wrong", None):
            wrong = sealed(challenge(token)) if credentials.encrypt_key else challenge(token)
            assert refused(wrong, headers, credentials).status == 401


def _signed(body: bytes, *, at_s: float = NOW_S, key: str = KEY) -> tuple[bytes, dict[str, str]]:
    return body, signed(body, at_s=at_s, key=key)


def _sealed_with_another_key() -> bytes:
    """One of 256 happens to end like a padding: with a signature that is right it counts as an event that cannot be read."""
    while True:
        body = sealed(event(), "other")
        try:
            encryption.decrypt(KEY, json.loads(body)["encrypt"])
        except encryption.DecryptionError:
            return body


REFUSED: dict[str, Callable[[], tuple[bytes, dict[str, str]]]] = {
    "plain although a key is configured": lambda: (event(), signed(event(), at_s=NOW_S)),
    "under another key": lambda: _signed(_sealed_with_another_key()),
    "signed with another key": lambda: _signed(sealed(event()), key="other"),
    "signed over another body": lambda: (sealed(event()), signed(sealed(event()), at_s=NOW_S)),
    "stale": lambda: _signed(sealed(event()), at_s=NOW_S - 86_401),
    "from the future": lambda: _signed(sealed(event()), at_s=NOW_S + 86_401),
    "without a signature": lambda: (sealed(event()), {}),
    "with a wrong token": lambda: _signed(sealed(event(token="wrong"))),
    "a challenge without text": lambda: (
        sealed(b'{"type":"url_verification","token":"%s"}' % TOKEN.encode()),
        {},
    ),
    "not base64": lambda: (b'{"encrypt":"*"}', {}),
    "too short": lambda: (b'{"encrypt":"AAAA"}', {}),
    "encrypt is a number": lambda: (b'{"encrypt":1}', {}),
    "nothing": lambda: (b"", {}),
    "a list": lambda: (b"[]", {}),
    "deep": lambda: (b"[" * 100_000, {}),
    "no UTF-8": lambda: (b'{"encrypt":"\xff"}', {}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_the_platforms_is_refused_with_4xx(what: str) -> None:
    """Each is the sender's mistake: 400 or 401, one of two texts for the sender, a reason without secrets for us."""
    body, headers = REFUSED[what]()
    refusal = refused(body, headers)
    assert refusal.status in (400, 401)
    assert str(refusal)
    assert not any(secret in str(refusal) for secret in (KEY, TOKEN))


@pytest.mark.parametrize("timestamp", ["", "x", "-5", "1e9", "9" * 500, "١٢٣", " 1"])
def test_a_timestamp_that_is_none_is_refused(timestamp: str) -> None:
    """The signature fits, but nobody can tell how old it is."""
    body = sealed(event())
    headers = signed(body) | {
        encryption.TIMESTAMP: timestamp,
        encryption.SIGNATURE: encryption.sign(timestamp, "n0nce", KEY, body),
    }
    assert refused(body, headers).status == 401


def test_what_the_platform_signed_is_kept_whatever_it_is() -> None:
    """With a signature that holds, a payload that is no JSON is the platform's all the same: intake keeps it whole."""
    body = sealed(b"not JSON")
    assert opened(body, signed(body, at_s=NOW_S)) == Payload(b"not JSON")
    assert refused(body, {}).status == 401


ODD = {
    "half a surrogate pair": rb'"\ud83d"',
    "half of one in a key": rb'{"\udc00":1}',
    "beyond a float": b"1e400",
    "beyond an integer": b"1" * 400,
    "the least number": b"-1e-400",
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("credentials", [BOTH, TOKEN_ONLY, NEITHER])
def test_what_the_long_connection_takes_is_taken(what: str, credentials: Credentials) -> None:
    """JSON that strict parsers refuse gets to intake byte for byte, where the long connection's goes, too."""
    plain = event().replace(b'"scope_type":', b'"odd":%s,"scope_type":' % ODD[what])
    body = sealed(plain) if credentials.encrypt_key else plain
    assert opened(body, signed(body, at_s=NOW_S), credentials) == Payload(plain)
    assert normalize.incoming(plain, normalize.parse(plain), received_ms=0).problem is None


@pytest.mark.parametrize(
    "plain", [event()[:-1], b"\xff" + event(), event() + b"[" * 100_000, event().replace(b"{", b"{,", 1)]
)
def test_what_carries_the_token_is_kept_whatever_it_is(plain: bytes) -> None:
    """Bytes that no parser reads are the platform's if they hold its token: intake keeps them whole. Others are refused."""
    assert opened(plain, {}, TOKEN_ONLY) == Payload(plain)
    assert refused(plain.replace(TOKEN.encode(), b"wrong"), {}, TOKEN_ONLY).status == 400
    assert refused(plain, {}, NEITHER).status == 400
    assert refused(plain, {}, BOTH).status == 400


@given(st.binary(max_size=200), st.text(max_size=40))
def test_encryption_comes_back_and_others_do_not(plain: bytes, key: str) -> None:
    """What was encrypted is decrypted under its key; cut or changed it is an error that says nothing."""
    text = encryption.encrypt(key, plain, iv=bytes(16))
    assert encryption.decrypt(key, text) == plain
    for broken in (text[:-4], text[4:] + "AAAA", "é" + text):
        with contextlib.suppress(encryption.DecryptionError):
            assert encryption.decrypt(key, broken) != plain
    assert str(encryption.DecryptionError()) == "cannot be decrypted with this key"


@settings(max_examples=300)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode), st.dictionaries(st.text(), st.text()))
def test_nothing_opens_by_chance(body: bytes, headers: dict[str, str]) -> None:
    """Random bodies and headers are refused, with the status of a sender's mistake."""
    for credentials in (BOTH, KEY_ONLY, TOKEN_ONLY):
        for sent in (body, sealed(body)):
            assert refused(sent, headers, credentials).status in (400, 401)


class Sdk:
    """The SDK's dispatcher behind the same credentials."""

    def __init__(self, credentials: Credentials) -> None:
        lark = sdk.load()
        self._request: Any = importlib.import_module("lark_oapi.core.model").RawRequest
        self.events: list[bytes] = []
        self._dispatcher = (
            lark.dispatcher.builder(credentials.encrypt_key or "", credentials.verification_token or "")
            .register_p2_vc_reserve_config_updated_v1(
                lambda one: self.events.append(lark.json.marshal(one).encode())
            )
            .build()
        )

    def status(self, body: bytes, headers: dict[str, str]) -> int:
        request = self._request()
        request.uri, request.headers, request.body = "/", headers, body
        return int(self._dispatcher.do(request).status_code)


@pytest.mark.parametrize("credentials", [BOTH, TOKEN_ONLY])  # with a key alone the SDK refuses any token
async def test_the_sdks_dispatcher_takes_the_same_pushes_and_reads_the_same_event(
    credentials: Credentials,
) -> None:
    """Good pushes get through both and become the same event; ours is stricter only on age, plainness and challenges."""
    theirs = Sdk(credentials)
    for number in range(5):
        plain = event(event_id=f"e{number}")
        body = sealed(plain) if credentials.encrypt_key else plain
        headers = signed(body, at_s=NOW_S)
        ours = opened(body, headers, credentials)
        assert theirs.status(body, headers) == 200
        assert isinstance(ours, Payload)
        mine = normalize.incoming(ours.raw, json.loads(ours.raw), received_ms=0)
        sdks = normalize.incoming(theirs.events[-1], json.loads(theirs.events[-1]), received_ms=0)
        assert (mine.event_id, mine.scope) == (sdks.event_id, sdks.scope)
        assert json.loads(mine.body or b"") == json.loads(sdks.body or b"")
    for what in (
        "under another key",
        "signed with another key",
        "signed over another body",
        "with a wrong token",
    ):
        body, headers = REFUSED[what]()
        if credentials.encrypt_key and (what != "with a wrong token" or credentials.verification_token):
            assert theirs.status(body, headers) == 500  # ours says whose mistake it is
            assert refused(body, headers, credentials).status == 401
