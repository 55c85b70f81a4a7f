"""A user's credentials for NATS (.creds), as `nsc` makes them: a token that says who it is, and the seed of the key that proves it.

The client would read them with a package that has no wheel, and for ever when the file has no token in it. A signature is all
that is needed, and the platform's encryption has brought that already (pycryptodome).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

_PART: Final = r"-+BEGIN {0}-+\s+(\S+)\s+-+END {0}-+"
_TOKEN: Final = re.compile(_PART.format("NATS USER JWT"))
_SEED: Final = re.compile(_PART.format("USER NKEY SEED"))
_OF_A_USER: Final = "SU"
_HEAD_BYTES: Final = 2
_KEY_BYTES: Final = 32
_SUM_BYTES: Final = 2


class Credentials:
    """What a server is told. Raises ValueError, whose text quotes nothing, for a text that is none."""

    def __init__(self, text: str) -> None:
        self._token = _found(_TOKEN, text, "BEGIN NATS USER JWT").encode()
        key = ECC.construct(curve="Ed25519", seed=_key_of(_found(_SEED, text, "BEGIN USER NKEY SEED")))
        self._signer = eddsa.new(key, "rfc8032")

    def token(self) -> bytes:
        """Who it is."""
        return self._token

    def sign(self, nonce: str) -> bytes:
        """The proof that it is so, for what the server asks this time."""
        return base64.b64encode(self._signer.sign(nonce.encode()))


def _found(part: re.Pattern[str], text: str, head: str) -> str:
    found = part.search(text)
    if found is None:
        raise ValueError(f'has no part "{head}": it must be a .creds file, as nsc makes it')
    return found[1]


def _key_of(seed: str) -> bytes:
    """The 32 bytes between what says whose key it is and a checksum."""
    try:
        decoded = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        decoded = b""
    summed, checksum = decoded[:-_SUM_BYTES], int.from_bytes(decoded[-_SUM_BYTES:], "little")
    is_whole = len(summed) == _HEAD_BYTES + _KEY_BYTES and binascii.crc_hqx(summed, 0) == checksum
    if not (is_whole and seed.startswith(_OF_A_USER)):
        raise ValueError("has a seed that is no user's, or is not whole")
    return summed[_HEAD_BYTES:]
