"""What changed: applied to what was, it is what is; and what is no change is none."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from reserve_listener.intake import changes
from reserve_listener.intake.changes import FIELDS, IDS, Config, apply, completed, diff, merge
from reserve_listener.model import Scope, SinkFilter

ROOM = Scope(tenant_key="t", scope_type="room", scope_id="omm_1")
BEFORE: Config = {
    "approve_config": {
        "approval_switch": True,
        "approval_condition": "all",
        "meeting_duration": 1,
        "approvers": [{"union_id": "on_a", "user_id": "a", "open_id": "ou_a"}],
    },
    "time_config": {
        "time_switch": True,
        "days_in_advance": 30,
        "opening_hour": 27_900,
        "start_time": 0,
        "end_time": 86_400,
        "max_duration": 24,
    },
    "reserve_scope_config": {
        "allow_all_users": False,
        "allow_users": [{"open_id": "ou_a"}],
        "allow_depts": [{"department_id": "od-1"}],
    },
}


def told(**values: Any) -> Config:
    """The same limits but for these; `...` leaves one out."""
    config = copy.deepcopy(BEFORE)
    for key, value in values.items():
        section = next(name for name, fields in FIELDS.items() if key in fields)
        config[section][key] = value
        if value is ...:
            del config[section][key]
    return config


# -- what any two configurations must obey --------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
A_KEY = st.sampled_from(
    ["", ".", "a.b", "[0]", '"', "extra", "note", "time_config.x", "ключ", "if_cover_child_scope"]
)
AN_ID = st.sampled_from(["1", "2", "3"])
A_PERSON = st.builds(
    lambda number, kinds: {kind: f"{kind}-{number}" for kind in kinds},
    AN_ID,
    st.sets(st.sampled_from(["union_id", "user_id", "open_id"]), min_size=1),
)
PEOPLE = st.lists(A_PERSON | st.sampled_from(["odd", 7, None, {}]), max_size=5)
DEPARTMENTS = st.lists(st.builds(lambda number: {"department_id": number}, AN_ID), max_size=4)
A_SWITCH = st.booleans() | st.sampled_from([2, "on", None])
A_NUMBER = st.integers(0, 5) | st.floats(0.1, 9) | st.sampled_from([None, "x", -1])


def a_section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Config]:
    known = st.fixed_dictionaries({}, optional=fields)
    return st.builds(lambda one, other: {**other, **one}, known, st.dictionaries(A_KEY, ANY_JSON, max_size=2))


CONFIGS = st.builds(
    lambda known, extra: {**extra, **known},
    st.fixed_dictionaries(
        {},
        optional={
            "approve_config": a_section(
                approval_switch=A_SWITCH,
                approval_condition=st.sampled_from(["all", "conditional", 3]),
                meeting_duration=A_NUMBER,
                approvers=PEOPLE | ANY_JSON,
            )
            | ANY_JSON.filter(lambda value: value is not None),
            "time_config": a_section(
                time_switch=A_SWITCH,
                days_in_advance=A_NUMBER,
                opening_hour=A_NUMBER,
                start_time=A_NUMBER,
                end_time=A_NUMBER,
                max_duration=A_NUMBER,
            ),
            "reserve_scope_config": a_section(
                allow_all_users=A_SWITCH, allow_users=PEOPLE, allow_depts=DEPARTMENTS
            ),
        },
    ),
    st.dictionaries(A_KEY, ANY_JSON, max_size=2),
)
STATES = CONFIGS.map(lambda config: merge({}, config))


def canonical(config: Config) -> Any:
    """What two equal configurations have in common, worked out without the code under test."""
    plain: dict[str, Any] = {}
    for name, value in config.items():
        if name == "if_cover_child_scope":
            continue
        if name in FIELDS and isinstance(value, dict):
            value = {key: item for key, item in value.items() if key != "if_cover_child_scope"}  # noqa: PLW2901
            for key in set(value) & set(IDS):
                if isinstance(value[key], list):
                    value[key] = groups(value[key], IDS[key])
            value = {key: item for key, item in value.items() if not (key in IDS and item == [])}  # noqa: PLW2901
            if not value:
                continue
        plain[name] = value
    return json.dumps(numbers(plain), sort_keys=True)


def groups(items: list[Any], ids: tuple[str, ...]) -> list[str]:
    """Who is in a list, each once: the generated ids of one person end in the same number."""
    who = set()
    for item in items:
        known = [item[kind] for kind in ids if item.get(kind)] if isinstance(item, dict) else []
        who.add(str(known[0])[-1] if known else json.dumps(item, sort_keys=True))
    return sorted(who)


def numbers(value: Any) -> Any:
    """1 and 1.0 are the same number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return [numbers(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=600, deadline=None)
@given(before=STATES, now=CONFIGS)
def test_the_changes_lead_from_what_was_to_what_is(before: Config, now: Config) -> None:
    """Any two configurations: the changes applied to the one, through JSON and back, give the other."""
    found = json.loads(json.dumps(diff(before, now)))
    reached = apply(found, before)
    assert canonical(reached) == canonical({**before, **now})
    assert diff(reached, now) == []
    assert diff(merge(before, now), reached) == []
    assert diff(reached, merge(before, now)) == []


@settings(max_examples=300, deadline=None)
@given(config=CONFIGS, data=st.data())
def test_the_same_is_no_change(config: Config, data: st.DataObject) -> None:
    """With itself; with its people in another order, doubled, and with fewer ids: nothing changed."""
    state = merge({}, config)
    assert diff(state, config) == []
    other = copy.deepcopy(config)
    for section in other.values():
        for key in set(section) & set(IDS) if isinstance(section, dict) else ():
            if isinstance(section[key], list):
                mixed = data.draw(st.permutations(section[key] + section[key][:1]))
                section[key] = [fewer(item, data) for item in mixed]
    assert diff(state, other) == []


def fewer(item: Any, data: st.DataObject) -> Any:
    """One id of a person's is lost with a permission, as long as one is left."""
    known = [kind for kind in IDS["approvers"] if isinstance(item, dict) and kind in item]
    if len(known) < 2:
        return item
    lost = data.draw(st.sampled_from(known))
    return {key: value for key, value in item.items() if key != lost}


@settings(max_examples=200, deadline=None)
@given(first=CONFIGS, rest=st.lists(CONFIGS, max_size=5))
def test_the_changes_of_a_history_add_up(first: Config, rest: list[Config]) -> None:
    """One event after another: the changes since the beginning, applied in turn, give the state of today."""
    state = replayed = merge({}, first)
    for config in rest:
        found = diff(state, config)
        state, replayed = merge(state, config), apply(found, replayed)
        assert diff(replayed, state) == []
        assert diff(state, replayed) == []


@settings(max_examples=200, deadline=None)
@given(before=STATES, now=CONFIGS)
def test_two_runs_give_the_same_bytes(before: Config, now: Config) -> None:
    """The order of the changes does not hang on that of the keys."""
    turned = json.loads(json.dumps(now, sort_keys=True))
    assert json.dumps(diff(before, now), sort_keys=True) == json.dumps(diff(before, turned), sort_keys=True)


# -- the rules, one by one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"max_duration": 2}, {"path": "time_config.max_duration", "before": 24, "after": 2}),
        ({"max_duration": ...}, {"path": "time_config.max_duration", "before": 24}),
        (
            {"allow_users": [{"open_id": "ou_b"}]},
            {
                "path": "reserve_scope_config.allow_users",
                "added": [{"open_id": "ou_b"}],
                "removed": [{"open_id": "ou_a"}],
            },
        ),
        (
            {"allow_depts": ...},
            {
                "path": "reserve_scope_config.allow_depts",
                "added": [],
                "removed": [{"department_id": "od-1"}],
            },
        ),
        ({"approvers": [{"user_id": "a"}, {"open_id": "ou_a"}]}, None),
        ({"max_duration": 24.0}, None),
        (
            {"meeting_duration": 3},
            {"path": "approve_config.meeting_duration", "before": 1, "after": 3, "effective": False},
        ),
    ],
)
def test_a_value_or_a_list(values: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """A value has two sides, of which the absent one is left out; a list has what came and what went."""
    assert diff(BEFORE, told(**values)) == ([] if expected is None else [expected])


def test_a_section_that_was_not_told_is_no_change() -> None:
    """An event may bring one section only; the state keeps the others."""
    now: Config = {"time_config": BEFORE["time_config"] | {"max_duration": 2}}
    assert [change["path"] for change in diff(BEFORE, now)] == ["time_config.max_duration"]
    assert merge(BEFORE, now)["approve_config"] == BEFORE["approve_config"]
    assert diff(BEFORE, changes.config_of({"time_config": None})) == []


@pytest.mark.parametrize(
    ("switch", "off", "others"),
    [
        ("approval_switch", False, {"meeting_duration": 5, "approvers": []}),
        ("time_switch", False, {"days_in_advance": 2, "start_time": 60}),
        ("allow_all_users", True, {"allow_users": [], "allow_depts": []}),
    ],
)
def test_behind_a_switch_nothing_has_an_effect(switch: str, *, off: bool, others: dict[str, Any]) -> None:
    """The switch makes the rest moot only if it is set so before and after; the switch itself always counts."""
    before = told(**{switch: off})
    assert all(change["effective"] is False for change in diff(before, told(**{switch: off}, **others)))
    turned = diff(before, told(**{switch: not off}, **others))
    assert not [change for change in turned if "effective" in change and "meeting" not in change["path"]]


def test_the_order_is_that_of_the_page_then_by_name() -> None:
    """Known keys as the page has them, then those that it does not have."""
    now = told(allow_all_users=True, days_in_advance=1, approval_switch=False)
    now["approve_config"]["zeta"] = 1
    now["alpha"] = {"deep": [1]}
    now["time_config"]["a.b"] = None
    assert [change["path"] for change in diff(BEFORE, now)] == [
        "approve_config.approval_switch",
        "time_config.days_in_advance",
        "reserve_scope_config.allow_all_users",
        "alpha",
        "approve_config.zeta",
        'time_config["a.b"]',
    ]


def test_every_id_ever_known_of_a_person_is_kept() -> None:
    """A push that names somebody by one id finds them again by another that an earlier one told."""
    state = merge(BEFORE, told(approvers=[{"user_id": "a"}]))
    assert state["approve_config"]["approvers"] == BEFORE["approve_config"]["approvers"]
    assert diff(state, told(approvers=[{"union_id": "on_a"}])) == []


def test_an_instruction_is_no_limit() -> None:
    """`if_cover_child_scope` is never compared."""
    now = told()
    now["time_config"]["if_cover_child_scope"] = True
    assert diff(BEFORE, now) == []
    assert diff(now, BEFORE) == []


def test_true_is_not_one() -> None:
    """JSON tells them apart, and so do we: in unknown keys nothing else would."""
    assert diff({"extra": [True]}, {"extra": [1]}) == [{"path": "extra", "before": [True], "after": [1]}]


def test_what_the_api_left_out_was_not_told() -> None:
    """An answer without a key is completed with what is known, one without a section leaves it."""
    answer: Config = {"time_config": {"time_switch": True, "max_duration": 2}}
    assert [change["path"] for change in diff(BEFORE, completed(BEFORE, answer))] == [
        "time_config.max_duration"
    ]


@pytest.mark.parametrize(
    ("wanted", "is_touched"),
    [
        ("*", True),
        ("time_config", True),
        ("time_config.max_duration", True),
        ("time", False),
        ("approve_config", False),
        ("time_config.max", False),
    ],
)
def test_a_section_or_a_path_is_touched(wanted: str, *, is_touched: bool) -> None:
    """What `changes_in` asks: a whole section, or one path, never a part of a name."""
    paths = [change["path"] for change in diff(BEFORE, told(max_duration=2))]
    assert SinkFilter(changes_in=(wanted,)).takes(ROOM, paths) is is_touched
