"""An event compared with what is known of its scope: what is sealed in its body, and what is known after it."""

from __future__ import annotations

import json
import random
import tracemalloc
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from reserve_listener.intake import fast_path, normalize
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.model import MIB, Completed, IncomingEvent, Known
from reserve_listener.simulator import realistic_events, sample_event

NOW_MS = 1_790_000_000_000
complete = completing("en")


def push(created_ms: int | None = NOW_MS, **event: Any) -> IncomingEvent:
    """A push, normalised; without a time if `created_ms` is None."""
    envelope = sample_event(create_time_ms=created_ms or 0, **event)
    if created_ms is None:
        del envelope["header"]["create_time"]
    return normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=NOW_MS)


def hours(number: int) -> dict[str, Any]:
    return {"time_config": {"time_switch": 1, "max_duration": number}}


def told(event: IncomingEvent, previous: Known | None = None) -> Completed:
    completed = complete(event, previous)
    assert completed is not None
    return completed


def data(completed: Completed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(completed.body)["data"]
    return found


def test_the_first_sight_tells_the_limits() -> None:
    """There is nothing to compare with, which is not the same as that nothing changed."""
    event = push()
    first = told(event)
    said = data(first)
    assert (said["revision"], said["changes"]) == (1, None)
    assert said["summary"].startswith("no approval; up to 60 days ahead")
    assert "superseded" not in said
    assert first.paths is None
    assert first.known == Known(1, NOW_MS, first.config)


def test_the_body_is_only_added_to() -> None:
    """All that stood in it stands there still, at its place; ours comes last."""
    event = push()
    body = told(event).body
    assert event.body is not None
    assert body.startswith(event.body.removesuffix(b"}}"))
    assert list(data(told(event)))[-3:] == ["revision", "changes", "summary"]


def test_a_change_is_said_and_known() -> None:
    """The next event says what differs, and the state is what it told."""
    first = told(push(**hours(8)))
    second = told(push(NOW_MS + 1, **hours(2)), first.known)
    assert data(second)["changes"] == [{"path": "time_config.max_duration", "before": 8, "after": 2}]
    assert data(second)["summary"] == "at most 8 h → 2 h per booking"
    assert (second.revision, second.created_ms, second.paths) == (
        2,
        NOW_MS + 1,
        ("time_config.max_duration",),
    )
    third = told(push(NOW_MS + 2, **hours(2)), second.known)
    assert (data(third)["changes"], data(third)["summary"], third.revision) == ([], "no change", 3)
    assert third.paths == ()


def test_a_late_push_is_marked_and_turns_nothing_back() -> None:
    """It has no revision and no changes, says its own limits, and what is known stays."""
    first = told(push(**hours(8)))
    late = told(push(NOW_MS - 1, **hours(2)), first.known)
    said = data(late)
    assert (said["changes"], said["superseded"]) == (None, True)
    assert "revision" not in said
    assert "at most 2 h per booking" in said["summary"]
    assert (late.known, late.paths) == (None, ())


@pytest.mark.parametrize("created_ms", [None, NOW_MS])
def test_what_cannot_be_shown_to_be_late_is_not(created_ms: int | None) -> None:
    """Without a time, or with the same one, what comes later is newer; the time that is known stays."""
    first = told(push(**hours(8)))
    second = told(push(created_ms, **hours(2)), first.known)
    assert (second.revision, second.created_ms) == (2, NOW_MS)
    assert data(second)["changes"] == [{"path": "time_config.max_duration", "before": 8, "after": 2}]


def test_a_state_without_a_time_makes_nothing_late() -> None:
    """As long as no event had a time there is none to compare with."""
    first = told(push(None, **hours(8)))
    assert told(push(1_500_000_000_000, **hours(2)), first.known).created_ms == 1_500_000_000_000


def test_an_unreadable_push_says_nothing() -> None:
    """Nothing of it can be trusted."""
    assert complete(normalize.unreadable(b"nonsense", "not JSON", received_ms=NOW_MS), None) is None


@pytest.mark.parametrize("key", normalize.OUR_KEYS)
def test_our_words_are_ours(key: str) -> None:
    """A key of the platform's with one of our names is kept in the warnings, by the long way; ours stands."""
    envelope = sample_event()
    envelope["event"][key] = ["theirs"]
    raw = msgspec.json.encode(envelope)
    assert fast_path.read(raw, received_ms=NOW_MS) is None
    first = told(normalize.incoming(raw, envelope, received_ms=NOW_MS))
    second = told(push(NOW_MS * 2), first.known)
    said = data(first)
    assert {"path": key, "value": ["theirs"]}.items() <= said["warnings"][-1].items()
    assert said.get(key) != ["theirs"]
    assert data(second)["changes"] == []


def test_values_nested_deeper_than_python_compares() -> None:
    """JSON that can be read is compared, however deep it is."""
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    first = told(push(extra=deep))
    again = told(push(extra=deep), first.known)
    other = told(push(extra=[deep]), first.known)
    assert (again.paths, other.paths) == ((), ("extra",))


def test_one_person_is_named() -> None:
    """Exactly one whose name is known is named, in the sentence only; the ids stay what receivers compare."""
    directory = Directory()
    directory.take_people({"ou_ada": "Ada"})
    seal = completing("en", directory)
    nobody = push(approve_config={"approval_switch": 1, "approvers": []})
    first = told(nobody)
    ada = push(
        NOW_MS + 1, approve_config={"approval_switch": 1, "approvers": [{"user_id": {"open_id": "ou_ada"}}]}
    )
    second = seal(ada, first.known)
    assert second is not None
    assert data(second)["summary"] == "approver Ada added"
    assert data(second)["changes"][0]["added"] == [{"open_id": "ou_ada"}]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_what_was_compared_before_is_told_as_if_compared_anew(seed: int) -> None:
    """Rooms that come from the same limits to the same ones, early or late, as usual or not: byte for byte the same."""
    dice = random.Random(seed)
    directory = Directory()
    remembering = completing("zh", directory)
    known: list[Known | None] = [None, None, None]
    for number, envelope in enumerate(islice(realistic_events(dice, rooms=2, levels=1), 30)):
        if dice.random() < 0.1:
            envelope["event"]["time_config"][dice.choice(["new", "time_switch"])] = dice.choice([None, 1, []])
        if dice.random() < 0.1:
            del envelope["event"][dice.choice(["approve_config", "time_config", "reserve_scope_config"])]
        if dice.random() < 0.1:
            person = f"ou_{number}"
            envelope["event"]["approve_config"] = {"approvers": [{"user_id": {"open_id": person}}]}
            directory.take_people({person: dice.choice(["Ada", "李雷"])})
        envelope["header"]["create_time"] = str(NOW_MS + dice.randrange(100))
        raw = msgspec.json.encode(envelope)
        event = normalize.incoming(raw, envelope, received_ms=NOW_MS)
        for scope, previous in enumerate(known):
            completed = remembering(event, previous)
            assert completed == completing("zh", directory)(event, previous)
            assert completed is not None
            assert json.loads(completed.body)["data"]["summary"] == completed.summary
            known[scope] = completed.known or previous


def test_a_name_that_is_learned_is_said_from_then_on() -> None:
    """Also of a change that was made before, when nobody knew it."""
    directory = Directory()
    seal = completing("en", directory)
    first = told(push(approve_config={"approval_switch": 1, "approvers": []}))
    ada = {"approval_switch": 1, "approvers": [{"user_id": {"open_id": "ou_ada"}}]}
    summaries: list[str] = []
    for _ in range(2):
        completed = seal(push(NOW_MS + 1, approve_config=ada), first.known)
        assert completed is not None
        summaries.append(completed.summary)
        directory.take_people({"ou_ada": "Ada"})
    assert summaries == ["1 approver added", "approver Ada added"]


@pytest.mark.parametrize(("changes", "id_chars"), [(2_000, 20), (200, 2_000)])
def test_what_is_remembered_is_bounded(changes: int, id_chars: int) -> None:
    """Many changes, each another, usual ones or large ones, take no more than some megabytes."""
    seal = completing("en")
    tracemalloc.start()
    try:
        for number in range(changes):
            ids = [f"{number}_{person}".ljust(id_chars, "x") for person in range(20)]
            users = [{"user_id": {"open_id": one}} for one in ids]
            event = push(reserve_scope_config={"allow_all_users": 0, "allow_users": users})
            assert seal(event, None) is not None
        assert tracemalloc.get_traced_memory()[0] < 3 * MIB
    finally:
        tracemalloc.stop()
