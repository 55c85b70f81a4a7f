"""`format = "feishu"`: what a receiver that was built for the platform makes of it; the SDK's own dispatcher is one."""

from __future__ import annotations

import base64
import importlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from standardwebhooks.webhooks import Webhook

from reserve_listener.errors import DeliveryError, TransientDeliveryError
from reserve_listener.intake import normalize
from reserve_listener.lark.encryption import encrypt
from reserve_listener.model import Delivery
from reserve_listener.redact import blank_tokens
from reserve_listener.simulator import Answer, HttpServer, Receiver, sample_event
from reserve_listener.simulator.events import TOKEN
from reserve_listener.sinks.http.feishu import Feishu, with_token
from reserve_listener.sinks.http.sink import HttpSink
from reserve_listener.transports.long_connection import sdk
from tests.helpers import NOW_MS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import IncomingEvent
    from reserve_listener.simulator import Received

KEY = "the receiver's own key 会"
OWN_TOKEN = "theReceiversOwnToken"
LARK_HEADERS = {"x-lark-request-timestamp", "x-lark-request-nonce", "x-lark-signature"}


def stored() -> IncomingEvent:
    """An event as the store holds it: the platform's token is out of its raw payload."""
    envelope = sample_event(event_id="e-会议", added_by_the_platform={"x": [1, None]})
    raw = blank_tokens(msgspec.json.encode(envelope))
    event = normalize.incoming(raw, envelope, received_ms=NOW_MS)
    assert TOKEN.encode() not in event.raw
    return event


def delivery(raw: bytes | None) -> Delivery:
    return Delivery(
        seq=1, event_id="e1", scope=1, attempts=0, received_ms=NOW_MS, body=b'{"specversion":"1.0"}', raw=raw
    )


@asynccontextmanager
async def sink_to(receiver: Receiver, form: Feishu, **more: Any) -> AsyncIterator[HttpSink]:
    async with HttpServer(receiver) as server:
        sink = HttpSink("old", f"{server.url}/hook", form=form, **more)
        try:
            yield sink
        finally:
            await sink.close()


class SdkReceiver:
    """A webhook on the SDK's own dispatcher. `events` are what its registered handler was given, as JSON."""

    def __init__(self, encrypt_key: str, verification_token: str) -> None:
        lark = sdk.load()
        self._request = importlib.import_module("lark_oapi.core.model").RawRequest
        self.events: list[bytes] = []
        self._dispatcher = (
            lark.dispatcher.builder(encrypt_key, verification_token)
            .register_p2_vc_reserve_config_updated_v1(
                lambda event: self.events.append(lark.json.marshal(event).encode())
            )
            .build()
        )

    def __call__(self, received: Received) -> Answer:
        request = self._request()
        request.uri = received.path
        request.headers = {name.title(): value for name, value in received.headers.items()}  # as Flask does
        request.body = received.body
        answer = self._dispatcher.do(request)
        return Answer(status=answer.status_code, body=answer.content)


def normalized(raw: bytes) -> Any:
    event = normalize.incoming(raw, normalize.parse(raw), received_ms=NOW_MS)
    assert event.body is not None
    body = json.loads(event.body)
    body["data"].pop("added_by_the_platform", None)  # the SDK's typed event loses it
    return body


async def test_without_credentials_the_payload_goes_out_byte_for_byte() -> None:
    """POST with the platform's content type, what is stored as the body, and no signature of the platform's kind."""
    receiver, event = Receiver(), stored()
    async with sink_to(receiver, Feishu()) as sink:
        assert sink.needs_raw
        await sink.deliver([delivery(event.raw)])
    (request,) = receiver.received
    assert (request.method, request.path, request.body) == ("POST", "/hook", event.raw)
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert not LARK_HEADERS & set(request.headers)
    assert request.headers["webhook-id"] == "e1"


@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("token", ["", OWN_TOKEN])
async def test_the_sdks_dispatcher_accepts_it_and_yields_the_event(key: str, token: str) -> None:
    """A receiver on lark-oapi with the same token and key answers 200, and its handler gets the stored event."""
    event, theirs = stored(), SdkReceiver(key, token)
    receiver = Receiver(theirs)
    async with sink_to(receiver, Feishu(encrypt_key=key, verification_token=token)) as sink:
        await sink.deliver([delivery(event.raw)])
    (raw,) = theirs.events
    assert normalized(raw) == normalized(event.raw)
    if token:
        assert json.loads(raw)["header"]["token"] == token
    (request,) = receiver.received
    if key:
        assert set(request.headers) > LARK_HEADERS
        assert list(json.loads(request.body)) == ["encrypt"]
        assert b"omm_" not in request.body


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("", OWN_TOKEN), ("", "another token")),
        (("", OWN_TOKEN), ("", "")),
        ((KEY, ""), ("another key", "")),
        ((KEY, OWN_TOKEN), (KEY, "another token")),
        (("", ""), (KEY, "")),
        ((KEY, ""), ("", "")),
    ],
)
async def test_the_sdks_dispatcher_refuses_other_credentials(
    theirs: tuple[str, str], ours: tuple[str, str]
) -> None:
    """Where key or token of the two sides differ the receiver answers 500, which names no credential."""
    dispatcher = SdkReceiver(*theirs)
    async with sink_to(Receiver(dispatcher), Feishu(encrypt_key=ours[0], verification_token=ours[1])) as sink:
        with pytest.raises(TransientDeliveryError, match="HTTP 500") as caught:
            await sink.deliver([delivery(stored().raw)])
    assert not dispatcher.events
    assert not any(secret and secret in str(caught.value) for secret in ours)


async def test_credentials_that_come_back_are_masked() -> None:
    """A receiver that answers with the token and the key puts neither into the error."""
    answer = Answer(status=400, body=f"you are {OWN_TOKEN} with {KEY}".encode())
    async with sink_to(Receiver(answer), Feishu(encrypt_key=KEY, verification_token=OWN_TOKEN)) as sink:
        with pytest.raises(DeliveryError) as caught:
            await sink.deliver([delivery(b'{"header":{}}')])
    assert str(caught.value) == "HTTP 400: you are ******** with ********"


async def test_each_attempt_is_signed_anew_and_means_the_same() -> None:
    """Over attempts the timestamp moves on, iv and nonce are fresh, and what is encrypted stays the same."""
    raw, times = stored().raw, iter([1_000.9, 1_060.2])
    receiver = Receiver()
    form = Feishu(encrypt_key=KEY)
    async with sink_to(receiver, form, now_s=lambda: next(times)) as sink:
        for _ in range(2):
            await sink.deliver([delivery(raw)])
    first, second = receiver.received
    assert [one.headers["x-lark-request-timestamp"] for one in (first, second)] == ["1000", "1060"]
    assert [one.headers["webhook-timestamp"] for one in (first, second)] == ["1000", "1060"]
    for name in ("x-lark-request-nonce", "x-lark-signature"):
        assert first.headers[name] != second.headers[name]
    assert first.body != second.body
    assert [decrypted(one.body) for one in (first, second)] == [raw, raw]


def decrypted(body: bytes) -> bytes:
    sdk.load()
    cipher = importlib.import_module("lark_oapi.core.utils").AESCipher(KEY)
    return str(cipher.decrypt_str(json.loads(body)["encrypt"])).encode()


async def test_a_signing_secret_signs_what_is_sent() -> None:
    """With a Standard Webhooks secret beside the encrypt key, the library verifies the encrypted body."""
    receiver = Receiver()
    async with sink_to(receiver, Feishu(encrypt_key=KEY), signing_keys=[b"k" * 24]) as sink:
        await sink.deliver([delivery(stored().raw)])
    (request,) = receiver.received
    assert list(Webhook(b"k" * 24).verify(request.body, request.headers)) == ["encrypt"]


def test_the_platforms_example_of_encryption() -> None:
    """The example of the platform's documentation comes out to the letter."""
    example = "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk="
    iv = base64.b64decode(example)[:16]
    assert encrypt("test key", b"hello world", iv=iv) == example


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4), st.text())
def test_the_token_is_all_that_is_put_in(
    envelope: dict[str, Any], header: dict[str, Any], token: str
) -> None:
    """Whatever the payload holds, it comes out with `header.token` and everything else as it was."""
    raw = json.dumps({**envelope, "header": header}).encode()
    expected = {**envelope, "header": {**header, "token": token}}
    assert json.loads(with_token(raw, token)) == expected


def test_numbers_keep_their_spelling() -> None:
    """Values are not read on the way, so that none changes its digits."""
    raw = b'{"schema":"2.0","header":{"event_id":"e1"},"event":{"a":1.50,"b":1e400,"c":12345678901234567890123}}'
    expected = raw.replace(b'"e1"', b'"e1","token":"t"')
    assert with_token(raw, "t") == expected


async def test_a_delivery_without_the_payload_is_a_defect() -> None:
    """An engine that forgets to load `raw` is told so; nothing is sent."""
    receiver = Receiver()
    async with sink_to(receiver, Feishu()) as sink:
        with pytest.raises(ValueError, match="lacks the platform's payload"):
            await sink.deliver([delivery(None)])
    assert not receiver.received
