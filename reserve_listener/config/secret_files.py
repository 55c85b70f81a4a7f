"""Secrets in files. No message contains anything from a file."""

from __future__ import annotations

import base64
import binascii
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from reserve_listener.config.reading import LARGEST_SECRET, SecretFiles
from reserve_listener.config.shown import secret_path_text
from reserve_listener.config.values import is_header_value, sink_url
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

APP_SECRET_CREDENTIAL: Final = "app_secret"  # noqa: S105 - a name
SIGNING_PREFIX: Final = "whsec_"
# Standard Webhooks 1.0.0: "between 24 bytes (192 bits) and 64 bytes (512 bits)".
SIGNING_BYTES: Final = range(24, 65)


def credentials_directory(environ: Mapping[str, str]) -> Path | None:
    """Where systemd put the unit's credentials, if it did."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def locate(name: str, environ: Mapping[str, str]) -> Path:
    """The path that a `*_file` value means: without a slash, a systemd credential of that name goes first."""
    directory = credentials_directory(environ)
    if directory is not None and "/" not in name and _exists(directory / name):
        return directory / name
    return Path(name)


def app_secret_credential(environ: Mapping[str, str]) -> Path | None:
    """The systemd credential `app_secret`, if the unit has one."""
    directory = credentials_directory(environ)
    if directory is None or not _exists(directory / APP_SECRET_CREDENTIAL):
        return None
    return directory / APP_SECRET_CREDENTIAL


def read_secret(path: Path, files: SecretFiles | None = None) -> SecretStr:
    """The one secret of a file, without the newline at its end. ConfigError names the path.

    Blocks, unless `files` have it already.
    """
    text = _read(path, files).removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ConfigError(f"{secret_path_text(path)} is empty")
    if not text.isprintable():
        raise ConfigError(f"{secret_path_text(path)} has more than one line, or control characters")
    return SecretStr(text)


def read_lines(path: Path, files: SecretFiles | None = None) -> SecretStr:
    """What a file of several lines holds, all of it secret. ConfigError names the path. Blocks as above."""
    text = _read(path, files)
    if not text.strip():
        raise ConfigError(f"{secret_path_text(path)} is empty")
    return SecretStr(text)


def read_header_value(path: Path, files: SecretFiles | None = None) -> SecretStr:
    """What `read_secret` does, for a secret that is sent in a header as it is."""
    secret = read_secret(path, files)
    if not is_header_value(secret.get_secret_value()):
        raise ConfigError(
            f"{secret_path_text(path)} cannot be sent in a header: it must be ASCII text"
            " without spaces around it"
        )
    return secret


def read_url(path: Path, files: SecretFiles | None = None) -> SecretStr:
    """What `read_secret` does, for the URL of a sink: it is valid as `url` has to be."""
    secret = read_secret(path, files)
    try:
        sink_url(secret.get_secret_value())
    except ValueError as error:
        raise ConfigError(f"{secret_path_text(path)}: the URL in it {error}") from None
    return secret


def read_signing_secrets(path: Path, files: SecretFiles | None = None) -> tuple[SecretStr, ...]:
    """The `whsec_…` secrets of a file, one a line. ConfigError names path and line. Blocks as above."""
    secrets = []
    for number, line in enumerate(_read(path, files).splitlines(), start=1):
        if text := line.strip():
            _check_signing_secret(text, f"{secret_path_text(path)}, line {number}")
            secrets.append(SecretStr(text))
    if not secrets:
        raise ConfigError(f"{secret_path_text(path)} is empty")
    return tuple(secrets)


def signing_key(secret: SecretStr) -> bytes:
    """The key for HMAC that a `whsec_…` secret stands for. Raises ValueError when it is not one."""
    text = secret.get_secret_value()
    if not text.startswith(SIGNING_PREFIX):
        raise ValueError(f"does not begin with {SIGNING_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(SIGNING_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        # Not chained: the text of a codec's error may quote what it could not read.
        raise ValueError(f"is not base64 after {SIGNING_PREFIX}") from None
    if len(key) not in SIGNING_BYTES:
        raise ValueError(f"decodes to {len(key)} bytes; 24 to 64 are allowed")
    return key


def _check_signing_secret(text: str, where: str) -> None:
    try:
        signing_key(SecretStr(text))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read(path: Path, files: SecretFiles | None) -> str:
    try:
        content = (files or SecretFiles()).content(path)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{secret_path_text(path)} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {secret_path_text(path)}: {reason(error)}{_remedy(path, error)}"
        ) from None
    if len(content) > LARGEST_SECRET:
        raise ConfigError(f"{secret_path_text(path)} is larger than {LARGEST_SECRET} bytes")
    return text


def _remedy(path: Path, error: Exception) -> str:
    """What to do about it, for the common cases. A path that is not shown as it stands is in no command either."""
    if secret_path_text(path) != str(path):
        return ""
    if isinstance(error, FileNotFoundError):
        file = shlex.quote(os.path.abspath(path))  # noqa: PTH100  # links stay
        return f"; create it with `install -m 600 /dev/stdin {file}` (paste the secret, Enter, Ctrl-D)"
    if isinstance(error, PermissionError):
        return "; it must belong to the user that runs the daemon (mode 0600)"
    return ""


def reason(error: OSError | ValueError) -> str:
    """What the system says, without the path that the message around it names."""
    return getattr(error, "strerror", None) or str(error)


def _exists(path: Path) -> bool:
    # Not Path.exists: that one raises on names with a NUL and on directories one may not enter.
    return os.path.lexists(path)
