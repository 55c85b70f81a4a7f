"""As the app: whatever is lost or refused on the way, no change stands in two cards within the hour in which a key counts."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from reserve_listener.errors import (
    DeliveryError,
    PartlyDeliveredError,
    PermanentDeliveryError,
    TransientDeliveryError,
)
from reserve_listener.simulator import ApiFault, HttpServer, Simulator, sample_event
from reserve_listener.simulator.messages import CHAT
from reserve_listener.sinks.feishu_card.sink import MOST_POSTINGS
from reserve_listener.testing import sample_deliveries
from tests.daemon_process import running, write_config
from tests.helpers import until
from tests.sinks.test_card_traps import Moved
from tests.sinks.test_sink_feishu_card import ROOM as NAME, as_app, texts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from reserve_listener.model import Delivery

POSTS: Final = "/im/v1/messages"
TOO_OFTEN: Final = (230020, "too often")
TAKEN: Final = (0, "")
REFUSED: Final = (230099, "ErrCode: 11310")
ROOM: Final = re.compile(r"<(\d+)>")
CHANGES: Final = 60


def rooms(*numbers: int) -> list[Delivery]:
    """A change of each of these rooms, which are called by their numbers."""
    return [_room(number) for number in numbers]


def _room(number: int) -> Delivery:
    (sample,) = sample_deliveries(1, first=number)
    body = json.loads(sample.body)
    body["data"]["scope_name"] = f"<{number}>"
    values = {name: getattr(sample, name) for name in sample.__struct_fields__}
    return type(sample)(**values | {"body": json.dumps(body).encode()})


class Engine:
    """Hands deliveries to the sink as the daemon does, and keeps those that are to be tried again."""

    def __init__(self, platform: Simulator, clock: Moved) -> None:
        self.platform = platform
        self.clock = clock
        self.sink = as_app(platform)
        self.sink._way._pace._interval_s = 0.0  # type: ignore[attr-defined]  # the platform bounds it, too
        self.dead: list[str] = []

    async def deliver(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Once, a second after the last time; what of it is to be tried again."""
        self.clock.by_s += 1
        try:
            await self.sink.deliver(deliveries)
        except PartlyDeliveredError as error:
            return self._failed(deliveries, error.errors)
        except DeliveryError as error:
            return self._failed(deliveries, [error] * len(deliveries))
        return []

    async def lose(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Likewise, and the answer to the first post does not arrive."""
        self.platform.faults.api.append(ApiFault(path=POSTS, cut=True, times=1))
        return await self.deliver(deliveries)

    def _failed(
        self, deliveries: Sequence[Delivery], errors: Sequence[DeliveryError | None]
    ) -> list[Delivery]:
        assert len(deliveries) == len(errors)
        found = list(zip(deliveries, errors, strict=True))
        self.dead += [one.event_id for one, error in found if isinstance(error, PermanentDeliveryError)]
        return [one for one, error in found if isinstance(error, TransientDeliveryError)]

    def told(self) -> dict[int, int]:
        """In how many messages each room stands."""
        shown = [set(ROOM.findall(texts(message.content))) for message in self.platform.group.messages]
        return dict(Counter(int(room) for each in shown for room in each))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    clock = Moved()
    async with Simulator(clock=clock) as platform:
        engine = Engine(platform, clock)
        yield engine
        await engine.sink.close()


def once(*numbers: int) -> dict[int, int]:
    """Each in one message."""
    return dict.fromkeys(numbers, 1)


async def test_the_next_card_of_the_batch_is_refused(engine: Engine) -> None:
    """The first has been posted with what had come by then, and counts; only the rest is tried again."""
    left = await engine.lose(rooms(1, 2))
    engine.platform.group.refusals.extend([TAKEN, TOO_OFTEN])
    left = await engine.deliver([*left, *rooms(3, 4)])
    assert [one.event_id for one in left] == ["event-0003", "event-0004"]
    assert await engine.deliver([*left, *rooms(5)]) == []
    assert engine.told() == once(1, 2, 3, 4, 5)
    assert len(engine.platform.group.messages) == 2


async def test_the_next_card_is_refused_for_good(engine: Engine) -> None:
    """As a card and as text: those changes become dead letters, and those that people have seen do not."""
    left = await engine.lose(rooms(1))
    engine.platform.group.refusals.extend([TAKEN, REFUSED, REFUSED])
    assert await engine.deliver([*left, *rooms(2)]) == []
    assert engine.dead == ["event-0002"]
    assert engine.told() == once(1)


async def test_a_refusal_says_nothing_of_the_attempt_before(engine: Engine) -> None:
    """The answer was lost and then the platform was busy: the card may still be there, so it keeps its key."""
    left = await engine.lose(rooms(1))
    engine.platform.group.refusals.append(TOO_OFTEN)
    left = await engine.deliver([*left, *rooms(2)])
    assert len(left) == 2
    assert await engine.deliver(left) == []
    assert engine.told() == once(1, 2)


async def test_answers_to_two_cards_are_lost(engine: Engine) -> None:
    """The second was posted while the first waited for its next attempt: both keep their keys."""
    first = await engine.lose(rooms(1))
    second = await engine.lose(rooms(2))
    assert await engine.deliver([*first, *second, *rooms(3)]) == []
    assert engine.told() == once(1, 2, 3)


async def test_a_card_is_tried_again_in_parts(engine: Engine) -> None:
    """As a probe of one, or as a claim that is cut by its size: the same card is posted, whole."""
    left = await engine.lose(rooms(1, 2, 3))
    assert await engine.deliver(left[:1]) == []
    assert await engine.deliver([*left[1:], *rooms(4)]) == []
    assert engine.told() == once(1, 2, 3, 4)
    assert len(engine.platform.group.messages) == 2


async def test_the_answer_to_a_text_is_lost(engine: Engine) -> None:
    """A refused card went out as text: that text is posted again, not another card with what has come since."""
    engine.platform.group.refusals.append(REFUSED)
    engine.platform.faults.before_answer = lambda call: _lose_text(engine, call.content)
    left = await engine.deliver(rooms(1))
    engine.platform.faults.before_answer = None
    assert await engine.deliver([*left, *rooms(2)]) == []
    assert engine.told() == once(1, 2)
    assert [message.kind for message in engine.platform.group.messages] == ["text", "interactive"]


def _lose_text(engine: Engine, content: dict[str, Any]) -> None:
    if content.get("msg_type") == "interactive":
        engine.platform.faults.api.append(ApiFault(path=POSTS, cut=True, times=1))


async def test_no_more_cards_are_remembered_than_the_bound(engine: Engine) -> None:
    """Of more lost answers than that the oldest is forgotten: its change is told twice, and none is missing."""
    numbers = range(MOST_POSTINGS + 1)
    lost = [(await engine.lose(rooms(number)))[0] for number in numbers]
    for again in ([*lost[1:2], *rooms(100)], *([one] for one in lost[2:]), [lost[0], *rooms(101)]):
        assert await engine.deliver(again) == []
    assert engine.told() == once(*numbers, 100, 101) | {0: 2}


async def test_what_was_delivered_can_be_sent_again(engine: Engine) -> None:
    """Nothing is kept of a card whose changes are all delivered: a replay with others is a card with all of them."""
    left = await engine.lose(rooms(1))
    assert await engine.deliver(left) == []
    assert await engine.deliver(rooms(1, 2)) == []
    assert engine.told() == {1: 2, 2: 1}


async def test_whatever_happens_on_the_way(engine: Engine) -> None:
    """Answers are lost, posts refused, batches cut, events come in between: each change is shown once, or known to be dead."""
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"SEED={seed}")  # shown when the test fails; give it back in the environment
    chance, faults, refusals = random.Random(seed), engine.platform.faults, engine.platform.group.refusals
    waiting: list[Delivery] = []
    retried: set[str] = set()
    for count in range(CHANGES):
        waiting += rooms(count)
        # A card that the group has is not refused later on.
        is_new = retried.isdisjoint(one.event_id for one in waiting)
        refusals.append(chance.choice([TAKEN, TAKEN, TOO_OFTEN, REFUSED if is_new else TAKEN]))
        faults.api[:] = [ApiFault(path=POSTS, cut=True, times=1)] * chance.randint(0, 1)
        begin, end = sorted(chance.choices(range(len(waiting) + 1), k=2))
        left = await engine.deliver(waiting[begin:end]) if begin < end else []
        retried |= {one.event_id for one in left}
        waiting[begin:end] = left
        refusals.clear()
    faults.api.clear()
    for _ in range(CHANGES):  # the platform takes five cards a second
        waiting = await engine.deliver(waiting)
    assert waiting == []
    dead = {int(event_id.removeprefix("event-")) for event_id in engine.dead}
    told = engine.told()
    assert told == once(*told)
    assert {*told, *dead} == set(range(CHANGES))


async def test_the_daemon_shows_each_change_once(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """With its own retries and batches, while answers are lost and posts refused by turns."""
    more = f'[[sinks]]\nname = "group"\ntype = "feishu_card"\nchat_id = "{CHAT}"\nwindow = 0.1\nretry = {{ base = 0.3, cap = 0.6 }}\n'
    config = write_config(tmp_path, platform, server.url, more=more)
    names = [f"omm_{number:032x}" for number in range(12)]
    platform.group.refusals.extend([TAKEN, TOO_OFTEN] * 4)
    async with running(tmp_path, config) as daemon:
        await platform.connected(20)
        for number, name in enumerate(names):
            if number % 4 == 0:
                platform.faults.api.append(ApiFault(path=POSTS, cut=True, times=1))
            posts = len(platform.group.posts)
            await platform.push(sample_event(event_id=name, scope_id=name)).answered()
            await until(lambda posts=posts: len(platform.group.posts) > posts)  # type: ignore[misc]
        await until(lambda: daemon.pending() == 0)
        assert await daemon.stop() == 0
    shown = [set(NAME.findall(texts(message.content))) for message in platform.group.messages]
    assert Counter(name for each in shown for name in each) == Counter(names)
