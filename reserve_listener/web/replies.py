"""Answers over HTTP: objects as JSON, errors as in RFC 9457. No cache on the way may keep them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from reserve_listener.web.answers import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

JSON = "application/json"
PROBLEM = "application/problem+json"


def reply(
    answer: msgspec.Struct | bytes,
    status: int = HTTPStatus.OK,
    *,
    media_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An object as JSON; or what is JSON already."""
    content = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
    said = {"cache-control": "no-store"} | dict(headers or {})
    return Response(content, status, said, media_type)


def problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error."""
    found = Problem(title=status.phrase, status=status, detail=detail)
    return reply(found, status, media_type=PROBLEM, headers=headers)


async def refused(_request: Request, error: Exception) -> Response:
    """What Starlette or a handler refuses (`HTTPException`), as a problem."""
    status, detail = refusal(error)
    return problem(status, detail, getattr(error, "headers", None))


def refusal(error: Exception) -> tuple[HTTPStatus, str]:
    """The status and the reason of an `HTTPException`."""
    status, detail = HTTPStatus(getattr(error, "status_code", 500)), str(getattr(error, "detail", ""))
    return status, detail if detail != status.phrase else "no such path and method"
