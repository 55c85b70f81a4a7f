"""What can be configured: one frozen model a section.

A model can be built by hand (tests, the demo); `load` is what reads files, environment and secrets.
"""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from reserve_listener.config import secret_files, values
from reserve_listener.config.default_store import OF_ROOT
from reserve_listener.config.reading import SecretFiles
from reserve_listener.config.shown import quoted
from reserve_listener.errors import ConfigError
from reserve_listener.net import proxies, url_secrets
from reserve_listener.net.addresses import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLATFORMS: Final = ("https://open.feishu.cn", "https://open.larksuite.com")
SHORTEST_PART: Final = 8
"""What of a header's value is shorter is masked with the whole only."""


class Section(BaseModel):
    """What all sections share: fixed once loaded, and no key that is not known."""

    # Inputs stay out of pydantic's own texts: they may be secrets.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _not_below(cap: float, info: ValidationInfo, base_key: str) -> float:
    base = info.data.get(base_key)
    if base is not None and base > cap:
        raise ValueError(f"must be at least {base_key} ({base:g})")
    return cap


class LarkConfig(Section):
    """`[lark]`: the app, and how its events come in. Times are seconds."""

    app_id: values.AppId = Field(description="The app's id, from the developer console.")
    app_secret: values.Secret | None = Field(
        default=None,
        description="The app's secret. Better: app_secret_file, or the systemd credential app_secret.",
    )
    app_secret_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the app's secret. Instead of app_secret."
    )
    domain: values.Domain = Field(
        default="https://open.feishu.cn",
        description="The platform: https://open.feishu.cn (Feishu) or https://open.larksuite.com (Lark).",
    )
    transport: Literal["long_connection", "webhook"] = Field(
        default="long_connection",
        description="How events arrive: over a connection that the daemon opens, or pushed.",
    )
    backoff_base: values.Seconds = Field(
        default=1.0, description="Seconds before the first attempt to reconnect."
    )
    # Validated although it is the default: backoff_base alone can exceed it.
    backoff_cap: values.Seconds = Field(
        default=60.0,
        description="Seconds: the longest that delays between attempts grow to.",
        validate_default=True,
    )
    refused_backoff: values.Seconds = Field(
        default=300.0, description="Seconds between attempts while the platform refuses the app."
    )
    endpoint_timeout: values.Seconds = Field(
        default=10.0, description="Seconds to wait for the platform to say where to connect."
    )
    liveness_timeout: values.Seconds = Field(
        default=60.0, description="Seconds of silence after which a connection is considered lost."
    )
    proxy: values.ProxyUrl | None = Field(
        default=None, description="http(s)://[user:password@]host:port of the proxy to the platform."
    )

    _app_secret_is_credential: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any, /) -> None:
        """Remember where `load` found the app's secret."""
        directory = context.get("credentials_directory") if isinstance(context, dict) else None
        if directory is not None and self.app_secret_file is not None:
            self._app_secret_is_credential = self.app_secret_file.parent == Path(directory)

    @property
    def app_secret_is_credential(self) -> bool:
        """Whether the secret is a systemd credential: fixed at the unit's start, so a new one needs a restart."""
        return self._app_secret_is_credential

    def read_app_secret(self) -> SecretStr:
        """The secret as it is now: `app_secret_file` is read again (a short blocking read of a small file).

        Raises ConfigError, whose text holds the key and the path, when there is none to be had.
        """
        if self.app_secret_file is not None:
            try:
                return secret_files.read_secret(self.app_secret_file)
            except ConfigError as error:
                raise ConfigError(f"lark.app_secret_file: {error}") from None
        if self.app_secret is None:
            raise ConfigError("lark.app_secret: not set")
        return self.app_secret

    @field_validator("backoff_cap")
    @classmethod
    def _cap_not_below_base(cls, cap: float, info: ValidationInfo) -> float:
        return _not_below(cap, info, "backoff_base")


class StoreConfig(Section):
    """`[store]`: where events are kept."""

    url: values.StoreUrl = Field(
        default=f"{values.SQLITE}{OF_ROOT}",
        description="sqlite:////absolute/file.db or sqlite:///file.db, relative to the working directory."
        " By default events.db in $STATE_DIRECTORY, as root in /var/lib/reserve-listener, else in"
        " $XDG_STATE_HOME/reserve-listener (~/.local/state/reserve-listener).",
    )

    retention_days: values.RetentionDays = Field(
        default=30.0, description="Days to keep events after every sink has them; at least 2."
    )
    max_size_mb: values.StoreSize = Field(
        default=4096.0,
        description="MiB: at this size the oldest delivered events are dropped early; once none are left, pushes are refused.",
    )

    @property
    def path(self) -> Path:
        """The SQLite file; relative to the working directory when the URL has three slashes."""
        return Path(self.url.removeprefix(values.SQLITE))


class DeliveryConfig(Section):
    """`[delivery]`: what holds for all sinks."""

    drain_timeout: values.SecondsOrZero = Field(
        default=10.0, description="Seconds for deliveries in progress to finish after SIGTERM."
    )


class LogConfig(Section):
    """`[log]`: what the daemon says of itself."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level to log; --log-level overrides it."
    )


class RetryConfig(Section):
    """`retry` of a sink: when a delivery that failed is tried again. Times are seconds."""

    base: values.Seconds = Field(default=1.0, description="Seconds before the first retry, approximately.")
    # Validated although it is the default: base alone can exceed it.
    cap: values.Seconds = Field(
        default=3600.0, description="Seconds: the longest that delays grow to.", validate_default=True
    )
    max_attempts: values.Attempts | None = Field(
        default=None, description="Give up after this many attempts; if unset, only max_age counts."
    )
    max_age: values.LongSeconds = Field(
        default=259_200.0, description="Give up once the event has been in the store for this many seconds."
    )

    @field_validator("cap")
    @classmethod
    def _cap_not_below_base(cls, cap: float, info: ValidationInfo) -> float:
        return _not_below(cap, info, "base")


class _Sink(Section):
    name: values.SinkName = Field(
        description="Unique; it identifies the sink in the store. a-z, 0-9, - and _, at most 64 characters."
    )
    retry: RetryConfig = Field(default_factory=RetryConfig, description="When to retry a failed delivery.")
    scope_type: Literal["room", "level"] | None = Field(
        default=None, description="Only changes to rooms, or only to levels."
    )
    scope_ids: values.Ids | None = Field(
        default=None, description="Only changes to these rooms and levels, by ID."
    )
    tenants: values.Ids | None = Field(
        default=None, description="Only changes in these tenants, by tenant_key."
    )


class LogSink(_Sink):
    """A sink that writes events to the daemon's log."""

    type: Literal["log"]


class FileSink(_Sink):
    """A sink that appends events to a file, one JSON object a line."""

    type: Literal["file"]
    path: values.FilePath = Field(
        description="The file, created with mode 0640; relative to the working directory."
    )
    rotate_mb: values.Megabytes | None = Field(default=None, description="MiB at which to rotate the file.")
    rotate_every: Literal["hour", "day", "week"] | None = Field(
        default=None, description="Rotate the file every hour, day or week, in local time."
    )
    keep: values.Kept = Field(default=10, description="How many rotated files to keep.")
    compress: values.Switch = Field(default=False, description="Whether to compress rotated files (gzip).")

    @model_validator(mode="after")
    def _keep_what_is_rotated(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.rotate_mb is None and self.rotate_every is None:
            # Stated defaults are no mistake: `config show` states them.
            for key in ("keep", "compress"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield f"{key} has no effect without rotate_mb or rotate_every; set one of them"


class HttpSink(_Sink):
    """A sink that posts each event to a URL."""

    type: Literal["http"]
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

    _files: SecretFiles = PrivateAttr(default_factory=SecretFiles)

    def model_post_init(self, context: Any, /) -> None:
        """Take over what `load` has read."""
        if isinstance(context, dict) and "secret_files" in context:
            self._files = context["secret_files"]

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

    def read_url(self) -> str:
        """Where events are posted; from `url_file` if that is set. Blocks and raises as below."""
        if self.url_file is None:
            return self.url or ""  # which `_misfits` refuses
        url = self._read("url_file", self.url_file, secret_files.read_url)
        if self.client_cert_file is not None and not _is_https(url):
            raise ConfigError(
                f'sink "{self.name}": client_cert_file has no effect without an https:// URL in url_file'
            )
        return url

    def read_signing_secrets(self) -> tuple[SecretStr, ...]:
        """The `whsec_…` secrets of the file; none without a file. `signing_key` decodes one.

        Files are read once: `load` has done it, else the first call does, and blocks. Raises ConfigError, whose text holds the sink, the key and the path.
        """
        if self.signing_secret_file is None:
            return ()
        try:
            return secret_files.read_signing_secrets(self.signing_secret_file, self._files)
        except ConfigError as error:
            raise ConfigError(f'sink "{self.name}": signing_secret_file: {error}') from None

    def read_headers(self) -> dict[str, str]:
        """All headers to send along, those from files and Authorization included. Blocks and raises as above."""
        headers = dict(self.headers or {})
        for name, path in (self.header_files or {}).items():
            headers[name] = self._read_header(f"header_files.{name}", path)
        if self.bearer_token_file is not None:
            token = self._read_header("bearer_token_file", self.bearer_token_file)
            headers["Authorization"] = f"Bearer {token}"
        if self.basic_user is not None and self.basic_password_file is not None:
            password = self._read("basic_password_file", self.basic_password_file)
            headers["Authorization"] = f"Basic {_basic(self.basic_user, password)}"
        return headers

    def read_verification_token(self) -> SecretStr | None:
        """The receiver's verification token, when there is one. Blocks and raises as above."""
        path = self.verification_token_file
        return None if path is None else SecretStr(self._read("verification_token_file", path))

    def read_encrypt_key(self) -> SecretStr | None:
        """The receiver's encrypt key, when there is one. Blocks and raises as above."""
        return (
            None
            if self.encrypt_key_file is None
            else SecretStr(self._read("encrypt_key_file", self.encrypt_key_file))
        )

    def secrets(self) -> Iterator[SecretStr]:
        """Everything of the sink that is secret. Blocks and raises as above."""
        yield from self.read_signing_secrets()
        yield from map(SecretStr, url_secrets.secret_texts(self.read_url(), shortest=SHORTEST_PART))
        if self.url_file is not None:
            yield SecretStr(self.read_url())
        yield from _with_login(self.proxy)
        for name, path in (self.header_files or {}).items():
            value = self._read_header(f"header_files.{name}", path)
            yield SecretStr(value)
            # Without "Bearer", "Token" or the like; one that is as short as a word of a text would mask words.
            if len(rest := value.partition(" ")[2]) >= SHORTEST_PART:
                yield SecretStr(rest)
        if self.bearer_token_file is not None:
            yield SecretStr(self._read_header("bearer_token_file", self.bearer_token_file))
        if self.basic_user is not None and self.basic_password_file is not None:
            password = self._read("basic_password_file", self.basic_password_file)
            yield SecretStr(password)
            yield SecretStr(_basic(self.basic_user, password))
        yield from filter(None, (self.read_verification_token(), self.read_encrypt_key()))

    def files(self) -> Iterator[Path]:
        """The files that the sink reads."""
        for key in HTTP_FILE_KEYS:
            if (path := getattr(self, key)) is not None:
                yield path
        yield from (self.header_files or {}).values()

    def _read_header(self, key: str, path: Path) -> str:
        return self._read(key, path, secret_files.read_header_value)

    def _read(
        self, key: str, path: Path, read: Callable[[Path, SecretFiles], SecretStr] = secret_files.read_secret
    ) -> str:
        try:
            return read(path, self._files).get_secret_value()
        except ConfigError as error:
            raise ConfigError(f'sink "{self.name}": {key}: {error}') from None


def _is_https(url: str) -> bool:
    return urlsplit(url).scheme == "https"


HTTP_SECRET_KEYS: Final = (
    "url_file",
    "bearer_token_file",
    "basic_password_file",
    "verification_token_file",
    "encrypt_key_file",
)
"""Keys of an http sink that name a file with one secret."""

HTTP_FILE_KEYS: Final = (
    *HTTP_SECRET_KEYS,
    "signing_secret_file",
    "ca_bundle",
    "client_cert_file",
    "client_key_file",
)
"""Keys of an http sink that name a file."""


class WebhookConfig(Section):
    """`[webhook]`: where the platform pushes events to, with `transport = "webhook"`."""

    listen: values.Listen = Field(default="127.0.0.1:7777", description="host:port to listen on.")
    path: values.UrlPath = Field(default="/webhook/event", description="The path that events are pushed to.")
    encrypt_key: values.Secret | None = Field(
        default=None, description="The app's encrypt key. Better: encrypt_key_file."
    )
    encrypt_key_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the encrypt key. Instead of encrypt_key."
    )
    verification_token: values.Secret | None = Field(
        default=None, description="The app's verification token. Better: verification_token_file."
    )
    verification_token_file: values.FilePath | None = Field(
        default=None,
        description="A file whose only line is the verification token. Instead of verification_token.",
    )
    freshness: values.Freshness = Field(
        default=86_400.0,
        description="The maximum age of a signed push, in seconds; the platform retries for 7.1 h.",
    )
    tls_cert_file: values.FilePath | None = Field(
        default=None, description="To serve TLS: a PEM file with the certificate and its chain."
    )
    tls_key_file: values.FilePath | None = Field(
        default=None, description="The certificate's key, unless it is in the same file."
    )
    trusted_proxies: values.Networks | None = Field(
        default=None, description="Addresses or networks whose X-Forwarded-For is trusted."
    )
    allowed_senders: values.Networks | None = Field(
        default=None, description="Addresses or networks that may push; all if unset."
    )
    allow_unauthenticated: values.Switch = Field(
        default=False,
        description="Listen on non-loopback addresses even without an encrypt key and a token.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.tls_key_file is not None and self.tls_cert_file is None:
            yield "tls_key_file has no effect without tls_cert_file"
        given = (
            self.encrypt_key,
            self.encrypt_key_file,
            self.verification_token,
            self.verification_token_file,
        )
        if not any(given) and not is_loopback(self.address[0]) and not self.allow_unauthenticated:
            yield (
                f"listen is {self.listen}, and without encrypt_key_file or verification_token_file anybody could push;"
                " set one of them, listen on 127.0.0.1, or set allow_unauthenticated = true"
            )

    @property
    def address(self) -> tuple[str, int]:
        """`listen` as host and port."""
        return values.split_listen(self.listen)

    def files(self) -> Iterator[Path]:
        """The files that the webhook reads."""
        for path in (
            self.encrypt_key_file,
            self.verification_token_file,
            self.tls_cert_file,
            self.tls_key_file,
        ):
            if path is not None:
                yield path


class StatusConfig(Section):
    """`[status]`: the page, health checks and metrics."""

    listen: values.Listen = Field(default="127.0.0.1:9464", description="host:port to listen on.")


Sink: TypeAlias = LogSink | FileSink | HttpSink
DEFAULT_SINKS: Final = (LogSink(name="console", type="log"),)


class Config(Section):
    """The whole configuration, valid. Its repr, its dump and its errors hold no secret."""

    lark: LarkConfig = Field(description="The app, and how its events arrive.")
    store: StoreConfig = Field(default_factory=StoreConfig, description="Where events are kept.")
    delivery: DeliveryConfig = Field(default_factory=DeliveryConfig, description="Settings for all sinks.")
    log: LogConfig = Field(default_factory=LogConfig, description="What the daemon logs.")
    sinks: tuple[Annotated[Sink, Field(discriminator="type")], ...] = Field(
        default=DEFAULT_SINKS, description='Where events go. If there are none: one log sink, "console".'
    )
    webhook: WebhookConfig | None = Field(default=None, description="Where the platform pushes events to.")
    status: StatusConfig | None = Field(
        default=None, description="The status page, health checks and metrics."
    )

    @field_validator("sinks")
    @classmethod
    def _sinks_are_known_by_name(cls, sinks: tuple[Sink, ...]) -> tuple[Sink, ...]:
        if twice := duplicates(sink.name for sink in sinks):
            raise ValueError(twice)
        return sinks or DEFAULT_SINKS

    @model_validator(mode="after")
    def _known_for_longer_than_fresh(self) -> Self:
        if self.webhook is not None and self.webhook.freshness >= self.store.retention_days * values.DAY_S:
            raise ValueError("webhook.freshness must be shorter than store.retention_days")
        return self

    def secret_texts(self) -> tuple[str, ...]:
        """All secrets in the forms in which they could turn up in a log, for `redact.scrub`. Not to be printed.

        The longest first: masking goes in this order, and one may begin with another. Reads the sinks' secret files,
        so it blocks shortly and raises ConfigError as they do.
        """
        forms = {text for secret in self._secrets() for text in _forms(secret.get_secret_value()) if text}
        return tuple(sorted(forms, key=lambda text: (-len(text), text)))

    def _secrets(self) -> Iterator[SecretStr]:
        webhook = self.webhook or WebhookConfig()
        for secret in (self.lark.app_secret, webhook.encrypt_key, webhook.verification_token):
            if secret is not None:
                yield secret
        yield from _with_login(self.lark.proxy)
        for sink in self.sinks:
            if isinstance(sink, HttpSink):
                yield from sink.secrets()
        yield from self._secret_hosts()

    def _secret_hosts(self) -> Iterator[SecretStr]:
        """Those of `url_file`, but for what everybody may see: masked, the platform's name would be missed in the log."""
        sinks = [sink for sink in self.sinks if isinstance(sink, HttpSink)]
        known = {
            urlsplit(url).hostname
            for url in (*PLATFORMS, self.lark.domain, *(sink.url for sink in sinks if sink.url))
        }
        for sink in sinks:
            host = urlsplit(sink.read_url()).hostname or ""
            if sink.url_file is not None and host not in known and not is_loopback(host):
                yield SecretStr(host)


def duplicates(names: Iterator[str]) -> str:
    """What is wrong with names that are there more than once; empty when none is."""
    twice = [quoted(name) for name, count in Counter(names).items() if count > 1]
    return f"names must be unique; used more than once: {', '.join(twice)}" if twice else ""


def _with_login(proxy: SecretStr | None) -> Iterator[SecretStr]:
    """A proxy that holds a user or a password; a host alone may be seen."""
    if proxy is not None and "@" in proxy.get_secret_value():
        yield proxy


def _forms(secret: str) -> Iterator[str]:
    """A secret whole, and the parts and spellings of it that would betray it alone."""
    yield secret
    if secret.startswith(secret_files.SIGNING_PREFIX):
        yield secret.removeprefix(secret_files.SIGNING_PREFIX)
    elif "@" in secret:
        yield from proxies.login_texts(secret)


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()
