"""`type = "nats"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from reserve_listener.config import certificates, secret_files, values
from reserve_listener.config.shown import quoted, secret_path_text
from reserve_listener.errors import ConfigError
from reserve_listener.sinks.brokers import settings as brokers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.net.target import Target
    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.nats.credentials import Credentials
    from reserve_listener.sinks.nats.sink import NatsSink

SCHEMES: Final = ("nats", "tls")
PORT: Final = 4222
SHORTEST_LINE: Final = 20
"""Of a file of credentials, what is shorter is no secret: its lines are a token, a key, and words around them."""


def _servers(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        brokers.public(url, SCHEMES, instead="set user and password_file, token_file or creds_file")
    if len({url.partition(":")[0] for url in urls}) > 1:
        raise ValueError("must all begin with tls://, or all with nats://")
    return urls


def _subject(text: str) -> str:
    if any(not word or set(word) & set("*>") for word in text.split(".")):
        raise ValueError(f"must be words with dots between them, without * and >; {quoted(text)} is not")
    return text


class NatsSettings(brokers.BrokerSettings):
    """A sink that publishes events to NATS JetStream."""

    servers: Annotated[tuple[values.Text, ...], Field(min_length=1), AfterValidator(_servers)] = Field(
        description="nats://host:4222 of each server, or tls://; one is enough, they tell of each other."
    )
    subject: Annotated[brokers.Name, AfterValidator(_subject)] = Field(
        description="The subject, which a stream must take; {tenant_key}, {scope_type} and {scope_id} are filled in."
    )
    user: values.Text | None = Field(default=None, description="The user; with password_file.")
    password_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the password for user."
    )
    token_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the token to log in with."
    )
    creds_file: values.FilePath | None = Field(
        default=None, description="A credentials file (.creds), as nsc makes it."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if (self.user is None) != (self.password_file is None):
            yield "user and password_file need each other; set both or neither"
        ways = [key for key in ("user", "token_file", "creds_file") if getattr(self, key) is not None]
        if len(ways) > 1:
            yield f"{' and '.join(ways)} cannot be combined; keep one of them"
        yield from self.tls_misfits(tls=self.tls)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.servers[0].startswith("tls:")


class NatsKind:
    """See `protocols.SinkKind`."""

    name: Final = "nats"
    settings: Final = NatsSettings
    secrets: Final = {
        "password_file": secret_files.read_secret,
        "token_file": secret_files.read_secret,
        "creds_file": secret_files.read_lines,
    }
    files: Final = brokers.FILES
    needs: Final = {"nats": "reserve-listener[nats]"}
    docs: Final = "publishes events to NATS JetStream"

    def build(self, settings: NatsSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> NatsSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.nats.sink import NatsSink  # noqa: PLC0415  # the client may not be installed

        tls = None
        if settings.tls:
            tls = certificates.client_context(
                runtime.name, settings.ca_bundle, settings.client_cert_file, settings.client_key_file
            )
        texts = {key: secret.get_secret_value() for key, secret in secrets.items()}
        return NatsSink(
            runtime.name,
            settings.servers,
            subject=settings.subject,
            timeout_s=settings.timeout,
            max_in_flight=settings.max_in_flight,
            tls=tls,
            user=settings.user,
            password=texts.get("password_file"),
            token=texts.get("token_file"),
            credentials=_credentials(settings, texts.get("creds_file")),
            secrets=(*texts.values(), *self.masks(settings, secrets)),
        )

    def masks(self, _settings: NatsSettings, secrets: Mapping[str, Any]) -> Iterator[str]:
        """Credentials line by line."""
        if "creds_file" in secrets:
            lines = secrets["creds_file"].get_secret_value().splitlines()
            yield from (line.strip() for line in lines if len(line) >= SHORTEST_LINE and " " not in line)

    def check(self, settings: NatsSettings, _secrets: Mapping[str, Any], _runtime: SinkRuntime) -> str:
        """See `protocols.SinkKind`."""
        settings.try_files()
        return (
            f"subject {settings.subject} at {', '.join(brokers.place(one, PORT) for one in settings.servers)}"
        )

    def target(self, settings: NatsSettings, _secrets: Mapping[str, Any], runtime: SinkRuntime) -> Target:
        """The first server. TLS begins after a greeting of its own, so only the connection is tried."""
        return brokers.target(settings, runtime, settings.servers[0], key="servers", port=PORT, tls=False)


KIND: Final = NatsKind()


def _credentials(settings: NatsSettings, text: str | None) -> Credentials | None:
    if settings.creds_file is None or text is None:
        return None
    from reserve_listener.sinks.nats.credentials import Credentials  # noqa: PLC0415  # it loads the cryptography

    try:
        return Credentials(text)
    except ValueError as error:
        raise ConfigError(f"creds_file: {secret_path_text(settings.creds_file)} {error}") from None
