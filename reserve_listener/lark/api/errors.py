"""What an answer of the API means for whoever asked. The texts are for people: one line, without secrets, safe to show."""

from __future__ import annotations


class ApiError(Exception):
    """This request will never be answered; others may be. Skip it.

    `code` is the platform's (None: there was no answer of the platform's), `log_id` its `X-Tt-Logid`, which its support
    asks for, and `hint` says what a person can do.
    """

    def __init__(
        self, message: str, *, code: int | None = None, log_id: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.log_id = log_id
        self.hint = hint

    def __str__(self) -> str:
        """`code 126001: invalid scope (log id 2026…)`."""
        code = "" if self.code is None else f"code {self.code}: "
        log_id = f" (log id {self.log_id})" if self.log_id else ""
        return f"{code}{self.message}{log_id}"


class PermissionMissingError(ApiError):
    """The app lacks a permission, and so will every call of this kind until somebody adds it."""

    def __init__(
        self,
        message: str,
        *,
        permissions: tuple[str, ...],
        code: int | None = None,
        log_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, log_id=log_id, hint=hint)
        self.permissions = permissions
        """Any one of these would do. The platform's names; if its answer had none, those of the documentation."""


class GoneError(ApiError):
    """The room or level does not exist (121004), or does not exist under this type (126001)."""


class TryAgainError(ApiError):
    """This may pass: busy, too many calls, no answer, an answer that is not the platform's. Ask again after `after_s`.

    None: the platform named no time, so back off.
    """

    def __init__(
        self,
        message: str,
        *,
        after_s: float | None = None,
        code: int | None = None,
        log_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, log_id=log_id, hint=hint)
        self.after_s = after_s


class AppRefusedError(ApiError):
    """The app or its secret is wrong, there is no secret, or the app is disabled: nothing is answered until that is mended."""
