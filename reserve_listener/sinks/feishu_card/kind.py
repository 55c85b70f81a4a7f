"""`type = "feishu_card"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from reserve_listener.config import certificates, pem, secret_files, values
from reserve_listener.config.section import Section
from reserve_listener.config.shown import secret_path_text
from reserve_listener.errors import ConfigError
from reserve_listener.net import proxies, url_secrets
from reserve_listener.net.addresses import is_loopback
from reserve_listener.net.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic import SecretStr

    from reserve_listener.config import LarkConfig
    from reserve_listener.config.reading import SecretFiles
    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.feishu_card.sink import FeishuCardSink

SHORTEST_PART: Final = 8
"""What of a URL is shorter is masked with the whole only."""


class FeishuCardSettings(Section):
    """A sink that posts cards to a group of Feishu or Lark."""

    url_file: values.FilePath | None = Field(
        default=None, description="A group's custom bot: a file whose only line is the bot's webhook URL."
    )
    secret_file: values.FilePath | None = Field(
        default=None, description="The bot's secret, if signature verification is on: a file of one line."
    )
    chat_id: Annotated[str, Field(pattern=r"^oc_[A-Za-z0-9_-]{1,60}$")] | None = Field(
        default=None, description="Instead of a bot: the app itself posts to this group, as oc_…."
    )
    window: values.SecondsOrZero = Field(
        default=5.0, description="What comes within this many seconds after a first event goes into one card."
    )
    language: Literal["en", "zh"] | None = Field(
        default=None, description="The cards' language. If unset, that of lark.language."
    )
    timeout: values.Seconds = Field(
        default=10.0, description="Seconds to wait for the bot's answer. The app has lark.endpoint_timeout."
    )
    ca_bundle: values.FilePath | None = Field(
        default=None, description="A PEM file of certificate authorities to trust instead of the system's."
    )
    proxy: values.ProxyUrl | None = Field(
        default=None, description="http(s)://[user:password@]host:port of the proxy to the bot."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.url_file is None and self.chat_id is None:
            yield "url_file is missing: set url_file for a group's custom bot, or chat_id to post as the app"
        if self.url_file is not None and self.chat_id is not None:
            yield "url_file and chat_id cannot be combined; keep one of them"
        if self.chat_id is not None and self.secret_file is not None:
            yield "secret_file belongs to a custom bot; remove it"
        if self.chat_id is not None and (self.proxy is not None or self.ca_bundle is not None):
            yield "proxy and ca_bundle belong to a custom bot; the app uses lark.proxy"


def _read_url(path: Path, files: SecretFiles | None = None) -> SecretStr:
    secret = secret_files.read_url(path, files)
    parts = urlsplit(secret.get_secret_value())
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{secret_path_text(path)}: the URL in it must begin with https://:"
            " whoever reads it on the way can post to the group"
        )
    return secret


class FeishuCardKind:
    """See `protocols.SinkKind`."""

    name: Final = "feishu_card"
    settings: Final = FeishuCardSettings
    secrets: Final = {"url_file": _read_url, "secret_file": secret_files.read_secret}
    files: Final = ("ca_bundle",)
    docs: Final = "posts cards to a group"

    def build(
        self, settings: FeishuCardSettings, secrets: Mapping[str, Any], runtime: SinkRuntime
    ) -> FeishuCardSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.feishu_card.sink import FeishuCardSink  # noqa: PLC0415  # clients are slow to load

        return FeishuCardSink(
            runtime.name,
            self._way(settings, secrets, runtime),
            language=settings.language or runtime.language,
            public_url=runtime.public_url,
            told_in=runtime.language,
            window_s=settings.window,
        )

    def _way(self, settings: FeishuCardSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> Any:
        if settings.chat_id is not None:
            from reserve_listener.sinks.feishu_card.app import App  # noqa: PLC0415

            return App(runtime.name, settings.chat_id, runtime.app, hide=runtime.hide)
        from reserve_listener.sinks.feishu_card.bot import Bot  # noqa: PLC0415

        return Bot(
            runtime.name,
            _url_of(secrets),
            secret=secrets["secret_file"].get_secret_value() if "secret_file" in secrets else None,
            timeout_s=settings.timeout,
            tls=certificates.client_context(runtime.name, settings.ca_bundle, None, None),
            proxy=_proxy(settings),
        )

    def masks(self, settings: FeishuCardSettings, secrets: Mapping[str, Any]) -> Iterator[str]:  # noqa: ARG002  # the seam's
        """What of the URL would betray the bot alone."""
        yield from url_secrets.secret_texts(_url_of(secrets), shortest=SHORTEST_PART)

    def check(self, settings: FeishuCardSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> str:
        """See `protocols.SinkKind`."""
        if settings.chat_id is not None:
            app = runtime.app
            if app is not None and app.app_secret is None and app.app_secret_file is None:
                raise ConfigError("chat_id needs the app's secret: set lark.app_secret_file")
            return f"the group {settings.chat_id}, as the app"
        if settings.ca_bundle is not None:
            pem.try_ca_bundle(settings.ca_bundle)
        place = f"the bot whose URL is in {settings.url_file}"
        return place + proxies.way(_url_of(secrets), setting=_proxy(settings), key="proxy")

    def target(
        self, settings: FeishuCardSettings, secrets: Mapping[str, Any], runtime: SinkRuntime
    ) -> Target:
        """See `protocols.SinkKind`."""
        if settings.chat_id is not None:
            return _platform(runtime.app)
        where, url = f'sink "{runtime.name}"', _url_of(secrets)
        tls = certificates.client_context(runtime.name, settings.ca_bundle, None, None)
        return Target(
            url=url,
            setting=f"{where}: url_file",
            proxy=proxies.decide(url, setting=_proxy(settings), key=f"{where}: proxy"),
            proxy_key=f"{where}: proxy",
            tls=tls if url.startswith("https:") else None,
        )


KIND: Final = FeishuCardKind()


def _url_of(secrets: Mapping[str, Any]) -> str:
    return secrets["url_file"].get_secret_value() if "url_file" in secrets else ""


def _platform(app: LarkConfig) -> Target:
    proxy = None if app.proxy is None else app.proxy.get_secret_value()
    return Target(
        url=app.domain,
        setting="lark.domain",
        proxy=proxies.decide(app.domain, setting=proxy, key="lark.proxy"),
        tls=certificates.trusted() if app.domain.startswith("https:") else None,
    )


def _proxy(settings: FeishuCardSettings) -> str | None:
    return None if settings.proxy is None else settings.proxy.get_secret_value()
