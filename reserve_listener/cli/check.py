"""`reserve-listener check`: whether the daemon could start with this configuration. Offline, and changes nothing."""

# Typer reads the types of commands when they run: no `from __future__ import annotations`. pydantic is imported when
# a command runs, so that --help stays fast.
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from reserve_listener.cli.options import ConfigOption
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reserve_listener.config import Config, FileSink, HttpSink, LarkConfig, Sink

_SQLITE_HEADER: Final = b"SQLite format 3\x00"
_MARKS: Final = {True: "✓", False: "✗"}
_CERTIFICATE: Final = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_ENCRYPTED: Final = re.compile(
    rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE
)
_NO_MATCH: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""OpenSSL's reasons; the last one is for a key of another kind, such as RSA for a certificate with an EC key."""
_PLAIN_MARKS: Final = {True: "ok  ", False: "FAIL"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    ok: bool
    subject: str
    text: str


class _WrongError(Exception):
    """What keeps an item from being in order, for people."""


def check(config: ConfigOption = None) -> None:
    """Check the configuration, its secrets, and the places that the daemon writes to. Nothing is changed or sent.

    Exits with 0 when all is well and with 78 when not. Example: reserve-listener check -c config.toml
    """
    findings = list(_findings(config))
    marks = _MARKS if _takes_symbols() else _PLAIN_MARKS
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        typer.echo(f"{marks[finding.ok]} {finding.subject:<{width}}  {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(ConfigError.exit_code)


def _takes_symbols() -> bool:
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _findings(path: Path | None) -> "Iterator[Finding]":
    from reserve_listener.config import load_explained
    from reserve_listener.config.shown import path_text

    try:
        loaded = load_explained(path)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding(ok=False, subject="configuration", text=line)
        return
    file = path_text(loaded.file) if loaded.file else "no file, environment only"
    yield Finding(ok=True, subject="configuration", text=file)
    if loaded.config.lark.transport == "webhook":
        yield _finding("webhook", lambda: _webhook(loaded.config))
    else:
        yield Finding(ok=True, subject="lark.app_secret", text=_app_secret(loaded.config.lark))
    yield _finding("store", lambda: _store(loaded.config.store.path))
    for sink in loaded.config.sinks:
        yield _of_sink(sink)


def _finding(subject: str, look: "Callable[[], str]") -> Finding:
    try:
        return Finding(ok=True, subject=subject, text=look())
    except _WrongError as error:
        return Finding(ok=False, subject=subject, text=str(error))


def _app_secret(lark: "LarkConfig") -> str:
    """Where the secret comes from. That it can be read is known: the configuration would not have loaded."""
    if lark.app_secret_is_credential:
        return "a systemd credential; a new one needs a restart of the unit"
    if lark.app_secret_file is not None:
        return f"read from {lark.app_secret_file}"
    return "given as a value; app_secret_file keeps it out of the configuration"


def _webhook(config: "Config") -> str:
    """Where pushes come in, and what they are checked with."""
    from reserve_listener.config import WebhookConfig

    webhook = config.webhook or WebhookConfig()
    if webhook.tls_cert_file is not None:
        _try_certificate("tls_cert_file", webhook.tls_cert_file, "tls_key_file", webhook.tls_key_file)
    checked = [
        what
        for what, secret in (
            ("encrypted and signed", webhook.encrypt_key),
            ("with the verification token", webhook.verification_token),
        )
        if secret is not None
    ]
    tls = "https" if webhook.tls_cert_file is not None else "http"
    how = ", ".join(checked) or "from anybody: no encrypt key, no verification token"
    return f"{tls}://{webhook.listen}{webhook.path}, pushes {how}"


def _of_sink(sink: "Sink") -> Finding:
    subject = f'sink "{sink.name}"'
    if sink.type == "file":
        return _finding(subject, lambda: _file_sink(sink))
    if sink.type == "http":
        return _finding(subject, lambda: _http_sink(sink))
    return Finding(ok=True, subject=subject, text="the daemon's log")


def _file_sink(sink: "FileSink") -> str:
    """Whether the sink can work is for the sink to say; why not is told here in the words of the other findings."""
    from reserve_listener.outlets import make_outlet
    from reserve_listener.sinks import file

    made = make_outlet(sink, _write_nothing).sink
    assert isinstance(made, file.FileSink)  # noqa: S101 - for the type checker: of a file sink's table
    if (problem := made.problem()) is not None:
        _look_at_file(sink.path)
        raise _WrongError(problem)
    return f"{sink.path}: {'exists, events are appended' if sink.path.exists() else 'will be created'}"


async def _write_nothing(*_: object) -> None:
    """What a log sink would write to; there is none here."""


def _look_at_file(path: Path) -> None:
    if _is_file(path):
        _require_access(path, os.R_OK | os.W_OK, "read and write")
    else:
        _require_directory(path.parent)


def _http_sink(sink: "HttpSink") -> str:
    from urllib.parse import urlsplit

    if sink.ca_bundle is not None:
        _try_ca_bundle(sink.ca_bundle)
    if sink.client_cert_file is not None:
        _try_certificate("client_cert_file", sink.client_cert_file, "client_key_file", sink.client_key_file)
    _try_to_make(sink)
    url = urlsplit(sink.url)
    # The rest of the URL may be what lets one post there.
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}: not contacted, this check is offline"


def _try_to_make(sink: "HttpSink") -> None:
    """What the daemon does at its start finds the rest, such as a proxy in the environment that is none."""
    import asyncio

    from reserve_listener.outlets import make_outlet

    try:
        made = make_outlet(sink, _write_nothing).sink
    except ConfigError as error:
        raise _WrongError(str(error).removeprefix(f'sink "{sink.name}": ')) from None
    asyncio.run(made.close())


def _try_ca_bundle(path: Path) -> None:
    import ssl

    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one.
        raise _WrongError(f"ca_bundle {path}: {_openssl(error)}") from None


def _try_certificate(cert_key: str, certificate: Path, key_key: str, key: Path | None) -> None:
    """`cert_key` and `key_key`: what the two are called in the configuration."""
    import ssl

    chain = _pem(cert_key, certificate)
    if not _CERTIFICATE.search(chain):
        raise _WrongError(f"{cert_key} {certificate}: holds no certificate in PEM")
    named, keys = (cert_key, chain) if key is None else (key_key, _pem(key_key, key))
    where = f"{named} {key or certificate}"
    if not _KEY.search(keys):
        advice = f"; name its file in {key_key}" if key is None else ""
        raise _WrongError(f"{where}: holds no private key in PEM{advice}")
    if _ENCRYPTED.search(keys):
        raise _WrongError(f"{where}: the key is encrypted, and the daemon has nobody to ask for its password")
    try:
        # Without a password at hand OpenSSL would ask for one on the terminal, and wait.
        ssl.create_default_context().load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason in _NO_MATCH:
            other = f" in {certificate}" if key else ""
            raise _WrongError(f"{where}: the key is not that of the certificate{other}") from None
        raise _WrongError(f"{cert_key} {certificate}, {where}: {_openssl(error)}") from None


def _pem(what: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _WrongError(f"{what} {path}: {error.strerror}") from None


def _openssl(error: OSError) -> str:
    """The reason without the place in OpenSSL's and Python's sources; an OSError that is none of ssl's has no such."""
    text = error.strerror or str(error)
    return re.sub(r"\A\[[^]]*\] | \(_ssl\.c:\d+\)\Z", "", text)


def _store(path: Path) -> str:
    if not _is_file(path):
        _require_directory(_nearest_that_exists(path.parent))
        return f"{path}: will be created"
    _require_access(path, os.R_OK | os.W_OK, "read and write")
    # SQLite makes its journal beside the file.
    _require_directory(path.parent)
    if _head(path) not in {b"", _SQLITE_HEADER}:
        raise _WrongError(f"{path}: is not an SQLite database; name another file in store.url")
    return f"{path}: exists"


def _head(path: Path) -> bytes:
    """The first bytes. Not opened with SQLite: that would leave -wal and -shm files behind."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEADER))
    except OSError as error:
        raise _WrongError(f"{path}: cannot be read: {error.strerror}") from None


def _nearest_that_exists(directory: Path) -> Path:
    while not os.path.lexists(directory) and directory != directory.parent:
        directory = directory.parent
    return directory


def _is_file(path: Path) -> bool:
    """Whether a file is there. Something else in its place is wrong."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _WrongError(f"{path}: cannot be looked at: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise _WrongError(f"{path}: is not a regular file")
    return True


def _require_directory(directory: Path) -> None:
    if not directory.exists():
        raise _WrongError(f"{directory}: there is no such directory; create it")
    if not directory.is_dir():
        raise _WrongError(f"{directory}: is not a directory")
    _require_access(directory, os.W_OK | os.X_OK, "create files in")


def _require_access(path: Path, mode: int, what: str) -> None:
    if not os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
        raise _WrongError(f"{path}: this user (uid {os.geteuid()}) may not {what} it")
