"""The feishu_card sink: what the daemon hands over together is one card.

Two ways lead to a group: its custom bot (`bot`), or the app itself (`app`). A way posts a card or a text, says with
`CardRefusedError` that the platform takes this card never, and knows how often it may post.

What must stay true:
- A card that is refused is sent once as text, which nobody can refuse for its layout; people see something, and a warning
  says why it is no card.
- As the app, a card that the group may have is posted again as it was and under its key, whole, until each of its changes is
  settled, if the daemon still knows; other changes stand on other cards. A bot always gets one card: two might show an older
  change after a newer one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import structlog

from reserve_listener.errors import (
    DeliveryError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.model import ALERT_TYPE
from reserve_listener.sinks.feishu_card.cards import Look, alert_card, alert_text, change_card, change_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from reserve_listener.model import Delivery

TRIES: Final = 3
"""With what is refused for a reason that nobody knows."""
TOGETHER: Final = 500
"""How many changes one card tells of at the most: what comes after a long pause is a few cards, not hundreds."""
KEY_CHARS: Final = 40
MOST_POSTINGS: Final = 16
"""Of which it is open whether the group has them. After five lost answers in a row a sink is only probed, with one of them: there
are more only if others get through in between, time and again. Then the oldest is forgotten."""

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


@dataclass(slots=True, kw_only=True, eq=False)
class Posting:
    """A card on its way to the group, and the text in its place."""

    key: str
    card: dict[str, Any]
    text: str
    unsettled: frozenset[str]
    """Its events, as far as they have to be delivered yet."""
    refusal: CardRefusedError | None = None
    """Why it goes out as text."""


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
        self._postings: list[Posting] = []
        """Those that the group may have, the oldest first. Of a way that knows keys."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        if len(deliveries) == 1 and _decode(deliveries[0].body).get("type") == ALERT_TYPE:
            await self.tell_alert(deliveries[0], ())
            return
        errors: dict[str, DeliveryError | None] = {}
        error: DeliveryError | None = None
        for posting, part in self._postings_of(deliveries):
            if error is None or isinstance(error, PermanentDeliveryError):
                error = await self._tell_changes(posting, part)
            errors |= dict.fromkeys((delivery.event_id for delivery in part), error)
        self._settle({event_id for event_id, error in errors.items() if error is None})
        if len(found := set(errors.values())) > 1:
            raise PartlyDeliveredError([errors[delivery.event_id] for delivery in deliveries])
        if error := next(iter(found), None):
            raise error

    async def tell_alert(self, alert: Delivery, marks: Sequence[str]) -> Sequence[str]:
        """See `protocols.Sink`. The marks are the messages that tell of it: when it ends, they say so."""
        body = _decode(alert.body)
        card, text = alert_card(body, self._look), alert_text(body, self._look)
        posting = self._posting([alert], card, text)
        if body.get("data", {}).get("state") == "firing":
            message = await self._post(posting, [alert])
            return marks if message is None or message in marks else [*marks, message]
        updated = [await self._way.update_card(each, card) for each in marks]
        if not any(updated):
            await self._post(posting, [alert])
        return ()

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        await self._way.close()

    def _postings_of(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Posting, list[Delivery]]]:
        """First the cards that the group may have already, then one with all the rest; each with its deliveries."""
        rest = list(deliveries)
        for posting in list(self._postings):
            if part := [delivery for delivery in rest if delivery.event_id in posting.unsettled]:
                rest = [delivery for delivery in rest if delivery.event_id not in posting.unsettled]
                yield posting, part
        if rest:
            bodies = [_decode(delivery.body) for delivery in rest]
            card, text = change_card(bodies, self._look), change_text(bodies, self._look)
            yield self._posting(rest, card, text), rest

    async def _tell_changes(self, posting: Posting, part: Sequence[Delivery]) -> DeliveryError | None:
        """What keeps them from being told. Cancelled, it remains open whether they are."""
        was_posted = posting in self._postings
        if self._way.knows_keys and not was_posted:
            self._postings = [*self._postings, posting][-MOST_POSTINGS:]
        try:
            await self._post(posting, part)
        except DeliveryError as error:
            is_open = was_posted or isinstance(error, UnsureDeliveryError)
            if isinstance(error, PermanentDeliveryError) or not is_open:
                self._settle(posting.unsettled)
            return error
        return None

    def _settle(self, event_ids: Collection[str]) -> None:
        """These are told, or will not be as they are now."""
        for posting in self._postings:
            posting.unsettled = posting.unsettled.difference(event_ids)
        self._postings = [posting for posting in self._postings if posting.unsettled]

    async def _post(self, posting: Posting, part: Sequence[Delivery]) -> str | None:
        if posting.refusal is None:
            try:
                return await self._way.post_card(posting.card, posting.key)
            except CardRefusedError as refusal:
                posting.refusal = refusal
            log.warning(
                "feishu_card.refused",
                sink=self.name,
                error=str(posting.refusal),
                hint="sent as text instead; if this persists, report it with this line",
            )
        await self._post_instead(posting, posting.refusal, part)
        return None

    async def _post_instead(
        self, posting: Posting, refusal: CardRefusedError, part: Sequence[Delivery]
    ) -> None:
        try:
            await self._way.post_text(posting.text, posting.key)
        except CardRefusedError as error:
            said = f"refused as a card ({refusal}) and as text ({error})"
            if not error.is_known and min(delivery.attempts for delivery in part) + 1 < TRIES:
                raise TransientDeliveryError(said, down=False) from None
            raise PermanentDeliveryError(said) from None
        except TransientDeliveryError as error:
            # Of the same class: if the group may have the text, the next attempt is that text, else the card again.
            raise type(error)(
                f"refused as a card; as text: {error}", retry_after=error.retry_after, down=error.down
            ) from None

    def _posting(self, part: Sequence[Delivery], card: dict[str, Any], text: str) -> Posting:
        """Its key is the same for the same events, whatever the process."""
        ids = [delivery.event_id for delivery in part]
        named = "\n".join((self.name, *ids)).encode("utf-8", "surrogatepass")
        key = hashlib.sha256(named).hexdigest()[:KEY_CHARS]
        return Posting(key=key, card=card, text=text, unsettled=frozenset(ids))
