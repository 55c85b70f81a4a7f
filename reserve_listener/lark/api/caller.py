"""A call of the API from beginning to end: its turn, its token, the exchange, what the answer means, and trying again."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import tenacity

from reserve_listener.errors import ConfigError
from reserve_listener.lark.api import codes
from reserve_listener.lark.api.errors import ApiError, AppRefusedError, GoneError, TryAgainError
from reserve_listener.lark.api.exchange import Answer, Exchange
from reserve_listener.lark.api.pace import PATIENCE_S, Pace
from reserve_listener.lark.api.token import Given, TenantToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from reserve_listener.config import LarkConfig
    from reserve_listener.meters import RoomsMeter

TOKEN_PATH: Final = "/open-apis/auth/v3/tenant_access_token/internal"  # noqa: S105  # a path
ATTEMPTS: Final = 4
"""At a call that may pass, over some 7 s: a hiccup is over then, and what lasts longer is for whoever asked to wait out."""
FIRST_WAIT_S: Final = 1.0


class Caller:
    """Calls with one token. `hide(secret, instead_of)`: see `client.Client`."""

    def __init__(
        self,
        lark: LarkConfig,
        *,
        attempts: int,
        hide: Callable[[str, str], None],
        meter: RoomsMeter,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._lark = lark
        self._attempts = attempts
        self._hide = hide
        self._meter = meter
        self._sleep = sleep
        self._exchange = Exchange(lark, clock=clock)
        self._token = TenantToken(self._ask_token, clock=clock)
        self._hidden: tuple[str, ...] = ()

    async def call(
        self,
        name: str,
        pace: Pace,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: Any = None,
        needs: tuple[str, ...] = (),
    ) -> tuple[dict[str, Any], Answer]:
        """The answer's `data`, and how it came. `name`: what it counts as. `needs`: the permissions that the documentation names.

        Raises `ApiError`; what may pass soon is tried again before. Each attempt takes a turn of `pace`.
        """

        async def once() -> tuple[dict[str, Any], Answer]:
            await pace.turn()
            token = await self.token()  # after the turn, which may be a minute away
            try:
                with self._counted(name):
                    answer = await self._exchange.ask(
                        method, path, token=token, params=params, content=content
                    )
                    return self._data(answer, needs), answer
            except codes.TokenRefusedError:
                self._token.refused(token)
                raise
            except TryAgainError as error:
                pace.hold(error.after_s or 0)
                raise

        async def attempt() -> tuple[dict[str, Any], Answer]:
            try:
                return await once()
            except codes.TokenRefusedError:
                return await once()  # with a new token

        return await self._retrying(attempt)

    async def token(self) -> str:
        """A token that should serve. Raises as `call`."""
        return await self._token.get()

    async def close(self) -> None:
        """Give the connections back. May be called twice."""
        await self._exchange.close()

    @property
    def _retrying(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            sleep=self._sleep,
            retry=tenacity.retry_if_exception(_passes_soon),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=tenacity.wait_exponential(multiplier=FIRST_WAIT_S),
            reraise=True,
        )

    async def _ask_token(self) -> Given:
        try:
            secret = (await asyncio.to_thread(self._lark.read_app_secret)).get_secret_value()
        except ConfigError as error:
            raise AppRefusedError(str(error)) from None  # our own text, safe and without secrets
        self._exchange.hide(secret)
        self._hide(secret, "")
        content = {"app_id": self._lark.app_id, "app_secret": secret}
        with self._counted("token"):
            answer = await self._exchange.ask("POST", TOKEN_PATH, content=content)
            told = self._understood(answer, ())
        token, life_s = told.get("tenant_access_token"), told.get("expire")
        if not isinstance(token, str) or not _is_header_value(token):
            raise odd(answer, "the answer has no token")
        self._hide_token(token)
        if type(life_s) is not int or life_s <= 0:
            raise odd(answer, "the answer does not say how long the token lives")
        return Given(token, life_s)

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        outcome = "ok"
        try:
            yield
        except ApiError as error:
            passes = isinstance(error, TryAgainError)
            outcome = "retry" if passes else "gone" if isinstance(error, GoneError) else "refused"
            if isinstance(error, TryAgainError) and error.after_s is not None:
                self._meter.limited[name] += 1
            raise
        finally:
            self._meter.requests[name, outcome] += 1

    def _hide_token(self, token: str) -> None:
        """Two may serve at a time; the one before them has ended."""
        self._exchange.hide(token)
        if token not in self._hidden:
            self._hide(token, "".join(self._hidden[1:]))
            self._hidden = (token, *self._hidden[:1])

    def _data(self, answer: Answer, needs: tuple[str, ...]) -> dict[str, Any]:
        data = self._understood(answer, needs).get("data")
        if not isinstance(data, dict):  # nobody may take it for an empty list
            raise odd(answer, "the answer has no data")
        return data

    def _understood(self, answer: Answer, needs: tuple[str, ...]) -> dict[str, Any]:
        return codes.data_of(
            answer.status, answer.headers, answer.body, shown=self._exchange.shown, needs=needs
        )


def odd(answer: Answer, text: str) -> TryAgainError:
    """An answer that should not be: the next one may be better."""
    return TryAgainError(text, log_id=codes.log_id_of(answer.headers))


def _is_header_value(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token and token != ""


def _passes_soon(error: BaseException) -> bool:
    return (
        isinstance(error, TryAgainError)
        and not isinstance(error, codes.TokenRefusedError)
        and (error.after_s or 0) <= PATIENCE_S
    )
