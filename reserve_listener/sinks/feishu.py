"""`format = "feishu"`: the platform's own webhook push, for a receiver that was built for the platform.

What must stay true: a receiver that verifies as the platform documents it (and lark-oapi's `EventDispatcherHandler` does)
takes these pushes unchanged. All of the payload stays as it was stored, byte for byte; only `header.token` is put in.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.model import Delivery

CONTENT_TYPE: Final = "application/json; charset=utf-8"
IV_BYTES: Final = 16
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
            raise ValueError("the delivery comes without the platform's payload")
        body = with_token(delivery.raw, self._token) if self._token else delivery.raw
        headers = {"content-type": CONTENT_TYPE}
        if self._key:
            body = _encode({"encrypt": encrypt(self._key, body, iv=self._random_bytes(IV_BYTES))})
            timestamp, nonce = str(int(now_s)), self._random_bytes(NONCE_BYTES).hex()
            headers |= {
                "X-Lark-Request-Timestamp": timestamp,
                "X-Lark-Request-Nonce": nonce,
                "X-Lark-Signature": sign(timestamp, nonce, self._key, body),
            }
        return body, headers


def with_token(raw: bytes, token: str) -> bytes:
    """The payload with `header.token`; no other value is read, so none is changed."""
    envelope = _fields(raw)
    header = _fields(envelope["header"])
    header["token"] = msgspec.Raw(_encode(token))
    envelope["header"] = msgspec.Raw(_encode(header))
    return _encode(envelope)


def encrypt(key: str, plain: bytes, *, iv: bytes) -> str:
    """What stands under `encrypt`: base64 of the iv and of AES-256-CBC with PKCS#7 under the key's sha256."""
    from Crypto.Cipher import AES  # noqa: PLC0415  # lark-oapi brings it; needed with an encrypt key only
    from Crypto.Util.Padding import pad  # noqa: PLC0415  # as above

    cipher = AES.new(hashlib.sha256(key.encode()).digest(), AES.MODE_CBC, iv=iv)
    return base64.b64encode(iv + cipher.encrypt(pad(plain, AES.block_size))).decode()


def sign(timestamp: str, nonce: str, key: str, body: bytes) -> str:
    """`X-Lark-Signature`: a hash over the body as it is sent, so after the encryption."""
    return hashlib.sha256((timestamp + nonce + key).encode() + body).hexdigest()
