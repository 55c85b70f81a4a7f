"""The simulated API against the unmodified SDK and a bare HTTP client: it answers as the platform does, traps and all."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest

from reserve_listener.simulator import (
    ApiFault,
    Estate,
    Simulator,
    patience,
    realistic_events,
)
from reserve_listener.simulator.openapi import app
from tests.whole_sdk import whole_sdk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from reserve_listener.simulator import Call, Place

VC = "/open-apis/vc/v1"
LIMITS = f"{VC}/reserve_configs/reserve_scope"
NAMES = "/open-apis/contact/v3/users/basic_batch"
TOKEN = "/open-apis/auth/v3/tenant_access_token/internal"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Bare:
    """A client that asks once and tells what came."""

    def __init__(self, simulator: Simulator) -> None:
        self.http = httpx2.AsyncClient(trust_env=False, base_url=simulator.domain, timeout=patience(5))
        self.credentials = {"app_id": simulator.app_id, "app_secret": simulator.app_secret}

    async def token(self) -> str:
        answer = (await self.http.post(TOKEN, json=self.credentials)).json()
        self.http.headers["Authorization"] = f"Bearer {answer['tenant_access_token']}"
        return str(answer["tenant_access_token"])

    async def get(self, path: str, **query: Any) -> httpx2.Response:
        return await self.http.get(path, params=query)

    async def limits(self, place: Place) -> dict[str, Any]:
        answer = await self.get(LIMITS, scope_id=place.id, scope_type=place.scope_type)
        assert answer.json()["code"] == 0
        return dict(answer.json()["data"])


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Bare]:
    bare = Bare(simulator)
    await bare.token()
    yield bare
    await bare.http.aclose()


# The SDK's client


class Sdk:
    """The SDK's own client; what it does blocks, so it does it in a thread."""

    def __init__(self, lark: Any, simulator: Simulator) -> None:
        self.lark = lark
        self.vc = lark.api.vc.v1
        self.contact = lark.api.contact.v3
        self.client = (
            lark.Client.builder()
            .app_id(simulator.app_id)
            .app_secret(simulator.app_secret)
            .domain(simulator.domain)
            .log_level(lark.LogLevel.CRITICAL)
            .build()
        )

    async def __call__(self, method: Callable[[Any], Any], request: Any) -> Any:
        answer = await asyncio.to_thread(method, request.build())
        assert answer.success(), (answer.code, answer.msg)
        return getattr(answer, "data", None)


@pytest.fixture
def lark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with whole_sdk() as lark:
        yield lark
    lark.core.token.manager.TokenManager.cache = type(lark.core.token.manager.TokenManager.cache)()


@pytest.fixture
def sdk(lark: Any, simulator: Simulator) -> Sdk:
    return Sdk(lark, simulator)


async def test_the_sdk_walks_levels_and_rooms(sdk: Sdk, simulator: Simulator) -> None:
    """By paging through levels and their rooms the SDK's client meets each place once, with name, parent and path."""
    levels = sdk.client.vc.v1.room_level
    rooms = sdk.client.vc.v1.room
    met: dict[str, tuple[str, str, list[str]]] = {}

    async def pages(method: Any, request: Callable[[], Any]) -> AsyncIterator[Any]:
        token = ""
        while True:
            page = await sdk(method, request().page_size(3).page_token(token))
            yield page
            if not page.has_more:
                assert page.page_token is None
                return
            token = page.page_token

    async def walk(level_id: str) -> None:
        async for page in pages(rooms.list, lambda: sdk.vc.ListRoomRequest.builder().room_level_id(level_id)):
            met.update({each.room_id: (each.name, each.room_level_id, each.path) for each in page.rooms})
        async for page in pages(
            levels.list, lambda: sdk.vc.ListRoomLevelRequest.builder().room_level_id(level_id)
        ):
            for each in page.items:
                met[each.room_level_id] = (each.name, each.parent_id, each.path)
                assert each.has_child is any(
                    p.parent and p.parent.id == each.room_level_id for p in estate.levels
                )
                await walk(each.room_level_id)

    estate = simulator.estate
    root = await sdk(levels.get, sdk.vc.GetRoomLevelRequest.builder().room_level_id("0"))
    assert root.room_level.name == estate.root.name
    await walk(root.room_level.room_level_id)
    assert met == {
        place.id: (place.name, place.parent.id, [level.id for level in place.above])
        for place in [*estate.levels, *estate.rooms]
        if place.parent
    }
    assert len(met) == 46


async def test_the_sdk_reads_single_rooms_and_many(sdk: Sdk, simulator: Simulator) -> None:
    """One room by its id, many rooms and levels by theirs; who is not there is left out."""
    estate, vc = simulator.estate, sdk.client.vc.v1
    room = estate.rooms[0]
    one = await sdk(vc.room.get, sdk.vc.GetRoomRequest.builder().room_id(room.id))
    assert (one.room.name, one.room.capacity, one.room.room_status.schedule_status) == (
        room.name,
        room.capacity,
        True,
    )
    body = sdk.vc.MgetRoomRequestBody.builder().room_ids([each.id for each in estate.rooms] + ["omm_x"])
    many = await sdk(vc.room.mget, sdk.vc.MgetRoomRequest.builder().request_body(body.build()))
    assert [each.name for each in many.items] == [each.name for each in estate.rooms]
    path = sdk.vc.MgetRoomLevelRequestBody.builder().level_ids(one.room.path).build()
    names = await sdk(vc.room_level.mget, sdk.vc.MgetRoomLevelRequest.builder().request_body(path))
    assert [each.name for each in names.items] == [level.name for level in room.above]


async def test_the_sdk_reads_limits(sdk: Sdk, simulator: Simulator) -> None:
    """The SDK's model has what the event tells: switches, hours as strings, people by the one id that is asked for."""
    estate = simulator.estate
    room, boss = estate.rooms[0], estate.people[0]
    simulator.admin.change(
        room,
        push=False,
        approve_config={"approval_switch": 1, "approvers": [boss.told]},
        time_config={"start_time": "27900"},
    )
    for kind in ("open_id", "union_id"):
        data = await sdk(
            sdk.client.vc.v1.reserve_config.reserve_scope,
            sdk.vc.ReserveScopeReserveConfigRequest.builder()
            .scope_id(room.id)
            .scope_type("2")
            .user_id_type(kind),
        )
        assert data.approve_config.approval_switch == 1
        assert [each.user_id for each in data.approve_config.approvers] == [boss.ids[kind]]
        assert (data.time_config.start_time, data.time_config.max_duration) == (
            "27900",
            room.limits["time_config"]["max_duration"],
        )
        assert data.time_config.if_cover_child_scope is False
        assert data.reserve_scope_config.allow_all_users in {0, 1}


async def test_the_sdk_writes_limits_and_hears_of_it(sdk: Sdk, simulator: Simulator) -> None:
    """A PATCH, whose approval section has another name, changes the answer, and is pushed; it needs vc:room."""
    room, boss = simulator.estate.rooms[0], simulator.estate.people[0]
    simulator.permissions.add("vc:room")
    approver = sdk.vc.SubscribeUser.builder().user_id(boss.ids["open_id"]).build()
    approval = sdk.vc.ApprovalConfig.builder().approval_switch(1).approval_condition(0).approvers([approver])
    body = sdk.vc.PatchReserveConfigRequestBody.builder().scope_type("2").approval_config(approval.build())
    await sdk(
        sdk.client.vc.v1.reserve_config.patch,
        sdk.vc.PatchReserveConfigRequest.builder()
        .reserve_config_id(room.id)
        .user_id_type("open_id")
        .request_body(body.build()),
    )
    assert room.limits["approve_config"] == {
        "approval_switch": 1,
        "approval_condition": 0,
        "meeting_duration": 99,
        "approvers": [boss.told],
    }
    await simulator.until(lambda: simulator.answers[None] == 1)


async def test_the_sdk_reads_names_of_people(sdk: Sdk, simulator: Simulator) -> None:
    """Ten people at a time, by their name in Chinese and English; an eleventh is refused."""
    people = simulator.estate.people
    method = sdk.client.contact.v3.user.basic_batch

    def request(count: int) -> Any:
        ids = [each.ids["open_id"] for each in people[:count]]
        body = sdk.contact.BasicBatchUserRequestBody.builder().user_ids(ids).build()
        return sdk.contact.BasicBatchUserRequest.builder().user_id_type("open_id").request_body(body)

    data = await sdk(method, request(10))
    assert [each.name for each in data.users] == [each.name for each in people[:10]]
    assert data.users[0].i18n_name.en_us == people[0].english
    refused = await asyncio.to_thread(method, request(11).build())
    assert (refused.code, refused.error["field_violations"][0]["field"]) == (99992402, "user_ids")


async def test_the_sdk_names_the_missing_permission(sdk: Sdk, simulator: Simulator) -> None:
    """Without the permission the SDK's error object names those of which one is missing, and the log id."""
    simulator.faults.missing_permissions.add("vc:room:readonly")
    refused = await asyncio.to_thread(
        sdk.client.vc.v1.room.list, sdk.vc.ListRoomRequest.builder().page_size(1).build()
    )
    assert refused.code == 99991672
    violations = refused.error["permission_violations"]
    assert [each["subject"] for each in violations] == ["vc:room", "vc:room:readonly"]
    assert refused.error["log_id"] == refused.get_log_id()
    assert "auth?q=vc:room,vc:room:readonly" in refused.error["helps"][0]["url"]


async def test_the_sdk_reads_events_of_rooms_and_levels(sdk: Sdk, simulator: Simulator) -> None:
    """A room and a level that are added, renamed, moved and deleted are pushed as the SDK's dispatcher reads them."""
    heard: list[tuple[str, Any]] = []
    builder = sdk.lark.EventDispatcherHandler.builder("", "")
    for kind, change in itertools.product(("room", "room_level"), ("created", "updated", "deleted")):
        name = f"vc_{kind}_{change}_v1"
        getattr(builder, f"register_p2_{name}")(lambda data, name=name: heard.append((name, data.event)))
    dispatcher = builder.build()
    estate, admin = simulator.estate, simulator.admin
    room, floor, building = estate.rooms[0], estate.levels[-1], estate.levels[0]
    pushes = [
        *admin.add("新会议室", floor),
        *admin.rename(room, "珠峰"),
        *admin.move(room, building),
        *admin.remove(room),
        *admin.rename(floor, "4 楼"),
        *admin.remove(floor),
    ]
    for push in pushes:
        dispatcher._do_without_validation(push.payload)
    assert [name for name, _ in heard] == [
        "vc_room_created_v1",
        *["vc_room_updated_v1"] * 2,
        "vc_room_deleted_v1",
        "vc_room_level_updated_v1",
        "vc_room_level_deleted_v1",
    ]
    assert heard[0][1].room.room_level_id == floor.id
    assert [event.room.name for _, event in heard[1:4]] == ["珠峰"] * 3
    assert heard[2][1].room.path == [estate.root.id, building.id]
    assert heard[4][1].room_level.name == "4 楼"
    assert (heard[5][1].room_level_id, heard[5][1].delete_child) == (floor.id, True)


# Codes


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        (f"{VC}/rooms/omm_x", {}, (404, 121004)),
        (f"{VC}/room_levels/omb_x", {}, (404, 121004)),
        (f"{VC}/rooms", {"room_level_id": "omb_x"}, (404, 121004)),
        (f"{VC}/rooms", {"page_size": 101}, (400, 99992402)),
        (f"{VC}/rooms", {"page_token": "x"}, (400, 99992402)),
        (LIMITS, {"scope_id": "omm_x", "scope_type": 2}, (400, 126001)),
        (LIMITS, {"scope_id": "LEVEL", "scope_type": 2}, (400, 126001)),
        (LIMITS, {"scope_id": "ROOM", "scope_type": 1}, (404, 121005)),
        (LIMITS, {"scope_id": "ROOM", "scope_type": 3}, (400, 99992402)),
        (LIMITS, {"scope_id": "ROOM"}, (400, 99992402)),
        (LIMITS, {"scope_id": "ROOM", "scope_type": 2, "user_id_type": "x"}, (400, 99992402)),
    ],
)
async def test_codes(
    simulator: Simulator, client: Bare, path: str, query: dict[str, Any], expected: tuple[int, int]
) -> None:
    """What is not there, does not fit or is wrong has the platform's code and status."""
    known = {"ROOM": simulator.estate.rooms[0].id, "LEVEL": simulator.estate.levels[0].id}
    answer = await client.get(path, **{key: known.get(value, value) for key, value in query.items()})
    assert (answer.status_code, answer.json()["code"]) == expected


async def test_writing_needs_a_permission_and_a_scope_type_as_a_string(
    simulator: Simulator, client: Bare
) -> None:
    """Without vc:room a PATCH is refused; with it a number as scope_type, or people of no shape, are."""
    room = simulator.estate.rooms[0]
    path, before = f"{VC}/reserve_configs/{room.id}", room.limits
    good = {"scope_type": "2", "approval_config": {"approval_switch": 1}}
    assert (await client.http.patch(path, json=good)).json()["code"] == 99991672
    simulator.permissions.add("vc:room")
    for bad, code in [
        (good | {"scope_type": 2}, 99992402),
        (good | {"approval_config": {"approvers": ["ou_x"]}}, 121003),
        (good | {"approval_config": {"approvers": [{"user_id": "ou_x"}]}}, 121003),
    ]:
        assert (await client.http.patch(path, json=bad)).json()["code"] == code
    assert room.limits == before
    assert (await client.http.patch(path, json=good)).json() == {"code": 0, "msg": "success", "data": {}}


async def test_a_room_that_is_deleted_is_gone(simulator: Simulator, client: Bare) -> None:
    """With a level goes all that is below it: its rooms are neither listed nor known, and have no limits."""
    floor = simulator.estate.levels[-1]
    room = floor.rooms[0]
    assert simulator.admin.remove(floor, push=False) == []
    assert (await client.get(f"{VC}/rooms/{room.id}")).json()["code"] == 121004
    assert (await client.get(LIMITS, scope_id=room.id, scope_type=2)).json()["code"] == 126001
    assert len(simulator.estate.rooms) == 30


# Tokens


async def test_a_token_is_the_same_until_half_an_hour_is_left() -> None:
    """With 30 min left it is given again, with less a new one; both are good until their own ends."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        client = Bare(simulator)
        room = simulator.estate.rooms[0]
        first = await client.token()
        clock.now += 5400
        assert (await client.http.post(TOKEN, json=client.credentials)).json() == {
            "code": 0,
            "msg": "ok",
            "tenant_access_token": first,
            "expire": 1800,
        }
        clock.now += 1
        second = await client.token()
        assert second != first
        client.http.headers["Authorization"] = f"Bearer {first}"
        await client.limits(room)
        clock.now += 1800
        dead = await client.get(f"{VC}/rooms")
        assert (dead.status_code, dead.json()["code"]) == (400, 99991663)
        client.http.headers["Authorization"] = f"Bearer {second}"
        await client.limits(room)
        simulator.expire_tokens()
        assert (await client.get(f"{VC}/rooms")).json()["code"] == 99991663
        del client.http.headers["Authorization"]
        assert (await client.get(f"{VC}/rooms")).json()["code"] == 99991661
        await client.http.aclose()


# Rate limits


async def test_limits_are_read_a_hundred_times_a_minute() -> None:
    """The 101st within a minute is refused with the seconds to wait, after which there is room again."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        client = Bare(simulator)
        await client.token()
        room = simulator.estate.rooms[0]
        for _ in range(100):
            await client.limits(room)
            clock.now += 0.125
        refused = await client.get(LIMITS, scope_id=room.id, scope_type=2)
        assert (refused.status_code, refused.json()["code"]) == (429, 99991400)
        assert refused.headers["x-ogw-ratelimit-limit"] == "100"
        assert refused.headers["x-ogw-ratelimit-reset"] == "48"
        assert (await client.get(f"{VC}/rooms")).json()["code"] == 0, "each call counts for itself"
        clock.now += 47
        assert (await client.get(LIMITS, scope_id=room.id, scope_type=2)).status_code == 429
        clock.now += 1
        await client.limits(room)
        await client.http.aclose()


async def test_a_minute_of_the_rate_limits_can_be_short() -> None:
    """With a time scale a minute is over sooner."""
    clock = Clock()
    async with Simulator(clock=clock, time_scale=0.001) as simulator:
        client = Bare(simulator)
        await client.token()
        for _ in range(200):
            await client.limits(simulator.estate.rooms[0])
            clock.now += 0.0006
        await client.http.aclose()


async def test_other_calls_have_limits_for_a_second() -> None:
    """Names of people are asked for 5 times a second, rooms 50 times."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        client = Bare(simulator)
        await client.token()
        for _ in range(5):
            assert (await client.http.post(NAMES, json={"user_ids": []})).status_code == 200
        assert (await client.http.post(NAMES, json={"user_ids": []})).status_code == 429
        codes = [(await client.get(f"{VC}/rooms")).json()["code"] for _ in range(51)]
        assert codes == [0] * 50 + [99991400]
        await client.http.aclose()


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ApiFault.too_often(2), 429, 99991400),
        (ApiFault.token_refused(2), 400, 99991663),
        (ApiFault(times=2, path="rooms", status=500, code=121001), 500, 121001),
        (ApiFault(times=2, code=190014), 200, 190014),
    ],
)
async def test_a_fault_comes_so_many_times(
    client: Bare, simulator: Simulator, fault: ApiFault, status: int, code: int
) -> None:
    """A code comes instead of the answer as often as was said, and then no more."""
    simulator.faults.api.append(fault)
    answers = [await client.get(f"{VC}/rooms") for _ in range(3)]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [(status, code)] * 2 + [(200, 0)]
    assert [call.code for call in simulator.calls[-3:]] == [code, code, 0]


async def test_faults_of_the_answer(client: Bare, simulator: Simulator) -> None:
    """A gateway's page, garbage, a wrong content type, an end in the middle, and slowness, each for its path only."""
    room = simulator.estate.rooms[0]
    faults = simulator.faults.api
    faults[:] = [ApiFault(path="reserve_scope", status=502)]
    answer = await client.get(LIMITS, scope_id=room.id, scope_type=2)
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert (await client.get(f"{VC}/rooms")).json()["code"] == 0
    faults[:] = [ApiFault(body=b"\x00{", content_type="application/octet-stream")]
    answer = await client.get(f"{VC}/rooms")
    assert (answer.content, answer.headers["content-type"]) == (b"\x00{", "application/octet-stream")
    assert simulator.calls[-1].code is None
    faults[:] = [ApiFault(content_type="text/plain")]
    answer = await client.get(f"{VC}/rooms")
    assert (answer.json()["code"], answer.headers["content-type"]) == (0, "text/plain; charset=utf-8")
    faults[:] = [ApiFault(cut=True)]
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get(f"{VC}/rooms/{room.id}")
    faults[:] = [ApiFault(delay=0.2)]
    start = time.monotonic()
    assert (await client.get(f"{VC}/rooms/{room.id}")).json()["data"]["room"]["name"] == room.name
    assert time.monotonic() - start >= 0.2


async def test_a_call_that_hangs_ends_with_its_client(client: Bare, simulator: Simulator) -> None:
    """A call that gets no answer ends when the client gives up, and does not delay the simulator's end."""
    simulator.faults.api.append(ApiFault(hang=True, times=1))
    with pytest.raises(httpx2.ReadTimeout):
        await client.http.get(f"{VC}/rooms", timeout=0.1)
    assert (await client.get(f"{VC}/rooms")).json()["code"] == 0
    simulator.faults.api.append(ApiFault(hang=True))
    asking = asyncio.create_task(client.get(f"{VC}/rooms"), name="asking")
    await simulator.until(lambda: len(simulator.calls) == 4)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_an_answer_can_be_older_than_a_push(client: Bare, simulator: Simulator) -> None:
    """What changes between reading and answering is pushed before the answer, which does not know of it."""
    room = simulator.estate.rooms[0]
    before = room.limits["time_config"]["max_duration"]

    async def change(call: Call) -> None:
        if call.path == LIMITS and not simulator.answers:
            (push,) = simulator.admin.change(room, time_config={"max_duration": 77})
            await push.answered()  # nobody is connected: it is over at once

    simulator.faults.before_answer = change
    assert (await client.limits(room))["time_config"]["max_duration"] == before
    assert simulator.answers[None] == 1
    assert (await client.limits(room))["time_config"]["max_duration"] == 77


async def test_answers_carry_a_date_and_a_log_id_and_calls_are_kept() -> None:
    """Each answer has the API's time and a log id of its own; each call is kept with its time and outcome."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        client = Bare(simulator)
        await client.token()
        answers = [await client.get(f"{VC}/rooms/omm_x"), await client.get(f"{VC}/rooms", page_size="1")]
        for answer in answers:
            assert parsedate_to_datetime(answer.headers["date"]).timestamp() == clock.now
        assert len({answer.headers["x-tt-logid"] for answer in answers}) == 2
        assert [
            (call.method, call.path, call.query, call.status, call.code, call.at) for call in simulator.calls
        ] == [
            ("POST", TOKEN, {}, 200, 0, clock.now),
            ("GET", f"{VC}/rooms/omm_x", {}, 404, 121004, clock.now),
            ("GET", f"{VC}/rooms", {"page_size": "1"}, 200, 0, clock.now),
        ]
        await client.http.aclose()


# The estate


async def test_events_and_answers_agree(client: Bare, simulator: Simulator) -> None:
    """After each event of a busy day the API answers what the event told, but for people, who have one id."""
    estate = simulator.estate
    events = realistic_events(random.Random(4), estate=estate)
    for event in itertools.islice(events, 60):
        told = event["event"]
        place = estate.get(told["scope_id"])
        assert place is not None
        answer = await client.limits(place)
        for section, key in (("approve_config", "approvers"), ("reserve_scope_config", "allow_users")):
            people = [each["user_id"]["open_id"] for each in told[section].pop(key)]
            assert [each["user_id"] for each in answer[section].pop(key)] == people
        for section in ("time_config", "reserve_scope_config"):
            assert answer[section].pop("if_cover_child_scope") is False
        assert answer == {section: told[section] for section in answer}


async def test_an_event_of_the_administrator_has_the_time_of_the_answers() -> None:
    """One clock goes for the events that the administrator's changes make and for the API's `Date`."""
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        (push,) = simulator.admin.change_at_random()
        assert msgspec.json.decode(push.payload)["header"]["create_time"] == f"{clock.now * 1000:.0f}"


async def test_calls_are_kept_within_a_bound(
    client: Bare, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many calls the oldest are forgotten, half at a time."""
    monkeypatch.setattr(app, "CALLS_KEPT", 10)
    for number in range(30):
        await client.get(f"{VC}/rooms", page_size=number + 1)
        assert len(simulator.calls) <= 10
    assert [call.query["page_size"] for call in simulator.calls][-5:] == ["26", "27", "28", "29", "30"]


async def test_a_change_is_pushed_or_not(client: Bare, simulator: Simulator) -> None:
    """A change goes into the answers at once, and is pushed unless it was made while nobody could hear of it."""
    room = simulator.estate.rooms[0]
    (push,) = simulator.admin.change(room, time_config={"max_duration": 77})
    assert msgspec.json.decode(push.payload)["event"]["time_config"] == room.limits["time_config"]
    assert simulator.admin.change(room.id, push=False, time_config={"max_duration": 78}) == []
    assert (await client.limits(room))["time_config"]["max_duration"] == 78
    with pytest.raises(KeyError, match="omm_x"):
        simulator.admin.change("omm_x", time_config={})
    before = room.limits
    simulator.admin.change_at_random(room, push=False)
    assert room.limits != before


def change_something(simulator: Simulator, chance: random.Random) -> None:
    """What an administrator may do, and nobody is told."""
    estate, admin = simulator.estate, simulator.admin
    place, level = chance.choice(estate.places), chance.choice([estate.root, *estate.levels])
    match chance.choice(["add", "add", "rename", "move", "remove"]):
        case "add":
            admin.add(f"new {chance.random()}", level, scope_type=chance.choice([1, 2]), push=False)
        case "rename":
            admin.rename(place, f"other {chance.random()}", push=False)
        case "move" if place is not estate.root and place not in {level, *level.above}:
            admin.move(place, level, push=False)
        case "remove" if place is not estate.root and not place.levels:
            admin.remove(place, push=False)


async def walk(client: Bare, level: str) -> dict[str, tuple[str, list[str]]]:
    """Names and paths by id, of all below a level."""
    query = {"room_level_id": level, "page_size": "100"}
    found = (await client.get(f"{VC}/rooms", **query)).json()["data"]["rooms"]
    met = {each["room_id"]: (each["name"], each["path"]) for each in found}
    for each in (await client.get(f"{VC}/room_levels", **query)).json()["data"]["items"]:
        met[each["room_level_id"]] = (each["name"], each["path"])
        met |= await walk(client, each["room_level_id"])
    return met


async def test_the_api_tells_of_the_estate_after_any_changes() -> None:
    """After a thousand places were added, renamed, moved and deleted, a walk meets what the estate has, and where."""
    seconds, chance = itertools.count(1_790_000_000), random.Random(3)
    async with Simulator(clock=lambda: next(seconds)) as simulator:  # no rate limit is in the way
        client, estate = Bare(simulator), simulator.estate
        await client.token()
        for _ in range(1_000):
            change_something(simulator, chance)
        assert len(estate.places) > 200
        assert await walk(client, "0") == {
            each.id: (each.name, [level.id for level in each.above])
            for each in estate.places
            if each is not estate.root
        }
        await client.http.aclose()


async def test_an_estate_stays_a_tree() -> None:
    """Nothing is put under a room or under itself, and the root can neither be moved nor deleted."""
    estate = Estate()
    site, floor, room = estate.levels[0], estate.levels[-1], estate.rooms[0]
    before = [(each.id, [level.id for level in each.above]) for each in estate.places]
    for place, parent in [(site, floor), (site, site), (floor, room), (estate.root, site)]:
        with pytest.raises(ValueError, match="cannot be put under"):
            estate.move(place, parent)
    with pytest.raises(ValueError, match="stays where it is"):
        estate.remove(estate.root)
    assert [(each.id, [level.id for level in each.above]) for each in estate.places] == before


@pytest.mark.parametrize("unset", [False, True])
async def test_what_nobody_states_can_be_turned_round(*, unset: bool) -> None:
    """A place without limits of its own answers those of the level above, or none; paths with the root or without."""
    async with Simulator(estate=Estate(following=True)) as simulator:
        client = Bare(simulator)
        await client.token()
        estate, room = simulator.estate, simulator.estate.rooms[0]
        simulator.unstated.inherited_in_answers = not unset
        simulator.unstated.root_in_path = simulator.unstated.rooms_of_sublevels = unset
        simulator.unstated.root_is_listed = simulator.unstated.rooms_of_sublevels = unset
        simulator.admin.change(estate.root, push=False, time_config={"max_duration": 77})
        answer = await client.limits(room)
        assert answer == {} if unset else answer["time_config"]["max_duration"] == 77
        assert simulator.admin.change(estate.levels[0], cover=True, push_below=unset, time_config={})
        listed = (await client.get(f"{VC}/rooms", page_size="100")).json()["data"]["rooms"]
        assert len(listed) == (40 if unset else 0)
        assert all(each["path"][0] == estate.root.id for each in listed)
        (top,) = (await client.get(f"{VC}/room_levels")).json()["data"]["items"]
        assert (top["room_level_id"] == estate.root.id) is unset
        await client.http.aclose()


def test_an_estate_is_the_same_for_a_seed_and_as_large_as_wanted() -> None:
    """Ids, names and limits come from the seed; names of rooms differ; ten thousand scopes are made at once."""
    first, second = Estate(seed=5), Estate(seed=5)
    assert [(each.id, each.name, each.limits) for each in first.places] == [
        (each.id, each.name, each.limits) for each in second.places
    ]
    assert first.root.id != Estate(seed=6).root.id
    assert (len(first.rooms), len(first.levels)) == (40, 6)
    assert {len(room.above) for room in first.rooms} == {4}
    large = Estate(rooms=8_900)
    assert len(large.places) > 10_000
    assert len({room.name for room in large.rooms}) == 8_900
    deep = Estate(rooms=1, depth=9)
    assert [len(deep.levels), len(deep.rooms[0].above)] == [9, 10]
    with pytest.raises(ValueError, match="not 10"):
        Estate(depth=10)
