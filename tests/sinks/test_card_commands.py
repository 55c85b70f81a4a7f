"""`sinks test` and `check` with the feishu_card sink, as a person runs them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from reserve_listener.simulator import HttpServer, Simulator
from reserve_listener.simulator.messages import CHAT
from tests.daemon_process import ask, running, write_config
from tests.sinks.test_sink_feishu_card import texts

if TYPE_CHECKING:
    from pathlib import Path

WAYS = ["bot", "app"]


def configured(folder: Path, platform: Simulator, server: HttpServer, way: str, url: str) -> Path:
    """A daemon with a sink that goes this way to the group."""
    (folder / "url").write_text(url)
    to = f'url_file = "{folder}/url"' if way == "bot" else f'chat_id = "{CHAT}"'
    more = f'[[sinks]]\nname = "group"\ntype = "feishu_card"\n{to}\nlanguage = "zh"\n'
    return write_config(folder, platform, server.url, more=more)


async def said(config: Path, *arguments: str) -> str:
    """What a command says."""
    return (await asyncio.to_thread(ask, config, *arguments)).decode()


@pytest.mark.parametrize("way", WAYS)
async def test_sinks_test_posts_a_card_that_says_what_it_is(
    tmp_path: Path, server: HttpServer, way: str
) -> None:
    """Without a daemon and through the one that runs: a card each, marked as a test and as nothing else."""
    async with Simulator() as platform:
        config = configured(tmp_path, platform, server, way, platform.group.add_bot())
        assert "group accepted the event test-" in await said(config, "sinks", "test", "group")
        async with running(tmp_path, config) as daemon:
            await platform.connected(30)
            assert "group accepted the event test-" in await said(config, "sinks", "test", "group")
            assert await daemon.stop() == 0
        assert [message.kind for message in platform.group.messages] == ["interactive"] * 2
        for message in platform.group.messages:
            (tag,) = message.content["header"]["text_tag_list"]
            assert tag["text"]["content"] == "测试", texts(message.content)


@pytest.mark.parametrize("way", WAYS)
async def test_sinks_test_says_what_the_platform_refused(
    tmp_path: Path, server: HttpServer, way: str
) -> None:
    """The bot is not that group's, or the app may not post: the code and what to do, and no secret."""
    async with Simulator() as platform:
        url = platform.group.add_bot()[:-4] + "0000"
        config = configured(tmp_path, platform, server, way, url)
        platform.permissions.discard("im:message:send_as_bot")
        told = await said(config, "sinks", "test", "group")
        assert ("19001" if way == "bot" else "im:message:send_as_bot") in told
        assert url.rpartition("/")[2] not in told
        assert platform.group.messages == []


@pytest.mark.parametrize("way", WAYS)
async def test_check_names_the_group_and_reaches_it(tmp_path: Path, server: HttpServer, way: str) -> None:
    """A line that says where cards go; with `--online` it is reached, and nothing is posted."""
    async with Simulator() as platform:
        url = platform.group.add_bot()
        config = configured(tmp_path, platform, server, way, url)
        where = f"the bot whose URL is in {tmp_path}/url" if way == "bot" else f"the group {CHAT}, as the app"
        told, online = await asyncio.gather(said(config, "check"), said(config, "check", "--online"))
        assert f'ok\tsink "group"\t{where}' in told, told
        assert 'ok\tsink "group"\tcan be reached' in online, online
        assert url.rpartition("/")[2] not in told + online
        assert platform.group.posts == []
