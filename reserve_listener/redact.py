"""What must not leave: pure functions that take credentials out of payloads and texts (design, invariant 7)."""

from __future__ import annotations

import re
from typing import Any, Final

from reserve_listener.text import MASK

# Possessive, so that a payload of quotes and backslashes takes no more than linear time. A payload may be cut off within
# an escape.
_TOKEN_IN_BYTES: Final = re.compile(
    rb'("token"\s*+:\s*+)"(?:[^"\\]|\\.)*+(?:\\?\Z|")', re.DOTALL | re.IGNORECASE
)
# The same in JSON that stands as a text within JSON, its quotes escaped.
_ESCAPED_TOKEN_IN_BYTES: Final = re.compile(
    rb'("token(\\+)"\s*+:\s*+\2)".*?(?:\2"|\Z)', re.DOTALL | re.IGNORECASE
)
# `key=value`, `"key": "value"`, `key: value` of the names that carry credentials on the long connection (the URL's
# access_key and ticket), in the endpoint's answer and in the event.
_SECRET_IN_TEXT: Final = re.compile(
    r"""(?ix)
    ( (?<![a-z]) (?: access_key | ticket | app_?secret | token | verification_token | encrypt_key | authorization
                   | signing_secret )
      ["'\\]* \s* [=:] \s* ["'\\]* (?: (?: bearer | basic ) \s+ )? )
    (?! missing; )  # what our own errors say of a key
    [^\s"'&,;\\}\])]+
    """
)


def drop_tokens(envelope: dict[str, Any], *, deep: bool = False) -> dict[str, Any]:
    """The envelope without the verification token (`header.token`; `token` in the v1 form).

    `deep` drops the key at every depth, for an envelope whose shape is not the documented one.
    """
    if deep:
        return _drop_deep(envelope)  # type: ignore[no-any-return]
    stripped = {key: value for key, value in envelope.items() if key != "token"}
    header = stripped.get("header")
    if isinstance(header, dict) and "token" in header:
        stripped["header"] = {key: value for key, value in header.items() if key != "token"}
    return stripped


def _drop_deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_deep(item) for key, item in value.items() if key != "token"}
    if isinstance(value, list):
        return [_drop_deep(item) for item in value]
    return value


def blank_tokens(raw: bytes) -> bytes:
    """Bytes that do not parse, with every `"token":"…"` blanked, also one that is cut off at the end."""
    return _ESCAPED_TOKEN_IN_BYTES.sub(rb'\1"\2"', _TOKEN_IN_BYTES.sub(rb'\1""', raw))


def scrub(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text for the log: the configured secrets and everything that looks like a credential masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    return _SECRET_IN_TEXT.sub(rf"\1{MASK}", text)
