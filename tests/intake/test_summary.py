"""Changes in a sentence: the table of `summaries.toml`, and what holds for anything the platform may send."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given, settings, strategies as st

from reserve_listener.intake.changes import FIELDS, Config, diff, merge
from reserve_listener.intake.summary import LONGEST, limits, summarise
from reserve_listener.model import LONGEST_NAME
from tests.intake.test_changes import CONFIGS, STATES

TABLE = tomllib.loads((Path(__file__).parent / "summaries.toml").read_text(encoding="utf-8"))
NAMES = {"ou_ada": "Ada", "ou_zhang": "张三", "od-sales": "销售部"}
LIMITS: Config = {
    "approve_config": {
        "approval_switch": False,
        "approval_condition": "all",
        "meeting_duration": 1,
        "approvers": [],
    },
    "time_config": {
        "time_switch": True,
        "days_in_advance": 30,
        "opening_hour": 28_800,
        "start_time": 0,
        "end_time": 86_400,
        "max_duration": 24,
    },
    "reserve_scope_config": {"allow_all_users": True, "allow_users": [], "allow_depts": []},
}


def built(differences: str) -> Config:
    """The limits with these differences: `+` is a key of the configuration's own, `+time_config` of a section."""
    config = copy.deepcopy(LIMITS)
    for key, value in json.loads(differences).items():
        if key.startswith("+"):
            (config[key[1:]] if key[1:] else config).update(value)
            continue
        section = next(name for name, fields in FIELDS.items() if key in fields)
        if value == "<absent>":
            del config[section][key]
        else:
            config[section][key] = value
    return config


@pytest.mark.parametrize("row", TABLE["change"], ids=lambda row: row["en"][:50])
def test_a_change_is_said(row: dict[str, str]) -> None:
    """Each change in the words of the platform's console, in both languages."""
    before, now = built(row["before"]), built(row["now"])
    changes, state = diff(before, now), merge(before, now)
    assert summarise(changes, state, "en", NAMES) == row["en"]
    assert summarise(changes, state, "zh", NAMES) == row["zh"]


@pytest.mark.parametrize("row", TABLE["limits"], ids=lambda row: row["en"][:50])
def test_limits_are_said(row: dict[str, str]) -> None:
    """What a scope that is seen for the first time is told with."""
    assert limits(built(row["now"]), "en") == row["en"]
    assert limits(built(row["now"]), "zh") == row["zh"]
    assert summarise(None, built(row["now"]), "en") == row["en"]


def test_limits_that_nobody_told() -> None:
    """An event without any of the sections says so and guesses nothing."""
    assert (limits({}, "en"), limits({}, "zh")) == ("limits not known", "预定限制未知")


@settings(max_examples=500, deadline=None)
@given(before=STATES, now=CONFIGS, language=st.sampled_from(["en", "zh"]))
def test_it_is_one_line_whatever_comes(before: Config, now: Config, language: str) -> None:
    """Any two configurations give a line that is neither empty nor too long, and can drive no terminal."""
    state = merge(before, now)
    for text in (summarise(diff(before, now), state, language), limits(state, language)):
        assert 0 < len(text) <= LONGEST
        assert not {category(character) for character in text} & {"Cc", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_name_is_cut_and_cleaned(language: str) -> None:
    """A name is the platform's text: no escape gets through, and a long one does not push the rest out."""
    names = {"ou_x": "\x1b[31m\u202eevil\n" + "n" * 500}
    state = merge(LIMITS, {"approve_config": LIMITS["approve_config"] | {"approvers": [{"open_id": "ou_x"}]}})
    text = summarise(diff(LIMITS, state), state, language, names)
    assert text.isprintable()
    assert "n" * (LONGEST_NAME + 1) not in text
    assert "evil" in text


@pytest.mark.parametrize(
    "value", [10**30, -(10**400), 1e300, float("1e-300"), "x" * 10_000, {"a": [1] * 1000}]
)
def test_a_value_out_of_all_bounds(value: Any) -> None:
    """No number and no text of the platform's breaks the sentence."""
    now = copy.deepcopy(LIMITS)
    now["time_config"] |= {"days_in_advance": value, "max_duration": value, "start_time": value}
    now["approve_config"] |= {
        "approval_switch": True,
        "approval_condition": "conditional",
        "meeting_duration": value,
    }
    assert 0 < len(limits(now, "en")) <= LONGEST
    assert 0 < len(summarise(None, now, "zh")) <= LONGEST


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", ["selected members may book", "member Ada", "department 销售部"]),
        ("zh", ["部分成员可预定", "成员 Ada", "部门销售部"]),
    ],
)
def test_one_alone_is_named_in_the_limits(language: str, told: list[str]) -> None:
    """Where the limits are told: exactly one person, and one department, whose name is known; of several the number."""
    one = {
        "allow_all_users": False,
        "allow_users": [{"open_id": "ou_ada"}],
        "allow_depts": [{"department_id": "od-sales"}],
    }
    sentence = limits({"reserve_scope_config": one}, language, NAMES)
    clauses = re.split("[(),\uff08-\uff0c]", sentence)  # brackets and commas, full-width ones, too
    assert [clause.strip() for clause in clauses if clause] == told
    several = one | {"allow_users": [{"open_id": "ou_ada"}, {"open_id": "ou_zhang"}]}
    assert "Ada" not in limits({"reserve_scope_config": several}, language, NAMES)
    assert "Ada" not in limits({"reserve_scope_config": one}, language)
