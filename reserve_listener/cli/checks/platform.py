"""What the platform says of the app: whether it accepts the secret, what it may ask, and who else is connected. Nothing connects."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from reserve_listener.cli.checks import rooms
from reserve_listener.cli.checks.findings import Finding
from reserve_listener.cli.checks.reach import reach
from reserve_listener.config import certificates
from reserve_listener.errors import ConfigError, RefusedAtStartError, ReserveListenerError
from reserve_listener.lark.api.client import Client
from reserve_listener.lark.api.codes import WRONG_APP
from reserve_listener.lark.api.errors import ApiError, AppRefusedError
from reserve_listener.net import proxies
from reserve_listener.net.reaching import UnreachableError
from reserve_listener.net.target import Target
from reserve_listener.transports.long_connection import endpoint, failures
from reserve_listener.web import client
from reserve_listener.web.answers import Status

if TYPE_CHECKING:
    from reserve_listener.config import Config, LarkConfig

PLATFORM: Final = "the platform"
CALL_TIMEOUT_S: Final = 15.0
"""A check does not wait longer, whatever `lark.endpoint_timeout` allows the daemon."""
UNREACHED: Final = 1
"""The exit code of what may pass by itself."""
AGAIN: Final = "try again; if the problem persists, look at what is between this machine and the platform"


async def look(config: Config) -> list[Finding]:
    """Ask with the real secret. Each call has `lark.endpoint_timeout`, and is made once."""
    timeout_s = min(config.lark.endpoint_timeout, CALL_TIMEOUT_S)
    lark = config.lark.model_copy(update={"endpoint_timeout": timeout_s})
    try:
        secret = (await asyncio.to_thread(lark.read_app_secret)).get_secret_value()
    except ConfigError as error:  # that it is missing the configuration has said, for the long connection
        return [Finding(where=PLATFORM, what=f"not asked, because there is no secret: {error}")]
    api = Client(lark, attempts=1, hide=lambda _secret, _instead_of: None)
    try:
        return await _ask(config.model_copy(update={"lark": lark}), secret, api)
    except ConfigError:
        return []  # the proxy: said before
    except ApiError as error:
        return [_refused_by_api(error)]
    except Exception as error:  # noqa: BLE001  # `classify` knows them all, and what is new to it is shown, too
        return [_refused(PLATFORM, error)]
    finally:
        await api.close()


async def _ask(config: Config, secret: str, api: Client) -> list[Finding]:
    accepted = Finding(where=PLATFORM, what="accepts lark.app_id and the secret")
    if config.lark.transport == "webhook":
        await api.prove()
        return [accepted, *await rooms.look(api, config.rooms)]
    place = await endpoint.fetch(
        domain=config.lark.domain,
        app_id=config.lark.app_id,
        app_secret=secret,
        timeout_s=config.lark.endpoint_timeout,
        proxy=_proxy(config.lark),
    )
    gateway, others, asked = await asyncio.gather(
        _gateway(place.url, _proxy(config.lark)),
        _others(api, config.store.url),
        rooms.look(api, config.rooms),
    )
    return [accepted, gateway, others, *asked]


def _proxy(lark: LarkConfig) -> str | None:
    return None if lark.proxy is None else lark.proxy.get_secret_value()


def _refused_by_api(error: ApiError) -> Finding:
    refused = isinstance(error, AppRefusedError) and error.code is not None
    return Finding(
        where=PLATFORM,
        level="fail",
        what=f"refuses the app or its secret: {error}" if refused else str(error),
        do=error.hint or AGAIN,
        exit_code=RefusedAtStartError.exit_code if error.code in WRONG_APP else UNREACHED,
    )


def _refused(where: str, error: Exception) -> Finding:
    failure = failures.classify(error)
    credentials = failure.kind is failures.Kind.REFUSED_CREDENTIALS
    return Finding(
        where=where,
        level="fail",
        what=failure.reason,
        do=failure.hint or AGAIN,
        exit_code=RefusedAtStartError.exit_code if credentials else UNREACHED,
    )


async def _gateway(url: str, proxy: str | None) -> Finding:
    """The address that the platform names for the connection; it is a credential but for its host."""
    where = "the long connection"
    try:
        way = proxies.decide(url, setting=proxy, key="lark.proxy")
        tls = (
            await asyncio.to_thread(certificates.trusted, ssl.create_default_context)
            if url.startswith("wss:")
            else None
        )
        return Finding(where=where, what=await reach(Target(url=url, setting=None, proxy=way, tls=tls)))
    except (ConfigError, UnreachableError) as error:
        return _refused(where, error)


async def _others(api: Client, store: str) -> Finding:
    where = "other clients"
    try:
        count = await api.connections()
    except ApiError as error:
        advice = "if events are missing, look at Event Subscriptions in the developer console instead"
        return Finding(where=where, level="warn", what=f"cannot be counted: {error}", do=advice)
    try:
        ours = await asyncio.to_thread(_is_connected, store)
    except ReserveListenerError as error:
        what = f"{count} connected, perhaps including the daemon on this machine: {error}"
        return Finding(where=where, level="warn", what=what, do="reserve-listener status says more")
    others = max(0, count - ours)
    what = f"{others or 'none'} connected" + (" besides the daemon on this machine" if ours else "")
    if not others:
        return Finding(where=where, what=what)
    advice = "stop those that should not be connected, or give each an app of its own"
    return Finding(
        where=where, level="warn", what=f"{what}: each event goes to only one client of an app", do=advice
    )


def _is_connected(store: str) -> bool:
    """Whether a daemon runs on this store and is connected. Raises `ReserveListenerError` when it does not say."""
    status = client.get(store, "/status", Status, timeout_s=client.STATUS_TIMEOUT_S)
    return status is not None and status.connection is not None and status.connection.state == "connected"
