"""Looking things up over HTTP: the objects of the commands, a part of a list at a time, and nothing silently left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pytest

from reserve_listener.model import KnownPlace, Outcome
from reserve_listener.web.answers import (
    DeadLetterRow,
    EventRow,
    EventShown,
    HistoryRow,
    Listing,
    ScopeRow,
    ScopeShown,
    SinkStatus,
)
from tests.daemon.test_control import Notebook
from tests.helpers import NOW_MS, append, delivery, event, unreadable_event
from tests.web.looking import happened, looked_into

if TYPE_CHECKING:
    import httpx2

    from tests.backends import Backend, OnSqlite

LISTS = {
    "/api/v1/scopes": ScopeRow,
    "/api/v1/scopes/omm_a/history": HistoryRow,
    "/api/v1/events": EventRow,
    "/api/v1/dead-letters": DeadLetterRow,
    "/api/v1/sinks": SinkStatus,
}


async def got(client: httpx2.AsyncClient, path: str, kind: Any, **query: Any) -> Any:
    """The answer, which has the keys of its type, all of them and no others."""
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found = msgspec.json.decode(answer.content, type=kind, strict=True)
    assert msgspec.to_builtins(found) == answer.json()
    return found


async def whole(client: httpx2.AsyncClient, path: str, kind: Any, **query: Any) -> list[Any]:
    """A list from its first part to its last."""
    items: list[Any] = []
    parts, following = 0, None
    while parts == 0 or following is not None:
        cursor: dict[str, str] = {"cursor": following} if following else {}
        part = await got(client, path, Listing[kind], **query, **cursor)
        assert len(part.items) <= query.get("limit", 100)
        items += part.items
        parts, following = parts + 1, part.next
    return items


async def test_lists_come_in_parts_that_make_the_whole(backend: OnSqlite) -> None:
    """Whatever the limit, nothing is missing and nothing comes twice, in the same order; sinks too."""
    notebook = Notebook()
    notebook.sinks = 5
    async with looked_into(backend, "a", "b", actions=notebook) as (store, client):
        for number in range(7):
            await happened(store, f"e{number}", scope=f"omm_{number}")
        await happened(store, *"123456", scope="omm_a")
        given_up = [Outcome.dead(delivery(seq), error="gone") for seq in range(1, 8)]
        for sink in ("a", "b"):
            await store.settle(sink, given_up)
        for path, kind in LISTS.items():
            everything = await whole(client, path, kind)
            assert len(everything) >= 5, path
            for limit in (1, 2, 3, 500):
                assert await whole(client, path, kind, limit=limit) == everything, (path, limit)
        dead = await whole(client, "/api/v1/dead-letters", DeadLetterRow, limit=3)
        assert sorted((one.sink, one.event_id) for one in dead) == sorted(
            (sink, f"e{number}") for sink in "ab" for number in range(7)
        )


async def test_a_part_stays_where_it_was_while_more_comes(backend: OnSqlite) -> None:
    """The second part of the newest events is the same, whatever was stored since the first."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "one", "two", "three")
        first = await got(client, "/api/v1/events", Listing[EventRow], limit=2)
        assert [one.event_id for one in first.items] == ["three", "two"]
        await happened(store, "four", "five")
        second = await got(client, "/api/v1/events", Listing[EventRow], limit=2, cursor=first.next)
        assert ([one.event_id for one in second.items], second.next) == (["one"], None)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=-1", "limit=x", "limit=", "limit=1.0", "limit=%D9%A1",
     "cursor=", "cursor=x", "cursor=%00", "cursor=W10", "cursor=WyJldmVudHMiLC0xXQ", "cursor=WyJub3RoaW5nIiwxXQ",
     "cursor=WyJldmVudHMiLDk5OTk5OTk5OTk5OTk5OTk5OTk5OTldCg", "limits=1", "sort=up"],
)  # fmt: skip
async def test_a_question_that_is_amiss_is_refused(backend: OnSqlite, path: str, query: str) -> None:
    """Limits out of range, cursors of nobody's making, filters with a typing error: 400 with what would be right."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "one")
        answer = await client.get(f"{path}?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), (
            answer.text
        )
        assert answer.json()["detail"].startswith(query.partition("=")[0])


async def test_a_cursor_belongs_to_its_list(backend: OnSqlite) -> None:
    """One of the events is none of the rooms."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "one", "two")
        cursor = (await client.get("/api/v1/events?limit=1")).json()["next"]
        assert (await client.get("/api/v1/scopes", params={"cursor": cursor})).status_code == 400


async def test_events_are_filtered_as_the_commands_do(backend: OnSqlite) -> None:
    """By sink, room, id, time, and whether they could be read; a time that cannot be read is refused."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "one", "two")
        await happened(store, "three", scope="omm_b")
        await append(store, unreadable_event())
        for query, expected in (
            ({"scope": "omm_b"}, ["three"]),
            ({"event_id": "two"}, ["two"]),
            ({"sink": "a", "scope": "omm_a"}, ["two", "one"]),
            ({"sink": "nobody"}, []),
            ({"since": "2026-09-21T14:13:21Z", "unreadable": "false", "scope": "omm_a"}, ["two"]),
            ({"until": "2026-09-21T14:13:21Z", "scope": "omm_a"}, ["one"]),
        ):
            found = await whole(client, "/api/v1/events", EventRow, **query)
            assert [one.event_id for one in found] == expected, query
        (unreadable,) = await whole(client, "/api/v1/events", EventRow, unreadable="true")
        assert (unreadable.state, unreadable.problem) == ("unreadable", "not JSON")
        for query in ({"since": "yesterday"}, {"until": "soon"}, {"unreadable": "1"}):
            assert (await client.get("/api/v1/events", params=query)).status_code == 400


async def test_one_event_is_told_whole(backend: OnSqlite) -> None:
    """With what sinks receive and what the platform sent; the list has neither."""
    async with looked_into(backend, "a") as (store, client):
        await happened(store, "one")
        found = await got(client, "/api/v1/events/one", EventShown)
        assert found.event["id"] == "one"
        assert found.raw["header"]["event_id"] == "one"
        assert found.deliveries[0].state == "pending"
        (row,) = await whole(client, "/api/v1/events", EventRow)
        assert row.state == "readable"
        nowhere = await client.get("/api/v1/events/two")
        assert (nowhere.status_code, nowhere.json()["detail"]) == (404, "the store has no event two")


async def test_a_room_is_told_with_its_name_its_limits_and_what_changed(backend: OnSqlite) -> None:
    """Now and as it was, under the name of now, in the language of the configuration."""
    async with looked_into(backend, "a", language="zh") as (store, client):
        await happened(store, "one", "two")
        await store.keep_places(
            [
                KnownPlace(
                    scope_type="room", scope_id="omm_a", name="Fuji", parent=None, top=True, seen_ms=NOW_MS
                )
            ]
        )
        (row,) = await whole(client, "/api/v1/scopes", ScopeRow)
        shown = await got(client, "/api/v1/scopes/omm_a", ScopeShown)
        assert (row.name, row.revision, shown.gone) == ("Fuji", 2, False)
        assert shown.config["time_config"]
        assert shown.summary == row.summary
        assert not row.summary.isascii()
        history = await whole(client, "/api/v1/scopes/omm_a/history", HistoryRow)
        assert [(one.event_id, one.revision, one.scope_name) for one in history] == [
            ("two", 2, "Fuji"),
            ("one", 1, "Fuji"),
        ]
        assert (history[0].changes, history[1].changes) == ([], None)
        then = await got(client, "/api/v1/scopes/omm_a", ScopeShown, at="2026-09-21T14:13:20Z")
        assert then.revision == 1
        before = await client.get("/api/v1/scopes/omm_a", params={"at": "2020-01-01T00:00:00Z"})
        assert before.status_code == 404
        for path in ("/api/v1/scopes/omm_x", "/api/v1/scopes/omm_x/history"):
            assert (await client.get(path)).status_code == 404


async def test_foreign_text_stays_text(backend: OnSqlite) -> None:
    """Ids with what HTML, paths and SQL mean something by are found by their id, and JSON keeps them apart."""
    async with looked_into(backend, "a") as (store, client):
        strange = "<b>'\";--\u202e{}%/..\\é"
        await append(store, event(strange, "omm_<script>"))
        (row,) = await whole(client, "/api/v1/events", EventRow, scope="omm_<script>")
        assert row.event_id == strange
        found = await got(client, "/api/v1/scopes/omm_%3Cscript%3E", ScopeShown)
        assert found.scope_id == "omm_<script>"


async def test_a_store_that_cannot_be_read_is_our_trouble(backend: OnSqlite) -> None:
    """503, which passes; not 500, and nothing of where it is."""
    async with looked_into(backend, "a") as (_, client):
        backend.path.rename(backend.path.with_suffix(".away"))
        answer = await client.get("/api/v1/events")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        backend.path.with_suffix(".away").rename(backend.path)
        assert (await client.get("/api/v1/events")).status_code == 200


ODD_IDS = ["a/b", "a/history", "/", "history", "%2F", "a b", "ä?#&;=", "..", "x" * 300, "a%", "深圳"]


async def test_an_id_may_be_anything(backend: Backend) -> None:
    """Percent-encoded it is one piece of the path: nothing in it is taken for another one."""
    async with looked_into(backend) as (store, client):
        for number, scope in enumerate(ODD_IDS):
            await append(store, event(f"ev/{number}", scope))
        for number, scope in enumerate(ODD_IDS):
            path = f"/api/v1/scopes/{quote(scope, safe='').replace('.', '%2E')}"
            answer = await client.get(path)
            assert (answer.status_code, answer.json().get("scope_id")) == (200, scope)
            rows = (await client.get(f"{path}/history")).json()["items"]
            assert [row["event_id"] for row in rows] == [f"ev/{number}"], scope
            assert (await client.get(f"/api/v1/events/ev%2F{number}")).json()["scope_id"] == scope
        assert (await client.get("/api/v1/scopes/a/b")).status_code == 404
