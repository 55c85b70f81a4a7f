"""The feishu_card sink: what the daemon hands over together is one card.

Two ways lead to a group: its custom bot (`bot`), or the app itself (`app`). A way posts a card or a text, says with
`CardRefusedError` that the platform takes this card never, and knows how often it may post.

What must stay true:
- A card that is refused is sent once as text, which nobody can refuse for its layout; people see something, and a warning
  says why it is no card.
- As the app, what is tried again after an answer that never came is the same card under the same key, if the daemon still
  knows. A bot always gets one card: two might show an older change after a newer one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import structlog

from reserve_listener.errors import DeliveryError, PermanentDeliveryError, TransientDeliveryError
from reserve_listener.model import ALERT_TYPE
from reserve_listener.sinks.feishu_card.cards import Look, alert_card, alert_text, change_card, change_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reserve_listener.model import Delivery

TRIES: Final = 3
"""With what is refused for a reason that nobody knows."""
TOGETHER: Final = 500
"""How many changes one card tells of at the most: what comes after a long pause is a few cards, not hundreds."""
KEY_CHARS: Final = 40

log = structlog.get_logger("feishu_card")

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class CardRefusedError(Exception):
    """The platform does not take this card (or text). `str(error)` is safe to show.

    `is_known`: whether the code means that it never will; of another nobody knows.
    """

    def __init__(self, message: str, *, is_known: bool = True) -> None:
        super().__init__(message)
        self.is_known = is_known


class UnsureDeliveryError(TransientDeliveryError):
    """There was no answer: the group may have it."""


class Way(Protocol):
    """How messages reach the group."""

    knows_keys: bool
    """Whether the platform knows a post by its key."""

    async def post_card(self, card: dict[str, Any], key: str) -> str | None:
        """Post a card; what it can be updated by, if it can. Two posts with the same `key` within an hour may be one.

        Raises `CardRefusedError`, or `DeliveryError`.
        """

    async def post_text(self, text: str, key: str) -> None:
        """Likewise, a text."""

    async def update_card(self, message: str, card: dict[str, Any]) -> bool:
        """Put another card in the place of one; False when that one cannot be updated (any more)."""

    async def close(self) -> None:
        """Give back what is held."""


class FeishuCardSink:
    """Posts to one group, one card at a time. `window_s`: see `protocols.Sink`."""

    batch_size = TOGETHER
    max_in_flight = 1
    needs_raw = False

    def __init__(
        self,
        name: str,
        way: Way,
        *,
        language: Literal["en", "zh"] = "en",
        public_url: str | None = None,
        told_in: Literal["en", "zh"] | None = None,
        window_s: float = 5.0,
    ) -> None:
        self.name = name
        self.window_s = window_s
        self._way = way
        self._look = Look(language, public_url, told_in)
        self._unsure: tuple[str, ...] = ()
        """The events of a card of which nobody knows whether the group has it."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        for part in self._parts(deliveries):
            bodies = [_decode(delivery.body) for delivery in part]
            if len(bodies) == 1 and bodies[0].get("type") == ALERT_TYPE:
                await self.tell_alert(part[0], ())
            else:
                await self._tell_changes(bodies, part)

    async def tell_alert(self, alert: Delivery, marks: Sequence[str]) -> Sequence[str]:
        """See `protocols.Sink`. The marks are the messages that tell of it: when it ends, they say so."""
        body = _decode(alert.body)
        card, text = alert_card(body, self._look), alert_text(body, self._look)
        if body.get("data", {}).get("state") == "firing":
            message = await self._post(card, text, [alert])
            return marks if message is None or message in marks else [*marks, message]
        updated = [await self._way.update_card(each, card) for each in marks]
        if not any(updated):
            await self._post(card, text, [alert])
        return ()

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._way.close()

    def _parts(self, deliveries: Sequence[Delivery]) -> list[Sequence[Delivery]]:
        """One card, or two: first what a card held that the group may have already, and only that."""
        unsure = set(self._unsure)
        again = [delivery for delivery in deliveries if delivery.event_id in unsure]
        if not again or len(again) < len(unsure):
            return [deliveries]
        rest = [delivery for delivery in deliveries if delivery.event_id not in unsure]
        return [again, rest] if rest else [again]

    async def _tell_changes(self, bodies: Sequence[Mapping[str, Any]], part: Sequence[Delivery]) -> None:
        card, text = change_card(bodies, self._look), change_text(bodies, self._look)
        if self._way.knows_keys:
            self._unsure = tuple(delivery.event_id for delivery in part)
        try:
            await self._post(card, text, part)
        except UnsureDeliveryError:
            raise
        except DeliveryError:  # a cancelled post stays unsure
            self._unsure = ()
            raise
        self._unsure = ()

    async def _post(self, card: dict[str, Any], text: str, part: Sequence[Delivery]) -> str | None:
        try:
            return await self._way.post_card(card, self._key(part))
        except CardRefusedError as refusal:
            log.warning(
                "feishu_card.refused",
                sink=self.name,
                error=str(refusal),
                hint="sent as text instead; if this persists, report it with this line",
            )
            await self._post_instead(text, part, refusal)
            return None

    async def _post_instead(self, text: str, part: Sequence[Delivery], refusal: CardRefusedError) -> None:
        try:
            await self._way.post_text(text, self._key(part))
        except CardRefusedError as error:
            said = f"refused as a card ({refusal}) and as text ({error})"
            if not error.is_known and min(delivery.attempts for delivery in part) + 1 < TRIES:
                raise TransientDeliveryError(said, down=False) from None
            raise PermanentDeliveryError(said) from None
        except TransientDeliveryError as error:
            # The next attempt begins with the card again.
            raise TransientDeliveryError(
                f"refused as a card; as text: {error}", retry_after=error.retry_after, down=error.down
            ) from None

    def _key(self, part: Sequence[Delivery]) -> str:
        """The same for the same events, whatever the process."""
        ids = "\n".join((self.name, *(delivery.event_id for delivery in part)))
        return hashlib.sha256(ids.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_CHARS]
