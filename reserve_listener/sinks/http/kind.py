"""`type = "http"`."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from reserve_listener.config import certificates, pem, secret_files, values
from reserve_listener.config.section import Section
from reserve_listener.errors import ConfigError
from reserve_listener.net import proxies, url_secrets
from reserve_listener.net.addresses import is_loopback
from reserve_listener.net.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reserve_listener.protocols import SinkRuntime
    from reserve_listener.sinks.http.sink import HttpSink

SHORTEST_PART: Final = 8
"""What of a header's value is shorter is masked with the whole only."""


class HttpSettings(Section):
    """A sink that posts each event to a URL."""

    url: values.SinkUrl | None = Field(
        default=None, description="Where to post events; https, or http on a network that you trust."
    )
    url_file: values.FilePath | None = Field(
        default=None,
        description="A file whose only line is the URL, when the URL is a secret. Instead of url.",
    )
    format: Literal["cloudevents", "feishu"] = Field(
        default="cloudevents",
        description="What to post: a CloudEvent, or the push as the platform itself would send it.",
    )
    timeout: values.Seconds = Field(default=10.0, description="Seconds to wait for the receiver's answer.")
    max_in_flight: values.InFlight = Field(
        default=16, description="How many posts may be in progress at once."
    )
    headers: values.Headers | None = Field(default=None, description="Additional headers: name and value.")
    header_files: values.HeaderFiles | None = Field(
        default=None,
        description="Headers with secret values: name, and the file whose only line is the value.",
    )
    bearer_token_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is sent as Authorization: Bearer."
    )
    basic_user: values.BasicUser | None = Field(
        default=None, description="The user for HTTP basic authentication; with basic_password_file."
    )
    basic_password_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the password for basic_user."
    )
    signing_secret_file: values.FilePath | None = Field(
        default=None, description="A file of whsec_… secrets, one per line; each of them signs every post."
    )
    ca_bundle: values.FilePath | None = Field(
        default=None, description="A PEM file of certificate authorities to trust instead of the system's."
    )
    client_cert_file: values.FilePath | None = Field(
        default=None, description="A PEM file with the client certificate to present to the receiver (mTLS)."
    )
    client_key_file: values.FilePath | None = Field(
        default=None, description="The certificate's key, unless it is in the same file."
    )
    proxy: values.ProxyUrl | None = Field(
        default=None, description="http(s)://[user:password@]host:port of the proxy to the receiver."
    )
    verification_token_file: values.FilePath | None = Field(
        default=None, description='The receiver\'s verification token, for format = "feishu".'
    )
    encrypt_key_file: values.FilePath | None = Field(
        default=None, description='The receiver\'s encrypt key, for format = "feishu".'
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.url is None and self.url_file is None:
            yield "url is missing: set url, the URL to post events to, or url_file, a file that contains it"
        if self.url is not None and self.url_file is not None:
            yield "url and url_file cannot be combined; keep one of them"
        if (self.basic_user is None) != (self.basic_password_file is None):
            yield "basic_user and basic_password_file need each other; set both or neither"
        if self.basic_user is not None and self.bearer_token_file is not None:
            yield "bearer_token_file and basic_user cannot be combined; keep one of them"
        names = Counter(name.lower() for name in (*(self.headers or ()), *(self.header_files or ())))
        if twice := [name for name, count in names.items() if count > 1]:
            yield f"headers and header_files set {twice[0]} more than once; keep one of them"
        if "authorization" in names and (self.bearer_token_file or self.basic_user):
            yield "header_files sets authorization, and so does bearer_token_file or basic_user; keep one of them"
        if self.client_key_file is not None and self.client_cert_file is None:
            yield "client_key_file has no effect without client_cert_file"
        if self.client_cert_file is not None and self.url is not None and not _is_https(self.url):
            yield "client_cert_file has no effect without an https:// url"
        if self.format != "feishu" and (self.verification_token_file or self.encrypt_key_file):
            yield 'verification_token_file and encrypt_key_file are only for format = "feishu"'


class HttpKind:
    """See `protocols.SinkKind`."""

    name: Final = "http"
    settings: Final = HttpSettings
    secrets: Final = {
        "url_file": secret_files.read_url,
        "bearer_token_file": secret_files.read_header_value,
        "basic_password_file": secret_files.read_secret,
        "verification_token_file": secret_files.read_secret,
        "encrypt_key_file": secret_files.read_secret,
        "signing_secret_file": secret_files.read_signing_secrets,
        "header_files": secret_files.read_header_value,
    }
    files: Final = ("ca_bundle", "client_cert_file", "client_key_file")
    docs: Final = "posts each event to a URL"

    def build(self, settings: HttpSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> HttpSink:
        """See `protocols.SinkKind.build`."""
        from reserve_listener.sinks.http.feishu import Feishu  # noqa: PLC0415
        from reserve_listener.sinks.http.sink import HttpSink  # noqa: PLC0415  # the client is slow to load

        form = Feishu(
            verification_token=_text(secrets, "verification_token_file"),
            encrypt_key=_text(secrets, "encrypt_key_file"),
        )
        return HttpSink(
            runtime.name,
            url_of(settings, secrets, runtime.name),
            timeout_s=settings.timeout,
            max_in_flight=settings.max_in_flight,
            signing_keys=[secret_files.signing_key(one) for one in secrets.get("signing_secret_file", ())],
            ca_bundle=settings.ca_bundle,
            client_cert=settings.client_cert_file,
            client_key=settings.client_key_file,
            headers=headers_of(settings, secrets),
            proxy=_proxy(settings),
            form=form if settings.format == "feishu" else None,
            secret_host=settings.url_file is not None,
        )

    def takes_alerts(self, settings: HttpSettings) -> bool:
        """See `protocols.SinkKind`."""
        return settings.format != "feishu"

    def masks(self, settings: HttpSettings, secrets: Mapping[str, Any]) -> Iterator[str]:
        """What of the URL and of headers would betray a secret alone."""
        url = _text(secrets, "url_file") or settings.url or ""
        yield from url_secrets.secret_texts(url, shortest=SHORTEST_PART)
        host = urlsplit(url).hostname or ""
        if settings.url_file is not None and not is_loopback(host):
            yield host
        for value in secrets.get("header_files", {}).values():
            # Without "Bearer", "Token" or the like; one that is as short as a word of a text would mask words.
            if len(rest := value.get_secret_value().partition(" ")[2]) >= SHORTEST_PART:
                yield rest
        if login := _login(settings, secrets):
            yield login

    def check(self, settings: HttpSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> str:
        """See `protocols.SinkKind`."""
        if settings.ca_bundle is not None:
            pem.try_ca_bundle(settings.ca_bundle)
        if settings.client_cert_file is not None:
            pem.try_certificate(
                "client_cert_file", settings.client_cert_file, "client_key_file", settings.client_key_file
            )
        url = url_of(settings, secrets, runtime.name)
        parts = urlsplit(url)
        # The rest of the URL may be what lets one post there.
        place = (
            f"{parts.scheme}://{parts.netloc}"
            if settings.url_file is None
            else f"the URL in {settings.url_file}"
        )
        return place + proxies.way(url, setting=_proxy(settings), key="proxy")

    def target(self, settings: HttpSettings, secrets: Mapping[str, Any], runtime: SinkRuntime) -> Target:
        """See `protocols.SinkKind`."""
        where, url = f'sink "{runtime.name}"', url_of(settings, secrets, runtime.name)
        tls = certificates.client_context(
            runtime.name, settings.ca_bundle, settings.client_cert_file, settings.client_key_file
        )
        return Target(
            url=url,
            setting=f"{where}: {'url' if settings.url_file is None else 'url_file'}",
            proxy=proxies.decide(url, setting=_proxy(settings), key=f"{where}: proxy"),
            proxy_key=f"{where}: proxy",
            tls=tls if url.startswith("https:") else None,
        )


KIND: Final = HttpKind()


def url_of(settings: HttpSettings, secrets: Mapping[str, Any], name: str) -> str:
    """Where events are posted; from `url_file` if that is set."""
    url = _text(secrets, "url_file")
    if url is None:
        return settings.url or ""  # which `_misfits` refuses
    if settings.client_cert_file is not None and not _is_https(url):
        raise ConfigError(
            f'sink "{name}": client_cert_file has no effect without an https:// URL in url_file'
        )
    return url


def headers_of(settings: HttpSettings, secrets: Mapping[str, Any]) -> dict[str, str]:
    """All headers to send along, those from files and Authorization included."""
    headers = dict(settings.headers or {})
    for name, value in secrets.get("header_files", {}).items():
        headers[name] = value.get_secret_value()
    if token := _text(secrets, "bearer_token_file"):
        headers["Authorization"] = f"Bearer {token}"
    if login := _login(settings, secrets):
        headers["Authorization"] = f"Basic {login}"
    return headers


def _login(settings: HttpSettings, secrets: Mapping[str, Any]) -> str | None:
    password = _text(secrets, "basic_password_file")
    if settings.basic_user is None or password is None:
        return None
    return base64.b64encode(f"{settings.basic_user}:{password}".encode()).decode()


def _text(secrets: Mapping[str, Any], key: str) -> str | None:
    return secrets[key].get_secret_value() if key in secrets else None


def _proxy(settings: HttpSettings) -> str | None:
    return None if settings.proxy is None else settings.proxy.get_secret_value()


def _is_https(url: str) -> bool:
    return urlsplit(url).scheme == "https"
