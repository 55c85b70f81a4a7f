"""The description of the API: everything that is served is in it, and it is well made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from reserve_listener.web import site as site_module
from reserve_listener.web.access import Access
from reserve_listener.web.page import Page
from tests.web.looking import looked_into
from tests.web.serving import BEARER, TOKEN, a_site, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.backends import Backend


def _operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def _routes(site: Any) -> set[tuple[str, str]]:
    guard: Any = site_module.make_app(site)
    pages = {route.path for route in Page(site).routes()}  # type: ignore[attr-defined]  # all of them are `Route`s
    routes = [route for route in guard._app.routes if route.path not in pages]
    return {(method, route.path) for route in routes for method in route.methods - {"HEAD"}}


async def _described(access: Access) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    site = a_site(access=access)
    async with served(site) as client:
        answer = await client.get("/api/v1/openapi.json", headers=BEARER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json()
    return document, _routes(site)


async def test_every_route_is_described() -> None:
    """With a token the actions, too; nothing that is not there, and nothing is left out."""
    guarded, routes = await _described(Access(token=TOKEN))
    assert _operations(guarded) == routes
    assert ("POST", "/api/v1/dead-letters/drop") in routes
    assert (guarded["openapi"], guarded["security"]) == ("3.1.0", [{"bearer": []}])
    assert guarded["paths"]["/livez"]["get"]["security"] == []
    opened, routes = await _described(Access())
    assert _operations(opened) == routes
    assert {method for method, _ in routes} == {"GET"}
    assert "security" not in opened


async def test_it_is_well_made() -> None:
    """References lead somewhere, ids are unique, each path says its parameters, and each operation its answers."""
    document, _ = await _described(Access(token=TOKEN))
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', msgspec.json.encode(document).decode()))
    assert references == set(schemas)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)
    ids = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            ids.append(operation["operationId"])
            assert operation["summary"].endswith(".")
            assert {"200", "default"} <= set(operation["responses"])
            parameters = [(one["name"], one["in"]) for one in operation.get("parameters", ())]
            assert len(set(parameters)) == len(parameters)
            assert {name for name, where in parameters if where == "path"} == set(
                re.findall(r"{(\w+)}", path)
            )
    assert len(set(ids)) == len(ids)


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "description":
                yield value
            yield from _leaves(value)


async def test_what_is_described_is_what_is_taken(backend: Backend) -> None:
    """Each parameter of a query is one that its endpoint knows; descriptions are sentences, not source code."""
    document, _ = await _described(Access())
    assert all("\n    " not in text for text in _leaves(document))
    usual = {"integer": "1", "boolean": "true", "string": "2026-01-01T00:00:00Z"}
    async with looked_into(backend, "a") as (_, client):
        for path, methods in document["paths"].items():
            for one in methods["get"].get("parameters", ()):
                if one["in"] != "query" or one["name"] == "cursor" or "{" in path:
                    continue
                answer = await client.get(path, params={one["name"]: usual[one["schema"]["type"]]})
                assert answer.status_code == 200, (path, one["name"], answer.text)
