"""What an answer of the API means. Pure; the table is in `tests/lark/test_api_codes.py`.

`code` decides, whatever the HTTP status. What is not the platform's JSON comes from something on the way, and may pass.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec

from reserve_listener.lark.api.errors import (
    ApiError,
    AppRefusedError,
    GoneError,
    PermissionMissingError,
    TryAgainError,
)
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WRONG_APP: Final = frozenset({10003, 10014, 99991543})
"""The app's id or its secret."""
DISABLED: Final = frozenset({99991662, 99991673})
TOO_OFTEN: Final = 99991400
BAD_TOKEN: Final = frozenset({99991661, 99991663, 99991664, 99991668, 99991671})
NO_PERMISSION: Final = 99991672
GONE: Final = frozenset({121004, 126001})
PASSING: Final = frozenset({121001, 121006})
NOT_FOR_THIS: Final = 121005
"""Of one room or level, or of a room's id that is asked for as a level's: says nothing of the app."""
REFUSED: Final = frozenset({121002, 121003, NOT_FOR_THIS, 99992402, 40001, 41012, 99992351, 99992361})
"""A parameter is not as it must be; the last four: a person's id is none, or another app's."""

RESET: Final = "x-ogw-ratelimit-reset"
LOG_ID: Final = "x-tt-logid"
LOG_ID_CHARS: Final = 64
PERMISSIONS: Final = 10
"""How many names of permissions are kept of an answer. The platform names those any one of which would do: two or three."""
_PERMISSION: Final = re.compile(r"[a-z][a-z0-9_.]{0,40}(?::[A-Za-z0-9_.]{1,60}){1,4}")

CREDENTIALS_HINT: Final = (
    "check lark.app_id and lark.app_secret against Credentials & Basic Info in the developer console"
)
DISABLED_HINT: Final = "enable the app, or publish it, in the developer console"
PLACE_HINT: Final = "check lark.domain, and whether a proxy or a login portal answers instead"


class TokenRefusedError(TryAgainError):
    """The token is not valid (any more): a new one may be."""


def data_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    shown: Callable[[str], str],
    needs: tuple[str, ...],
) -> dict[str, Any]:
    """The answer, once it is the platform's and its code is 0; else raises what it means.

    `shown` makes a foreign text safe to show (without our secrets). `needs`: the permissions that the documentation names
    for the call, should the answer name none.
    """
    log_id = log_id_of(headers)
    answer = _decode(body)
    code = answer.get("code") if answer is not None else None
    if answer is None or type(code) is not int:
        raise _not_the_platforms(status, headers, log_id)
    if code == 0 and httpx2.codes.is_success(status):
        return answer
    message = answer.get("msg")
    text = shown(message) if isinstance(message, str) and message else "no reason given"
    if code == NO_PERMISSION:
        raise _without_permission(answer, text, log_id, needs)
    raise _meaning(code, text, log_id, _wish_s(status, code, headers))


def log_id_of(headers: Mapping[str, str]) -> str | None:
    """What the platform's support asks for."""
    return visible(headers.get(LOG_ID, ""), LOG_ID_CHARS) or None


def _meaning(code: int, text: str, log_id: str | None, after_s: float | None) -> ApiError:
    if code in WRONG_APP:
        return AppRefusedError(text, code=code, log_id=log_id, hint=CREDENTIALS_HINT)
    if code in DISABLED:
        return AppRefusedError(text, code=code, log_id=log_id, hint=DISABLED_HINT)
    if code in BAD_TOKEN:
        return TokenRefusedError(text, code=code, log_id=log_id)
    if code in GONE:
        return GoneError(text, code=code, log_id=log_id)
    if code in REFUSED:
        return ApiError(text, code=code, log_id=log_id)
    known = code == TOO_OFTEN or code in PASSING
    hint = None if known else "if this persists, look up the code in the platform's documentation"
    return TryAgainError(text, code=code, log_id=log_id, hint=hint, after_s=after_s)


def _without_permission(
    answer: dict[str, Any], text: str, log_id: str | None, needs: tuple[str, ...]
) -> PermissionMissingError:
    error = answer.get("error")
    violations = error.get("permission_violations") if isinstance(error, dict) else None
    named = (
        [each.get("subject") for each in violations if isinstance(each, dict)]
        if isinstance(violations, list)
        else []
    )
    names = [name for name in named if isinstance(name, str) and _PERMISSION.fullmatch(name)]
    permissions = tuple(dict.fromkeys(names or _PERMISSION.findall(text)))[:PERMISSIONS] or needs
    hint = f"add {' or '.join(permissions)} under Permissions & Scopes in the developer console, and publish a new version"
    return PermissionMissingError(text, permissions=permissions, code=NO_PERMISSION, log_id=log_id, hint=hint)


def _not_the_platforms(status: int, headers: Mapping[str, str], log_id: str | None) -> TryAgainError:
    if httpx2.codes.is_redirect(status):
        text = f"HTTP {status}: a redirect, which is not followed"
    elif httpx2.codes.is_success(status):
        text = "the answer is not the platform's JSON"
    else:
        text = f"HTTP {status}, without an answer of the platform's"
    return TryAgainError(text, log_id=log_id, hint=PLACE_HINT, after_s=_wish_s(status, None, headers))


def _wish_s(status: int, code: int | None, headers: Mapping[str, str]) -> float | None:
    """For how many seconds the platform wants no call of this kind."""
    if code != TOO_OFTEN and status != httpx2.codes.TOO_MANY_REQUESTS:
        return None
    text = headers.get(RESET, "").strip()
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII) else None


def _decode(body: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
