"""What can be configured: one frozen model a section.

A model can be built by hand (tests, the demo); `load` is what reads files, environment and secrets.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, cast
from urllib.parse import quote, unquote, urlsplit

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    SerializeAsAny,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reserve_listener.config import secret_files, values
from reserve_listener.config.default_store import OF_ROOT
from reserve_listener.config.section import Section, not_below
from reserve_listener.config.shown import SECRET_OF_LIBPQ, quoted
from reserve_listener.config.sinks import SinkTable, table_of
from reserve_listener.errors import ConfigError
from reserve_listener.model import POSTGRES_URL, SQLITE_URL
from reserve_listener.net import proxies, url_secrets
from reserve_listener.net.addresses import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reserve_listener.protocols import SinkKinds

PLATFORMS: Final = ("https://open.feishu.cn", "https://open.larksuite.com")
FEISHU: Final = "feishu.cn"


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
    language: Literal["zh", "en"] | None = Field(
        default=None,
        description="The language in which changes are described: zh or en. By default zh on feishu.cn, else en.",
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
    def has_app_secret(self) -> bool:
        """Whether there is one to ask the platform with; the webhook needs none."""
        return self.app_secret is not None or self.app_secret_file is not None

    @property
    def app_secret_is_credential(self) -> bool:
        """Whether the secret is a systemd credential: fixed at the unit's start, so a new one needs a restart."""
        return self._app_secret_is_credential

    @property
    def tells_in(self) -> Literal["zh", "en"]:
        """The language in which changes are told."""
        host = urlsplit(self.domain).hostname or ""
        return self.language or ("zh" if host == FEISHU or host.endswith(f".{FEISHU}") else "en")

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
        return not_below(cap, info, "backoff_base")


class StoreConfig(Section):
    """`[store]`: where events are kept."""

    url: values.StoreUrl = Field(
        default=f"{SQLITE_URL}{OF_ROOT}",
        description="sqlite:////absolute/file.db or sqlite:///file.db, relative to the working directory; or"
        " postgresql://user@host/database, which replicas share (needs reserve-listener[postgres])."
        " By default events.db in $STATE_DIRECTORY, as root in /var/lib/reserve-listener, else in"
        " $XDG_STATE_HOME/reserve-listener (~/.local/state/reserve-listener).",
    )

    password_file: values.FilePath | None = Field(
        default=None,
        description="With postgresql://, a file whose only line is the password; read before each connection.",
    )

    retention_days: values.RetentionDays = Field(
        default=30.0, description="Days to keep events after every sink has them; at least 2."
    )
    history_days: values.HistoryDays = Field(
        default=400.0,
        description="Days to keep the history of changes, at least as long as events; 0: for ever. The current limits are always kept.",
    )
    max_size_mb: values.StoreSize = Field(
        default=4096.0,
        description="MiB: at this size the oldest delivered events are dropped early; once none are left, pushes are refused.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_password_file(cls, section: Any) -> Any:
        """The URL says all that it takes to reach the store."""
        if not isinstance(section, dict):
            return section
        file, url = section.get("password_file"), section.get("url")
        if not isinstance(file, str) or not isinstance(url, str) or "password_file=" in url:
            return section
        if not url.startswith(POSTGRES_URL):
            raise ValueError("password_file is for a url with postgresql://; remove it")
        return section | {"url": f"{url}{'&' if '?' in url else '?'}password_file={quote(file)}"}

    def secret_texts(self) -> set[str]:
        """The passwords that stand in the URL, as they do and as they are."""
        if self.path is not None:
            return set()
        parts = urlsplit(self.url)
        settings = (each.partition("=") for each in parts.query.split("&"))
        found = {value for key, _, value in settings if key in SECRET_OF_LIBPQ} | {parts.password or ""}
        return {form for text in found for form in (text, unquote(text)) if form}

    @property
    def path(self) -> Path | None:
        """The SQLite file; relative to the working directory when the URL has three slashes. None: it is on a server."""
        return Path(self.url.removeprefix(SQLITE_URL)) if self.url.startswith(SQLITE_URL) else None


class RoomsConfig(Section):
    """`[rooms]`: what is asked of the platform's API about rooms and levels, with the app's own secret."""

    names: values.Switch = Field(default=True, description="Ask for the names of rooms and levels.")
    people_names: values.Switch = Field(
        default=False,
        description="Ask for the names of people. Needs the permission contact:user.basic_profile:readonly.",
    )
    reconcile: values.Switch = Field(
        default=True,
        description="Compare the limits of all rooms and levels with the platform's: at the first start, and after whatever"
        " may have been missed.",
    )
    reconcile_every: values.ReconcileEvery = Field(
        default=86_400.0, description="Seconds between two such comparisons, at least 60."
    )
    requests_per_minute: values.RequestsPerMinute = Field(
        default=80, description="How many rooms or levels to read a minute; the platform's limit is 100."
    )


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


class ListeningSection(Section):
    """What the sections share that listen: where, and with what certificate."""

    listen: values.Listen
    tls_cert_file: values.FilePath | None = Field(
        default=None, description="To serve TLS: a PEM file with the certificate and its chain."
    )
    tls_key_file: values.FilePath | None = Field(
        default=None, description="The certificate's key, unless it is in the same file."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values.together(self._misfits())
        return self

    def _misfits(self) -> Iterator[str]:
        if self.tls_key_file is not None and self.tls_cert_file is None:
            yield "tls_key_file has no effect without tls_cert_file"

    @property
    def address(self) -> tuple[str, int]:
        """`listen` as host and port."""
        return values.split_listen(self.listen)


class WebhookConfig(ListeningSection):
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

    def _misfits(self) -> Iterator[str]:
        yield from super()._misfits()
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


SHORTEST_TOKEN: Final = 16
"""Wrong tokens are answered as fast as they come, or guessing would keep out who has the right one. A thousand a second find eight
random letters and digits within decades, and a word with a year behind it within a day: 16 is more than anybody makes up."""


class StatusConfig(ListeningSection):
    """`[status]`: health checks, metrics, the API and the page."""

    listen: values.Listen = Field(default="127.0.0.1:9464", description="host:port to listen on.")
    token: values.Secret | None = Field(
        default=None,
        description="The token that everything but the health checks requires. Better: token_file.",
    )
    token_file: values.FilePath | None = Field(
        default=None,
        description="A file whose only line is the token. Needed for actions, and to listen beyond this machine.",
    )
    allowed_hosts: values.HostNames | None = Field(
        default=None,
        description="Host names that browsers and proxies may use, besides localhost and this machine's addresses.",
    )
    public_url: values.PublicUrl | None = Field(
        default=None, description="Where people find the page; links in cards and alerts begin with it."
    )

    def _misfits(self) -> Iterator[str]:
        yield from super()._misfits()
        if not (self.token or self.token_file) and not is_loopback(self.address[0]):
            yield (
                f"listen is {self.listen}, and without token_file anybody could read what is known of the rooms;"
                " set token_file, or listen on 127.0.0.1"
            )
        if self.token is not None and len(self.token.get_secret_value()) < SHORTEST_TOKEN:
            yield (
                f"the token has fewer than {SHORTEST_TOKEN} characters, so it could be guessed;"
                " make one with: openssl rand -hex 32"
            )

    def files(self) -> Iterator[Path]:
        """The files that are read for it."""
        yield from filter(None, (self.token_file, self.tls_cert_file, self.tls_key_file))


class AlertsConfig(Section):
    """`[alerts]`: who is told that the daemon is not well, and when. Times are seconds."""

    sinks: values.SinkNames = Field(
        default_factory=tuple, description="Names of [[sinks]] that receive alerts as well."
    )
    disconnected_after: values.Seconds = Field(
        default=600.0, description="Seconds without a connection to the platform before it is an alert."
    )
    oldest_pending: values.LongSeconds = Field(
        default=900.0, description="Seconds that an event may wait for a sink before it is an alert."
    )
    repeat: values.LongSeconds = Field(
        default=21_600.0, description="Seconds after which an alert that lasts is sent again."
    )


class HeartbeatConfig(Section):
    """`[heartbeat]`: an address that is asked regularly while all is well, so that its owner notices when nobody asks."""

    url: values.SecretUrl | None = Field(
        default=None, description="The address of the push monitor. Better: url_file."
    )
    url_file: values.FilePath | None = Field(
        default=None, description="A file whose only line is the address of the push monitor."
    )
    every: values.Seconds = Field(default=60.0, description="Seconds between two heartbeats.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.url is None and self.url_file is None:
            raise ValueError("url_file is missing; set it to a file that contains the push monitor's URL")
        return self


DEFAULT_SINKS: Final[Any] = ({"name": "console", "type": "log"},)


def _of_its_kind(value: Any, base: ValidatorFunctionWrapHandler, info: ValidationInfo) -> SinkTable:
    """The table as its type has it. The kinds of sinks come in the context: the configuration knows none itself."""
    if isinstance(value, SinkTable) or not isinstance(value, dict):
        return cast("SinkTable", base(value))
    kinds: SinkKinds = (info.context or {})["sink_kinds"]
    try:
        kind = kinds.find(value["type"]) if isinstance(value.get("type"), str) else None
        table = None if kind is None else table_of(kind)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if table is None:
        raise PydanticCustomError("sink_type", "no type of sink")
    return table.model_validate(value, context=info.context)


class Config(Section):
    """The whole configuration, valid. Its repr, its dump and its errors hold no secret."""

    lark: LarkConfig = Field(description="The app, and how its events arrive.")
    store: StoreConfig = Field(default_factory=StoreConfig, description="Where events are kept.")
    rooms: RoomsConfig = Field(
        default_factory=RoomsConfig, description="What to ask the platform about rooms and levels."
    )
    delivery: DeliveryConfig = Field(default_factory=DeliveryConfig, description="Settings for all sinks.")
    log: LogConfig = Field(default_factory=LogConfig, description="What the daemon logs.")
    sinks: tuple[Annotated[SerializeAsAny[SinkTable], WrapValidator(_of_its_kind)], ...] = Field(
        default=DEFAULT_SINKS,
        validate_default=True,
        description='Where events go. If there are none: one log sink, "console".',
    )
    webhook: WebhookConfig | None = Field(default=None, description="Where the platform pushes events to.")
    status: StatusConfig | None = Field(
        default=None, description="Health checks, metrics, the API and the page; off unless it is there."
    )
    alerts: AlertsConfig = Field(
        default_factory=AlertsConfig, description="Who is told that the daemon is not well, and when."
    )
    heartbeat: HeartbeatConfig | None = Field(
        default=None, description="A push monitor to request while all is well; off unless it is there."
    )

    @model_validator(mode="before")
    @classmethod
    def _no_sinks_are_the_default_one(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("sinks") in ([], ()):
            return {key: value for key, value in values.items() if key != "sinks"}
        return values

    @field_validator("sinks")
    @classmethod
    def _sinks_are_known_by_name(
        cls, sinks: tuple[SinkTable, ...], info: ValidationInfo
    ) -> tuple[SinkTable, ...]:
        if twice := duplicates(sink.name for sink in sinks):
            raise ValueError(twice)
        for sink in sinks:
            if files := (info.context or {}).get("secret_files"):
                sink.use(files)
        return sinks

    @model_validator(mode="after")
    def _known_for_longer_than_fresh(self) -> Self:
        if self.webhook is not None and self.webhook.freshness >= self.store.retention_days * values.DAY_S:
            raise ValueError("webhook.freshness must be shorter than store.retention_days")
        return self

    def secret_texts(self) -> tuple[str, ...]:
        """All secrets in the forms in which they could turn up in a log, for `redact.redact`. Not to be printed.

        The longest first: masking goes in this order, and one may begin with another. Reads the sinks' secret files,
        so it blocks shortly and raises ConfigError as they do.
        """
        forms = {text for secret in self._secrets() for text in _forms(secret.get_secret_value()) if text}
        return tuple(sorted(forms, key=lambda text: (-len(text), text)))

    def _secrets(self) -> Iterator[SecretStr]:
        webhook, status = self.webhook or WebhookConfig(), self.status or StatusConfig()
        for secret in (self.lark.app_secret, webhook.encrypt_key, webhook.verification_token, status.token):
            if secret is not None:
                yield secret
        if self.heartbeat is not None and self.heartbeat.url is not None:
            url = self.heartbeat.url.get_secret_value()
            yield from map(SecretStr, (url, *url_secrets.secret_texts(url)))
        yield from _with_login(self.lark.proxy)
        yield from map(SecretStr, self.store.secret_texts())
        public = self._public_hosts()
        for sink in self.sinks:
            yield from (secret for secret in sink.secret_texts() if secret.get_secret_value() not in public)

    def _public_hosts(self) -> set[str | None]:
        """What everybody may see: masked because a `url_file` names it, too, it would be missed in the log."""
        urls = [url for sink in self.sinks if isinstance(url := getattr(sink, "url", None), str)]
        return {urlsplit(url).hostname for url in (*PLATFORMS, self.lark.domain, *urls)}


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
