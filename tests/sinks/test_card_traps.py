"""What is known to go wrong with messages to a group, against a simulated group that holds to the platform's rules.

`TRAPS` says where each is tried.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from reserve_listener.errors import MisconfiguredSinkError, TransientDeliveryError
from reserve_listener.simulator import Answer, HttpServer, Receiver, Simulator
from reserve_listener.simulator.openapi.cards import pinged
from reserve_listener.sinks.feishu_card import bot
from reserve_listener.sinks.feishu_card.sink import CardRefusedError
from reserve_listener.testing import sample_deliveries
from tests.helpers import free_port
from tests.sinks.test_sink_feishu_card import SECRET, as_app, bot_table, failure, sink_of, texts

SINK: Final = "sinks/test_sink_feishu_card.py"
CARDS: Final = "sinks/test_feishu_cards.py"
PLATFORM: Final = "simulator/test_cards.py"
HERE: Final = "sinks/test_card_traps.py"

TRAPS: Final = {
    "the signature is of nothing, with the text as its key": (SINK, "test_the_signature_is_the_platforms"),
    "a signature lives for an hour either way": (HERE, "test_a_clock_that_is_off_by_more_than_an_hour"),
    "a keyword is wanted": (SINK, "test_a_bot_with_a_keyword"),
    "only some addresses may post": (HERE, "test_a_bot_that_takes_posts_from_elsewhere_only"),
    "a bot that is unknown or was removed": (HERE, "test_a_bot_that_was_removed"),
    "failures come under HTTP 200": (SINK, "test_failures_under_http_200"),
    "whatever the HTTP status": (HERE, "test_a_code_counts_whatever_the_status"),
    "an answer without a code is a failure": (SINK, "test_an_answer_that_is_not_the_platforms_is_no_success"),
    "older answers name the code otherwise": (SINK, "test_an_older_answer_is_understood"),
    "429 and 5xx come back": (HERE, "test_a_gateway_that_refuses"),
    "five a second to a bot": (SINK, "test_a_bot_gets_no_more_than_it_takes"),
    "a hundred a minute to a bot": (HERE, "test_a_bot_that_others_have_used_up"),
    "limits are the lowest at full and half hours": (SINK, "test_crowded_minutes_are_left_out"),
    "five a second to a group": (SINK, "test_the_app_posts_no_more_to_a_group_than_it_takes"),
    "a bot's body has 20 KB": (HERE, "test_what_is_too_large_for_a_bot"),
    "a card of the app has 30 KB, a text 150 KB": (HERE, "test_what_is_too_large_for_the_app"),
    "a card that is refused is silent for readers": (SINK, "test_a_card_that_is_refused_is_sent_as_text"),
    "unknown codes": (SINK, "test_what_is_refused_as_text_too"),
    "a bot forgets what it posted, the app does not": (SINK, "test_a_kill_loses_no_change_and_doubles_one_card_at_most"),
    "the same uuid posts once in an hour": (SINK, "test_the_app_posts_once"),
    "after an hour it posts again": (HERE, "test_the_app_after_an_hour"),
    "the app is not in the group": (HERE, "test_an_app_that_is_not_in_the_group"),
    "the app may not post": (SINK, "test_an_app_that_may_not_post"),
    "230020, 230002, 230006, 230027, 232009": (SINK, "test_what_the_platform_refuses_the_app"),
    "230025, 230028, 230099": (SINK, "test_a_card_of_the_app_that_is_refused"),
    "a message is recalled, or older than 14 days": (SINK, "test_the_card_of_an_alert_is_updated"),
    "an update wants update_multi before and after": (HERE, "test_only_a_shared_card_is_updated"),
    "an unknown property or tag refuses the card": (PLATFORM, "test_a_card_beyond_the_bounds_is_refused"),
    "bytes, elements, tables, rows, tags": (CARDS, "test_any_events_make_a_card_within_the_bounds"),
    "names are other people's text": (CARDS, "test_a_name_notifies_nobody"),
    "so they are in the text in its place": (HERE, "test_a_name_notifies_nobody_in_the_group"),
    "names are cut": (CARDS, "test_a_name_is_cut_between_characters"),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_its_test(trap: str) -> None:
    """Under its name."""
    file, name = TRAPS[trap]
    assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text()


class Moved:
    """A clock that can be moved."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.by_s


@pytest.mark.parametrize("by_s", [-3700, -3500, 3500, 3700])
async def test_a_clock_that_is_off_by_more_than_an_hour(tmp_path: Path, by_s: float) -> None:
    """The platform's, or this machine's: the signature is refused, and the error names the clock; within the hour it is fine."""
    clock = Moved()
    clock.by_s = by_s
    async with Simulator(clock=clock) as platform:
        sink = sink_of(bot_table(tmp_path, platform.group.add_bot(SECRET), secret=SECRET))
        if abs(by_s) < 3600:
            await sink.deliver(sample_deliveries(1))
        else:
            error = await failure(sink, sample_deliveries(1))
            assert type(error) is MisconfiguredSinkError
            assert "code 19021" in str(error)
            assert "this machine's clock" in str(error)
        await sink.close()
        assert len(platform.group.messages) == (abs(by_s) < 3600)


async def test_a_bot_that_takes_posts_from_elsewhere_only(tmp_path: Path) -> None:
    """It is said that the address is the matter; from an address of the list it posts."""
    async with Simulator() as platform:
        sink = sink_of(bot_table(tmp_path, platform.group.add_bot(addresses=["203.0.113.0/24"])))
        error = await failure(sink, sample_deliveries(1))
        await sink.close()
        assert type(error) is MisconfiguredSinkError
        assert "code 19022" in str(error)
        assert "this machine's address" in str(error)
        addresses = ["203.0.113.7", "127.0.0.0/8"]
        sink = sink_of(bot_table(tmp_path, platform.group.add_bot(addresses=addresses)))
        await sink.deliver(sample_deliveries(1))
        await sink.close()
        assert len(platform.group.messages) == 1


async def test_a_bot_that_was_removed(tmp_path: Path) -> None:
    """Its URL is amiss, and is not shown."""
    async with Simulator() as platform:
        url = platform.group.add_bot()[:-4] + "0000"
        sink = sink_of(bot_table(tmp_path, url))
        error = await failure(sink, sample_deliveries(1))
        await sink.close()
        assert type(error) is MisconfiguredSinkError
        assert "check the URL in url_file" in str(error)
        assert url.rpartition("/")[2] not in str(error)


async def test_a_bot_that_cannot_be_reached(tmp_path: Path) -> None:
    """It is said in words where the way ends; the bot's own part of the URL is not."""
    place = f"127.0.0.1:{free_port()}"
    sink = sink_of(bot_table(tmp_path, f"http://{place}/open-apis/bot/v2/hook/0123456789"))
    error = await failure(sink, sample_deliveries(1))
    await sink.close()
    assert type(error) is TransientDeliveryError
    assert str(error) == f"{place}: cannot connect: Connection refused"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_gateway_that_refuses(
    tmp_path: Path, server: HttpServer, receiver: Receiver, status: int
) -> None:
    """It is tried again, as the card that it was."""
    receiver.answer = Answer(status=status, body=b"upstream")
    sink = sink_of(bot_table(tmp_path, f"{server.url}/hook/x"))
    error = await failure(sink, sample_deliveries(1))
    await sink.close()
    assert type(error) is TransientDeliveryError
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [200, 400, 429, 500])
async def test_a_code_counts_whatever_the_status(
    tmp_path: Path, server: HttpServer, receiver: Receiver, status: int
) -> None:
    """Too often, set up wrongly, or refused: what the code means, the text in the place of a card included."""
    sink = sink_of(bot_table(tmp_path, f"{server.url}/hook/x"))
    receiver.answer = Answer(status=status, body=b'{"code":11232,"msg":"frequency limited"}')
    error = await failure(sink, sample_deliveries(1))
    assert type(error) is TransientDeliveryError
    assert error.retry_after is not None
    assert not error.down
    receiver.answer = Answer(status=status, body=b'{"code":19021,"msg":"sign match fail"}')
    assert type(await failure(sink, sample_deliveries(1))) is MisconfiguredSinkError
    refused = Answer(status=status, body=b'{"code":9499,"msg":"Bad Request"}')
    receiver.answer = lambda one: refused if b"interactive" in one.body else Answer(body=b'{"code":0}')
    await sink.deliver(sample_deliveries(1))
    await sink.close()


async def test_a_bot_that_others_have_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hundred and first post of a minute waits, away from the minutes when all bots are limited; nothing is given up."""
    monkeypatch.setattr(bot, "PER_MINUTE", 60_000)
    clock = Moved()
    async with Simulator(clock=clock) as platform:
        sink = sink_of(bot_table(tmp_path, platform.group.add_bot()))
        for _ in range(100):
            await sink.deliver(sample_deliveries(1))
            clock.by_s += 0.25
        error = await failure(sink, sample_deliveries(1))
        assert type(error) is TransientDeliveryError
        assert "code 11232" in str(error)
        assert error.retry_after is not None
        assert error.retry_after >= 5
        clock.by_s += 60
        await sink.deliver(sample_deliveries(1))
        await sink.close()
        assert len(platform.group.messages) == 101


async def test_what_is_too_large_for_a_bot(tmp_path: Path) -> None:
    """It is refused for good; our own cards stay below."""
    async with Simulator() as platform:
        sink: Any = sink_of(bot_table(tmp_path, platform.group.add_bot()))
        await sink._way.post_text("x" * 20_000, "key")
        with pytest.raises(CardRefusedError, match="9499"):
            await sink._way.post_text("x" * 21_000, "key")
        await sink.close()


async def test_what_is_too_large_for_the_app() -> None:
    """Likewise, by its own bounds."""
    async with Simulator() as platform:
        sink: Any = as_app(platform)
        card = {"schema": "2.0", "body": {"elements": [{"tag": "markdown", "content": "x" * 31_000}]}}
        await sink._way.post_text("x" * 150_000, "one")
        with pytest.raises(CardRefusedError, match="230025"):
            await sink._way.post_text("x" * 160_000, "two")
        with pytest.raises(CardRefusedError, match="230025"):
            await sink._way.post_card(card, "three")
        await sink.close()


async def test_the_app_after_an_hour() -> None:
    """The platform has forgotten the key: the same changes are another card."""
    clock = Moved()
    async with Simulator(clock=clock) as platform:
        for by_s, count in ((0, 1), (3_500, 1), (3_700, 2)):
            clock.by_s = by_s
            sink = as_app(platform)
            await sink.deliver(sample_deliveries(1))
            await sink.close()
            assert len(platform.group.messages) == count
        assert len({message.uuid for message in platform.group.messages}) == 1


async def test_an_app_that_is_not_in_the_group() -> None:
    """It is said what to do."""
    async with Simulator() as platform:
        sink = as_app(platform, chat_id="oc_another")
        error = await failure(sink, sample_deliveries(1))
        await sink.close()
        assert type(error) is MisconfiguredSinkError
        assert "230002" in str(error)
        assert "add the app's bot to the group" in str(error)


async def test_only_a_shared_card_is_updated() -> None:
    """One that is not, or would not be any more, stays; the caller posts a new one."""
    async with Simulator() as platform:
        sink: Any = as_app(platform)
        body = {"elements": [{"tag": "markdown", "content": "?"}]}
        one, all_ = (
            {"schema": "2.0", "config": {"update_multi": many}, "body": body} for many in (False, True)
        )
        alone = await sink._way.post_card(one, "one")
        shared = await sink._way.post_card(all_, "two")
        assert await sink._way.update_card(alone, all_) is False
        assert await sink._way.update_card(shared, one) is False
        assert await sink._way.update_card(shared, all_) is True
        await sink.close()
        assert [message.updates for message in platform.group.messages] == [0, 1]


async def test_a_name_notifies_nobody_in_the_group(tmp_path: Path) -> None:
    """Neither the card nor the text in its place: a room may be called whatever its owner likes."""
    name = '<at id=all></at> <at user_id="all">all</at> @all'
    (delivery,) = sample_deliveries(1)
    values = {field: getattr(delivery, field) for field in delivery.__struct_fields__}
    body = json.loads(delivery.body)
    body["data"]["scope_name"] = name
    hostile = type(delivery)(**values | {"body": json.dumps(body).encode()})
    async with Simulator() as platform:
        sink = sink_of(bot_table(tmp_path, platform.group.add_bot()))
        await sink.deliver([hostile])
        platform.group.refusals.append((200621, "parse card json err"))
        await sink.deliver([hostile])
        await sink.close()
        assert [message.kind for message in platform.group.messages] == ["interactive", "text"]
        for message in platform.group.messages:
            assert "at id=all" in texts(message.content)
            assert pinged(message.kind, message.content) == set()
