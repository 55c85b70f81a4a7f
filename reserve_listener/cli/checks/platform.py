"""What the platform says of the app: whether it accepts the secret, and who else is connected. Nothing connects."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec

from reserve_listener.cli.checks.findings import Finding
from reserve_listener.cli.checks.reach import reach
from reserve_listener.config import certificates
from reserve_listener.errors import ConfigError, RefusedAtStartError, ReserveListenerError
from reserve_listener.net import proxies
from reserve_listener.net.reaching import Reaching, UnreachableError
from reserve_listener.net.target import Target
from reserve_listener.redact import redact
from reserve_listener.text import visible
from reserve_listener.transports.long_connection import endpoint, failures
from reserve_listener.web import client
from reserve_listener.web.answers import Status

if TYPE_CHECKING:
    from reserve_listener.config import LarkConfig

TOKEN_PATH: Final = "/open-apis/auth/v3/tenant_access_token/internal"  # noqa: S105  # a path
CONNECTIONS_PATH: Final = "/open-apis/event/v1/connection"
CALL_TIMEOUT_S: Final = 15.0
"""A check does not wait longer, whatever `lark.endpoint_timeout` allows the daemon."""
WRONG_CREDENTIALS: Final = frozenset({10003, 10014, 99991543})
SHOWN_CHARS: Final = 200
ANSWER_BYTES: Final = 64 * 1024
"""The platform's answers have some hundred bytes; a page of something on the way may have more."""
UNREACHED: Final = 1
"""The exit code of what may pass by itself."""


class ApiError(Exception):
    """The platform's API refused, with this code, or answered what is none. The text is for people."""

    def __init__(self, message: str, *, code: object = None) -> None:
        super().__init__(message)
        self.code = code


async def look(lark: LarkConfig, store: str) -> list[Finding]:
    """Ask with the real secret. Each call has `lark.endpoint_timeout`."""
    where = "the platform"
    try:
        secret = (await asyncio.to_thread(lark.read_app_secret)).get_secret_value()
    except ConfigError as error:  # that it is missing the configuration has said, for the long connection
        return [Finding(where=where, what=f"not asked, because there is no secret: {error}")]
    api = _Api(lark, secret)
    try:
        if lark.transport == "webhook":
            await api.token()
            return [Finding(where=where, what="accepts lark.app_id and the secret")]
        place = await endpoint.fetch(
            domain=lark.domain,
            app_id=lark.app_id,
            app_secret=secret,
            timeout_s=min(lark.endpoint_timeout, CALL_TIMEOUT_S),
            proxy=api.proxy,
        )
    except ConfigError:
        return []  # the proxy: said before
    except ApiError as error:
        return [_refused_by_api(where, error)]
    except Exception as error:  # noqa: BLE001  # `classify` knows them all, and what is new to it is shown, too
        return [_refused(where, error)]
    accepted = Finding(where=where, what="accepts lark.app_id and the secret")
    return [accepted, *await asyncio.gather(_gateway(place.url, api.proxy), _others(api, store))]


def _refused_by_api(where: str, error: ApiError) -> Finding:
    return Finding(
        where=where,
        level="fail",
        what=f"refuses the app or its secret: {error}",
        do="check lark.app_id and lark.app_secret against Credentials & Basic Info in the developer console",
        exit_code=RefusedAtStartError.exit_code if error.code in WRONG_CREDENTIALS else UNREACHED,
    )


def _refused(where: str, error: Exception) -> Finding:
    failure = failures.classify(error)
    credentials = failure.kind is failures.Kind.REFUSED_CREDENTIALS
    return Finding(
        where=where,
        level="fail",
        what=failure.reason,
        do=failure.hint
        or "try again; if the problem persists, look at what is between this machine and the platform",
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


async def _others(api: _Api, store: str) -> Finding:
    where = "other clients"
    try:
        count = await api.connected()
    except (ApiError, UnreachableError) as error:
        advice = "if events are missing, look at Event Subscriptions in the developer console instead"
        return Finding(where=where, level="warn", what=f"cannot be counted: {error}", do=advice)
    try:
        ours = await asyncio.to_thread(_is_connected, store)
    except ReserveListenerError as error:
        what = f"{count} connected, the daemon that runs here perhaps among them: {error}"
        return Finding(where=where, level="warn", what=what, do="reserve-listener status says more")
    others = max(0, count - ours)
    what = f"{others or 'none'} connected" + (" besides the daemon that runs here" if ours else "")
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


class _Api:
    """The two calls of the platform's API that a check makes."""

    def __init__(self, lark: LarkConfig, secret: str) -> None:
        self.proxy = None if lark.proxy is None else lark.proxy.get_secret_value()
        self._lark = lark
        self._secret = secret

    async def token(self) -> str:
        """A tenant token. Raises as `_call`."""
        credentials = {"app_id": self._lark.app_id, "app_secret": self._secret}
        answer = await self._call("POST", TOKEN_PATH, json=credentials)
        token = answer.get("tenant_access_token")
        if not isinstance(token, str) or not token:
            raise ApiError("the answer contains no token")
        return token

    async def connected(self) -> int:
        """How many clients of the app are connected now."""
        headers = {"authorization": f"Bearer {await self.token()}"}
        answer = await self._call("GET", CONNECTIONS_PATH, headers=headers)
        data = answer.get("data")
        count = data.get("online_instance_cnt") if isinstance(data, dict) else None
        if type(count) is not int:
            raise ApiError("the answer contains no number")
        return count

    async def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The answer, once its `code` is 0. Raises ApiError, ConfigError or UnreachableError."""
        way = proxies.decide(self._lark.domain, setting=self.proxy, key="lark.proxy")
        reaching = Reaching(self._lark.domain, proxy=way, setting="lark.domain")
        with reaching.explained():
            async with asyncio.timeout(min(self._lark.endpoint_timeout, CALL_TIMEOUT_S)):
                options = await asyncio.to_thread(self._options, way)
                async with httpx2.AsyncClient(**options) as client:
                    body = await self._body(
                        client, method, path, extensions={"trace": reaching.trace}, **more
                    )
        return self._understood(body)

    def _options(self, way: proxies.Proxy | None) -> dict[str, Any]:
        tls = self._lark.domain.startswith("https:")
        return {
            "verify": certificates.trusted() if tls else False,
            "proxy": proxies.for_httpx(way, certificates.trusted),
            "trust_env": False,
            "timeout": CALL_TIMEOUT_S,
        }

    async def _body(self, client: httpx2.AsyncClient, method: str, path: str, **more: Any) -> bytes:
        body = b""
        async with client.stream(method, self._lark.domain + path, **more) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES:
                    raise ValueError("the answer is too long")
        return body

    def _understood(self, body: bytes) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(body, type=dict[str, Any])
        except (ValueError, RecursionError):
            raise ApiError("the answer is not the platform's JSON") from None
        if answer.get("code") != 0:
            message = redact(str(answer.get("msg", "no reason given")), (self._secret,))
            raise ApiError(
                visible(f"code {answer.get('code')}: {message}", SHOWN_CHARS), code=answer.get("code")
            )
        return answer
