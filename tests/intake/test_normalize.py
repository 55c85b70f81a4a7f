"""From bytes to the event of the sinks: every field of the platform's page, and whatever else may come."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, strategies as st

from reserve_listener.intake import normalize
from reserve_listener.model import IncomingEvent, Scope
from reserve_listener.redact import blank_tokens
from reserve_listener.simulator import sample_event

TOKEN = "rvaYgkND1GOiu5MM0E1rncYC6PLtF7JV"
PERSON = {
    "union_id": "on_8ed6aa67826108097d9ee143816345",
    "user_id": "e33ggbyz",
    "open_id": "ou_84aad35d084aa403a838cf73ee18467",
}
SAMPLE: dict[str, Any] = {
    "schema": "2.0",
    "header": {
        "event_id": "5e3702a84e847582be8db7fb73283c02",
        "event_type": "vc.reserve_config.updated_v1",
        "create_time": "1608725989000",
        "token": TOKEN,
        "app_id": "cli_9f5343c580712544",
        "tenant_key": "2ca1d211f64f6438",
    },
    "event": {
        "scope_id": "omm_3c5dd7e09bac0c1758fcf9511bd1a771",
        "scope_type": 2,
        "approve_config": {
            "approval_switch": 0,
            "approval_condition": 0,
            "meeting_duration": 1,
            "approvers": [{"user_id": dict(PERSON)}],
        },
        "time_config": {
            "time_switch": 1,
            "days_in_advance": 30,
            "opening_hour": "27900",
            "start_time": "0",
            "end_time": "86400",
            "max_duration": 24,
        },
        "reserve_scope_config": {
            "allow_all_users": 1,
            "allow_users": [{"user_id": dict(PERSON)}],
            "allow_depts": [{"department_id": "od-47d8b570b0a011e9679a755efcc5f61a"}],
        },
    },
}
"""The example of the event's page, to the letter."""

BODY: dict[str, Any] = {
    "specversion": "1.0",
    "id": "5e3702a84e847582be8db7fb73283c02",
    "source": "/apps/cli_9f5343c580712544/tenants/2ca1d211f64f6438",
    "type": "vc.reserve_config.updated_v1",
    "subject": "omm_3c5dd7e09bac0c1758fcf9511bd1a771",
    "time": "2020-12-23T12:19:49.000Z",
    "datacontenttype": "application/json",
    "data": {
        "scope_id": "omm_3c5dd7e09bac0c1758fcf9511bd1a771",
        "scope_type": "room",
        "approve_config": {
            "approval_switch": False,
            "approval_condition": "all",
            "meeting_duration": 1,
            "approvers": [PERSON],
        },
        "time_config": {
            "time_switch": True,
            "days_in_advance": 30,
            "opening_hour": 27900,
            "start_time": 0,
            "end_time": 86400,
            "max_duration": 24,
        },
        "reserve_scope_config": {
            "allow_all_users": True,
            "allow_users": [PERSON],
            "allow_depts": [{"department_id": "od-47d8b570b0a011e9679a755efcc5f61a"}],
        },
    },
}
ABSENT = object()


def read(raw: bytes) -> IncomingEvent:
    """As intake does it."""
    raw = blank_tokens(raw)
    try:
        envelope = normalize.parse(raw)
    except normalize.Unreadable as problem:
        return normalize.unreadable(raw, str(problem), received_ms=7)
    return normalize.incoming(raw, envelope, received_ms=7)


def of(envelope: Any) -> IncomingEvent:
    return read(msgspec.json.encode(envelope))


def body_of(envelope: Any) -> dict[str, Any]:
    event = of(envelope)
    assert event.problem is None, event.problem
    assert event.body is not None
    body: dict[str, Any] = msgspec.json.decode(event.body)
    return body


def exact(value: Any) -> str:
    """For comparing: to Python 1, 1.0 and True are equal, to JSON they are not."""
    return json.dumps(value, sort_keys=True)


def put(path: str, value: Any) -> dict[str, Any]:
    """The sample with one value replaced (`header.app_id`, `event.time_config.start_time`), or taken out."""
    envelope = copy.deepcopy(SAMPLE)
    *way, last = path.split(".")
    target = envelope
    for key in way:
        target = target[key]
    if value is ABSENT:
        del target[last]
    else:
        target[last] = value
    return envelope


def at(value: Any, path: str) -> Any:
    for key in filter(None, path.split(".")):
        value = value[key]
    return value


# -- the sample ---------------------------------------------------------------------------------------------------------


def test_the_pages_sample_becomes_the_promised_event() -> None:
    """The example of the platform's page comes out with every field as the design promises, in this order, and no other."""
    event = of(SAMPLE)
    assert event.body is not None
    body = msgspec.json.decode(event.body)
    assert exact(body) == exact(BODY)
    assert list(body) == list(BODY)
    assert (event.tenant_key, event.event_id, event.received_ms, event.created_ms, event.problem) == (
        "2ca1d211f64f6438",
        "5e3702a84e847582be8db7fb73283c02",
        7,
        1608725989000,
        None,
    )
    assert event.scope == Scope(
        tenant_key="2ca1d211f64f6438", scope_type="room", scope_id="omm_3c5dd7e09bac0c1758fcf9511bd1a771"
    )


def test_the_event_is_a_cloudevent() -> None:
    """The official CloudEvents package takes the event, which it validates, and reads the same attributes."""
    event = of(SAMPLE)
    assert event.body is not None
    official = JSONFormat().read(CloudEvent, event.body)
    assert official.get_id() == BODY["id"]
    assert official.get_source() == BODY["source"]
    assert official.get_type() == BODY["type"]
    assert official.get_subject() == BODY["subject"]
    moment = official.get_time()
    assert moment is not None
    assert moment.timestamp() == 1608725989
    assert official.get_datacontenttype() == "application/json"
    assert official.get_data() == BODY["data"]


def test_the_raw_payload_is_the_platforms_without_the_token() -> None:
    """What is kept as raw is the payload byte for byte, layout included, but for the token."""
    raw = json.dumps(SAMPLE, indent=3).encode()
    assert read(raw).raw == raw.replace(TOKEN.encode(), b"")


# -- every field: what it becomes -----------------------------------------------------------------------------------------

GOOD = [
    ("scope_type", 1, "level"),
    ("scope_type", 2, "room"),
    ("approve_config.approval_switch", 0, False),
    ("approve_config.approval_switch", 1, True),
    ("approve_config.approval_condition", 0, "all"),
    ("approve_config.approval_condition", 1, "conditional"),
    ("approve_config.meeting_duration", 1, 1),
    ("approve_config.meeting_duration", 0, 0),
    ("approve_config.meeting_duration", 1.5, 1.5),
    ("approve_config.approvers", [], []),
    ("time_config.time_switch", 0, False),
    ("time_config.time_switch", 1, True),
    ("time_config.days_in_advance", 1, 1),
    ("time_config.days_in_advance", 730, 730),
    ("time_config.opening_hour", "0", 0),
    ("time_config.opening_hour", "86400", 86400),
    ("time_config.opening_hour", 28800, 28800),
    ("time_config.start_time", "0", 0),
    ("time_config.start_time", 0, 0),
    ("time_config.start_time", "86400", 86400),
    ("time_config.end_time", "1", 1),
    ("time_config.end_time", 86400, 86400),
    ("time_config.max_duration", 1, 1),
    ("time_config.max_duration", 99, 99),
    ("reserve_scope_config.allow_all_users", 0, False),
    ("reserve_scope_config.allow_all_users", 1, True),
    ("reserve_scope_config.allow_users", [], []),
    ("reserve_scope_config.allow_depts", [], []),
    ("reserve_scope_config.allow_depts", [{"department_id": "od-1", "name": "new"}], [{"department_id": "od-1", "name": "new"}]),
    # ids that are left out, empty, null; ids and keys that the platform adds
    ("approve_config.approvers", [{"user_id": {"open_id": "ou_1"}}], [{"open_id": "ou_1"}]),
    ("approve_config.approvers", [{"user_id": {"open_id": "ou_1", "user_id": "", "union_id": None}}], [{"open_id": "ou_1"}]),
    ("approve_config.approvers", [{"user_id": {}}], [{}]),
    (
        "reserve_scope_config.allow_users",
        [{"user_id": {"user_id": "u", "lark_id": None}, "role": ""}],
        [{"user_id": "u", "lark_id": None, "role": ""}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "came", "becomes"), GOOD)
def test_a_documented_value_becomes_a_plain_one(path: str, came: Any, becomes: Any) -> None:
    """Each documented value of each field comes out as promised, and nothing is warned of."""
    body = body_of(put(f"event.{path}", came))
    assert exact(at(body["data"], path)) == exact(becomes)
    assert "warnings" not in body["data"]


NOT_A_SWITCH: tuple[Any, ...] = (2, -1, True, False, "1", 1.0, None, [], {})
NOT_SECONDS: tuple[Any, ...] = (
    -1,
    86401,
    "-1",
    "86401",
    "",
    " 1",
    "1.5",
    "٣",
    "08:00",
    1.0,
    True,
    None,
    [],
    {},
    "9" * 40,
)
NOT_A_LIST: tuple[Any, ...] = ({}, "x", 0, None, True)
ODD = {
    "scope_type": (0, 3, "2", 2.0, True, None, [], {}, 10**30),
    "approve_config": (None, [], "x", 1, True),
    "approve_config.approval_switch": NOT_A_SWITCH,
    "approve_config.approval_condition": NOT_A_SWITCH,
    "approve_config.meeting_duration": (-1, -0.5, "1", True, None, [], {}),
    "approve_config.approvers": NOT_A_LIST,
    "time_config": (None, [], "x", 1, True),
    "time_config.time_switch": NOT_A_SWITCH,
    "time_config.days_in_advance": (0, 731, -1, "30", 30.0, True, None, [], {}),
    "time_config.opening_hour": NOT_SECONDS,
    "time_config.start_time": NOT_SECONDS,
    "time_config.end_time": NOT_SECONDS,
    "time_config.max_duration": (0, 100, "24", 24.0, True, None, [], {}),
    "reserve_scope_config": (None, [], "x", 1, True),
    "reserve_scope_config.allow_all_users": NOT_A_SWITCH,
    "reserve_scope_config.allow_users": NOT_A_LIST,
    "reserve_scope_config.allow_depts": NOT_A_LIST,
}


@pytest.mark.parametrize(
    ("path", "came"), [(path, value) for path, values in ODD.items() for value in values]
)
def test_an_odd_value_stays_as_it_came_and_is_named(path: str, came: Any) -> None:
    """A value of the wrong type or out of range is delivered untouched, beside a warning with path, value and problem."""
    body = body_of(put(f"event.{path}", came))
    assert exact(at(body["data"], path)) == exact(came)
    [warning] = body["data"].pop("warnings")
    assert exact([warning["path"], warning["value"]]) == exact([path, came])
    assert list(warning) == ["path", "value", "problem"]
    assert warning["problem"]
    expected = copy.deepcopy(BODY)
    *way, last = path.split(".")
    at(expected["data"], ".".join(way))[last] = came
    assert exact(body) == exact(expected)


def test_every_field_of_the_page_has_a_row() -> None:
    """The tables above cover each field that the page names below `event`."""
    fields = set()
    for name, value in SAMPLE["event"].items():
        fields |= {f"{name}.{key}" for key in value} | {name} if isinstance(value, dict) else {name}
    assert fields - {"scope_id"} == set(ODD)
    sections = {"approve_config", "time_config", "reserve_scope_config"}
    assert {path for path, _, _ in GOOD} == set(ODD) - sections


@pytest.mark.parametrize(
    ("path", "index", "item", "problem_at"),
    [
        ("approve_config.approvers", 0, {"user_id": "ou_1"}, ""),  # the shape of the platform's API
        ("approve_config.approvers", 0, {"user_id": None}, ""),
        ("approve_config.approvers", 0, {}, ""),
        ("approve_config.approvers", 0, "ou_1", ""),
        ("approve_config.approvers", 0, None, ""),
        ("reserve_scope_config.allow_users", 0, {"user_id": {"open_id": "a"}, "open_id": "b"}, ""),
        ("reserve_scope_config.allow_depts", 0, {"department_id": 1}, ""),
        ("reserve_scope_config.allow_depts", 0, {}, ""),
        ("reserve_scope_config.allow_depts", 0, "od-1", ""),
    ],
)
def test_an_odd_item_of_a_list_stays_as_it_came(path: str, index: int, item: Any, problem_at: str) -> None:
    """One person or department of another shape is kept and named with its index; its neighbour is still made plain."""
    neighbour = {"department_id": "od-2"} if path.endswith("depts") else {"user_id": {"open_id": "ou_2"}}
    data = body_of(put(f"event.{path}", [item, neighbour]))["data"]
    assert exact(at(data, path)[index]) == exact(item)
    assert at(data, path)[1] == ({"department_id": "od-2"} if path.endswith("depts") else {"open_id": "ou_2"})
    [warning] = data["warnings"]
    assert warning["path"] == f"{path}[{index}]{problem_at}"
    assert exact(warning["value"]) == exact(item)


def test_an_id_that_is_no_text_is_named() -> None:
    """A person's id of the wrong type stays in its place and is warned of by its own path."""
    data = body_of(put("event.approve_config.approvers", [{"user_id": {"open_id": 5, "user_id": "u"}}]))[
        "data"
    ]
    assert data["approve_config"]["approvers"] == [{"open_id": 5, "user_id": "u"}]
    assert data["warnings"] == [
        {"path": "approve_config.approvers[0].open_id", "value": 5, "problem": "not a text"}
    ]


@pytest.mark.parametrize("path", [path for path in ODD if path != "scope_type"])
def test_what_is_absent_stays_absent(path: str) -> None:
    """A section or field that the platform leaves out is not made up, and nobody is warned."""
    data = body_of(put(f"event.{path}", ABSENT))["data"]
    *way, last = path.split(".")
    assert last not in at(data, ".".join(way))
    assert "warnings" not in data


def test_an_event_of_a_scope_alone_is_delivered() -> None:
    """An event without any section still comes out, with nothing in it but its scope."""
    body = body_of({**SAMPLE, "event": {"scope_id": "omm_1"}})
    assert body["data"] == {"scope_id": "omm_1"}


def test_unknown_keys_stay_where_they_stood() -> None:
    """What the platform may add one day, at any level, is delivered in the same place with the same value."""
    new = {"deep": [1, {"x": None}], "n": 1.50}
    envelope = copy.deepcopy(SAMPLE)
    event = envelope["event"]
    places = [event, event["approve_config"], event["time_config"], event["reserve_scope_config"]]
    for place in places:
        place["added"] = new
    event["reserve_scope_config"]["allow_users"][0]["added"] = new
    event["approve_config"]["approvers"][0]["user_id"]["added"] = new
    event["reserve_scope_config"]["allow_depts"][0]["added"] = new
    data = body_of(envelope)["data"]
    assert data["added"] == new
    for section in ("approve_config", "time_config", "reserve_scope_config"):
        assert data[section]["added"] == new
    assert data["reserve_scope_config"]["allow_users"][0]["added"] == new
    assert data["approve_config"]["approvers"][0]["added"] == new
    assert data["reserve_scope_config"]["allow_depts"][0]["added"] == new
    assert "warnings" not in data


@pytest.mark.parametrize("key", ["changes", "summary", "superseded", "warnings"])
def test_the_daemons_own_keys_are_not_the_platforms(key: str) -> None:
    """Should the platform use a key of ours, its value moves into the warnings and is not mistaken for ours."""
    data = body_of(put(f"event.{key}", "theirs"))["data"]
    assert data.pop("warnings") == [
        {"path": key, "value": "theirs", "problem": "this key is reserved for the daemon"}
    ]
    assert exact(data) == exact(BODY["data"])


# -- the header -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "milliseconds", "time"),
    [
        ("1608725989000", 1608725989000, "2020-12-23T12:19:49.000Z"),
        (1608725989000, 1608725989000, "2020-12-23T12:19:49.000Z"),
        ("1608725989123", 1608725989123, "2020-12-23T12:19:49.123Z"),
        ("1608725989123456", 1608725989123, "2020-12-23T12:19:49.123Z"),
        (1608725989123999, 1608725989123, "2020-12-23T12:19:49.123Z"),
        ("1420070400000", 1420070400000, "2015-01-01T00:00:00.000Z"),
        ("99999999999999", 99999999999999, "5138-11-16T09:46:39.999Z"),
    ],
)
def test_create_time_in_milli_and_microseconds(came: Any, milliseconds: int, time: str) -> None:
    """Texts and numbers of 13 or 16 digits are the same moment, always shown in UTC with milliseconds."""
    event = of(put("header.create_time", came))
    assert event.body is not None
    body = msgspec.json.decode(event.body)
    assert (event.created_ms, body["time"]) == (milliseconds, time)
    assert "warnings" not in body["data"]


@pytest.mark.parametrize(
    "came",
    [
        "",
        "soon",
        "-1",
        -1,
        None,
        ABSENT,
        1608725989000.0,
        True,
        [],
        {},
        "1" * 19,
        10**18,
        " 1608725989000",
        "1e12",
        "0",
        "1608725989",
        "1420070399999",
        "100000000000000",
    ],
)
def test_a_create_time_that_is_none(came: Any) -> None:
    """Without a usable create_time there is no `time`, a warning names it, and the event is delivered all the same."""
    event = of(put("header.create_time", came))
    assert event.created_ms is None
    assert event.body is not None
    body = msgspec.json.decode(event.body)
    assert "time" not in body
    assert [warning["path"] for warning in body["data"]["warnings"]] == ["header.create_time"]
    JSONFormat().read(CloudEvent, event.body)


@pytest.mark.parametrize(
    ("key", "came", "source", "problem"),
    [
        ("app_id", ABSENT, "/apps//tenants/2ca1d211f64f6438", "missing"),
        ("app_id", None, "/apps//tenants/2ca1d211f64f6438", "missing"),
        ("app_id", "", "/apps//tenants/2ca1d211f64f6438", "empty"),
        ("app_id", 5, "/apps/5/tenants/2ca1d211f64f6438", "not a text"),
        ("app_id", {"a": 1}, "/apps/%7B%22a%22%3A1%7D/tenants/2ca1d211f64f6438", "not a text"),
        ("tenant_key", ABSENT, "/apps/cli_9f5343c580712544/tenants/", "missing"),
        ("tenant_key", None, "/apps/cli_9f5343c580712544/tenants/", "missing"),
        ("tenant_key", 7, "/apps/cli_9f5343c580712544/tenants/7", "not a text"),
    ],
)  # fmt: skip
def test_a_header_without_app_or_tenant(key: str, came: Any, source: str, problem: str) -> None:
    """A missing or odd app_id or tenant_key is named; the event has a source all the same and is a CloudEvent."""
    event = of(put(f"header.{key}", came))
    assert event.body is not None
    body = msgspec.json.decode(event.body)
    assert body["source"] == source
    assert body["data"]["warnings"] == [
        {"path": f"header.{key}", "value": None if came is ABSENT else came, "problem": problem}
    ]
    JSONFormat().read(CloudEvent, event.body)


def test_a_source_is_a_uri() -> None:
    """Characters that a URI reference cannot hold are escaped in `source`, slashes too."""
    envelope = put("header.app_id", "cli/ä ?#")
    assert body_of(envelope)["source"] == "/apps/cli%2F%C3%A4%20%3F%23/tenants/2ca1d211f64f6438"


@pytest.mark.parametrize(
    ("came", "subject"),
    [(12345, "12345"), (2**64, "18446744073709551616"), (1.5, "1.5"), (True, "true"), (False, "false"), (0, "0"), ([1], "[1]"), ({"a": 1}, '{"a":1}')],
)  # fmt: skip
def test_a_scope_id_that_is_no_text(came: Any, subject: str) -> None:
    """The subject is the scope_id as a text; `data` keeps it as it came and names it."""
    event = of(put("event.scope_id", came))
    assert event.body is not None
    body = msgspec.json.decode(event.body)
    assert body["subject"] == subject
    assert event.scope is not None
    assert event.scope.scope_id == subject
    assert exact(body["data"]["scope_id"]) == exact(came)
    assert exact(body["data"]["warnings"]) == exact(
        [{"path": "scope_id", "value": came, "problem": "not a text"}]
    )


def test_an_event_id_that_is_a_number() -> None:
    """A whole number serves as event_id, as its text."""
    assert of(put("header.event_id", 42)).event_id == "42"


@pytest.mark.parametrize(
    ("envelope", "key"),
    [
        (SAMPLE, "p2.vc.reserve_config.updated_v1"),
        ({"schema": "2.0", "header": {"event_type": "im.message.receive_v1"}}, "p2.im.message.receive_v1"),
        ({"uuid": "u", "event": {"type": "message"}}, "p1.message"),
        ({"event": {"type": "message"}}, None),
        ({"header": {"event_type": 5}}, None),
        ({"header": []}, None),
        ({}, None),
    ],
)
def test_the_type_is_asked_as_the_sdk_asks(envelope: dict[str, Any], key: str | None) -> None:
    """The key for the SDK's registry is `p2.` and the header's type, or `p1.` and the older form's."""
    assert normalize.event_type_of(envelope) == key


# -- unreadable -----------------------------------------------------------------------------------------------------------

UNREADABLE: list[tuple[Any, str]] = [
    (b"", "the payload is empty"),
    (b" \n", "the payload is empty"),
    (b"hello", "not JSON"),
    (b'{"header":', "not JSON"),
    (b"\xff\xfe\x00", "not JSON"),
    (b"\xef\xbb\xbf{}", "not JSON"),
    (b'{"a":NaN}', "not JSON"),
    (b'{"a":NaN}', "not JSON"),
    (b'{"a":1e400,}', "not JSON"),
    (b'{"a":"\x00"}', "not JSON"),
    (b"{}{}", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"a":' * 100_000, "not JSON"),
    (b"[" * 100_000 + b"]" * 100_000, "not JSON: nested too deeply"),
    (b"[]", "not a JSON object but an array"),
    (b"null", "not a JSON object but null"),
    (b"true", "not a JSON object but true or false"),
    (b"1", "not a JSON object but a number"),
    (b'"x"', "not a JSON object but a text"),
    (b"{}", "no header.event_id"),
    (put("header", ABSENT), "no header.event_id"),
    (put("header", []), "no header.event_id"),
    (put("header.event_id", ABSENT), "no header.event_id"),
    (put("header.event_id", ""), "no header.event_id"),
    (put("header.event_id", None), "no header.event_id"),
    (put("header.event_id", True), "no header.event_id"),
    (put("header.event_id", 1.5), "no header.event_id"),
    (put("event", ABSENT), "no event.scope_id"),
    (put("event", None), "no event.scope_id"),
    (put("event", []), "no event.scope_id"),
    (put("event.scope_id", ABSENT), "no event.scope_id"),
    (put("event.scope_id", ""), "no event.scope_id"),
    (put("event.scope_id", None), "no event.scope_id"),
]


def test_json_that_cannot_be_written_again_is_delivered_all_the_same() -> None:
    """Half a surrogate pair and a number beyond a float are valid JSON: they stay, as text, and cost no event."""
    envelope = sample_event(event_id="one", note="NOTE", number="NUMBER")
    raw = msgspec.json.encode(envelope).replace(b"NOTE", b"\\ud800x").replace(b'"NUMBER"', b"-1e400")
    event = read(raw)
    assert (event.problem, event.event_id) == (None, "one")
    assert event.body is not None
    data = json.loads(event.body)["data"]
    assert (data["note"], data["number"]) == ("\\ud800x", "-1e400")
    assert (
        data["approve_config"]
        == json.loads(read(msgspec.json.encode(envelope)).body or b"")["data"]["approve_config"]
    )


@pytest.mark.parametrize(("payload", "problem"), UNREADABLE, ids=lambda value: str(value)[:40])
def test_unreadable_payloads(payload: Any, problem: str) -> None:
    """No JSON object, no event_id, no scope_id: kept whole under the hash of its bytes, with the reason."""
    raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    event = read(raw)
    assert event.problem is not None
    assert event.problem.startswith(problem)
    assert event.event_id == "sha256:" + hashlib.sha256(event.raw).hexdigest()
    assert event.body is None
    assert event.scope is None
    assert TOKEN.encode() not in event.raw


def test_an_unreadable_payload_keeps_its_tenant_and_its_keys() -> None:
    """An object that cannot be normalised is kept with all its keys, and without the token, under its tenant."""
    envelope = put("event.scope_id", ABSENT)
    event = of(envelope)
    assert event.tenant_key == "2ca1d211f64f6438"
    envelope["header"]["token"] = ""
    assert exact(msgspec.json.decode(event.raw)) == exact(envelope)


@pytest.mark.parametrize("depth", [400, 600, 900, 950, 980, 990, 995, 998])
@pytest.mark.parametrize("readable", [True, False])
def test_nesting_at_the_edge_of_what_parses(depth: int, readable: bool) -> None:  # noqa: FBT001  # a parameter of the table
    """Just below the depth that the parser takes a payload never raises, is kept whole, and loses its token."""
    envelope = put("event.added", "HERE") if readable else put("header.event_id", ABSENT)
    envelope["event"]["added"] = "HERE"
    raw = msgspec.json.encode(envelope).replace(b'"HERE"', b"[" * depth + b"]" * depth)
    event = read(raw)
    assert TOKEN.encode() not in event.raw
    assert event.raw.count(b"[") >= depth
    assert event.body is None or event.body.count(b"[") >= depth
    assert event.problem is None or not readable or "nested too deeply" in event.problem


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**300, 1.7e308, 5e-324])
def test_numbers_of_any_size_stay(number: float) -> None:
    """A number that fits no machine word comes out digit by digit as it came."""
    data = body_of(put("event.approve_config.meeting_duration", number) | {"big": number})["data"]
    assert exact(data["approve_config"]["meeting_duration"]) == exact(number)


def test_texts_with_nul_and_beyond_the_basic_plane() -> None:
    """An escaped NUL and a surrogate pair are text like any other."""
    envelope = put("event.scope_id", "a\x00b😀")
    event = read(json.dumps(envelope).encode())
    assert event.scope is not None
    assert event.scope.scope_id == "a\x00b😀"


# -- the token ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        msgspec.json.encode(SAMPLE),
        msgspec.json.encode({**SAMPLE, "token": TOKEN}),  # the v1 form has it at the top
        msgspec.json.encode(put("event", [{"token": TOKEN}])),  # unreadable
        msgspec.json.encode({"wrapped": SAMPLE}),
        msgspec.json.encode([SAMPLE]),
        msgspec.json.encode(msgspec.json.encode(SAMPLE).decode()),  # JSON in a text of JSON
        json.dumps(SAMPLE, indent=4).encode() + b"}",
        json.dumps(SAMPLE).encode().replace(b'"token": ', b'"token"\n\t:\n '),
        json.dumps(SAMPLE).encode()[:-1],
        json.dumps(SAMPLE).encode() + b"\xff",
    ],
    ids=lambda raw: raw[:40].decode(),
)
def test_the_token_is_nowhere(raw: bytes) -> None:
    """The verification token is neither in the raw payload nor in the body, whatever is wrong with the payload."""
    event = read(raw)
    kept = event.raw + (event.body or b"") + (event.problem or "").encode()
    assert TOKEN.encode() not in kept
    assert TOKEN[:8].encode() not in kept


@pytest.mark.parametrize("spaced", [False, True])
def test_the_token_is_nowhere_when_the_payload_is_cut_off(spaced: bool) -> None:  # noqa: FBT001  # a parameter of the table
    """Cut off at whatever byte, the payload keeps not even the beginning of its token, nor one with escapes in it."""
    secret = TOKEN[:10] + '\\"\\\\' + TOKEN[10:]
    separators = (", ", ": ") if spaced else (",", ":")
    whole = json.dumps(SAMPLE, separators=separators).replace(TOKEN, secret).encode()
    for end in range(len(whole)):
        event = read(whole[:end])
        assert TOKEN[:4].encode() not in event.raw, whole[:end]
        assert TOKEN[10:14].encode() not in event.raw, whole[:end]


# -- anything at all --------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts  # fmt: skip
names = texts | st.sampled_from(
    [
        "header", "event", "event_id", "scope_id", "scope_type", "tenant_key", "app_id", "create_time", "approvers",
        "approve_config", "time_config", "reserve_scope_config", "user_id", "open_id", "allow_users", "allow_depts",
        "warnings", "changes", "start_time", "uuid", "schema", "type",
    ]
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=25,
)


@given(value=values)
def test_any_json_is_taken(value: Any) -> None:
    """Whatever JSON comes, it becomes an event or an unreadable payload, and what is kept of it is JSON again."""
    event = of(value)
    msgspec.json.decode(event.raw)
    assert (event.body is None) == (event.problem is not None)
    if isinstance(value, dict):
        normalize.event_type_of(value)
        assert exact(msgspec.json.decode(event.raw)) == exact(value)


@given(raw=st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b'{"token":"' + tail))
def test_any_bytes_are_taken(raw: bytes) -> None:
    """Whatever bytes come, they are kept under their hash, and nothing raises."""
    event = read(raw)
    assert event.problem is not None
    assert event.event_id == "sha256:" + hashlib.sha256(event.raw).hexdigest()


@given(event=st.dictionaries(names, values, max_size=8), where=st.sampled_from(["header", "top", "deep"]))
def test_the_token_never_survives(event: dict[str, Any], where: str) -> None:
    """Whatever the event is, readable or not, the token that came with it is not in what is kept."""
    envelope: dict[str, Any] = {"header": {"event_id": "e", "token": TOKEN}, "event": event}
    if where == "top":
        envelope["token"] = TOKEN
    if where == "deep":
        envelope = {"events": [envelope], "header": {"token": TOKEN}}
    incoming = of(envelope)
    assert TOKEN.encode() not in incoming.raw + (incoming.body or b"")


def leaves(value: Any) -> list[str]:
    """All keys at all levels."""
    if isinstance(value, dict):
        return [key for item in value.items() for key in (item[0], *leaves(item[1]))]
    return [key for item in value for key in leaves(item)] if isinstance(value, list) else []


@given(event=st.dictionaries(names, values, max_size=8))
def test_normalising_keeps_every_key(event: dict[str, Any]) -> None:
    """Each key of the event is in `data`, or in its warnings; only the wrapper of a person may go, and absent ids."""
    event = {**event, "scope_id": "omm_1"}
    data = body_of({**SAMPLE, "event": event})["data"]
    assert event.keys() - {"changes", "summary", "superseded", "warnings"} <= data.keys()
    kept = set(leaves(data))
    assert set(leaves(event)) - kept <= {"user_id", "union_id", "open_id", *normalize.OUR_KEYS}


@given(event=st.dictionaries(names, values, max_size=8))
def test_the_payload_is_not_touched(event: dict[str, Any]) -> None:
    """Normalising is pure: the envelope that was given is the same afterwards."""
    envelope = {**SAMPLE, "event": {**event, "scope_id": "omm_1"}}
    before = copy.deepcopy(envelope)
    normalize.incoming(b"", envelope, received_ms=0)
    assert exact(envelope) == exact(before)
