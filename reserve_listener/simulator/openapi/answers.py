"""Answers and refusals: `{"code", "msg", "data"}`, where the code decides and the HTTP status says little."""

from __future__ import annotations

from typing import Any, Final

WRONG_APP: Final = 10003
WRONG_SECRET: Final = 10014
NO_TOKEN: Final = 99991661
INVALID_TOKEN: Final = 99991663
NO_PERMISSION: Final = 99991672
TOO_OFTEN: Final = 99991400
INVALID_FIELD: Final = 99992402
INTERNAL: Final = 121001
BAD_PARAMETER: Final = 121003
NOT_THERE: Final = 121004
NOT_ALLOWED: Final = 121005
BAD_SCOPE: Final = 126001


class RefusedError(Exception):
    """Answer the call with this code and HTTP status; `error`: the object beside the code."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        status: int = 400,
        error: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.error = error
        self.headers = headers or {}

    def content(self, log_id: str) -> dict[str, Any]:
        """The answer."""
        error = {"error": {"log_id": log_id, **self.error}} if self.error is not None else {}
        return {"code": self.code, "msg": self.message, **error}


def not_there() -> RefusedError:
    """There is no such room or level."""
    return RefusedError(NOT_THERE, "data not exist", status=404)


def invalid(field: str, value: object, why: str) -> RefusedError:
    """A parameter is not valid."""
    violation = {"field": field, "value": str(value), "description": why}
    return RefusedError(INVALID_FIELD, "field validation failed", error={"field_violations": [violation]})


def no_permission(app_id: str, wanted: tuple[str, ...]) -> RefusedError:
    """The app has none of the permissions of which the call needs one."""
    names = ", ".join(wanted)
    apply = f"https://open.feishu.cn/app/{app_id}/auth?q={','.join(wanted)}&op_from=openapi&token_type=tenant"
    return RefusedError(
        NO_PERMISSION,
        f"Access denied. One of the following scopes is required: [{names}].",
        error={
            "permission_violations": [{"type": "action_scope_required", "subject": name} for name in wanted],
            "helps": [{"url": apply, "description": f"The scopes, and how to add them: [{names}]"}],
        },
    )
