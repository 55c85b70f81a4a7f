"""`type = "kafka"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from reserve_listener.config import secret_files, values
from reserve_listener.config.shown import quoted
from reserve_listener.sinks.brokers import settings as brokers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.net.target import Target
    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.kafka.sink import KafkaSink

PORT: Final = 9092


def _servers(text: str) -> str:
    for server in text.split(","):
        try:
            brokers.split(f"kafka://{server.strip()}", ("kafka",))
        except ValueError:
            raise ValueError(
                f'must be "host:port", or several with commas between them; {quoted(server)} is not one'
            ) from None
        if set(server) & set("@/?#"):
            raise ValueError('must be "host:port" without a scheme, a login or a path')
    return text


class KafkaSettings(brokers.BrokerSettings):
    """A sink that produces events to a Kafka topic."""

    bootstrap_servers: Annotated[str, Field(min_length=1), AfterValidator(_servers)] = Field(
        description='"host:port" of brokers to ask first, with commas between them.'
    )
    topic: brokers.Name = Field(
        description="The topic; {tenant_key}, {scope_type} and {scope_id} are filled in."
    )
    tls: values.Switch = Field(default=False, description="Whether connections are encrypted.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="How to log in; with sasl_user and sasl_password_file."
    )
    sasl_user: values.Text | None = Field(default=None, description="The user.")
    sasl_password_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the user's password."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        login = (self.sasl_mechanism, self.sasl_user, self.sasl_password_file)
        if any(login) and not all(login):
            yield "sasl_mechanism, sasl_user and sasl_password_file need each other; set all or none"
        yield from self.tls_misfits(tls=self.tls)


class KafkaKind:
    """See `protocols.SinkKind`."""

    name: Final = "kafka"
    settings: Final = KafkaSettings
    secrets: Final = {"sasl_password_file": secret_files.read_secret}
    files: Final = brokers.FILES
    needs: Final = {"confluent_kafka": "reserve-listener[kafka]"}
    docs: Final = "produces events to a Kafka topic"

    def build(self, settings: KafkaSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> KafkaSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.kafka.sink import KafkaSink  # noqa: PLC0415  # the client may not be installed

        password = secrets["sasl_password_file"].get_secret_value() if secrets else None
        return KafkaSink(
            runtime.name,
            settings.bootstrap_servers,
            topic=settings.topic,
            timeout_s=settings.timeout,
            max_in_flight=settings.max_in_flight,
            security=security_of(settings, password),
            secrets=(password,) if password else (),
        )

    def check(self, settings: KafkaSettings, _secrets: Mapping[str, Any], _runtime: SinkRuntime) -> str:
        """See `protocols.SinkKind`."""
        settings.try_files()
        return f"topic {settings.topic} at {settings.bootstrap_servers}"

    def target(self, settings: KafkaSettings, _secrets: Mapping[str, Any], runtime: SinkRuntime) -> Target:
        """The first broker."""
        first = f"kafka://{settings.bootstrap_servers.split(',')[0].strip()}"
        return brokers.target(settings, runtime, first, key="bootstrap_servers", port=PORT, tls=settings.tls)


KIND: Final = KafkaKind()


def security_of(settings: KafkaSettings, password: str | None) -> dict[str, Any]:
    """TLS and login in librdkafka's words. It looks for the system's authorities itself."""
    protocol = ("SASL_" if password else "") + ("SSL" if settings.tls else "PLAINTEXT")
    options = {
        "security.protocol": protocol,
        "sasl.mechanisms": settings.sasl_mechanism,
        "sasl.username": settings.sasl_user,
        "sasl.password": password,
        "ssl.ca.location": settings.ca_bundle,
        "ssl.certificate.location": settings.client_cert_file,
        "ssl.key.location": settings.client_key_file or settings.client_cert_file,
    }
    return {key: str(value) for key, value in options.items() if value is not None}
