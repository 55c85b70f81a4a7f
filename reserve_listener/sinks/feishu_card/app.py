"""The app itself posts to a group that it is a member of (im/v1/messages), with the token that names are asked with.

A post with the same `uuid` within an hour is made once. A card can be updated in place for 14 days.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener.errors import DeliveryError, MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.lark.api import codes
from reserve_listener.lark.api.caller import Caller
from reserve_listener.lark.api.errors import ApiError, AppRefusedError, PermissionMissingError, TryAgainError
from reserve_listener.lark.api.pace import Pace
from reserve_listener.meters import RoomsMeter
from reserve_listener.sinks.feishu_card.sink import CardRefusedError, UnsureDeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from reserve_listener.config import LarkConfig

PATH: Final = "/open-apis/im/v1/messages"
NEEDS: Final = ("im:message:send_as_bot", "im:message")
PER_MINUTE: Final = 180
BURST: Final = 1
"""A group takes 5 a second, of all its bots together: 2 at once and then 3 a second leave room for others."""

TOO_OFTEN: Final = 230020
MISCONFIGURED: Final = {
    230002: "add the app's bot to the group",
    230006: "add the bot ability to the app in the developer console, and publish a new version",
    230027: "the app may not post there: check its permissions, and the group's rules",
    232009: "the group was dissolved: set the sink's chat_id to another",
}
FIRST_OF_MESSAGES: Final = 230000
REFUSALS: Final = range(FIRST_OF_MESSAGES, 233000)
"""Codes of the message API: what is in the request is refused, and will be."""


class App:
    """See `sink.Way`. Opens nothing by itself."""

    knows_keys = True

    def __init__(
        self, name: str, chat_id: str, lark: LarkConfig | None, *, hide: Callable[[str, str], None]
    ) -> None:
        self._name = name
        self._chat_id = chat_id
        self._caller = (
            None
            if lark is None
            else Caller(
                lark, attempts=1, hide=hide, meter=RoomsMeter(), clock=time.monotonic, sleep=asyncio.sleep
            )
        )
        self._pace = Pace(PER_MINUTE, burst=BURST, at_once=True, clock=time.monotonic, sleep=asyncio.sleep)

    async def post_card(self, card: dict[str, Any], key: str) -> str | None:
        """See `sink.Way`."""
        return await self._create("interactive", card, f"{key}-c")

    async def post_text(self, text: str, key: str) -> None:
        """See `sink.Way`."""
        await self._create("text", {"text": text}, f"{key}-t")

    async def update_card(self, message: str, card: dict[str, Any]) -> bool:
        """See `sink.Way`."""
        try:
            await self._call("PATCH", f"{PATH}/{message}", None, {"content": _text(card)})
        except CardRefusedError:  # too old, recalled, deleted
            return False
        return True

    async def close(self) -> None:
        """See `sink.Way`."""
        if self._caller is not None:
            await self._caller.close()

    async def _create(self, kind: str, content: dict[str, Any], uuid: str) -> str | None:
        request = {"receive_id": self._chat_id, "msg_type": kind, "content": _text(content), "uuid": uuid}
        data = await self._call("POST", PATH, {"receive_id_type": "chat_id"}, request)
        message = data.get("message_id")
        return message if isinstance(message, str) and message.startswith("om_") else None

    async def _call(
        self, method: str, path: str, params: dict[str, str] | None, content: dict[str, Any]
    ) -> dict[str, Any]:
        if self._caller is None:
            raise MisconfiguredSinkError("there is no app to post as")
        try:
            data, _ = await self._caller.call(
                "message", self._pace, method, path, params=params, content=content, needs=NEEDS
            )
        except ApiError as error:
            raise _meaning(error) from None
        return data


def _text(content: dict[str, Any]) -> str:
    return msgspec.json.encode(content).decode()


def _meaning(error: ApiError) -> DeliveryError | CardRefusedError:
    advice = f" ({error.hint})" if error.hint else ""
    if isinstance(error, (PermissionMissingError, AppRefusedError)):
        return MisconfiguredSinkError(f"{error}{advice}")
    if error.code in MISCONFIGURED:
        return MisconfiguredSinkError(f"{error} ({MISCONFIGURED[error.code]})")
    if error.code == TOO_OFTEN:
        return TransientDeliveryError(str(error), down=False)
    if error.code in REFUSALS:
        return CardRefusedError(str(error))
    if isinstance(error, TryAgainError):
        # Codes that nobody knows may come from behind the point where the message is made.
        kind = TransientDeliveryError if error.code == codes.TOO_OFTEN else UnsureDeliveryError
        return kind(f"{error}{advice}", retry_after=error.after_s)
    return CardRefusedError(str(error))
