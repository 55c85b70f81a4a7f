"""The platform's webhook form: what the daemon, its feishu sink and the simulator share of it.

A push is `{"encrypt": base64(iv + AES-256-CBC(sha256(key), PKCS#7))}` or plain JSON. Its signature is the hex sha256 of
timestamp, nonce, key and the body as it is sent (lark_oapi/event/dispatcher_handler.py, lark_oapi/core/utils/decryptor.py).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

TIMESTAMP: Final = "X-Lark-Request-Timestamp"
NONCE: Final = "X-Lark-Request-Nonce"
SIGNATURE: Final = "X-Lark-Signature"
URL_VERIFICATION: Final = "url_verification"
IV_BYTES: Final = 16


class DecryptionError(ValueError):
    """What came is no encryption under this key. Says no more: what exactly is wrong would help only an attacker."""

    def __init__(self) -> None:
        super().__init__("cannot be decrypted with this key")


def encrypt(key: str, plain: bytes, *, iv: bytes) -> str:
    """What stands under `encrypt`."""
    from Crypto.Cipher import AES  # noqa: PLC0415  # lark-oapi brings it; needed with an encrypt key only
    from Crypto.Util.Padding import pad  # noqa: PLC0415  # as above

    cipher = AES.new(hashlib.sha256(key.encode()).digest(), AES.MODE_CBC, iv=iv)
    return base64.b64encode(iv + cipher.encrypt(pad(plain, AES.block_size))).decode()


def decrypt(key: str, text: str) -> bytes:
    """What `encrypt` was given. Raises `DecryptionError`."""
    from Crypto.Cipher import AES  # noqa: PLC0415  # as in `encrypt`
    from Crypto.Util.Padding import unpad  # noqa: PLC0415  # as above

    try:
        data = base64.b64decode(text, validate=True)
        iv, encrypted = data[:IV_BYTES], data[IV_BYTES:]
        cipher = AES.new(hashlib.sha256(key.encode()).digest(), AES.MODE_CBC, iv=iv)
        return unpad(cipher.decrypt(encrypted), AES.block_size)
    except (binascii.Error, ValueError):
        raise DecryptionError from None


def sign(timestamp: str, nonce: str, key: str, body: bytes) -> str:
    """The signature: over the body as it is sent, so after the encryption."""
    digest = hashlib.sha256((timestamp + nonce + key).encode("utf-8", "surrogateescape"))
    digest.update(body)  # not joined: it may be 16 MiB
    return digest.hexdigest()
