"""Keys that all brokers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field

from reserve_listener.config import certificates, pem, secret_files, values
from reserve_listener.config.section import Section
from reserve_listener.config.shown import secret_path_text
from reserve_listener.errors import ConfigError
from reserve_listener.net.target import Target
from reserve_listener.sinks.brokers.templates import template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from urllib.parse import SplitResult

    from pydantic import SecretStr

    from reserve_listener.config.reading import SecretFiles
    from reserve_listener.protocols import SinkRuntime

FILES: Final = ("ca_bundle", "client_cert_file", "client_key_file")
Name = Annotated[str, Field(min_length=1), AfterValidator(template)]


class BrokerSettings(Section):
    """What all brokers have."""

    timeout: values.Seconds = Field(default=10.0, description="Seconds to wait for the broker's answer.")
    max_in_flight: values.InFlight = Field(
        default=64, description="How many events may be on their way at once, never two of one room or level."
    )
    ca_bundle: values.FilePath | None = Field(
        default=None, description="A PEM file of certificate authorities to trust instead of the system's."
    )
    client_cert_file: values.FilePath | None = Field(
        default=None, description="A PEM file with the client certificate to present to the broker (mTLS)."
    )
    client_key_file: values.FilePath | None = Field(
        default=None, description="The certificate's key, unless it is in the same file."
    )

    def tls_misfits(self, *, tls: bool) -> Iterator[str]:
        """What is wrong with the keys for TLS. `tls`: whether there is TLS at all."""
        if self.client_key_file is not None and self.client_cert_file is None:
            yield "client_key_file has no effect without client_cert_file"
        for key in ("ca_bundle", "client_cert_file"):
            if not tls and getattr(self, key) is not None:
                yield f"{key} has no effect without TLS"

    def try_files(self) -> None:
        """Raise ConfigError for certificates that cannot be used. Blocks."""
        if self.ca_bundle is not None:
            pem.try_ca_bundle(self.ca_bundle)
        if self.client_cert_file is not None:
            pem.try_certificate(
                "client_cert_file", self.client_cert_file, "client_key_file", self.client_key_file
            )


def split(text: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a broker's URL. Raises ValueError, whose text quotes nothing of it."""
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)
    if not text.isprintable() or " " in text:
        raise ValueError("must be a URL without spaces or control characters")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL: its host or port is invalid") from None
    if parts.scheme not in schemes or not host:
        raise ValueError(f"must begin with {allowed}, followed by a host")
    if parts.query or parts.fragment:
        raise ValueError(
            "must end with the host, port or path: what follows a ? or # would be ignored; in a password write %3F and %23"
        )
    return parts


def public(text: str, schemes: tuple[str, ...], *, instead: str) -> str:
    """A broker's URL that everybody may see. Raises ValueError."""
    if "@" in split(text, schemes).netloc:
        raise ValueError(f"must not contain a user name or password, which would show up in logs: {instead}")
    return text


def reader(try_url: Callable[[str], object]) -> Callable[[Path, SecretFiles | None], SecretStr]:
    """How a file with a broker's URL is read. `try_url` raises ValueError, whose text quotes nothing of it."""

    def read(path: Path, files: SecretFiles | None = None) -> SecretStr:
        secret = secret_files.read_secret(path, files)
        try:
            try_url(secret.get_secret_value())
        except ValueError as error:
            raise ConfigError(f"{secret_path_text(path)}: the URL in it {error}") from None
        return secret

    return read


def place(url: str, port: int) -> str:
    """Host and port of a URL, for people."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or port}"


def target(
    settings: BrokerSettings, runtime: SinkRuntime, url: str, *, key: str, port: int, tls: bool
) -> Target:
    """What `check --online` tries to reach. Blocks: it reads certificates."""
    context = None
    if tls:
        context = certificates.client_context(
            runtime.name, settings.ca_bundle, settings.client_cert_file, settings.client_key_file
        )
    reached = f"{urlsplit(url).scheme}://{place(url, port)}"
    return Target(
        url=reached, setting=f'sink "{runtime.name}": {key}', proxy=None, proxy_key=None, tls=context
    )


def masks(url: str) -> Iterator[str]:
    """What of a broker's URL is secret."""
    if (password := urlsplit(url).password) is not None:
        yield from dict.fromkeys((password, unquote(password)))


def login(parts: SplitResult) -> tuple[str | None, str | None]:
    """User and password of a URL."""
    return _decoded(parts.username), _decoded(parts.password)


def _decoded(text: Any) -> str | None:
    return unquote(text) if text else None
