"""What the platform's API answers, compared with what is known: what counts as a difference, and the event it becomes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from reserve_listener.intake import normalize
from reserve_listener.intake.complete import completing
from reserve_listener.intake.directory import Directory
from reserve_listener.intake.reconcile import comparing, reading_of
from reserve_listener.lark.api.answers import Limits
from reserve_listener.model import Compared, Finding, IncomingEvent, Known, KnownPlace
from reserve_listener.simulator import sample_event

NOW_MS = 1_790_000_000_000
APP, TENANT, ROOM = "cli_a", "t1", "omm_1"
compare = comparing("en")

ADA = {"union_id": "on_ada", "user_id": "ada", "open_id": "ou_ada"}
BO = {"union_id": "on_bo", "open_id": "ou_bo"}


def config(**time_config: Any) -> dict[str, Any]:
    """Limits in the words of an event."""
    return {
        "approve_config": {
            "approval_switch": 1,
            "approval_condition": 1,
            "meeting_duration": 3,
            "approvers": [{"user_id": ADA}, {"user_id": BO}],
        },
        "time_config": {"time_switch": 1, "opening_hour": "28800", "max_duration": 8} | time_config,
        "reserve_scope_config": {
            "allow_all_users": 0,
            "allow_users": [],
            "allow_depts": [{"department_id": "od-1"}],
        },
    }


def pushed(told: dict[str, Any]) -> IncomingEvent:
    envelope = sample_event(
        event_id="e1", scope_id=ROOM, tenant_key=TENANT, app_id=APP, create_time_ms=NOW_MS, **told
    )
    return normalize.incoming(msgspec.json.encode(envelope), envelope, received_ms=NOW_MS)


def known(told: dict[str, Any] | None = None) -> Known:
    """What is known after a push."""
    completed = completing("en")(pushed(told or config()), None)
    assert completed is not None
    assert completed.known is not None
    return completed.known


def answered(told: dict[str, Any]) -> dict[str, Any]:
    """The same limits as the API's client hands them on: people by their open_id."""
    short = json.loads(json.dumps(told))
    for person in short["approve_config"]["approvers"]:
        person["user_id"] = {"open_id": person["user_id"]["open_id"]}
    return dict(short)


def read(told: dict[str, Any], previous: Known | None, *, at_ms: int = NOW_MS + 60_000) -> Compared:
    limits = Limits(scope_type="room", scope_id=ROOM, config=told, as_of_ms=at_ms, until_ms=at_ms + 2_000)
    return compare(reading_of(limits, app_id=APP, received_ms=at_ms + 5_000), TENANT, previous)


def changes(found: Compared) -> Any:
    assert found.completed is not None
    return json.loads(found.completed.changes or "")


def with_section(told: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    return told | {section: told[section] | values}


@pytest.mark.parametrize(
    "told",
    [
        answered(config()),
        answered(config(if_cover_child_scope=True, opening_hour=28800, unheard_of="x")),
        {"time_config": {"max_duration": 8}},
        {"time_config": {"max_duration": None, "opening_hour": "28800"}, "approve_config": None},
        {"time_config": "?", "unheard_of": {"a": 1}},
        with_section(
            answered(config()),
            "approve_config",
            approvers=[{"user_id": {"open_id": "ou_bo"}}, {"user_id": {"open_id": "ou_ada"}}] * 2,
        ),
        {},
    ],
    ids=[
        "as the API has it",
        "numbers and keys of its own",
        "one key",
        "nulls",
        "no section",
        "order",
        "nothing",
    ],
)
def test_what_the_api_does_not_tell_or_tells_its_own_way_is_no_difference(told: dict[str, Any]) -> None:
    """One id of three, a text for a number, an instruction, a key that events have not, one that the answer has not."""
    before = known()
    found = read(told, before)
    assert found == Compared(Finding.SAME, Known(before.revision, NOW_MS + 60_000, before.config))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            answered(config(max_duration=2)),
            {"path": "time_config.max_duration", "before": 8, "after": 2},
        ),
        (
            {"time_config": {"opening_hour": "27900"}},
            {"path": "time_config.opening_hour", "before": 28800, "after": 27900},
        ),
        (
            {"approve_config": {"approvers": [{"user_id": {"open_id": "ou_ada"}}]}},
            {"path": "approve_config.approvers", "added": [], "removed": [BO]},
        ),
        (
            {"reserve_scope_config": {"allow_depts": []}},
            {
                "path": "reserve_scope_config.allow_depts",
                "added": [],
                "removed": [{"department_id": "od-1"}],
            },
        ),
    ],
    ids=["a number", "one key alone", "one person left", "nobody left"],
)
def test_a_difference_is_told_like_a_change(told: dict[str, Any], expected: dict[str, Any]) -> None:
    """With its sides as they were known, and nothing else: a key that was not told is no difference."""
    found = read(told, known())
    assert (found.finding, changes(found)) == (Finding.CHANGED, [expected])


def test_the_event_is_a_push_in_all_but_its_origin() -> None:
    """Its payload is the platform's form of what its body says, with every id that is known of a person."""
    found = read(answered(config(max_duration=2)), known())
    event, completed = found.event, found.completed
    assert event is not None
    assert completed is not None
    body = json.loads(completed.body)
    assert (body["type"], body["subject"], body["time"]) == (
        "vc.reserve_config.updated_v1",
        ROOM,
        "2026-09-21T14:14:20.000Z",
    )
    assert body["source"] == "/apps/cli_a/tenants/t1"
    data = body["data"]
    assert (data["origin"], data["revision"], data["summary"]) == (
        "reconcile",
        2,
        "at most 8 h → 2 h per booking",
    )
    assert data["approve_config"]["approvers"] == [ADA, BO]
    assert "warnings" not in data
    envelope = json.loads(event.raw)
    assert envelope["event"] == {"scope_id": ROOM, "scope_type": 2} | config(max_duration=2)
    again = normalize.incoming(event.raw, normalize.parse(event.raw), received_ms=event.received_ms)
    assert again.body == event.body
    assert (again.event_id, again.created_ms, again.scope) == (event.event_id, event.created_ms, event.scope)


def test_only_the_sections_that_were_told_are_told_on() -> None:
    """Whole, as a push of them would be: receivers take a key that is absent in a section for empty."""
    found = read({"time_config": {"max_duration": 2}}, known())
    assert found.completed is not None
    data = json.loads(found.completed.body)["data"]
    assert data["time_config"] == {"time_switch": True, "opening_hour": 28800, "max_duration": 2}
    assert "approve_config" not in data
    assert json.loads(found.completed.config)["approve_config"]["meeting_duration"] == 3


def test_the_same_difference_has_the_same_id() -> None:
    """Read later, or with its lists in another order; another revision, room or value has another."""
    told = answered(config(max_duration=2))
    other_order = with_section(told, "approve_config", approvers=told["approve_config"]["approvers"][::-1])
    before = known()
    later = Known(before.revision + 1, before.created_ms, before.config)
    found = [
        read(told, before),
        read(other_order, before, at_ms=NOW_MS + 99_000),
        read(told, later),
        read(answered(config(max_duration=3)), before),
    ]
    ids = [one.event.event_id for one in found if one.event is not None]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(one.startswith("reconcile-") and len(one) == 42 for one in ids)


def test_a_reading_that_is_older_than_what_is_known_says_nothing() -> None:
    """And one as old as a push is compared: the push was before the read began."""
    told = answered(config(max_duration=2))
    assert read(told, known(), at_ms=NOW_MS - 1) == Compared(Finding.OUTDATED)
    assert read(told, known(), at_ms=NOW_MS).finding is Finding.CHANGED
    without_time = Known(1, None, known().config)
    assert read(told, without_time, at_ms=NOW_MS).finding is Finding.CHANGED


def test_a_value_of_an_unknown_kind_is_kept_and_named() -> None:
    """As one in a push is."""
    found = read({"time_config": {"max_duration": "eight"}}, known())
    assert found.completed is not None
    data = json.loads(found.completed.body)["data"]
    assert data["time_config"]["max_duration"] == "eight"
    assert [warning["path"] for warning in data["warnings"]] == ["time_config.max_duration"]


def test_names_are_sealed_in_it() -> None:
    """Those that are known at the time."""
    directory = Directory()
    directory.take(
        [KnownPlace(scope_type="room", scope_id=ROOM, name="Ada", parent="omb_0", top=True, seen_ms=NOW_MS)]
    )
    limits = Limits(
        scope_type="room",
        scope_id=ROOM,
        config={"time_config": {"max_duration": 2}},
        as_of_ms=NOW_MS,
        until_ms=NOW_MS,
    )
    reading = reading_of(limits, app_id=APP, received_ms=NOW_MS)
    found = comparing("zh", directory)(reading, TENANT, known())
    assert found.completed is not None
    data = json.loads(found.completed.body)["data"]
    assert (data["scope_name"], data["scope_path"]) == ("Ada", [])
    assert data["summary"] == "单次可预定时长上限 8 → 2 小时"
