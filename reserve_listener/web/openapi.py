"""The description of the API, made from the endpoints and the types of their answers: it cannot say anything else."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reserve_listener import __version__
from reserve_listener.web.answers import Health, HistoryRow, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reserve_listener.web.api import Endpoint

OPENAPI: Final = "3.1.0"
REF: Final = "#/components/schemas/{name}"
BEARER: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token of status.token_file."}
}
LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID", "in": "header", "schema": {"type": "string"},
    "description": "The `id` of the last change received: the stream continues after it.",
}  # fmt: skip


def document(endpoints: Sequence[Endpoint], *, has_token: bool) -> dict[str, Any]:
    """The whole of it. `has_token`: whether there is one to be sent."""
    types = [*dict.fromkeys(_types(endpoints)), Problem, Health, HistoryRow]
    made, components = msgspec.json.schema_components(types, ref_template=REF)
    schemas = dict(zip(types, made, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(f"/api/v1{endpoint.path}", {})[endpoint.method.lower()] = _operation(
            endpoint, schemas
        )
    found: dict[str, Any] = {
        "openapi": OPENAPI,
        "info": {
            "title": "reserve-listener",
            "version": __version__,
            "description": "Meeting rooms' reservation limits, and the state of the daemon.",
        },
        "paths": paths | _others(schemas),
        "components": {"schemas": {name: _tidy(schema) for name, schema in components.items()}},
    }
    if has_token:
        found["components"]["securitySchemes"] = BEARER
        found["security"] = [{"bearer": []}]
    return found


def _types(endpoints: Sequence[Endpoint]) -> Iterator[Any]:
    for endpoint in endpoints:
        yield endpoint.answer
        if endpoint.body is not None:
            yield endpoint.body


def _operation(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    query = [
        {"name": each.name, "in": "query", "description": each.text, "schema": {"type": each.kind}}
        for each in endpoint.query
    ]
    found: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _id(endpoint),
        "parameters": path + query,
        "responses": _responses("application/json", schemas[endpoint.answer], schemas[Problem]),
    }
    if endpoint.body is not None:
        found["requestBody"] = {"content": {"application/json": {"schema": schemas[endpoint.body]}}}
    return found


def _id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", f"{endpoint.method.lower()} {endpoint.path}")
    return "_".join(words)


def _responses(media_type: str, schema: Any, problem: Any) -> dict[str, Any]:
    error = {"description": "What was wrong.", "content": {"application/problem+json": {"schema": problem}}}
    return {
        "200": {"description": "The answer.", "content": {media_type: {"schema": schema}}},
        "default": error,
    }


def _others(schemas: dict[Any, Any]) -> dict[str, Any]:
    """What is no object of the API."""
    text, change = (
        {"type": "string"},
        {"description": "`event: change` with a row of `history` as its data.", "type": "string"},
    )
    problem = schemas[Problem]

    def get(summary: str, name: str, media_type: str, schema: Any, **more: Any) -> dict[str, Any]:
        said = {"summary": summary, "operationId": name, "responses": _responses(media_type, schema, problem)}
        return {"get": said | more}

    health = {
        f"/{name}": get(summary, name, "application/json", schemas[Health], security=[])
        for name, summary in (
            ("livez", "Whether the daemon makes progress; 503 when it does not."),
            ("healthz", "The same as /livez."),
            ("readyz", "Whether events arrive and are accepted; 503 if not."),
        )
    }
    return {
        **health,
        "/metrics": get("Metrics for Prometheus.", "metrics", "text/plain", text),
        "/api/v1/stream": get(
            "Changes as they come, as server-sent events.", "stream", "text/event-stream", change,
            parameters=[LAST_EVENT_ID],
        ),
        "/api/v1/openapi.json": get("This description.", "openapi", "application/json", {"type": "object"}),
    }  # fmt: skip


def _tidy(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _tidy(value)
            for key, value in schema.items()
        }
    return [_tidy(each) for each in schema] if isinstance(schema, list) else schema
