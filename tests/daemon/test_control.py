"""The control socket: HTTP for this machine's user, bounded on both sides, whose defects look like defects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from structlog.testing import capture_logs

from reserve_listener.errors import NoAnswerError, NotFoundError, ReserveListenerError, StoreError
from reserve_listener.model import EventQuery
from reserve_listener.simulator import patience
from reserve_listener.store import backend
from reserve_listener.web import api, server
from reserve_listener.web.answers import (
    Changed,
    Comparison,
    Count,
    ReconcileRequest,
    Reconciling,
    Reconnecting,
    SampleResult,
    Selection,
    SinkStatus,
    Status,
    StoreStatus,
)
from reserve_listener.web.client import get, post
from reserve_listener.web.server import ControlServer
from tests.helpers import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path


class Notebook:
    """Actions that write down what they were asked, and raise what they are told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.sinks = 1

    async def _note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    async def status(self) -> Status:
        await self._note("status")
        sinks = [
            SinkStatus(name=f"sink-{n}", state="ok", pending=n, dead_letters=0) for n in range(self.sinks)
        ]
        return Status(status="ok", reasons=[], version="1", store=StoreStatus(path="/x"), sinks=sinks)

    async def operate(self, operation: str, selected: Sequence[EventQuery]) -> int:
        await self._note(operation, *selected)
        return 7

    async def switch_sink(self, name: str, *, on: bool) -> bool:
        await self._note(name, on)
        return on

    async def test_sink(self, name: str) -> SampleResult:
        await self._note("test", name)
        return SampleResult(delivered=True, problem=None, event_id="test-1", took_s=0.1)

    async def reconnect(self) -> str:
        await self._note("reconnect")
        return "connected"

    async def reconcile(self, scope_ids: Sequence[str] | None, *, dry_run: bool) -> Reconciling:
        await self._note("reconcile", scope_ids, dry_run)
        return Reconciling(status="reconciling", id="c1")

    def comparison(self, comparison_id: str, after: int) -> Comparison:
        self.asked.append(("comparison", comparison_id, after))
        return Comparison(
            id=comparison_id,
            state="done",
            dry_run=False,
            total=1,
            done=1,
            differences=0,
            gone=0,
            not_read=0,
            problem=None,
            hint=None,
            found=[],
            more=False,
        )


@pytest.fixture
def actions() -> Notebook:
    """What the server under test asks."""
    return Notebook()


@pytest.fixture
async def store(tmp_path: Path, actions: Notebook) -> AsyncIterator[str]:
    """The URL of a store whose control socket is served."""
    url = url_of(tmp_path / "events.db")
    control = ControlServer(backend(url).control_socket)
    control.bind()
    await control.serve(actions)
    yield url
    await control.close()
    assert not backend(url).control_socket.exists()


async def ask(store: str, method: str, path: str, content: bytes = b"") -> httpx2.Response:
    """What a client that is not ours is answered."""
    transport = httpx2.AsyncHTTPTransport(uds=str(backend(store).control_socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, content=content)


async def test_every_path_does_what_it_says(store: str, actions: Notebook) -> None:
    """Each request reaches its action with what it named, and the client gets the typed answer."""
    status = await asyncio.to_thread(get, store, "/status", Status)
    assert status is not None
    assert status.status == "ok"
    chosen = Selection(sink="a", scope="omm_1", since="2026-01-01T00:00:00Z", event_ids=["x", "y", "x"])
    for path in ("/dead-letters/retry", "/dead-letters/drop", "/events/replay"):
        assert await asyncio.to_thread(post, store, path, Count, chosen) == Count(count=7)
    filters = [EventQuery(sink="a", scope_id="omm_1", since_ms=1767225600000, event_id=one) for one in "xy"]
    assert await asyncio.to_thread(post, store, "/sinks/a/disable", Changed) == Changed(
        changed=False, status="disabled"
    )
    assert await asyncio.to_thread(post, store, "/sinks/a/enable", Changed) == Changed(
        changed=True, status="enabled"
    )
    tested = await asyncio.to_thread(post, store, "/sinks/a/test", SampleResult)
    assert tested is not None
    assert tested.delivered
    assert await asyncio.to_thread(post, store, "/reconnect", Reconnecting) == Reconnecting(
        status="reconnecting", was="connected"
    )
    wanted = ReconcileRequest(scopes=["omm_1"], dry_run=True)
    begun = await asyncio.to_thread(post, store, "/reconcile", Reconciling, wanted)
    assert begun == Reconciling(status="reconciling", id="c1")
    assert (
        await asyncio.to_thread(post, store, "/reconcile", Reconciling, ReconcileRequest(all=True)) == begun
    )
    comparison = await asyncio.to_thread(get, store, "/reconcile/c1?after=7", Comparison)
    assert comparison is not None
    assert comparison.id == "c1"
    asked = [one for one in actions.asked if one != ("status",)]  # before each action: whether it hangs
    assert asked == [
        ("retry", *filters),
        ("drop", *filters),
        ("replay", *filters),
        ("a", False),
        ("a", True),
        ("test", "a"),
        ("reconnect",),
        ("reconcile", ["omm_1"], True),
        ("reconcile", None, False),
        ("comparison", "c1", 7),
    ]


@pytest.mark.parametrize(
    ("request_line", "content", "status"),
    [
        ("GET /nothing", b"", 404),
        ("GET /api/v1/sinks/a/b/enable", b"", 404),
        ("GET /api/v1/dead-letters/drop", b"", 405),
        ("POST /api/v1/status", b"", 405),
        ("POST /api/v1/dead-letters/drop", b"", 400),
        ("POST /api/v1/dead-letters/drop", b"{}", 400),
        ("POST /api/v1/reconcile", b"{}", 400),
        ("POST /api/v1/reconcile", b'{"sink": "a", "all": true}', 400),
        ("GET /api/v1/reconcile/c1?after=x", b"", 400),
        ("POST /api/v1/dead-letters/drop", b'{"all": false, "event_ids": []}', 400),
        ("POST /api/v1/dead-letters/drop", b'{"since": "yesterday"}', 400),
        ("POST /api/v1/dead-letters/drop", b'{"until": "9999999999-01-01"}', 400),
        ("POST /api/v1/dead-letters/drop", b'{"sink": 3}', 400),
        ("POST /api/v1/dead-letters/drop", b"[" * 100_000, 400),
        ("POST /api/v1/dead-letters/drop", b'{"x": ' + b"[" * 100_000, 400),
        ("POST /api/v1/dead-letters/drop", b'"\xff', 400),
        ("POST /api/v1/dead-letters/drop", b" " * (api.BODY_BYTES + 1), 413),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
async def test_a_mistake_in_a_request_is_the_askers(
    store: str, actions: Notebook, request_line: str, content: bytes, status: int
) -> None:
    """Whatever is wrong with it, the answer is a problem with a sentence, nothing is done, and no line is logged."""
    with capture_logs() as logs:
        method, path = request_line.split()
        answer = await ask(store, method, path, content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert len(problem["detail"]) > 20
    assert actions.asked == []
    assert logs == []


async def test_a_selection_of_all_is_one_on_purpose(store: str, actions: Notebook) -> None:
    """`"all": true` is what makes an action without filters one for everything."""
    answer = await ask(store, "POST", "/api/v1/dead-letters/retry", b'{"all": true}')
    assert (answer.status_code, answer.json()) == (200, {"count": 7})
    assert actions.asked == [("retry", EventQuery())]


@pytest.mark.parametrize(
    ("error", "status"),
    [(NotFoundError("no sink"), 404), (StoreError("disk full"), 503), (ReserveListenerError("not so"), 409)],
)
async def test_what_the_daemon_refuses_is_told_in_its_words(
    store: str, actions: Notebook, error: Exception, status: int
) -> None:
    """A refusal has its status and its sentence; the client raises the sentence."""
    actions.error = error
    answer = await ask(store, "POST", "/api/v1/sinks/a/enable")
    assert (answer.status_code, answer.json()["detail"]) == (status, str(error))
    with pytest.raises(ReserveListenerError, match=str(error)):
        await asyncio.to_thread(post, store, "/sinks/a/enable", Changed)


@pytest.mark.parametrize(
    "defect", [KeyError("operation"), TypeError("no"), AttributeError("x"), RecursionError()]
)
async def test_a_defect_looks_like_one(store: str, actions: Notebook, defect: Exception) -> None:
    """An error of the daemon's own is a 500 that names it and a line with its traceback, not the asker's mistake."""
    actions.error = defect
    with capture_logs() as logs:
        answer = await ask(store, "GET", "/api/v1/status")
    assert answer.status_code == 500
    assert type(defect).__name__ in answer.json()["detail"]
    assert [(line["event"], line["log_level"], line["exc_info"]) for line in logs] == [
        ("control.failed", "error", defect)
    ]
    with pytest.raises(ReserveListenerError, match="a bug in the daemon"):
        await asyncio.to_thread(get, store, "/status", Status)


async def test_a_large_answer_arrives_whole(store: str, actions: Notebook) -> None:
    """An answer of more than a megabyte is read to its end; one beyond the client's bound is refused."""
    actions.sinks = 10_000
    status = await asyncio.to_thread(get, store, "/status", Status)
    assert status is not None
    assert [sink.pending for sink in status.sinks] == list(range(10_000))


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the server starts, which takes its bounds along."""
    monkeypatch.setattr(server, "HEADER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(server, "EXCHANGE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(api, "BODY_TIMEOUT_S", 0.1)


@pytest.mark.usefixtures("_impatient")
async def test_who_says_nothing_is_cut_off(store: str) -> None:
    """A connection without a request, with half of one, and with an answer that nobody reads, each has its end."""
    post_line = b"POST /api/v1/dead-letters/drop HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
    for sent in (b"", b"GET /api", post_line):
        reader, writer = await asyncio.open_unix_connection(str(backend(store).control_socket))
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            told = await asyncio.wait_for(reader.read(), patience(10))
            assert (b" 408 " in told) == (sent == post_line)
        writer.close()
    assert await asyncio.to_thread(get, store, "/status", Status) is not None


async def test_so_many_may_ask_at_once(store: str) -> None:
    """Beyond the bound the oldest connection is cut off, so that whoever hangs keeps nobody out."""
    hanging = [
        await asyncio.open_unix_connection(str(backend(store).control_socket))
        for _ in range(server.CONNECTIONS)
    ]
    assert await asyncio.to_thread(get, store, "/status", Status) is not None
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(hanging[0][0].read(), patience(10)) == b""
    for _, writer in hanging:
        writer.close()


@contextlib.contextmanager
def pretender(store: str) -> Iterator[socket.socket]:
    """A socket in the daemon's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(backend(store).control_socket))
        listener.listen()
        yield listener


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "does not answer within 0.3 s"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{", "does not answer within 0.3 s"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "cannot be understood by this version"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\nwhat", "cannot be understood by this version"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b" " * 17_000_000, "was cut short"),
        (b'{"answer": 1}\n\n', "was cut short"),
    ],
    ids=["silence", "half", "other fields", "no problem", "endless", "no HTTP"],
)
def test_the_client_has_an_end_and_a_bound(tmp_path: Path, said: bytes, told: str) -> None:
    """Whatever sits behind the socket, the command ends in time with a sentence."""
    store = url_of(tmp_path / "events.db")
    with pretender(store) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(said)
                connection.settimeout(10)
                while connection.recv(1_000):
                    pass

        speaker = threading.Thread(target=speak, daemon=True)
        speaker.start()
        with pytest.raises(ReserveListenerError, match=told):
            get(store, "/status", Status, timeout_s=0.3 if "within" in told else 10)
        speaker.join(10)


def test_a_full_queue_is_no_answer(tmp_path: Path) -> None:
    """A daemon that hangs with a full queue of callers does not answer; it is not taken for one that is gone."""
    store = url_of(tmp_path / "events.db")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(backend(store).control_socket))
        listener.listen(0)
        for _ in range(2):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(str(backend(store).control_socket))
        with pytest.raises(NoAnswerError):
            get(store, "/status", Status, timeout_s=0.2)


async def test_who_asks_before_it_is_served_waits(tmp_path: Path, actions: Notebook) -> None:
    """From `bind` on nobody is told that no daemon runs; the socket is its owner's alone."""
    store = url_of(tmp_path / "events.db")
    control = ControlServer(backend(store).control_socket)
    control.bind()
    assert stat.S_IMODE(backend(store).control_socket.stat().st_mode) == 0o600
    asking = asyncio.create_task(asyncio.to_thread(get, store, "/status", Status))
    await control.serve(actions)
    assert await asking is not None
    await control.close()
    assert await asyncio.to_thread(get, store, "/status", Status) is None


async def test_a_socket_that_cannot_be_made_costs_the_socket_only(tmp_path: Path, actions: Notebook) -> None:
    """A path that is taken by a folder is said in the log; the rest of the daemon goes on."""
    store = url_of(tmp_path / "events.db")
    backend(store).control_socket.mkdir()
    control = ControlServer(backend(store).control_socket)
    with capture_logs() as logs:
        control.bind()
        await control.serve(actions)
    await control.close()
    assert [line["event"] for line in logs] == ["control.unavailable"]
    assert backend(store).control_socket.is_dir()


async def test_what_stands_in_the_sockets_place_does_not_spoil_the_end(
    tmp_path: Path, actions: Notebook
) -> None:
    """A folder has taken the place of the socket of a daemon that runs: it stays, and the daemon closes all the same."""
    path = backend(url_of(tmp_path / "events.db")).control_socket
    control = ControlServer(path)
    control.bind()
    await control.serve(actions)
    path.unlink()
    path.mkdir()
    await control.close()
    assert path.is_dir()
