"""A group chat on the platform, to which custom bots and the app post: what it shows, and what is refused with which code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import JSONResponse
from starlette.routing import Route

from reserve_listener.simulator.openapi import cards
from reserve_listener.simulator.openapi.answers import RefusedError
from reserve_listener.simulator.openapi.rates import Rate, Rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from reserve_listener.simulator.openapi.calls import Call

HOOK: Final = "/open-apis/bot/v2/hook"
CHAT: Final = "oc_51a7edc0ffee51a7edc0ffee51a7edc0"
BOT_RATE: Final = Rate(minute=100, second=5)
CHAT_RATE: Final = Rate(second=5)
BOT_BYTES: Final = 20 * 1024
CARD_BYTES: Final = 30 * 1024
TEXT_BYTES: Final = 150 * 1024
LONGEST_UUID: Final = 50
HOUR_S: Final = 3600
FORTNIGHT_S: Final = 14 * 86_400

TOO_OFTEN: Final = 11232
BAD_REQUEST: Final = 9499
NO_HOOK: Final = 19001
WRONG_SIGNATURE: Final = 19021
NOT_FROM_THERE: Final = 19022
NO_KEYWORD: Final = 19024
TOO_OFTEN_THERE: Final = 230020
BAD_PARAMETER: Final = 230001
NOT_A_MEMBER: Final = 230002
NO_MESSAGE: Final = 230011
TOO_LARGE: Final = 230025
TOO_OLD: Final = 230031
NO_CARD: Final = 230099


@dataclass(slots=True, kw_only=True)
class Message:
    """A message in the group. `by`: a bot's id, or "app". `content`: the latest."""

    id: str
    by: str
    kind: str
    content: dict[str, Any]
    at: float
    uuid: str | None = None
    updates: int = 0


@dataclass(frozen=True, slots=True)
class _Bot:
    secret: str | None
    keyword: str | None
    addresses: Sequence[str]


@dataclass(slots=True)
class Group:
    """The group. `refusals`: the answers to the next posts, as (code, text), in place of what they would get."""

    domain: Callable[[], str]
    clock: Callable[[], float]
    on_post: Callable[[], object]
    messages: list[Message] = field(default_factory=list)
    posts: list[float] = field(default_factory=list)
    """When posts came, including refused ones."""
    refusals: deque[tuple[int, str]] = field(default_factory=deque)
    _bots: dict[str, _Bot] = field(default_factory=dict)
    _rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self._rates = Rates(self.clock)

    @property
    def routes(self) -> list[Route]:
        """Where bots post."""
        return [Route(f"{HOOK}/{{id}}", self._hook, methods=["POST"])]

    def add_bot(
        self, secret: str | None = None, *, keyword: str | None = None, addresses: Sequence[str] = ()
    ) -> str:
        """Add a custom bot and return its URL. It may require signatures, a keyword in every message, or senders in these ranges."""
        bot = secrets.token_hex(16)
        self._bots[bot] = _Bot(secret, keyword, addresses)
        return f"{self.domain()}{HOOK}/{bot}"

    # -- custom bots --------------------------------------------------------------------------------------------------------

    async def _hook(self, request: Request) -> JSONResponse:
        self.posts.append(self.clock())
        try:
            host = request.client.host if request.client else ""
            self._take(request.path_params["id"], host, await request.body())
        except RefusedError as refused:
            answer: dict[str, Any] = {"code": refused.code, "msg": refused.message, "data": {}}
        else:
            answer = {"code": 0, "msg": "success", "data": {}, "StatusCode": 0, "StatusMessage": "success"}
        self.on_post()
        return JSONResponse(answer)

    def _take(self, bot: str, host: str, body: bytes) -> None:
        if bot not in self._bots:
            raise RefusedError(NO_HOOK, "param invalid: incoming webhook access token invalid")
        try:
            self._rates.count(bot, BOT_RATE)
        except RefusedError:
            raise RefusedError(TOO_OFTEN, "frequency limited psm[lark.oapi.app_platform_runtime]") from None
        self._refuse_next()
        if (known := self._bots[bot].addresses) and not any(_is_in(host, each) for each in known):
            raise RefusedError(NOT_FROM_THERE, "Ip Not Allowed")
        post = _object(body)
        if post is None or len(body) > BOT_BYTES:
            raise RefusedError(BAD_REQUEST, "Bad Request")
        self._verify(self._bots[bot].secret, post)
        kind = post.get("msg_type")
        content = post.get("card" if kind == "interactive" else "content")
        if not isinstance(content, dict):
            raise RefusedError(BAD_REQUEST, "Bad Request")
        if kind == "interactive":
            try:
                cards.check(content)
            except cards.RefusedCardError as refused:
                raise RefusedError(refused.code, f"parse card json err: {refused}") from None
        if (keyword := self._bots[bot].keyword) and keyword not in json.dumps(content, ensure_ascii=False):
            raise RefusedError(NO_KEYWORD, "Key Words Not Found")
        self._show(bot, str(kind), content)

    def _verify(self, secret: str | None, post: dict[str, Any]) -> None:
        if secret is None:
            return
        timestamp = str(post.get("timestamp"))
        key = f"{timestamp}\n{secret}".encode()
        wanted = base64.b64encode(hmac.new(key, b"", hashlib.sha256).digest()).decode()
        late = not timestamp.isdecimal() or abs(int(timestamp) - self.clock()) > HOUR_S
        if late or post.get("sign") != wanted:
            raise RefusedError(WRONG_SIGNATURE, "sign match fail or timestamp is not within one hour")

    # -- the app ------------------------------------------------------------------------------------------------------------

    def create(self, call: Call) -> dict[str, Any]:
        """`POST /im/v1/messages`."""
        self.posts.append(self.clock())
        self._refuse_next()
        if call.needed("receive_id_type") != "chat_id" or call.content.get("receive_id") != CHAT:
            raise RefusedError(NOT_A_MEMBER, "Bot/User can NOT be out of the chat.")
        try:
            self._rates.count(CHAT, CHAT_RATE)
        except RefusedError:
            raise RefusedError(TOO_OFTEN_THERE, "The messages to this chat exceed the limit.") from None
        kind, uuid = str(call.content.get("msg_type")), call.content.get("uuid")
        if isinstance(uuid, str) and len(uuid) > LONGEST_UUID:
            raise RefusedError(BAD_PARAMETER, "Your request contains an invalid request parameter.")
        content = _content(call, kind)
        for message in self.messages:
            if uuid and message.uuid == uuid and self.clock() - message.at < HOUR_S:
                return {"message_id": message.id, "chat_id": CHAT}
        message = self._show("app", kind, content, uuid=uuid)
        return {"message_id": message.id, "chat_id": CHAT}

    def patch(self, call: Call) -> dict[str, Any]:
        """`PATCH /im/v1/messages/:id`."""
        self._refuse_next()
        message = next((each for each in self.messages if each.id == call.ids["id"]), None)
        if message is None or message.by != "app":
            raise RefusedError(NO_MESSAGE, "The message was withdrawn.")
        if self.clock() - message.at > FORTNIGHT_S:
            raise RefusedError(TOO_OLD, "The card message has expired.")
        content = _content(call, "interactive")
        if not all(card.get("config", {}).get("update_multi") is True for card in (message.content, content)):
            raise RefusedError(NO_CARD, "Failed to update: update_multi is not set.")
        message.content = content
        message.updates += 1
        self.on_post()
        return {}

    # -- both ---------------------------------------------------------------------------------------------------------------

    def _refuse_next(self) -> None:
        if self.refusals:
            code, text = self.refusals.popleft()
            if code:
                raise RefusedError(code, text)

    def _show(self, by: str, kind: str, content: dict[str, Any], *, uuid: str | None = None) -> Message:
        message = Message(
            id=f"om_{secrets.token_hex(16)}", by=by, kind=kind, content=content, at=self.clock(), uuid=uuid
        )
        self.messages.append(message)
        self.on_post()
        return message


def _content(call: Call, kind: str) -> dict[str, Any]:
    """The content of a message, which is JSON in a string."""
    text = call.content.get("content")
    if not isinstance(text, str) or (content := _object(text.encode())) is None:
        raise RefusedError(
            NO_CARD, "Failed to create card content, ext=ErrCode: 200621; ErrMsg: parse card json err"
        )
    is_text = kind == "text"
    if len(text.encode()) > (TEXT_BYTES if is_text else CARD_BYTES):
        raise RefusedError(TOO_LARGE, "The length of the message content reaches its limit.")
    if not is_text:
        try:
            cards.check(content)
        except cards.RefusedCardError as refused:
            message = f"Failed to create card content, ext=ErrCode: {refused.code}; ErrMsg: {refused}"
            raise RefusedError(NO_CARD, message) from None
    return content


def _is_in(host: str, addresses: str) -> bool:
    return ipaddress.ip_address(host) in ipaddress.ip_network(addresses)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None
