"""The kinds of values that keys take.

No message of a validator repeats what was found: `problems` adds that, and knows which values may be shown.
"""

from __future__ import annotations

import difflib
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from reserve_listener.config.shown import (
    header_name,
    is_header_name,
    is_secret_value,
    quoted,
    suggests_secret,
)
from reserve_listener.model import POSTGRES_URL, SECTIONS, SQLITE_URL
from reserve_listener.net import proxies
from reserve_listener.net.addresses import HIGHEST_PORT, is_loopback, read_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DAY_S: Final = 86_400


def split_url(text: str) -> SplitResult:
    """An http or https URL in its parts. Raises ValueError with what is allowed."""
    if not text.isprintable() or " " in text:
        raise ValueError("must be a URL without spaces or control characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # A bracket that is not closed, a port that is no port.
        raise ValueError("is not a URL: its host or port is invalid") from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise ValueError("must begin with http:// or https://, followed by a host")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password, which would show up in logs")
    if parts.fragment:
        raise ValueError('must not contain a fragment ("#…")')
    return parts


EXAMPLES: Final = frozenset(
    {
        "cli_a1b2c3d4e5f6g7h8",
        "the-secret-itself",
        "the-key-itself",
        "the-token-itself",
        "https://booking.example/hooks/rooms",
        "https://uptime.example/api/push/the-token-itself",
    }
)
"""What config.example.toml has: started as it stands, it would fail later and say less."""


def _not_the_examples(text: str, instead: str) -> None:
    if text.strip() in EXAMPLES:
        raise ValueError(f"is still the example's value; replace it with {instead}")


def _app_id(text: str) -> str:
    _not_the_examples(text, "your app's ID, from Credentials & Basic Info in the developer console")
    return text


def _origin(text: str) -> str:
    parts = split_url(text)
    if parts.path.strip("/") or parts.query:
        raise ValueError("must end after the host: no path")
    return f"{parts.scheme}://{parts.netloc}"


def _domain(text: str) -> str:
    origin = _origin(text)
    if origin.startswith("http://") and not is_loopback(urlsplit(origin).hostname or ""):
        raise ValueError(
            "must begin with https:// (http:// is allowed only for this machine: localhost, 127.0.0.1, [::1])"
        )
    return origin


def sink_url(text: str) -> str:
    """The URL of a sink as it is. Raises ValueError, whose text quotes nothing of it."""
    split_url(text)
    _not_the_examples(text, "your receiver's URL")
    return text


def _secret_url(secret: SecretStr) -> SecretStr:
    split_url(secret.get_secret_value())
    _not_the_examples(secret.get_secret_value(), "your push monitor's URL")
    return secret


def _proxy(secret: SecretStr) -> SecretStr:
    proxies.parse(secret.get_secret_value())
    return secret


def _secret(secret: SecretStr) -> SecretStr:
    _not_the_examples(secret.get_secret_value(), "your app's secret, from the developer console")
    # Also what Python makes of an environment that is not UTF-8.
    if not secret.get_secret_value().isprintable():
        raise ValueError("must be one line of UTF-8 text without control characters")
    return secret


def split_listen(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in its parts, the brackets taken off. Port 0 means any free one."""
    host, colon, port = text.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= len(str(HIGHEST_PORT))
    if not colon or not digits or int(port) > HIGHEST_PORT or not _is_host(host):
        raise ValueError('must be "host:port", such as "127.0.0.1:9464" or "[::1]:9464"')
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        return bool(text) and text.isprintable() and not set(text) & set(" /@[]:")
    try:
        ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        return False
    return text.endswith("]")


def _host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if "*" in name or not _is_host(name):
            raise ValueError(
                f"must be host names without a scheme, a port or *, such as rooms.corp.example; {quoted(name)} is not one"
            )
    return names


def _listen(text: str) -> str:
    split_listen(text)
    return text


def _store_url(text: str) -> str:
    if text.startswith(POSTGRES_URL):
        return _postgres_url(text)
    scheme = text.partition(":")[0]
    if scheme != "sqlite":
        raise ValueError('must begin with "sqlite:" or "postgresql:"')
    if not text.startswith(SQLITE_URL):
        raise ValueError('must be "sqlite:///relative/file.db" or "sqlite:////absolute/file.db"')
    path = text.removeprefix(SQLITE_URL)
    if path == ":memory:":
        raise ValueError("must name a file: a store in memory would lose its events")
    if not path or path.endswith("/") or not path.isprintable():
        raise ValueError("must name a file after the slashes")
    if "?" in path:
        raise ValueError('must not have options after "?"')
    return text


def _postgres_url(text: str) -> str:
    shape = "must look like postgresql://user@host:5432/database"
    try:
        parts = urlsplit(text)
        ports = [urlsplit(f"//{host}").port for host in parts.netloc.rpartition("@")[2].split(",")]
    except ValueError:
        raise ValueError(shape) from None
    if "@" in f"{parts.netloc.rpartition('@')[0]}{parts.path}":  # what is taken for a host would be shown
        raise ValueError(
            'has an "@" too many: in a password "@" is written %40, "/" %2F, ":" %3A and "%" %25'
        )
    if not text.isprintable() or 0 in ports or not parts.path.strip("/"):
        raise ValueError(shape)
    return text


def _path_text(value: Any) -> Any:
    """Refuse what pathlib would quietly take for another path: "" is the working directory for it."""
    if isinstance(value, str) and (not value or value.endswith("/")):
        raise ValueError("must name a file")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must be a path without control characters")
    return value


def _url_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or set(text) & set(" ?#"):
        raise ValueError('must be the path of a URL, such as "/webhook/event"')
    return text


RESERVED_HEADERS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
"""What the daemon says itself in each post; so it does with all that begins with x-lark-."""


def together(problems: Iterable[str]) -> None:
    """Refuse a table for all that is wrong within it, a line each; without problems do nothing."""
    if text := "\n".join(problems):
        raise ValueError(text)


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            read_network(text)
        except ValueError:
            raise ValueError(
                f"must be addresses or networks, such as 10.0.0.0/8; {quoted(text)} is not one"
            ) from None
    return texts


def _header_names(headers: dict[str, Any]) -> dict[str, Any]:
    together(_wrong_names(headers))
    return headers


def _wrong_names(headers: Iterable[str]) -> Iterator[str]:
    for name in headers:
        if not is_header_name(name):
            yield f"{header_name(name)} is not a header name (1 to 100 letters, digits, - and the like)"
        elif name.lower() in RESERVED_HEADERS or name.lower().startswith("x-lark-"):
            yield f"{name} is set by the daemon and cannot be changed"


def _headers(headers: dict[str, str]) -> dict[str, str]:
    together([*_wrong_names(headers), *_wrong_values(headers)])
    return headers


def _wrong_values(headers: dict[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if not is_header_name(name):
            continue
        if suggests_secret(name) or is_secret_value(value):
            yield f"{name} looks like a secret: put its value in a file and name it in header_files"
        elif not is_header_value(value):
            yield f"the value of {name} must be ASCII text without control characters or spaces around it"


def is_header_value(text: str) -> bool:
    """Whether a text can be sent as a header: the HTTP client refuses each request with another one."""
    return text.isascii() and text.isprintable() and text == text.strip()


def _scope(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError("must be an ID without spaces or control characters")
    return text


def _change(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError('must be "*", a section or a path such as "time_config.max_duration"')
    known = ["*", *SECTIONS, *(f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys)]
    if text not in known and (near := difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.85)):
        raise ValueError(f'nothing of this name changes; did you mean "{near[0]}"?')
    section, _, key = text.partition(".")
    if key and section not in SECTIONS:
        raise ValueError(f"there is no such section; those with keys are {', '.join(SECTIONS)}")
    return text


def _basic_user(text: str) -> str:
    if ":" in text or not text.isprintable():
        raise ValueError('must be a user name without ":" or control characters')
    return text


Seconds = Annotated[float, Field(strict=True, gt=0, le=DAY_S, allow_inf_nan=False)]
"""A time in seconds, more than 0, a day at the most (longer waits overflow timers on some platforms)."""
SecondsOrZero = Annotated[float, Field(strict=True, ge=0, le=DAY_S, allow_inf_nan=False)]
InFlight = Annotated[int, Field(strict=True, ge=1, le=1000)]
Text = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1), AfterValidator(_secret)]
SinkName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
AppId = Annotated[str, Field(min_length=1), AfterValidator(_app_id)]
Domain = Annotated[str, AfterValidator(_domain)]
SinkUrl = Annotated[str, AfterValidator(sink_url)]
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
Listen = Annotated[str, AfterValidator(_listen)]
HostNames = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_host_names)]
PublicUrl = Annotated[str, AfterValidator(_origin)]
UrlPath = Annotated[str, AfterValidator(_url_path)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
FilePath = Annotated[Path, BeforeValidator(_path_text)]
Attempts = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
SinkNames = tuple[SinkName, ...]
LongSeconds = Annotated[float, Field(strict=True, gt=0, le=365 * DAY_S, allow_inf_nan=False)]
ReconcileEvery = Annotated[float, Field(strict=True, ge=60, le=365 * DAY_S, allow_inf_nan=False)]
RequestsPerMinute = Annotated[int, Field(strict=True, ge=1, le=100)]
"""100 is the platform's own limit on the call for a room's limits."""
RetentionDays = Annotated[float, Field(strict=True, ge=2, le=3650, allow_inf_nan=False)]
"""Two days at least: an event has to be known for as long as it can be pushed again."""
HistoryDays = Annotated[float, Field(strict=True, ge=0, le=36_500, allow_inf_nan=False)]
StoreSize = Annotated[float, Field(strict=True, ge=64, le=16 * 1024 * 1024, allow_inf_nan=False)]
Megabytes = Annotated[float, Field(strict=True, ge=0.001, le=1024 * 1024, allow_inf_nan=False)]
Kept = Annotated[int, Field(strict=True, ge=1, le=10_000)]
Switch = Annotated[bool, Field(strict=True)]
Id = Annotated[str, Field(min_length=1), AfterValidator(_scope)]
Change = Annotated[str, Field(min_length=1), AfterValidator(_change)]
Changes = Annotated[tuple[Change, ...], Field(min_length=1)]
Ids = Annotated[tuple[Id, ...], Field(min_length=1)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
HeaderFiles = Annotated[dict[str, FilePath], AfterValidator(_header_names)]
Freshness = Annotated[float, Field(strict=True, ge=60, le=2 * DAY_S - 60, allow_inf_nan=False)]
"""Less than an event is known for at the least: a push that is replayed is either stale or known."""
Networks = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_networks)]
BasicUser = Annotated[str, Field(min_length=1), AfterValidator(_basic_user)]
