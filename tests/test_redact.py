"""What must not leave: tokens in payloads, credentials in texts."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from reserve_listener.redact import blank_tokens, drop_tokens, scrub
from reserve_listener.text import MASK


@pytest.mark.parametrize(
    ("raw", "blanked"),
    [
        (b'{"token":"abc"', b'{"token":""'),
        (b'{"token" : "abc","x":1', b'{"token" : "","x":1'),
        (b'{"Token":"abc"', b'{"Token":""'),
        (b'"token":"a\\"b","x"', b'"token":"","x"'),
        (b'"token":"a\\\\","x"', b'"token":"","x"'),
        (b'"token":"a\nb","x"', b'"token":"","x"'),
        (b'"token":"abc', b'"token":""'),
        (b'"token":"abc\\', b'"token":""'),
        (b'"token":"', b'"token":""'),
        (b'"token":"a""token":"b"', b'"token":"""token":""'),
        (b'"{\\"token\\": \\"abc\\", \\"x\\"', b'"{\\"token\\": \\"\\", \\"x\\"'),
        (b'"{\\"token\\": \\"abc', b'"{\\"token\\": \\"\\"'),
        (b'"tokens":"abc"', b'"tokens":"abc"'),
        (b'"token":5', b'"token":5'),
        (b"", b""),
    ],
)
def test_tokens_in_bytes_that_do_not_parse(raw: bytes, blanked: bytes) -> None:
    """Every token is blanked, also one that is cut off or stands in JSON within JSON; all else stays byte for byte."""
    assert blank_tokens(raw) == blanked


@given(secret=st.text(min_size=1), cut=st.integers(0, 40))
def test_no_token_survives_a_cut(secret: str, cut: int) -> None:
    """Whatever the token is and wherever the payload ends, nothing stands between the quotes afterwards."""
    raw = b'{"token":' + msgspec.json.encode(secret)
    blanked = blank_tokens(raw[: len(raw) - cut])
    assert blanked in (b'{"token":""', raw[: len(raw) - cut][:9])


@pytest.mark.parametrize(
    "raw",
    [
        b'"token":"' + b'\\"' * 500_000,
        b'"token' * 200_000,
        b'"token\\"' * 150_000,
        b'"token"' + b" " * 1_000_000,
        b'"token' + b"\\" * 1_000_000,
        b'"token\\": \\"' * 90_000,
    ],
    ids=lambda raw: raw[:16].decode(),
)
def test_blanking_takes_linear_time(raw: bytes) -> None:
    """A megabyte made to be hard is done in the blink of an eye: it is done on the event loop."""
    started = time.process_time()
    blank_tokens(raw)
    assert time.process_time() - started < 1.0


def test_tokens_of_an_envelope() -> None:
    """The token goes from the top and from the header, elsewhere a key of that name is the platform's."""
    envelope: dict[str, Any] = {"token": "t", "header": {"token": "t", "a": 1}, "event": {"token": "kept"}}
    assert drop_tokens(envelope) == {"header": {"a": 1}, "event": {"token": "kept"}}
    assert envelope["header"] == {"token": "t", "a": 1}


def test_tokens_at_every_depth() -> None:
    """With `deep` the token goes wherever it stands."""
    envelope = {"a": [{"token": "t", "b": {"token": {"x": "t"}, "c": 1}}], "token": None}
    assert drop_tokens(envelope, deep=True) == {"a": [{"b": {"c": 1}}]}


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("wss://h/ws?device_id=1&access_key=AAA&ticket=BBB&x=1", "wss://h/ws?device_id=1&access_key=***&ticket=***&x=1"),
        ('{"AppID": "cli_1", "AppSecret": "s3cr3t"}', '{"AppID": "cli_1", "AppSecret": "***"}'),
        ("app_secret=abc, next", "app_secret=***, next"),
        ("'verification_token': 'abc'", "'verification_token': '***'"),
        ('{\\"token\\":\\"abc\\"}', '{\\"token\\":\\"***\\"}'),
        ("tenant_access_token: t-1", "tenant_access_token: ***"),
        ("encrypt_key = kkk", "encrypt_key = ***"),
        ("signing_secret=whsec_abc", "signing_secret=***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("authorization=Basic Zm9v", "authorization=Basic ***"),
        ('{"authorization": "Bearer abc"}', '{"authorization": "Bearer ***"}'),
        ("authorization: abc", "authorization: ***"),
        ("nothing to hide, tokens: 5", "nothing to hide, tokens: 5"),
    ],
)  # fmt: skip
def test_credentials_in_texts(text: str, scrubbed: str) -> None:
    """What looks like a credential is masked; the words around it stay."""
    assert scrub(text) == scrubbed.replace("***", MASK)


def test_the_configured_secrets() -> None:
    """A secret of the configuration is masked wherever it stands, in the order given; an empty one masks nothing."""
    assert scrub("a s3cr3t-long in s3cr3t", ("s3cr3t-long", "s3cr3t", "")) == f"a {MASK} in {MASK}"


def test_an_error_that_names_a_missing_key_stays_readable() -> None:
    """What the configuration's own errors say of a secret's key is no secret."""
    text = "config.toml: lark.app_secret: missing; set app_secret_file"
    assert scrub(text) == text
    assert "hunter2" not in scrub("app_secret: hunter2; missing; ")
