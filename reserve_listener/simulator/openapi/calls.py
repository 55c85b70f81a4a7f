"""A call: its route, parameters and body, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reserve_listener.simulator.openapi.answers import BAD_PARAMETER, RefusedError, invalid

PAGE_SIZE = 10
LARGEST_PAGE = 100
ID_TYPES = ("open_id", "union_id", "user_id")


@dataclass(slots=True, kw_only=True)
class Call:
    """One request to the API. `at`: when it came, on the simulator's clock; `code`, `status`: of its answer, once that is sent.

    `code` is None if there was no answer, or not the platform's.
    """

    at: float
    method: str
    path: str
    query: dict[str, str]
    body: bytes = b""
    ids: dict[str, str] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    code: int | None = None
    status: int = 0

    @property
    def name(self) -> str:
        """`GET /vc/v1/rooms/:id`."""
        path = self.path.removeprefix("/open-apis")
        for name, value in self.ids.items():
            path = path.removesuffix(value) + f":{name}"
        return f"{self.method} {path}"

    @property
    def id_type(self) -> str:
        """The kind of people's ids that the call asks for."""
        kind = self.query.get("user_id_type") or "open_id"
        if kind not in ID_TYPES:
            raise invalid("user_id_type", kind, f"one of {', '.join(ID_TYPES)}")
        return kind

    def needed(self, name: str) -> str:
        """A required parameter."""
        if value := self.query.get(name):
            return value
        raise invalid(name, "", f"{name} is required")

    def listed(self, name: str, most: int) -> list[str]:
        """A list of strings in the body."""
        value = self.content.get(name)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise RefusedError(BAD_PARAMETER, f"param error: {name}")
        if len(value) > most:
            raise invalid(name, len(value), f"the max len is {most}")
        return value

    def page(self, key: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The requested page, with a `page_token` only if there is more."""
        size = self._number("page_size", PAGE_SIZE)
        if not 1 <= size <= LARGEST_PAGE:
            raise invalid("page_size", size, f"the max value is {LARGEST_PAGE}")
        start = self._number("page_token", 0)
        end = start + size
        more: dict[str, Any] = {"page_token": str(end)} if end < len(items) else {}
        return {key: items[start:end], "has_more": bool(more), **more}

    def _number(self, name: str, default: int) -> int:
        value = self.query.get(name) or str(default)
        if not value.isdecimal():
            raise invalid(name, value, "a number")
        return int(value)
