"""Certificates and keys in PEM, as OpenSSL will find them when the daemon starts."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Final

from reserve_listener.config.certificates import LARGEST, load_chain, require_readable
from reserve_listener.config.reading import read_within
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_ENCRYPTED: Final = re.compile(
    rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE
)
_NO_MATCH: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""OpenSSL's reasons; the last one is for a key of another kind, such as RSA for a certificate with an EC key."""


def try_ca_bundle(path: Path) -> None:
    """Raise ConfigError when the file holds no authorities."""
    try:
        require_readable(path)
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one.
        raise ConfigError(f"ca_bundle {path}: {_openssl(error)}") from None


def try_certificate(cert_key: str, certificate: Path, key_key: str, key: Path | None) -> None:
    """`cert_key` and `key_key`: what the two are called in the configuration."""
    chain = _pem(cert_key, certificate)
    if not _CERTIFICATE.search(chain):
        raise ConfigError(f"{cert_key} {certificate}: contains no PEM certificate")
    named, keys = (cert_key, chain) if key is None else (key_key, _pem(key_key, key))
    where = f"{named} {key or certificate}"
    if not _KEY.search(keys):
        advice = f"; name its file in {key_key}" if key is None else ""
        raise ConfigError(f"{where}: contains no PEM private key{advice}")
    if _ENCRYPTED.search(keys):
        raise ConfigError(
            f"{where}: the key is encrypted, and the daemon cannot ask anybody for its passphrase"
        )
    try:
        load_chain(ssl.create_default_context(), certificate, key)
    except ssl.SSLError as error:
        if error.reason in _NO_MATCH:
            other = f" in {certificate}" if key else ""
            raise ConfigError(f"{where}: the key does not belong to the certificate{other}") from None
        raise ConfigError(f"{cert_key} {certificate}, {where}: {_openssl(error)}") from None


def _pem(what: str, path: Path) -> bytes:
    try:
        return read_within(path, LARGEST)
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror or error}") from None


def _openssl(error: OSError) -> str:
    """The reason without the place in OpenSSL's and Python's sources; an OSError that is none of ssl's has no such."""
    text = error.strerror or str(error)
    return re.sub(r"\A\[[^]]*\] | \(_ssl\.c:\d+\)\Z", "", text)
