"""What answers of the API mean: the code decides, whatever stands around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from reserve_listener.lark.api import codes
from reserve_listener.lark.api.errors import (
    ApiError,
    AppRefusedError,
    GoneError,
    PermissionMissingError,
    TryAgainError,
)

NEEDS = ("vc:room:readonly", "vc:room")
PAGE = b"<html><title>502</title></html>"


def judged(status: int, body: bytes | dict[str, Any], **headers: str) -> ApiError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(ApiError) as caught:
        codes.data_of(status, named, content, shown=str, needs=NEEDS)
    return caught.value


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10003, AppRefusedError),
        (10014, AppRefusedError),
        (99991543, AppRefusedError),
        (99991662, AppRefusedError),
        (99991673, AppRefusedError),
        (99991661, codes.TokenRefusedError),
        (99991663, codes.TokenRefusedError),
        (99991671, codes.TokenRefusedError),
        (99991672, PermissionMissingError),
        (99991400, TryAgainError),
        (121001, TryAgainError),
        (121006, TryAgainError),
        (424242, TryAgainError),
        (-1, TryAgainError),
        (121004, GoneError),
        (126001, GoneError),
        (121002, ApiError),
        (121003, ApiError),
        (121005, ApiError),
        (99992402, ApiError),
    ],
)
def test_the_code_decides_under_any_status(status: int, code: int, kind: type[ApiError]) -> None:
    """The same code means the same under 200 and under 500; it comes with its text and with the platform's log id."""
    error = judged(status, {"code": code, "msg": "why"}, x_tt_logid="20261126A")
    assert type(error) is kind
    assert (error.code, error.log_id) == (code, "20261126A")
    assert str(error) == f"code {code}: why (log id 20261126A)"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (502, PAGE),
        (200, PAGE),
        (302, b""),
        (404, b"Not Found"),
        (200, b""),
        (200, b"[]"),
        (200, b'{"msg":"ok"}'),
        (200, b'{"code":"0"}'),
        (200, b'{"code":true}'),
        (200, b'{"code":0.0}'),
        (200, b"[" * 100_000),
        (500, b'{"code":0,"data":{}}'),
    ],
)
def test_what_is_not_the_platforms_may_pass(status: int, body: bytes) -> None:
    """A gateway's page, a login portal, garbage, a success under an error's status: none is taken for an answer."""
    assert type(judged(status, body)) is TryAgainError


def test_a_redirect_is_named() -> None:
    """A login portal that redirects is what it looks like, and the hint says where to look."""
    error = judged(307, b"", location="https://portal.example/?secret=x")
    assert str(error) == "HTTP 307: a redirect, which is not followed"
    assert "lark.domain" in (error.hint or "")


@pytest.mark.parametrize(
    ("wish", "after_s"),
    [("7", 7.0), ("0.5", 0.5), ("", None), ("soon", None), ("-1", None), ("9" * 12, None), ("٣", None)],
)
def test_the_platform_says_how_long_to_wait(wish: str, after_s: float | None) -> None:
    """`x-ogw-ratelimit-reset` counts beside "too often", of the platform or of its gateway; nonsense in it does not."""
    of_code = judged(400, {"code": 99991400, "msg": "slow down"}, x_ogw_ratelimit_reset=wish)
    of_gateway = judged(429, PAGE, x_ogw_ratelimit_reset=wish)
    assert isinstance(of_code, TryAgainError)
    assert isinstance(of_gateway, TryAgainError)
    assert of_code.after_s == of_gateway.after_s == after_s
    other = judged(500, {"code": 121001, "msg": "internal"}, x_ogw_ratelimit_reset=wish)
    assert isinstance(other, TryAgainError)
    assert other.after_s is None


VIOLATIONS = {
    "permission_violations": [{"type": "action_scope_required", "subject": "vc:rooms.room.basicinfo:read"}]
}


@pytest.mark.parametrize(
    ("error", "message", "permissions"),
    [
        (VIOLATIONS, "denied [vc:room]", ("vc:rooms.room.basicinfo:read",)),
        (None, "One of these is required: [vc:room:readonly, vc:room].", NEEDS),
        ({"permission_violations": [{"subject": "\x1b[2J"}, 7, {}]}, "denied", NEEDS),
        ({"permission_violations": "vc:room"}, "denied", NEEDS),
        ("vc:room", "", NEEDS),
    ],
)
def test_missing_permissions_have_names(error: Any, message: str, permissions: tuple[str, ...]) -> None:
    """They come from the answer's error object, else from its text, else from the documentation; what is no name is none."""
    found = judged(403, {"code": 99991672, "msg": message, "error": error})
    assert isinstance(found, PermissionMissingError)
    assert found.permissions == permissions
    assert all(name in (found.hint or "") for name in permissions)


def test_a_hundred_permissions_are_not_listed() -> None:
    """An answer with a thousand names does not fill the log."""
    violations = [{"subject": f"vc:room{number}"} for number in range(1_000)]
    found = judged(403, {"code": 99991672, "msg": "", "error": {"permission_violations": violations}})
    assert isinstance(found, PermissionMissingError)
    assert len(found.permissions) == codes.PERMISSIONS


def test_a_log_id_is_foreign_text() -> None:
    """What pretends to be one cannot act on a terminal, and is cut."""
    error = judged(200, {"code": 1, "msg": ""}, x_tt_logid="\x1b]0;" + "x" * 500)
    assert "\x1b" not in str(error)
    assert len(error.log_id or "") <= codes.LOG_ID_CHARS


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=64)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["code", "msg", "error", "x"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_no_answer_raises_anything_else(status: int, body: bytes) -> None:
    """Whatever comes is an answer with code 0, or one of the API's errors."""
    try:
        answer = codes.data_of(status, {}, body, shown=str, needs=NEEDS)
    except ApiError:
        return
    assert answer["code"] == 0
