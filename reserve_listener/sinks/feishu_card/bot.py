"""A group's custom bot: a webhook that posts what it is given.

Failures come with a code, usually under HTTP 200. The bot takes 5 posts a second and 100 a minute, whoever sends them, and has no
memory: a post whose answer was lost is posted again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import msgspec

from reserve_listener.errors import DeliveryError, MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.lark.api.errors import TryAgainError
from reserve_listener.lark.api.pace import Pace
from reserve_listener.sinks.feishu_card.sink import CardRefusedError
from reserve_listener.sinks.http.poster import SUCCESS, Answered, Poster, judge

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

PER_MINUTE: Final = 80
BURST: Final = 3
"""Of the bot's 100 a minute and 5 a second: 4 at once, the fifth in the same second, and four restarts in a minute."""

TOO_OFTEN: Final = 11232
BAD_REQUEST: Final = 9499
"""Also of a body that is too large; seen with a text that says "frequency limited"."""
ADVICE: Final = {
    19001: "the bot is unknown or was removed from the group: check the URL in url_file",
    19021: "the signature does not match: check secret_file, and this machine's clock",
    19022: "this machine's address is not on the bot's list of IP addresses",
    19024: "the bot wants a keyword that the card does not contain: remove the keyword, or use signature verification",
}
REFUSALS: Final = frozenset({BAD_REQUEST, 19036, 200621})
"""It is too large, or no card."""
KNOWN: Final = frozenset({TOO_OFTEN, *ADVICE, *REFUSALS})
"""Codes that count whatever the HTTP status is; usually it is 200."""
CROWDED_S: Final = 60.0
"""For so long after each full and half hour bots are limited the most: everybody's reminders go out then."""
WAIT_S: Final = 10.0

_paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()
"""By the bot's URL: sinks that share a bot share its limits."""


class Bot:
    """See `sink.Way`. The constructor raises `ConfigError` when a proxy is amiss."""

    knows_keys = False

    def __init__(
        self,
        name: str,
        url: str,
        *,
        secret: str | None,
        timeout_s: float,
        tls: ssl.SSLContext,
        proxy: str | None = None,
        now_s: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._secret = secret
        self._now_s = now_s
        self._jitter = jitter
        self._poster = Poster(
            name,
            url,
            timeout_s=timeout_s,
            connections=1,
            tls=tls,
            proxy=proxy,
            secrets=(secret,) if secret else (),
        )
        self._pace = _paces.get(url) or Pace(
            PER_MINUTE, burst=BURST, at_once=True, clock=time.monotonic, sleep=asyncio.sleep
        )
        _paces[url] = self._pace

    async def post_card(self, card: dict[str, Any], key: str) -> None:  # noqa: ARG002  # a bot knows no keys
        """See `sink.Way`."""
        await self._post({"msg_type": "interactive", "card": card})

    async def post_text(self, text: str, key: str) -> None:  # noqa: ARG002  # as above
        """See `sink.Way`."""
        await self._post({"msg_type": "text", "content": {"text": text}})

    async def update_card(self, message: str, card: dict[str, Any]) -> bool:  # noqa: ARG002  # a bot's answer names no message
        """See `sink.Way`."""
        return False

    async def close(self) -> None:
        """See `sink.Way`."""
        await self._poster.close()

    async def _post(self, content: dict[str, Any]) -> None:
        try:
            await self._pace.turn()
        except TryAgainError as error:
            raise TransientDeliveryError(str(error), retry_after=error.after_s, down=False) from None
        if self._secret is not None:
            timestamp = str(int(self._now_s()))
            content = {"timestamp": timestamp, "sign": sign(timestamp, self._secret), **content}
        headers = {"content-type": "application/json; charset=utf-8"}
        answered = await self._poster.post(msgspec.json.encode(content), headers)
        if answered.status not in SUCCESS and _told(answered.body)[0] not in KNOWN:
            raise judge(answered, now_s=self._now_s())
        if (failure := self._failure(answered)) is not None:
            raise failure

    def _failure(self, answered: Answered) -> DeliveryError | CardRefusedError | None:
        code, message = _told(answered.body)
        text = f"code {code}: {self._poster.shown(message)}"
        if code is None:
            return TransientDeliveryError(f"the answer is not the platform's: {answered.text}")
        if code == 0:
            return None
        if code == TOO_OFTEN or (code == BAD_REQUEST and "frequen" in message.lower()):
            wait_s = quiet_s(self._now_s(), self._jitter())
            return TransientDeliveryError(text, retry_after=wait_s, down=False)
        if code in ADVICE:
            return MisconfiguredSinkError(f"{text} ({ADVICE[code]})")
        return CardRefusedError(text, is_known=code in REFUSALS)


def sign(timestamp: str, secret: str) -> str:
    """The bot's signature: HMAC-SHA256 of nothing, with both as its key."""
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()


def quiet_s(now_s: float, jitter: float) -> float:
    """How long to wait for a moment in which bots are limited less: spread, and not right after a full or half hour."""
    wait_s = WAIT_S * (0.5 + jitter)
    since_s = (now_s + wait_s) % 1800
    return wait_s if since_s >= CROWDED_S else wait_s + (CROWDED_S - since_s) + CROWDED_S * jitter


def _told(body: bytes) -> tuple[int | None, str]:
    """Code and message; None: there is no code. Older answers name them otherwise."""
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None, ""
    if not isinstance(answer, dict):
        return None, ""
    code = answer.get("code", answer.get("StatusCode"))
    message = answer.get("msg", answer.get("StatusMessage"))
    return (code if type(code) is int else None), (message if isinstance(message, str) else "")
