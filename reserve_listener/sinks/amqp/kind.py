"""`type = "amqp"`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, StringConstraints, model_validator

from reserve_listener.config import certificates, values
from reserve_listener.errors import ConfigError
from reserve_listener.sinks.brokers import settings as brokers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.net.target import Target
    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.amqp.sink import AmqpSink

SCHEMES: Final = ("amqp", "amqps")
PORTS: Final = {"amqp": 5672, "amqps": 5671}
LONGEST: Final = 255
"""Bytes of a name in AMQP 0.9.1."""


class AmqpSettings(brokers.BrokerSettings):
    """A sink that publishes events to RabbitMQ."""

    url_file: values.FilePath = Field(
        description="A file whose only line is the URL: amqp://user:password@host:5672/vhost, or amqps:// for TLS."
    )
    exchange: Annotated[str, StringConstraints(max_length=LONGEST)] = Field(
        default="",
        description="The exchange to publish to. Empty: the default one, which knows queues by name.",
    )
    routing_key: brokers.Name = Field(
        description="The routing key; {tenant_key}, {scope_type} and {scope_id} are filled in."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self.tls_misfits(tls=True))  # the URL is in the file
        return self


class AmqpKind:
    """See `protocols.SinkKind`."""

    name: Final = "amqp"
    settings: Final = AmqpSettings
    secrets: Final = {"url_file": brokers.reader(partial(brokers.split, schemes=SCHEMES))}
    files: Final = brokers.FILES
    needs: Final = {"aio_pika": "reserve-listener[amqp]"}
    docs: Final = "publishes events to RabbitMQ"

    def build(self, settings: AmqpSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> AmqpSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.amqp.sink import AmqpSink  # noqa: PLC0415  # the client may not be installed

        url = url_of(secrets)
        tls = None
        if url.startswith("amqps:"):
            tls = certificates.client_context(
                runtime.name, settings.ca_bundle, settings.client_cert_file, settings.client_key_file
            )
        return AmqpSink(
            runtime.name,
            url,
            exchange=settings.exchange,
            routing_key=settings.routing_key,
            timeout_s=settings.timeout,
            max_in_flight=settings.max_in_flight,
            tls=tls,
        )

    def masks(self, _settings: AmqpSettings, secrets: Mapping[str, Any]) -> Iterator[str]:
        """The password."""
        yield from brokers.masks(url_of(secrets))

    def check(self, settings: AmqpSettings, secrets: Mapping[str, Any], _runtime: SinkRuntime) -> str:
        """See `protocols.SinkKind`."""
        url = url_of(secrets)
        if (settings.ca_bundle or settings.client_cert_file) and not url.startswith("amqps:"):
            raise ConfigError("ca_bundle and client_cert_file have no effect without amqps:// in url_file")
        settings.try_files()
        where = f"exchange {settings.exchange}, " if settings.exchange else ""
        return f"{where}routing key {settings.routing_key} at {place_of(url)}"

    def target(self, settings: AmqpSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> Target:
        """See `protocols.SinkKind`."""
        url = url_of(secrets)
        tls = url.startswith("amqps:")
        return brokers.target(settings, runtime, url, key="url_file", port=port_of(url), tls=tls)


KIND: Final = AmqpKind()


def url_of(secrets: Mapping[str, Any]) -> str:
    """Where the broker is, with the login."""
    text: str = secrets["url_file"].get_secret_value()
    return text


def port_of(url: str) -> int:
    """The port, or the scheme's own."""
    parts = urlsplit(url)
    return parts.port or PORTS[parts.scheme]


def place_of(url: str) -> str:
    """Host and port, for people."""
    return brokers.place(url, port_of(url))


def virtual_host(url: str) -> str:
    """`/vhost` names vhost; nothing, and a single slash, name the one that every broker has, `/`."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"
