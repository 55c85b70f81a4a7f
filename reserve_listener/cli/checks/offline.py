"""Checks that need no network: they send nothing and change nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from reserve_listener.cli.checks import exposure, places, rooms
from reserve_listener.cli.checks.findings import Finding, look
from reserve_listener.net import proxies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config import (
        Config,
        HeartbeatConfig,
        LarkConfig,
        Loaded,
        SinkTable,
        StatusConfig,
    )


def findings(loaded: Loaded, *, online: bool = False) -> Iterator[Finding]:
    """Each thing that the configuration names. `online`: that its hosts are tried is said elsewhere."""
    from reserve_listener.config.shown import path_text

    file = path_text(loaded.file) if loaded.file else "no file, environment only"
    yield Finding(where="configuration", what=file)
    if loaded.config.lark.transport == "webhook":
        yield look("webhook", lambda: _webhook(loaded.config))
    else:
        yield Finding(where="lark.app_secret", what=_app_secret(loaded.config.lark))
        yield look("lark.domain", lambda: _platform(loaded.config.lark))
    yield from _blanks(loaded.config.lark)
    if (off := rooms.without_secret(loaded.config)) is not None:
        yield off
    yield look("store", lambda: places.store(loaded.config.store.url))
    for sink in loaded.config.sinks:
        yield look(f'sink "{sink.name}"', partial(_of_sink, sink, loaded.config, online=online))
    if loaded.config.status is not None:
        yield look("status", partial(_status, loaded.config.status))
    yield from _alerts(loaded.config)
    if loaded.config.heartbeat is not None:
        yield look("heartbeat", partial(_heartbeat, loaded.config.heartbeat))
    yield from _unused_plugins()
    yield from exposure.findings(loaded)


def _app_secret(lark: LarkConfig) -> str:
    """Where the secret comes from. That it can be read is known: the configuration would not have loaded."""
    if lark.app_secret_is_credential:
        return "a systemd credential; to change it, restart the unit"
    if lark.app_secret_file is not None:
        return f"read from {lark.app_secret_file}"
    return "given as a value; app_secret_file keeps it out of the configuration"


def _platform(lark: LarkConfig) -> str:
    proxy = None if lark.proxy is None else lark.proxy.get_secret_value()
    return lark.domain + proxies.way(lark.domain, setting=proxy, key="lark.proxy")


def _blanks(lark: LarkConfig) -> Iterator[Finding]:
    """Blanks that came along when an id or a secret was copied: the platform takes them for a part of it."""
    secret = None if lark.app_secret is None else lark.app_secret.get_secret_value()
    for key, value in (("app_id", lark.app_id), ("app_secret", secret)):
        if value is not None and value != value.strip():
            where = lark.app_secret_file if key == "app_secret" and lark.app_secret_file else "the value"
            yield Finding(
                where=f"lark.{key}",
                level="warn",
                what="has spaces around it, which the platform will not accept",
                do=f"remove them from {where}",
            )


def _webhook(config: Config) -> str:
    """Where pushes come in, and what they are checked with."""
    from reserve_listener.config import WebhookConfig
    from reserve_listener.config.pem import try_certificate

    webhook = config.webhook or WebhookConfig()
    if webhook.tls_cert_file is not None:
        try_certificate("tls_cert_file", webhook.tls_cert_file, "tls_key_file", webhook.tls_key_file)
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


def _status(status: StatusConfig) -> str:
    """Where it can be seen how things are, and by whom."""
    from reserve_listener.config.pem import try_certificate

    if status.tls_cert_file is not None:
        try_certificate("tls_cert_file", status.tls_cert_file, "tls_key_file", status.tls_key_file)
    tls = "https" if status.tls_cert_file is not None else "http"
    guarded = status.token is not None or status.token_file is not None
    who = "with the token" if guarded else "everybody on this machine may read; no actions without token_file"
    return f"{tls}://{status.listen}, {who}"


def _alerts(config: Config) -> Iterator[Finding]:
    """Who is told when the daemon is not well."""
    if config.alerts.sinks:
        yield Finding(where="alerts", what=f"to {', '.join(config.alerts.sinks)}")
    for sink in config.sinks:
        if not sink.events and sink.name not in config.alerts.sinks:
            yield Finding(
                where=f'sink "{sink.name}"',
                level="warn",
                what="gets nothing: events is false, and alerts.sinks does not name it",
                do="add it to alerts.sinks, or remove events",
            )


def _heartbeat(heartbeat: HeartbeatConfig) -> str:
    """Where the heartbeat goes: the URL itself may be what lets one send it."""
    url = "" if heartbeat.url is None else heartbeat.url.get_secret_value()
    place = "a URL" if heartbeat.url_file is None else f"the URL in {heartbeat.url_file}"
    return f"every {heartbeat.every:g} s to {place}" + proxies.way(
        url, setting=None, key="heartbeat.url_file"
    )


def _unused_plugins() -> Iterator[Finding]:
    from reserve_listener.sinks import kinds

    for what in kinds.KINDS.shadowed():
        yield Finding(where="plugins", level="warn", what=what, do="use another name in it, or uninstall it")


def _of_sink(sink: SinkTable, config: Config, *, online: bool) -> str:
    from reserve_listener.sinks.registry import look_over

    text = look_over(sink, config)
    return (
        f"{text}: not contacted; --online tries it"
        if hasattr(sink.sink_kind, "target") and not online
        else text
    )
