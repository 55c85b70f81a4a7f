"""Opening a push that came to the webhook: is it the platform's, and what is in it. Pure.

What must stay true: nothing gets through that the platform did not send, as far as key and token can tell; a refusal tells
the sender as little as possible and the operator everything but secrets; the payload is what was sent, byte for byte.

- With an encrypt key the body is encrypted and, but for a challenge, signed; a timestamp beyond `freshness_s` is stale.
- Without one the verification token decides. With neither, everything is believed.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.intake import normalize
from reserve_listener.lark import encryption

if TYPE_CHECKING:
    from collections.abc import Mapping

BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401

_TOKEN: Final = re.compile(rb'"token"\s{0,8}:\s{0,8}"([^"\\]{1,200})"')
_TOKENS_TRIED: Final = 16
"""The platform sends one. More would let a stranger ask for a comparison with each few bytes of 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The app's encrypt key and verification token; what is None is not checked."""

    encrypt_key: str | None = None
    verification_token: str | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """The platform asks whether this is the app's address: `text` is what it wants to hear."""

    text: str


@dataclass(frozen=True, slots=True)
class Payload:
    """An event, decrypted. `app_id`: the app that it says it is for."""

    raw: bytes
    app_id: str | None = field(default=None, compare=False)


class PushRefusedError(Exception):
    """A push that is not taken. `public` is for the sender, the error's own text for the operator."""

    def __init__(self, status: int, public: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.public = public


def open_push(
    body: bytes, headers: Mapping[str, str], credentials: Credentials, *, now_s: float, freshness_s: float
) -> Challenge | Payload:
    """What a push holds. `headers`: lower-case names. Raises `PushRefusedError`."""
    key = credentials.encrypt_key
    raw = body if key is None else _decrypted(body, key)
    try:
        content = _parsed(raw)
    except PushRefusedError:
        # What can be shown to be the platform's is kept, whatever it is: intake stores it whole.
        if key is not None:
            _require_signature(body, headers, key, now_s=now_s, freshness_s=freshness_s)
        elif not _holds_token(raw, credentials.verification_token):
            raise
        return Payload(raw)
    _require_token(content, credentials)
    if content.get("type") == encryption.URL_VERIFICATION:
        return _challenge(content)
    if key is not None:
        _require_signature(body, headers, key, now_s=now_s, freshness_s=freshness_s)
    return Payload(raw, _app_id(content))


def _decrypted(body: bytes, key: str) -> bytes:
    text = _parsed(body).get("encrypt")
    if not isinstance(text, str):
        raise _unauthorized("not encrypted, but an encrypt key is configured")
    try:
        return encryption.decrypt(key, text)
    except encryption.DecryptionError as error:
        raise _unauthorized(f"{error}: check webhook.encrypt_key") from None


def _parsed(raw: bytes) -> dict[str, Any]:
    """By intake's own parser: what the long connection takes is not refused here."""
    try:
        return normalize.parse(raw)
    except normalize.Unreadable:
        raise PushRefusedError(BAD_REQUEST, "bad request", "the body is not a JSON object") from None


def _holds_token(raw: bytes, wanted: str | None) -> bool:
    """Whether bytes that do not parse carry the verification token all the same."""
    found = [match[1] for match in islice(_TOKEN.finditer(raw), _TOKENS_TRIED)]
    return wanted is not None and any(hmac.compare_digest(token, wanted.encode()) for token in found)


def _app_id(content: Mapping[str, Any]) -> str | None:
    header = content.get("header")
    app_id = header.get("app_id") if isinstance(header, dict) else None
    return app_id if isinstance(app_id, str) else None


def _require_token(content: Mapping[str, Any], credentials: Credentials) -> None:
    """v2 has it in the header, challenges and v1 at the top.

    An event that is encrypted may come without, as the SDK holds it: then the signature proves what the token would.
    """
    if credentials.verification_token is None:
        return
    header = content.get("header")
    token = header.get("token") if isinstance(header, dict) else content.get("token")
    is_challenge = content.get("type") == encryption.URL_VERIFICATION
    if token is None and credentials.encrypt_key is not None and not is_challenge:
        return
    given = token if isinstance(token, str) else ""
    if not _same(given, credentials.verification_token):
        raise _unauthorized(
            "the verification token is not the configured one: check webhook.verification_token"
        )


def _challenge(content: Mapping[str, Any]) -> Challenge:
    text = content.get("challenge")
    if not isinstance(text, str):
        raise PushRefusedError(BAD_REQUEST, "bad request", "a url_verification without a challenge")
    return Challenge(text)


def _require_signature(
    body: bytes, headers: Mapping[str, str], key: str, *, now_s: float, freshness_s: float
) -> None:
    timestamp, nonce, signature = (
        headers.get(name.lower(), "")
        for name in (encryption.TIMESTAMP, encryption.NONCE, encryption.SIGNATURE)
    )
    if not (timestamp and signature):
        raise _unauthorized("the signature's headers are missing")
    if not _same(signature.lower(), encryption.sign(timestamp, nonce, key, body)):
        raise _unauthorized("the signature does not match the body and the encrypt key")
    age_s = now_s - float(timestamp) if timestamp.isascii() and timestamp.isdigit() else float("inf")
    if abs(age_s) > freshness_s:
        raise _unauthorized("the timestamp is missing, too old or too new: check this machine's clock")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def _unauthorized(reason: str) -> PushRefusedError:
    return PushRefusedError(UNAUTHORIZED, "unauthorized", reason)
