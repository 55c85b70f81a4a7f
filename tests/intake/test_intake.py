"""Intake: every push gets a verdict, and `committed` means committed. Over a real store."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from reserve_listener.errors import StoreError
from reserve_listener.intake import (
    fast_path,
    inbox as inbox_module,
    intake as intake_module,
    normalize,
    projector as projector_module,
    room_events,
)
from reserve_listener.intake.intake import Intake
from reserve_listener.model import EVENT_TYPE, Verdict
from reserve_listener.simulator import patience, sample_event
from tests.helpers import NOW_MS, accepted, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reserve_listener.model import IncomingEvent
    from reserve_listener.protocols.store import Store
    from tests.backends import Backend

TOKEN = "a1verification0token"


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = await backend.open("a")
    yield store
    backend.let_go()
    await store.close()


class Seconds:
    """A clock for what is logged once a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
async def intake(store: Store, seconds: Seconds) -> Intake:
    intake = Intake(
        store, knows=lambda kind: kind == f"p2.{EVENT_TYPE}", now_ms=lambda: NOW_MS, clock=seconds
    )
    await intake.start()
    return intake


def push(event_id: str = "e1", **more: Any) -> bytes:
    return json.dumps(sample_event(event_id=event_id, token=TOKEN, **more)).encode()


def room_event(event_type: str, *, event_id: str = "r1", **event: Any) -> dict[str, Any]:
    header = sample_event(event_id=event_id, token=TOKEN)["header"] | {"event_type": event_type}
    return {"schema": "2.0", "header": header, "event": event}


async def verdict(intake: Intake, raw: bytes) -> Verdict:
    """What becomes of a push in the end, as it is counted: once. One that is known already is answered as a new one."""
    await intake.flush()
    before = Counter(intake.counts)
    async with asyncio.timeout(patience(10)):
        answer = await accepted(intake.accept, raw)
        await intake.flush()
    (found,) = (intake.counts - before).elements()
    assert found is answer or (found is Verdict.DUPLICATE and answer.committed)
    return found


async def test_stored_then_duplicate(backend: Backend, intake: Intake, store: Store) -> None:
    """A push is STORED with our time of receipt, the same one again a DUPLICATE."""
    assert await verdict(intake, push("e1")) is Verdict.STORED
    assert await verdict(intake, push("e1")) is Verdict.DUPLICATE
    (one,) = backend.stored()
    assert (one.event_id, one.received_ms) == ("e1", NOW_MS)


DEEP = b"[" * 100_000 + b"]" * 100_000
UNREADABLE: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "empty object": b"{}",
    "no JSON": b"hello",
    "an array": b"[1]",
    "null": b"null",
    "half": push()[:-40],
    "invalid UTF-8": b'{"header":{"event_id":"\xff\xfe"}}',
    "NUL bytes": b"\x00" * 100,
    "5 MB of nothing": b"\x00" * 5_000_000,
    "nested too deeply": DEEP,
    "nested too deeply inside": b'{"event":' + DEEP + b"}",
    "no event_id": json.dumps({"header": {"event_type": EVENT_TYPE}, "event": {"scope_id": "x"}}).encode(),
    "no event": json.dumps({"header": {"event_id": "e", "event_type": EVENT_TYPE}}).encode(),
    "header is a text": b'{"header":"x","event":{"scope_id":"y"}}',
    "event is a list": b'{"header":{"event_id":"e"},"event":[]}',
    "empty scope": b'{"header":{"event_id":"e"},"event":{"scope_id":""}}',
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_unreadable_payload_is_kept_whole_and_known_again(
    backend: Backend, intake: Intake, store: Store, name: str
) -> None:
    """Whatever the bytes, the verdict is UNREADABLE, the reason is stored, and the same bytes again are a DUPLICATE."""
    raw = UNREADABLE[name]
    with structlog.testing.capture_logs() as logs:
        assert await verdict(intake, raw) is Verdict.UNREADABLE
    assert await verdict(intake, raw) is Verdict.DUPLICATE
    (one,) = backend.stored()
    assert one.problem
    assert one.deliveries == ()
    assert TOKEN.encode() not in one.raw
    if TOKEN.encode() not in raw:
        assert len(one.raw) == len(raw) or json.loads(one.raw) == json.loads(raw)
    assert [(line["event"], line["log_level"]) for line in logs] == [("event.unreadable", "warning")]
    assert logs[0]["problem"] == one.problem


@pytest.mark.parametrize("depth", [50, 200, 400, 500, 600, 700, 800, 900, 950, 990])
@pytest.mark.parametrize(
    "frame",
    [
        b'{"header":{"event_id":"e","event_type":"%b"},"event":{"scope_id":"s","x":%%b}}'
        % EVENT_TYPE.encode(),
        b'{"header":{"event_id":"e","event_type":"%b"},"event":{"x":%%b}}' % EVENT_TYPE.encode(),
        b'{"x":%b}',
        b'{"header":%b}',
    ],
)
@pytest.mark.parametrize("pair", [(b"[", b"", b"]"), (b'{"a":', b"1", b"}")])
async def test_no_depth_of_nesting_is_left_without_a_verdict(
    backend: Backend, intake: Intake, *, depth: int, frame: bytes, pair: tuple[bytes, bytes, bytes]
) -> None:
    """At each depth up to and beyond the interpreter's limit the push is committed, readable or not, and not raised."""
    opening, middle, closing = pair
    raw = frame % (opening * depth + middle + closing * depth)
    assert (await verdict(intake, raw)).committed
    assert len(backend.stored()) == 1


async def test_a_large_push_is_stored(intake: Intake, store: Store) -> None:
    """Five megabytes of a readable event are normal work."""
    users = [{"user_id": {"open_id": f"ou_{number:040}"}} for number in range(75_000)]
    raw = push(reserve_scope_config={"allow_all_users": 0, "allow_users": users, "allow_depts": []})
    assert len(raw) > 5_000_000
    assert await verdict(intake, raw) is Verdict.STORED


async def test_a_defect_in_the_normaliser_costs_no_event(
    backend: Backend, intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw makes the push unreadable, kept whole without its token, and is logged."""

    def broken(*_: Any, **__: Any) -> IncomingEvent:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(normalize, "incoming", broken)
    monkeypatch.setattr(fast_path, "read", broken)
    with structlog.testing.capture_logs() as logs:
        assert await verdict(intake, push()) is Verdict.UNREADABLE
    (one,) = backend.stored()
    assert one.problem == "a bug in reserve-listener: ZeroDivisionError: a defect"
    assert TOKEN.encode() not in one.raw
    assert [line["event"] for line in logs] == ["event.not_normalized", "event.unreadable"]


async def test_another_type_is_not_stored_and_logged_once(
    backend: Backend, intake: Intake, store: Store, seconds: Seconds
) -> None:
    """Events without a handler are OTHER_TYPE: one warning for each type, however many come."""
    other = json.dumps({"header": {"event_id": "e", "event_type": "im.message"}, "event": {}}).encode()
    older = json.dumps({"uuid": "u", "event": {"type": "message"}}).encode()
    with structlog.testing.capture_logs() as logs:
        for raw in [other, older] * 20:
            assert await verdict(intake, raw) is Verdict.OTHER_TYPE
            seconds.now += 1
    assert backend.stored() == []
    assert [(line["event"], line["event_type"]) for line in logs] == [
        ("event.other_type", "im.message"),
        ("event.other_type", "p1.message"),
    ]


async def test_an_event_about_a_room_itself_is_taken(backend: Backend, store: Store) -> None:
    """Such an event is durable before its answer like any other, counted as stored, and never listed or delivered."""
    intake = Intake(store, knows=lambda _: True)
    await intake.start()
    raw = json.dumps(room_event("vc.room.created_v1", room={"room_id": "omm_1", "name": "Ada"})).encode()
    assert await verdict(intake, raw) is Verdict.STORED
    assert await verdict(intake, raw) is Verdict.DUPLICATE
    assert backend.directory().name("room", "omm_1") == "Ada"
    assert backend.stored() == []


@pytest.mark.parametrize("event_type", room_events.TYPES)
@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"event": None},
        {"event": {"room": 7, "room_level": [], "room_level_id": {}}},
        {"event": {"room": {"room_id": "x" * 10_000, "name": "n"}, "room_level_id": "a\nb"}},
        {"header": {"event_id": 7, "create_time": "yesterday", "tenant_key": []}},
    ],
    ids=["all", "event", "kinds", "ids", "header"],
)
async def test_a_broken_event_about_a_room_costs_nothing(
    backend: Backend, store: Store, event_type: str, broken: dict[str, Any]
) -> None:
    """Whatever is wrong with it, it is taken, known again, and said once; nothing is kept of it and no name changes."""
    intake = Intake(store, knows=lambda _: True)
    await intake.start()
    header = broken.get("header", {}) | {"event_type": event_type.removeprefix("p2.")}
    raw = json.dumps(broken | {"header": header}).encode()
    with structlog.testing.capture_logs() as logs:
        assert await verdict(intake, raw) is Verdict.STORED
        assert await verdict(intake, raw) is Verdict.DUPLICATE
    assert [line["event"] for line in logs] == ["room_event.unreadable"]
    assert (backend.stored(), backend.stored(unreadable=True)) == ([], [])
    assert not backend.directory().places


async def test_other_types_do_not_fill_memory_or_log(
    intake: Intake, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender who invents types is remembered and logged up to a bound only, one a second; the others later."""
    monkeypatch.setattr(intake_module, "TYPES_REMEMBERED", 5)
    with structlog.testing.capture_logs() as logs:
        for number in range(50):
            raw = json.dumps(
                {"header": {"event_id": "e", "event_type": f"t{number % 10}"}, "event": {}}
            ).encode()
            await verdict(intake, raw)
            seconds.now += 0.3
    assert [line["event_type"] for line in logs] == ["t0", "t4", "t8", "t2", "t6"]
    assert logs[1]["more"] == 3


async def test_a_defect_that_comes_with_each_push_is_told_once_a_second(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each push is kept all the same; a traceback for each would fill the disk."""

    def broken(*_: object, **__: object) -> IncomingEvent:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(normalize, "incoming", broken)
    monkeypatch.setattr(fast_path, "read", broken)
    with structlog.testing.capture_logs() as logs:
        for number in range(20):
            assert await verdict(intake, push(f"e{number}")) is Verdict.UNREADABLE
    assert [line["event"] for line in logs] == ["event.not_normalized", "event.unreadable"]


def test_taking_and_refusing_in_turns_is_told_once_a_second() -> None:
    """Near its bound the store does so hundreds of times a second."""
    refusals = intake_module._Refusals(Seconds())
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            refusals.tell(structlog.get_logger().warning, "event.overloaded")
            refusals.over()
    assert [line["event"] for line in logs] == ["event.overloaded", "event.taken_again"]


async def test_overload_is_said_at_once(
    backend: Backend, intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound of what waits the verdict is OVERLOADED while the commit hangs, and the event is not stored."""
    monkeypatch.setattr(inbox_module, "WAITING_EVENTS", 1)
    writer = await backend.hold_receiving(store).begun()
    first = accepted(intake.accept, push("e1"))
    assert await verdict(intake, push("e2")) is Verdict.OVERLOADED
    assert not first.done()
    await writer.release()
    assert await first is Verdict.STORED
    await intake.flush()
    assert [one.event_id for one in backend.stored()] == ["e1"]


@pytest.mark.parametrize("repeats", [1, 5])
async def test_a_slow_commit_is_answered_in_time_and_known_when_it_comes_again(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    """After the timeout the verdict is FAILED; the commit lands later, and the platform's next push is a DUPLICATE."""
    monkeypatch.setattr(intake_module, "COMMIT_TIMEOUT_S", 0.1)
    intake = Intake(store, knows=lambda _: True)
    writer = await backend.hold_receiving(store).begun()
    with structlog.testing.capture_logs() as logs:
        verdicts = [accepted(intake.accept, push(f"e{number}")) for number in range(repeats)]
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(patience(5)):
            assert await asyncio.gather(*verdicts) == [Verdict.FAILED] * repeats
        assert asyncio.get_running_loop().time() - started >= 0.09
        await writer.release()
        await until(lambda: intake._late)
        intake._deadlines.timeout_s = patience(10)
        assert await verdict(intake, push("e0")) is Verdict.DUPLICATE
    kinds = [line["event"] for line in logs]
    assert kinds == [
        "event.commit_slow",
        "event.commit_late",
        "event.taken_again",
    ]  # a line of each kind a second
    assert logs[-1]["not_taken"] == repeats
    assert logs[1]["verdict"] == "stored"


async def test_each_push_has_a_deadline_of_its_own(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later push is not failed with an earlier one: each gets the whole timeout."""
    monkeypatch.setattr(intake_module, "COMMIT_TIMEOUT_S", 0.2)
    intake = Intake(store, knows=lambda _: True)
    writer = await backend.hold_receiving(store).begun()
    first = accepted(intake.accept, push("e1"))
    await asyncio.wait([first], timeout=0.1)
    second = accepted(intake.accept, push("e2"))
    assert await first is Verdict.FAILED
    assert not second.done()
    assert await second is Verdict.FAILED
    await writer.release()


async def test_a_commit_that_fails_is_failed(backend: Backend, intake: Intake, store: Store) -> None:
    """A full disk is FAILED, logged with its words; the event is not there, and the next push of it is STORED."""
    raw = push("e1", filler="x" * 100_000)
    async with backend.no_room_to_receive(store):
        with structlog.testing.capture_logs() as logs:
            assert await verdict(intake, raw) is Verdict.FAILED
    assert backend.stored() == []
    assert [(line["event"], line["log_level"]) for line in logs] == [("event.commit_failed", "error")]
    assert "full" in logs[0]["error"]
    assert await verdict(intake, raw) is Verdict.STORED


async def test_while_nothing_can_be_projected_no_push_is_taken(
    backend: Backend, intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered before the store failed is safe and arrives when it works again; until then pushes are FAILED."""
    monkeypatch.setattr(projector_module, "RETRY_S", 0.02)
    with structlog.testing.capture_logs() as logs:
        async with backend.no_room_to_project(store):
            assert await accepted(intake.accept, push("e1", filler="x" * 100_000)) is Verdict.STORED
            await until(lambda: store.problem is not None and intake._projector.problem is not None)
            assert await accepted(intake.accept, push("e2")) is Verdict.FAILED
            assert "full" in (store.problem or "")
        await until(lambda: intake._projector.problem is None)
        assert await verdict(intake, push("e2")) is Verdict.STORED
    assert store.problem is None
    assert [one.event_id for one in backend.stored()] == ["e2", "e1"]
    kinds = [line["event"] for line in logs]
    assert kinds == [
        "store.projecting_failed",
        "event.commit_failed",
        "store.projecting_again",
        "event.taken_again",
    ]


async def test_behind_its_bound_a_push_waits_for_room(
    backend: Backend, intake: Intake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is answered than may wait for the projection; the rest gets its verdict when there is room."""
    monkeypatch.setattr(projector_module, "BEHIND_EVENTS", 4)
    monkeypatch.setattr(inbox_module, "BATCH_EVENTS", 2)
    held = backend.hold_projecting(store)
    verdicts = [accepted(intake.accept, push(f"e{number}")) for number in range(10)]
    await asyncio.gather(*verdicts[:4])
    assert intake._projector.behind == 4
    assert not any(one.done() for one in verdicts[4:])
    await held.release()
    assert await asyncio.gather(*verdicts) == [Verdict.STORED] * 10
    await intake.flush()
    assert [one.event_id for one in reversed(backend.stored())] == [f"e{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("ended_by", "bounds"),
    [
        ("a lull", {"LULL_S": 0.01, "HOLD_S": 600, "HELD_EVENTS": 10**6}),
        ("its time", {"LULL_S": 600, "HOLD_S": 0.01, "HELD_EVENTS": 10**6}),
        ("its size", {"LULL_S": 600, "HOLD_S": 600, "HELD_EVENTS": 8}),
        ("its bytes", {"LULL_S": 600, "HOLD_S": 600, "HELD_EVENTS": 10**6, "HELD_BYTES": 1}),
    ],
)
async def test_a_burst_is_answered_first_and_projected_when_it_is_over(
    backend: Backend,
    intake: Intake,
    monkeypatch: pytest.MonkeyPatch,
    ended_by: str,
    bounds: dict[str, float],
) -> None:
    """Whatever ends it: no push comes, it has lasted long enough, or as much is held as may be. All is projected, in order."""
    monkeypatch.setattr(projector_module, "PACE_S", 0.05)
    monkeypatch.setattr(projector_module, "BURST_EVENTS", 4)
    for name, bound in bounds.items():
        monkeypatch.setattr(projector_module, name, bound)
    await verdict(intake, push("first"))  # at once: that is no burst
    pushes = [accepted(intake.accept, push(f"e{number}")) for number in range(9)]
    assert await asyncio.gather(*pushes) == [Verdict.STORED] * 9, ended_by
    await until(lambda: intake._projector.behind == 0)
    found = [one.event_id for one in reversed(backend.stored())]
    assert found == ["first", *(f"e{number}" for number in range(9))]


async def test_while_a_burst_is_held_its_pushes_are_answered_and_not_projected(
    backend: Backend, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than may be behind at other times; a stop does not wait for its end, and a burst that goes on is held once."""
    bounds = {"PACE_S": 0.05, "BURST_EVENTS": 2, "LULL_S": 600, "HOLD_S": 600, "BEHIND_EVENTS": 4}
    for name, bound in bounds.items():
        monkeypatch.setattr(projector_module, name, bound)
    await verdict(intake, push("first"))
    await asyncio.gather(*(accepted(intake.accept, push(f"e{number}")) for number in range(3)))
    await until(lambda: intake._projector._is_holding)
    more = [accepted(intake.accept, push(f"e{number}")) for number in range(3, 20)]
    assert await asyncio.gather(*more) == [Verdict.STORED] * 17
    assert intake._projector.behind == 20
    assert [one.event_id for one in backend.stored()] == ["first"]
    await intake.project_rest()
    found = [one.event_id for one in reversed(backend.stored())]
    assert found == ["first", *(f"e{number}" for number in range(20))]


async def test_what_was_answered_and_not_projected_is_projected_at_the_next_start(backend: Backend) -> None:
    """A life that ends between answer and projection leaves nothing behind that the next one does not find, in order."""
    store = await backend.open("a")
    intake = Intake(store, knows=lambda _: True)
    for event_id in ("e1", "e2", "e1"):
        assert await accepted(intake.accept, push(event_id)) is Verdict.STORED
    assert await accepted(intake.accept, b"nonsense") is Verdict.UNREADABLE
    await store.close()
    for _ in range(2):
        store = await backend.open("a")
        intake = Intake(store, knows=lambda _: True)
        await intake.start()
        assert [one.event_id[:6] for one in reversed(backend.stored())] == ["e1", "e2", "sha256"]
        await intake.project_rest()
        await store.close()
    assert intake.counts == {}


async def test_a_push_is_counted_once(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at the answer and committed after all, it counts as refused; the next push of it is a duplicate."""
    monkeypatch.setattr(intake_module, "COMMIT_TIMEOUT_S", 0.05)
    intake = Intake(store, knows=lambda _: True)
    await intake.start()
    writer = await backend.hold_receiving(store).begun()
    assert await accepted(intake.accept, push("e1")) is Verdict.FAILED
    await writer.release()
    assert await verdict(intake, push("e1")) is Verdict.DUPLICATE
    assert intake.counts == {Verdict.FAILED: 1, Verdict.DUPLICATE: 1}


async def test_after_close_a_push_is_failed(backend: Backend, intake: Intake, store: Store) -> None:
    """What comes after `close` is refused, so that the platform pushes again; nothing of it is stored."""
    await intake.close()
    assert await verdict(intake, push()) is Verdict.FAILED
    assert backend.stored() == []


async def test_close_waits_for_the_verdicts_under_way(backend: Backend, intake: Intake, store: Store) -> None:
    """A push that came before `close` gets its verdict from its commit, and `close` returns after it."""
    writer = await backend.hold_receiving(store).begun()
    under_way = accepted(intake.accept, push())
    closing = asyncio.create_task(intake.close())
    await asyncio.wait([closing], timeout=0.02)
    assert not closing.done()
    await writer.release()
    await closing
    assert under_way.result() is Verdict.STORED


async def test_close_leaves_no_push_without_a_verdict(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a commit that hangs `close` returns after the timeout, and every verdict that was out is FAILED."""
    monkeypatch.setattr(intake_module, "COMMIT_TIMEOUT_S", 0.05)
    intake = Intake(store, knows=lambda _: True)
    writer = await backend.hold_receiving(store).begun()
    under_way = [accepted(intake.accept, push(f"e{number}")) for number in range(10)]
    async with asyncio.timeout(patience(5)):
        await intake.close()
    assert [one.result() for one in under_way] == [Verdict.FAILED] * 10
    await writer.release()


async def test_a_caller_who_goes_away_disturbs_nobody(intake: Intake, store: Store) -> None:
    """A cancelled verdict does not stop its commit, and raises nowhere."""
    verdicts = [accepted(intake.accept, push(f"e{number}")) for number in range(3)]
    verdicts[1].cancel()
    assert await verdicts[0] is Verdict.STORED
    assert await verdicts[2] is Verdict.STORED
    assert await verdict(intake, push("e1")) is Verdict.DUPLICATE


async def test_a_store_that_is_closed_is_failed(backend: Backend) -> None:
    """A push when the store is gone is FAILED and not an exception."""
    store = await backend.open("a")
    await store.close()
    with structlog.testing.capture_logs() as logs:
        assert await verdict(Intake(store, knows=lambda _: True), push()) is Verdict.FAILED
    assert logs[0]["error"] == str(StoreError("the store is closed"))
