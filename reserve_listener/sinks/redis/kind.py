"""`type = "redis"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from reserve_listener.config import certificates, values
from reserve_listener.sinks.brokers import settings as brokers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.net.target import Target
    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.redis.sink import RedisSink

SCHEMES: Final = ("redis", "rediss")
PORT: Final = 6379


def database(url: str) -> int:
    """The number of the database that a URL names. Raises ValueError."""
    path = brokers.split(url, SCHEMES).path.strip("/")
    if path and not (path.isascii() and path.isdigit()):
        raise ValueError("must end with the number of a database, such as /0, or after the port")
    return int(path or 0)


def _url(text: str) -> str:
    brokers.public(text, SCHEMES, instead="put the URL into a file and name it in url_file")
    database(text)
    return text


class RedisSettings(brokers.BrokerSettings):
    """A sink that adds events to a Redis stream."""

    url: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None, description="redis://host:6379/0, or rediss:// for TLS; without user and password."
    )
    url_file: values.FilePath | None = Field(
        default=None,
        description="Instead of url: a file whose only line is the URL, with user and password.",
    )
    stream: brokers.Name = Field(
        description="The stream's key; {tenant_key}, {scope_type} and {scope_id} are filled in."
    )
    maxlen: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None,
        description="Trim the stream to about this many entries, read or not. If unset, it grows.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.url is None and self.url_file is None:
            yield "url is missing: set url, such as redis://host:6379/0, or url_file, a file that contains it"
        if self.url is not None and self.url_file is not None:
            yield "url and url_file cannot be combined; keep one of them"
        yield from self.tls_misfits(tls=self.url is None or self.url.startswith("rediss:"))


class RedisKind:
    """See `protocols.SinkKind`."""

    name: Final = "redis"
    settings: Final = RedisSettings
    secrets: Final = {"url_file": brokers.reader(database)}
    files: Final = brokers.FILES
    needs: Final = {"redis": "reserve-listener[redis]"}
    docs: Final = "adds events to a Redis stream"

    def build(self, settings: RedisSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> RedisSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.redis.sink import RedisSink  # noqa: PLC0415  # the client may not be installed

        url = url_of(settings, secrets)
        tls = None
        if url.startswith("rediss:"):
            tls = certificates.client_context(
                runtime.name, settings.ca_bundle, settings.client_cert_file, settings.client_key_file
            )
        return RedisSink(
            runtime.name,
            url,
            stream=settings.stream,
            maxlen=settings.maxlen,
            timeout_s=settings.timeout,
            max_in_flight=settings.max_in_flight,
            tls=tls,
        )

    def masks(self, settings: RedisSettings, secrets: Mapping[str, Any]) -> Iterator[str]:
        """The password."""
        yield from brokers.masks(url_of(settings, secrets))

    def check(self, settings: RedisSettings, secrets: Mapping[str, Any], _runtime: SinkRuntime) -> str:
        """See `protocols.SinkKind`."""
        settings.try_files()
        return f"stream {settings.stream} at {brokers.place(url_of(settings, secrets), PORT)}"

    def target(self, settings: RedisSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> Target:
        """See `protocols.SinkKind`."""
        url = url_of(settings, secrets)
        key = "url" if settings.url_file is None else "url_file"
        return brokers.target(settings, runtime, url, key=key, port=PORT, tls=url.startswith("rediss:"))


KIND: Final = RedisKind()


def url_of(settings: RedisSettings, secrets: Mapping[str, Any]) -> str:
    """Where the server is; from `url_file` if that is set."""
    if "url_file" in secrets:
        text: str = secrets["url_file"].get_secret_value()
        return text
    return settings.url or ""  # which `_misfits` refuses
