"""Certificates and keys for TLS, read within a time and a size.

OpenSSL itself would wait for a pipe, or a disk that is away, for ever. So a file is read by us first: what comes back in time
and is a regular file, OpenSSL may read.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reserve_listener.config.reading import read_within
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST: Final = 1_048_576
"""The certificates of all authorities of a system take a third of it."""

VARIABLE: Final = "SSL_CERT_FILE"


def require_readable(path: Path) -> None:
    """Raises OSError unless OpenSSL can read this at once."""
    if len(read_within(path, LARGEST)) > LARGEST:
        raise OSError(f"is larger than {LARGEST} bytes")


def load_chain(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """What we show of ourselves. Raises OSError; ssl's errors are, too."""
    for path in filter(None, (certificate, key)):
        require_readable(path)
    # Without a password at hand OpenSSL would ask for one on the terminal, and wait.
    context.load_cert_chain(certificate, key, password="")


def serving(section: str, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """How a server of ours shows itself; None: without TLS. Blocks; ConfigError names the section's key."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        load_chain(context, certificate, key)
    except OSError as error:  # ssl's errors are, too
        raise ConfigError(
            f"{section}.tls_cert_file: {certificate} cannot be used: {error.strerror or error}."
            " It must contain a certificate, and its key unless tls_key_file is set."
        ) from error
    return context


def trusted(make: Callable[[], ssl.SSLContext] | None = None) -> ssl.SSLContext:
    """Whom this machine, or the environment, trusts; made by httpx2 or by `make`. Blocks; ConfigError names the variable."""
    import httpx2  # noqa: PLC0415  # the configuration does not need it

    make = make or httpx2.create_ssl_context
    named = os.environ.get(VARIABLE)
    if not named:
        return make()
    try:
        require_readable(Path(named))
        return make()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{VARIABLE}: {named}: {getattr(error, 'strerror', None) or error}") from error


def client_context(
    name: str, ca_bundle: Path | None, client_cert: Path | None, client_key: Path | None
) -> ssl.SSLContext:
    """What a sink trusts, and shows of itself. Blocks; ConfigError when a file is amiss."""
    what = f"ca_bundle: {ca_bundle}"
    try:
        if ca_bundle is not None:
            require_readable(ca_bundle)
            context = ssl.create_default_context(cafile=ca_bundle)
        else:
            context = trusted()
        if client_cert is not None:
            what = f"client_cert: {client_cert}" + (f", client_key: {client_key}" if client_key else "")
            load_chain(context, client_cert, client_key)
    except OSError as error:  # ssl's errors are, too
        raise ConfigError(f'sink "{name}": {what}: {error.strerror or error}') from error
    return context
