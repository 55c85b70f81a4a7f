"""The unmodified client of the SDK and our own path, at the same platform: both make the same of a push."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from reserve_listener.intake import normalize, room_events
from reserve_listener.redact import blank_tokens
from reserve_listener.simulator import Simulator, patience, sample_event
from reserve_listener.simulator.events import TOKEN
from tests.intake.test_normalize import PERSON, SAMPLE
from tests.intake.test_room_events import LEVEL, ROOM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import IncomingEvent

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CLIENT = """
import sys, warnings
warnings.simplefilter("ignore")
import lark_oapi
from reserve_listener.transports.long_connection.connection import build_dispatcher

def handle(raw):
    print(raw.decode(), flush=True)

domain, app_id, secret = sys.argv[1:]
dispatcher = build_dispatcher(handle)
assert type(dispatcher).__module__ == "lark_oapi.event.dispatcher_handler"
lark_oapi.ws.Client(app_id, secret, event_handler=dispatcher, domain=domain).start()
"""


class SdkClient:
    """The SDK's own client in a process of its own."""

    def __init__(self, simulator: Simulator, process: asyncio.subprocess.Process) -> None:
        self.simulator = simulator
        self._process = process

    async def hears(self, envelope: dict[str, Any], *, parts: int = 1) -> bytes:
        """What our registered handler is given for a push, which must be answered 200."""
        push = self.simulator.push(envelope, parts=parts, retry=False)
        assert await push.answered() == 200
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), patience(10))).rstrip()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[SdkClient]:
    """One for all tests: the SDK's import takes seconds."""
    async with Simulator() as simulator:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, simulator.domain, simulator.app_id, simulator.app_secret,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await simulator.connected(timeout=60)
            yield SdkClient(simulator, process)
        finally:
            process.kill()
            await process.communicate()


def event_of(raw: bytes) -> IncomingEvent:
    raw = blank_tokens(raw)
    return normalize.incoming(raw, normalize.parse(raw), received_ms=0)


def spread(event: IncomingEvent) -> Any:
    assert event.body is not None
    return json.loads(event.body)


async def test_the_registered_handler_yields_the_same_event(client: SdkClient) -> None:
    """The SDK's client gives our handler the page's sample, a level, people without ids: normalised, each is our event."""
    level = copy.deepcopy(SAMPLE)
    level["header"]["event_id"] = "of a level"
    level["event"] |= {"scope_type": 1, "scope_id": "omb_1"}
    level["event"]["approve_config"] |= {
        "approval_switch": 1,
        "approval_condition": 1,
        "meeting_duration": 1.5,
        "approvers": [{"user_id": {"open_id": PERSON["open_id"]}}],
    }
    bare = copy.deepcopy(SAMPLE)
    bare["header"]["event_id"] = "of a scope alone"
    bare["event"] = {"scope_id": "omm_1", "scope_type": 2}
    numbers = sample_event(time_config={"opening_hour": 28800, "start_time": 0})
    for envelope in (SAMPLE, level, bare, numbers):
        ours = event_of(json.dumps(envelope).encode())
        theirs = event_of(await client.hears(envelope))
        assert spread(theirs) == spread(ours)
        assert (theirs.event_id, theirs.tenant_key, theirs.scope, theirs.created_ms) == (
            ours.event_id,
            ours.tenant_key,
            ours.scope,
            ours.created_ms,
        )
        if envelope is not numbers:
            assert sorted(theirs.body or b"") == sorted(ours.body or b"")
        assert TOKEN.encode() not in theirs.raw


async def test_what_the_typed_event_loses_our_path_keeps(client: SdkClient) -> None:
    """A key that the platform adds is lost in the SDK's typed event: the reason why raw bytes go to intake first."""
    envelope = sample_event(added_by_the_platform={"x": 1})
    theirs = spread(event_of(await client.hears(envelope)))
    assert "added_by_the_platform" not in theirs["data"]
    assert spread(event_of(json.dumps(envelope).encode()))["data"]["added_by_the_platform"] == {"x": 1}


@pytest.mark.parametrize("event_type", room_events.TYPES)
async def test_events_about_rooms_are_heard(client: SdkClient, event_type: str) -> None:
    """The SDK's client has our handler for each type, and its typed event tells the same of a room or level."""
    envelope = sample_event(event_id=event_type)
    envelope["header"]["event_type"] = event_type.removeprefix("p2.")
    envelope["event"] = {"room": ROOM, "room_level": LEVEL, "room_level_id": "omb_3", "delete_child": True}
    theirs = json.loads(await client.hears(envelope))
    both = [room_events.incoming(event_type, b"", each, received_ms=0) for each in (theirs, envelope)]
    assert both[0] == both[1]
    assert both[0].news


@pytest.mark.parametrize("parts", [1, 3])
async def test_the_sdks_answer_is_ours(client: SdkClient, parts: int) -> None:
    """For a whole and for a split push the SDK's client answers with the code that ours would."""
    assert await client.hears(sample_event(), parts=parts)
    other = sample_event()
    other["header"]["event_type"] = "im.message.receive_v1"
    assert await client.simulator.push(other, retry=False).answered() == 500
