"""Names over the simulator's API, our own client and a real store: what is asked for, when, and what goes wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.intake.names import DAY_S, Names
from reserve_listener.intake.survey import CHUNK, Survey
from reserve_listener.intake.troubles import MENDED_S
from reserve_listener.intake.wanted import AGAIN_S, TRIES, WANTED, Wanted
from reserve_listener.model import IncomingEvent, PlaceNews
from reserve_listener.simulator import ApiFault, Estate, Simulator
from tests.helpers import NOW_MS, Clock, append, event, until
from tests.intake import asking as shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.model import KnownPlace
    from reserve_listener.simulator import Call, Place

LISTS = "/open-apis/vc/v1/room"
PEOPLE = "/open-apis/contact/v3/users/basic_batch"


class Sleeps:
    """Waits that end when the test says so; what somebody waits for is seen."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._ends: list[asyncio.Event] = []

    async def __call__(self, seconds: float) -> None:
        end = asyncio.Event()
        self.asked.append(seconds)
        self._ends.append(end)
        await end.wait()

    def end(self) -> None:
        """Everybody goes on."""
        for end in self._ends:
            end.set()
        self._ends.clear()


class World(shared.World):
    """With who asks for names; the client's time passes when it waits, the others' when the test says so."""

    def __init__(self, simulator: Simulator, folder: Path) -> None:
        self.clock = Clock()
        self.sleeps = Sleeps()
        self._api_s = 0.0
        super().__init__(simulator, folder, now_ms=self.clock, clock=lambda: self._api_s, sleep=self._pass)

    def names_asked(self, **wanted: Any) -> Names:
        """Who asks, over the open store."""
        app_id = self.simulator.app_id
        survey = Survey(self.store, self.client, self.directory, app_id=app_id, now_ms=self.clock)
        self.names = Names(
            self.store,
            self.client,
            self.directory,
            app_id=app_id,
            survey=survey,
            now_ms=self.clock,
            clock=lambda: self.clock.now_ms / 1000,
            sleep=self.sleeps,
            **wanted,
        )
        return self.names

    async def _pass(self, seconds: float) -> None:
        self._api_s += seconds
        await asyncio.sleep(0)

    @property
    def calls(self) -> list[Call]:
        """All calls but those for tokens."""
        return [call for call in self.simulator.calls if "token" not in call.path]

    def name(self, place: Place) -> str | None:
        return self.directory.name({1: "level", 2: "room"}[place.scope_type], place.id)

    def path(self, place: Place) -> list[str] | None:
        return self.directory.path({1: "level", 2: "room"}[place.scope_type], place.id)

    def gone(self) -> set[str]:
        return {key[1] for key, one in self.directory.places.items() if one.gone_ms is not None}

    async def read(self) -> None:
        """The next look at everything is over, well or not, and the next one is waited for."""
        await until(lambda: self.sleeps.asked)

    async def again(self, after_s: float = DAY_S) -> None:
        """The next look at everything, some time later."""
        self.clock.advance(after_s)
        self.sleeps.asked.clear()
        self.sleeps.end()
        await self.read()


@asynccontextmanager
async def asking(folder: Path, simulator: Simulator, **wanted: bool) -> AsyncIterator[World]:
    """Names are asked for while this lasts."""
    async with World(simulator, folder).opened() as world, shared.running(world.names_asked(**wanted)):
        yield world


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Its minutes, by which it counts calls, pass as fast as the client's waits do here."""
    async with Simulator(estate=Estate(rooms=25, depth=3), time_scale=0.001) as simulator:
        yield simulator


def heard(world: World, place: Place | str, number: int = 1) -> IncomingEvent:
    """An event of this room comes in."""
    incoming = event(f"e{number}", place if isinstance(place, str) else place.id)
    world.names.heard(incoming)
    return incoming


async def test_all_rooms_and_levels_have_their_names(tmp_path: Path, simulator: Simulator) -> None:
    """After the first look each has its name, and the names of the levels above it, without the organisation."""
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator) as world:
            await world.read()
            for place in simulator.estate.places:
                assert world.name(place) == place.name
                assert world.path(place) == [each.name for each in place.above[1:]]
            assert world.sleeps.asked == [DAY_S]
    (line,) = [line for line in logs if line["event"] == "names.read"]
    levels = len(simulator.estate.levels) + 1
    assert (line["rooms"], line["levels"], line["gone"]) == (25, levels, 0)


async def test_a_restart_within_the_day_asks_nothing(tmp_path: Path, simulator: Simulator) -> None:
    """The names are in the store, and so is when they were asked for."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
    before = len(simulator.calls)
    async with asking(tmp_path, simulator) as world:
        await world.read()
        room = simulator.estate.rooms[0]
        assert (world.name(room), world.sleeps.asked) == (room.name, [DAY_S])
    assert len(simulator.calls) == before


@pytest.mark.parametrize("moved_s", [DAY_S, -3600])
async def test_names_are_asked_for_daily(tmp_path: Path, simulator: Simulator, moved_s: float) -> None:
    """A day later, or when the clock was set back, what was renamed, moved and deleted is found without an event."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        renamed, moved, removed = simulator.estate.rooms[:3]
        there = simulator.estate.rooms[-1].parent
        assert there is not None
        simulator.admin.rename(renamed, "新名字", push=False)
        simulator.admin.move(moved, there, push=False)
        simulator.admin.remove(removed, push=False)
        await world.again(moved_s)
        assert world.name(renamed) == "新名字"
        assert world.path(moved) == [each.name for each in moved.above[1:]]
        assert (world.gone(), world.name(removed)) == ({removed.id}, removed.name)


async def test_a_room_that_no_list_shows_is_asked_for_before_it_is_marked(
    tmp_path: Path, simulator: Simulator
) -> None:
    """The platform may hide it from lists: it is there as long as it is found by its id, and its new name is known."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        hidden, removed = simulator.estate.rooms[:2]
        simulator.admin.remove(removed, push=False)
        simulator.admin.rename(hidden, "still here", push=False)
        simulator.unstated.hidden.add(hidden.id)
        await world.again()
        assert (world.gone(), world.name(hidden)) == ({removed.id}, "still here")
        simulator.admin.remove(hidden, push=False)
        await world.again()
        assert world.gone() == {removed.id, hidden.id}


async def test_a_room_of_which_the_platform_says_nothing_is_not_marked(
    tmp_path: Path, simulator: Simulator
) -> None:
    """That it may not be asked for is no sign that it is gone; and that nobody answers is a look that broke off."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        simulator.admin.remove(simulator.estate.rooms[0], push=False)
        simulator.faults.api.append(ApiFault(path="/rooms/mget", status=403, code=121005))
        await world.again()
        assert not world.gone()
        simulator.faults.api[:] = [ApiFault(path="/rooms/mget", status=502)]
        with structlog.testing.capture_logs() as logs:
            await world.again()
        assert ([line["event"] for line in logs], world.gone()) == (["names.interrupted"], set())
        simulator.faults.api.clear()
        await world.again(60)
        assert len(world.gone()) == 1


async def test_a_look_that_broke_off_marks_nothing(tmp_path: Path, simulator: Simulator) -> None:
    """What was not come to is not gone; what was come to is known; the next look that ends does both."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        simulator.admin.remove(simulator.estate.rooms[0], push=False)
        simulator.faults.api.append(ApiFault(path="/vc/v1/rooms", status=500))
        with structlog.testing.capture_logs() as logs:
            await world.again()
            assert [line["event"] for line in logs] == ["names.interrupted"]
            await world.again(60)
            await world.again(60)
        assert [line["event"] for line in logs] == ["names.interrupted"]  # one line, however often
        assert not world.gone()
        simulator.faults.api.clear()
        await world.again(60)
        assert len(world.gone()) == 1


async def test_an_answer_without_anything_marks_nothing(tmp_path: Path, simulator: Simulator) -> None:
    """A look that finds nothing at all rather means that nothing is shown to this app."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        known = dict(world.directory.places)
        nothing = ApiFault(
            path=LISTS, body=b'{"code": 0, "data": {"items": [], "rooms": [], "has_more": false}}'
        )
        simulator.faults.api.append(nothing)
        await world.again()
        assert dict(world.directory.places) == known


async def test_what_an_event_told_during_a_look_stands(tmp_path: Path, simulator: Simulator) -> None:
    """The look began before it: a name that came meanwhile stays, and a room that was created meanwhile is not gone."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        renamed, _, deleted = simulator.estate.rooms[:3]

        async def change(call: Call) -> None:
            if call.path.endswith("/rooms"):
                simulator.faults.before_answer = None
                world.clock.advance(1)
                told = [
                    PlaceNews(scope_type="room", scope_id=renamed.id, name="new"),
                    PlaceNews(scope_type="room", scope_id=deleted.id, gone=True),
                    PlaceNews(scope_type="room", scope_id="omm_created", name="created"),
                ]
                await append(
                    world.store,
                    IncomingEvent(
                        tenant_key="t1",
                        event_id="n",
                        raw=b"",
                        received_ms=world.clock.now_ms,
                        created_ms=NOW_MS,
                        news=tuple(told),
                    ),
                )

        simulator.faults.before_answer = change
        await world.again()
        assert (world.name(renamed), world.gone()) == ("new", {deleted.id})
        assert world.directory.name("room", "omm_created") == "created"


async def test_an_unknown_room_is_asked_for_after_its_event(tmp_path: Path, simulator: Simulator) -> None:
    """Once, however many events name it, and with the levels above it; a room that is known is not asked for."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        level = simulator.estate.add("新楼", simulator.estate.root, scope_type=1)
        floor = simulator.estate.add("9F", level, scope_type=1)
        room = simulator.estate.add("新会议室", floor)
        before = len(world.calls)
        for number in range(50):
            heard(world, room, number)
            heard(world, simulator.estate.rooms[0], number)
        await until(lambda: world.path(room) == ["新楼", "9F"])
        assert world.name(room) == "新会议室"
        asked = [next(iter(call.content.values())) for call in world.calls[before:]]
        assert sorted(asked) == sorted([[room.id], [floor.id], [level.id]])


async def test_an_id_that_nobody_knows_is_asked_for_once_an_hour(
    tmp_path: Path, simulator: Simulator
) -> None:
    """It is not marked either: an event has just named it."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        before = len(world.calls)
        for _ in range(2):
            heard(world, "omm_hidden")
            await until(lambda: len(world.calls) > before)
        assert ("room", "omm_hidden") not in world.directory.places
        world.clock.advance(AGAIN_S)
        heard(world, "omm_hidden")
        await until(lambda: len(world.calls) == before + 2)


@pytest.mark.parametrize("scope_id", ["x" * 500, "a\nb", "\ud800"])
async def test_an_id_that_can_be_none_is_not_asked_for(
    tmp_path: Path, simulator: Simulator, scope_id: str
) -> None:
    """The platform's ids are short and printable; such a one would only cost calls."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        before = len(world.calls)
        world.names._want("room", scope_id)
        world.names._want("elsewhere", "omm_1")
        new = simulator.estate.add("new", simulator.estate.root)
        heard(world, new)
        await until(lambda: world.name(new) == "new")
        assert len(world.calls) == before + 1


async def test_an_id_that_fails_holds_no_other_up_for_ever(tmp_path: Path, simulator: Simulator) -> None:
    """It is tried again after the others, a few times; the line says so once."""
    async with asking(tmp_path, simulator) as world:
        await world.read()
        new = simulator.estate.add("new", simulator.estate.root)
        world.sleeps.asked.clear()
        simulator.faults.api.append(
            ApiFault(path="/rooms/mget", status=502, times=4)
        )  # the client tries four times
        with structlog.testing.capture_logs() as logs:
            heard(world, "omm_first")
            heard(world, new)
            await until(lambda: world.sleeps.asked)
            world.sleeps.end()
            await until(lambda: world.name(new) == "new")
        assert [line["event"] for line in logs if line["log_level"] != "debug"] == ["names.interrupted"]
        assert "502" in logs[0]["error"]


async def test_a_missing_permission_is_said_once(tmp_path: Path, simulator: Simulator) -> None:
    """With its name and what works without it; once it is given, the next attempt finds everything."""
    simulator.faults.missing_permissions.add("vc:room:readonly")
    with structlog.testing.capture_logs() as logs:
        async with asking(tmp_path, simulator) as world:
            heard(world, simulator.estate.rooms[0])
            await until(lambda: len(world.sleeps.asked) == 2)
            assert world.sleeps.asked == [MENDED_S, MENDED_S]
            for _ in range(3):
                await world.again(MENDED_S)
            simulator.faults.missing_permissions.clear()
            await world.again(MENDED_S)
            await until(lambda: world.name(simulator.estate.rooms[-1]))
    line, *more = [line for line in logs if line["log_level"] == "warning"]
    assert (line["event"], more) == ("names.unavailable", [])
    assert "vc:room:readonly" in line["permissions"]
    assert "still delivered" in line["hint"]


async def test_a_refused_app_is_said_once(tmp_path: Path, simulator: Simulator) -> None:
    """A wrong secret, or a store app, has no names: one line, and the daemon goes on."""
    with structlog.testing.capture_logs() as logs:
        simulator.app_secret = "another"
        async with asking(tmp_path, simulator) as world:
            await world.read()
            await world.again(MENDED_S)
    assert [line["event"] for line in logs] == ["names.unavailable"]


async def test_a_defect_goes_no_further(
    tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw is logged with its traceback, and tried again like any other trouble."""
    async with asking(tmp_path, simulator) as world:
        await world.read()

        async def broken(_places: list[KnownPlace]) -> None:
            raise ZeroDivisionError("a defect")

        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(world.store, "keep_places", broken)
            await world.again()
        assert isinstance(logs[0]["exc_info"], ZeroDivisionError)
        await world.again(60)
        assert world.sleeps.asked == [DAY_S]


async def test_people_have_names_only_if_that_is_wanted(tmp_path: Path, simulator: Simulator) -> None:
    """Without `people` nobody is asked for; with it those in the limits are, at once and daily, and new ones after an event."""
    ada, bo, cy = simulator.estate.people[:3]
    one = event("e1", "omm_1")
    body = (one.body or b"").replace(
        b'"allow_users":[]', b'"allow_users":[{"open_id":"%s"}]' % ada.ids["open_id"].encode()
    )
    assert body != one.body
    async with asking(tmp_path, simulator) as world:
        await append(world.store, with_body(one, body))
        world.names.heard(with_body(one, body))
        await world.read()
    assert not [call for call in simulator.calls if call.path == PEOPLE]
    async with asking(tmp_path, simulator, people=True) as world:
        await until(lambda: world.directory.people)
        assert dict(world.directory.people) == {ada.ids["open_id"]: ada.english}
        stranger = body.replace(ada.ids["open_id"].encode(), bo.ids["open_id"].encode())
        world.names.heard(with_body(one, stranger))
        await until(lambda: len(world.directory.people) == 2)
        await until(lambda: len(world.sleeps.asked) == 2)
        await world.store.keep_people({cy.ids["open_id"]: "an old name"})
        await world.again()
        await until(lambda: world.directory.people[cy.ids["open_id"]] == cy.english)


def with_body(one: IncomingEvent, body: bytes) -> IncomingEvent:
    return IncomingEvent(
        tenant_key=one.tenant_key,
        event_id=one.event_id,
        raw=one.raw,
        received_ms=one.received_ms,
        created_ms=one.created_ms,
        scope=one.scope,
        body=body,
    )


async def test_a_large_organisation_is_written_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No write is larger than a chunk, so that a push never waits for thousands of names."""
    sizes: list[int] = []
    async with (
        Simulator(estate=Estate(rooms=2 * CHUNK + 50), time_scale=0.001) as simulator,
        asking(tmp_path, simulator) as world,
    ):
        keep = world.store.keep_places

        async def counted(places: list[KnownPlace]) -> None:
            sizes.append(len(places))
            await keep(places)

        monkeypatch.setattr(world.store, "keep_places", counted)
        await world.read()
        assert len(world.directory.places) == len(simulator.estate.places)
    assert max(sizes) == CHUNK
    assert sum(sizes) == len(simulator.estate.places)


async def test_what_waits_is_bounded() -> None:
    """A flood of ids fills no memory, and each id stands there once."""
    wanted: Wanted[int] = Wanted(lambda: 0.0)
    for number in range(WANTED * 3):
        wanted.add(number % (WANTED * 2))
    taken = []
    while (one := wanted.pop()) is not None:
        taken.append(one)
    assert taken == list(range(WANTED))


async def test_what_fails_is_tried_a_few_times() -> None:
    """Then the next event has to name it again, an hour later."""
    wanted: Wanted[str] = Wanted(lambda: 0.0)
    wanted.add("a")
    for _ in range(TRIES):
        assert wanted.pop() == "a"
        wanted.again("a")
    assert wanted.pop() is None
    wanted.add("a")
    assert wanted.pop() is None
