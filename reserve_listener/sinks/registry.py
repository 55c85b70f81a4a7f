"""From the configuration's `[[sinks]]` to sinks that workers can drive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reserve_listener.config import FileSink as FileSinkConfig, HttpSink as HttpSinkConfig, signing_key
from reserve_listener.delivery import Outlet
from reserve_listener.delivery.retry import RetryPolicy
from reserve_listener.model import MIB, Route
from reserve_listener.sinks.file.sink import FileSink
from reserve_listener.sinks.http.feishu import Feishu
from reserve_listener.sinks.http.sink import HttpSink
from reserve_listener.sinks.log import LogSink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from reserve_listener.config import Sink as SinkConfig
    from reserve_listener.protocols import Sink


def make_outlet(
    config: SinkConfig, write_events: Callable[..., Awaitable[None]], *, reserved: Collection[Path] = ()
) -> Outlet:
    """The sink of a `[[sinks]]` table, with its worker's policy. Blocks: it reads secrets and certificates.

    `write_events`: what a log sink writes to. `reserved`: what a file sink never writes to, whatever name it goes by.
    Raises `ConfigError` when a file is amiss.
    """
    secrets: tuple[Any, ...] = ()
    sink: Sink
    if isinstance(config, HttpSinkConfig):
        secrets = _secrets_of(config)
        sink = _http_sink(config)
    elif isinstance(config, FileSinkConfig):
        sink = FileSink(
            config.name,
            config.path,
            rotate_bytes=None if config.rotate_mb is None else round(config.rotate_mb * MIB),
            rotate_every=config.rotate_every,
            keep=config.keep,
            compress=config.compress,
            reserved=reserved,
        )
        secrets = (sink.real,)  # a link that leads elsewhere by now makes it another sink
    else:
        sink = LogSink(config.name, write_events)
    retry = config.retry
    policy = RetryPolicy(
        base_s=retry.base, cap_s=retry.cap, max_age_s=retry.max_age, max_attempts=retry.max_attempts
    )
    return Outlet(sink=sink, policy=policy, settings=(config, secrets))


def route_of(config: SinkConfig) -> Route:
    """What the sink wants to hear."""
    return Route(
        scope_type=config.scope_type,
        scope_ids=None if config.scope_ids is None else frozenset(config.scope_ids),
        tenants=None if config.tenants is None else frozenset(config.tenants),
    )


def _http_sink(config: HttpSinkConfig) -> HttpSink:
    token, key = config.read_verification_token(), config.read_encrypt_key()
    form = Feishu(
        verification_token=token.get_secret_value() if token else None,
        encrypt_key=key.get_secret_value() if key else None,
    )
    return HttpSink(
        config.name,
        config.read_url(),
        timeout_s=config.timeout,
        max_in_flight=config.max_in_flight,
        signing_keys=[signing_key(secret) for secret in config.read_signing_secrets()],
        ca_bundle=config.ca_bundle,
        client_cert=config.client_cert_file,
        client_key=config.client_key_file,
        headers=config.read_headers(),
        proxy=config.proxy.get_secret_value() if config.proxy else None,
        form=form if config.format == "feishu" else None,
        secret_host=config.url_file is not None,
    )


def _secrets_of(config: HttpSinkConfig) -> tuple[Any, ...]:
    """What the sink's files hold now: when it differs, the sink has to be made anew."""
    certificates = (config.ca_bundle, config.client_cert_file, config.client_key_file)
    return (
        config.read_url(),
        config.read_headers(),
        config.read_signing_secrets(),
        config.read_verification_token(),
        config.read_encrypt_key(),
        tuple(_version(path) for path in certificates if path is not None),
    )


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
