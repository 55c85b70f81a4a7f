"""What can be said of a configuration without asking anybody: nothing is sent, nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reserve_listener.cli.checks import exposure, places
from reserve_listener.cli.checks.findings import Finding, WrongError, look
from reserve_listener.errors import ConfigError
from reserve_listener.net import proxies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.config import Config, FileSink, HttpSink, LarkConfig, Loaded, Sink


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
    yield look("store", lambda: places.store(loaded.config.store.path))
    for sink in loaded.config.sinks:
        yield _of_sink(sink, online=online)
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
    return lark.domain + _way(lark.domain, proxy, "lark.proxy")


def _way(url: str, setting: str | None, key: str) -> str:
    """How an address is reached, for the end of its description; WrongError when its proxy cannot be used."""
    try:
        proxy = proxies.decide(url, setting=setting, key=key)
    except ConfigError as error:
        raise WrongError(str(error)) from None
    return "" if proxy is None else f", through the proxy {proxy.url} ({proxy.source})"


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


def _of_sink(sink: Sink, *, online: bool) -> Finding:
    subject = f'sink "{sink.name}"'
    if sink.type == "file":
        return look(subject, lambda: _file_sink(sink))
    if sink.type == "http":
        return look(subject, lambda: _http_sink(sink, online=online))
    return Finding(where=subject, what="the daemon's log")


def _file_sink(sink: FileSink) -> str:
    """Whether the sink can work is for the sink to say; why not is told here in the words of the other findings."""
    from reserve_listener.sinks.file import sink as file
    from reserve_listener.sinks.registry import make_outlet

    made = make_outlet(sink, _write_nothing).sink
    assert isinstance(made, file.FileSink)  # noqa: S101 - for the type checker: of a file sink's table
    if (problem := made.problem()) is not None:
        places.look_at_file(sink.path)
        raise WrongError(problem)
    places.require_room(sink.path)
    return f"{sink.path}: {'exists; events will be appended' if sink.path.exists() else 'will be created'}"


async def _write_nothing(*_: object) -> None:
    """What a log sink would write to; there is none here."""


def _http_sink(sink: HttpSink, *, online: bool) -> str:
    from urllib.parse import urlsplit

    from reserve_listener.config.pem import try_ca_bundle, try_certificate

    if sink.ca_bundle is not None:
        try_ca_bundle(sink.ca_bundle)
    if sink.client_cert_file is not None:
        try_certificate("client_cert_file", sink.client_cert_file, "client_key_file", sink.client_key_file)
    _try_to_make(sink)
    address = sink.read_url()
    url = urlsplit(address)
    setting = None if sink.proxy is None else sink.proxy.get_secret_value()
    # The rest of the URL may be what lets one post there.
    place = f"{url.scheme}://{url.netloc}" if sink.url_file is None else f"the URL in {sink.url_file}"
    return f"{place}{_way(address, setting, 'proxy')}{'' if online else ': not contacted; --online tries it'}"


def _try_to_make(sink: HttpSink) -> None:
    """What the daemon does at its start finds the rest, such as a proxy in the environment that is none."""
    import asyncio

    from reserve_listener.sinks.registry import make_outlet

    try:
        made = make_outlet(sink, _write_nothing).sink
    except ConfigError as error:
        raise WrongError(str(error).removeprefix(f'sink "{sink.name}": ')) from None
    asyncio.run(made.close())
