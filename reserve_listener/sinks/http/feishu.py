"""`format = "feishu"`: the platform's own webhook push, for a receiver that was built for the platform.

What must stay true: a receiver that verifies as the platform documents it (and lark-oapi's `EventDispatcherHandler` does)
takes these pushes unchanged. All of the payload stays as it was stored, byte for byte; only `header.token` is put in.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from reserve_listener.lark import encryption

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = "application/json; charset=utf-8"
NONCE_BYTES: Final = 16

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class Feishu:
    """Makes the push. `verification_token` and `encrypt_key` are the receiver's own; each may be left out.

    With a key the body is encrypted and signed, anew for each attempt: the receiver may check the timestamp.
    """

    needs_raw = True

    def __init__(
        self,
        *,
        verification_token: str | None = None,
        encrypt_key: str | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._token = verification_token
        self._key = encrypt_key
        self._random_bytes = random_bytes
        self.secrets = tuple(secret for secret in (verification_token, encrypt_key) if secret)

    def compose(self, delivery: Delivery, now_s: float) -> tuple[bytes, dict[str, str]]:
        """See `http.Form`."""
        if delivery.raw is None:
            raise ValueError("the delivery lacks the platform's payload")
        body = with_token(delivery.raw, self._token) if self._token else delivery.raw
        headers = {"content-type": CONTENT_TYPE}
        if self._key:
            iv = self._random_bytes(encryption.IV_BYTES)
            body = _encode({"encrypt": encryption.encrypt(self._key, body, iv=iv)})
            timestamp, nonce = str(int(now_s)), self._random_bytes(NONCE_BYTES).hex()
            headers |= {
                encryption.TIMESTAMP: timestamp,
                encryption.NONCE: nonce,
                encryption.SIGNATURE: encryption.sign(timestamp, nonce, self._key, body),
            }
        return body, headers


def with_token(raw: bytes, token: str) -> bytes:
    """The payload with `header.token`; no other value is read, so none is changed."""
    fields = _fields(raw)
    header = _fields(fields["header"])
    header["token"] = msgspec.Raw(_encode(token))
    fields["header"] = msgspec.Raw(_encode(header))
    return _encode(fields)
