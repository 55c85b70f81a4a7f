"""Who may ask at `[status] listen`: by which name, with which token; and what every answer carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from reserve_listener.config import StatusConfig
from reserve_listener.errors import ReserveListenerError
from reserve_listener.web.access import HEADERS, Access
from reserve_listener.web.listener import StatusListener
from tests.daemon.test_control import Notebook
from tests.sinks.test_sink_http import make_certificate
from tests.web.serving import BEARER, TOKEN, a_site, served

if TYPE_CHECKING:
    from pathlib import Path


def guarded() -> Access:
    """With a token, and nobody has failed yet."""
    return Access(token=TOKEN)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1:9464",
        "[::1]:80",
        "127.9.9.9",
        "rooms.corp.example",
        "Rooms.Corp.Example.:443",
    ],
)
async def test_names_of_ours_are_answered(host: str) -> None:
    """localhost, an address of this machine and `allowed_hosts`, each with any port and in any case."""
    async with served(a_site(access=Access(allowed_hosts=["rooms.corp.example"]))) as client:
        assert (await client.get("/api/v1/status", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "0.0.0.0", "224.0.0.1", "[::]",
     "localhost:80@evil.example", "rooms.corp.example.evil.example", "[::1", "a b", ":80"],
)  # fmt: skip
async def test_names_of_others_are_not(host: str) -> None:
    """A name that somebody else's page made the browser ask under (DNS rebinding) gets 421, and nothing else."""
    access = Access(allowed_hosts=["rooms.corp.example"])
    async with served(a_site(access=access)) as client:
        answer = await client.get("/api/v1/status", headers={"host": host})
        assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json")
        assert "status.allowed_hosts" in answer.json()["detail"]
        assert (await client.get("/readyz", headers={"host": host})).status_code == 200


def test_the_address_that_was_connected_to_is_ours() -> None:
    """Also when the machine does not know it as its own, as behind a balancer that keeps the address."""
    assert Access().knows_host("192.0.2.7:80", "192.0.2.7")
    assert not Access().knows_host("192.0.2.7:80", "192.0.2.8")


@pytest.mark.parametrize(
    "given",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"},
     {"authorization": f"Bearer {TOKEN}x"}, {"authorization": b"Bearer \xff\xfe"}, {"cookie": f"token={TOKEN}"}],
)  # fmt: skip
async def test_without_the_token_only_health_is_told(given: dict[str, Any]) -> None:
    """No token, a wrong one, or one in the wrong place: 401 with how to do it right; and nothing is done."""
    notebook = Notebook()
    async with served(a_site(access=guarded(), actions=notebook)) as client:
        for method, path in (("GET", "/api/v1/status"), ("POST", "/api/v1/reconnect"), ("GET", "/nowhere")):
            answer = await client.request(method, path, headers=given)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert (answer.headers["content-type"], answer.json()["status"]) == (
                "application/problem+json",
                401,
            )
        for path in ("/livez", "/healthz", "/readyz"):
            assert (await client.get(path, headers=given)).status_code == 200
    assert notebook.asked == []


async def test_with_the_token_all_is_told_and_done() -> None:
    """The word Bearer in any case, as RFC 9110 has it."""
    notebook = Notebook()
    async with served(a_site(access=guarded(), actions=notebook)) as client:
        assert (await client.get("/api/v1/status", headers=BEARER)).json()["status"] == "ok"
        lower = {"authorization": f"bearer {TOKEN}"}
        answer = await client.post("/api/v1/dead-letters/retry", json={"all": True}, headers=lower)
        assert (answer.status_code, answer.json()) == (200, {"count": 7})
    assert notebook.asked[-1][0] == "retry"


async def test_without_a_token_nobody_acts() -> None:
    """Reads are open to this machine, and actions are not there at all."""
    notebook = Notebook()
    async with served(a_site(actions=notebook)) as client:
        assert (await client.get("/api/v1/status")).status_code == 200
        for path in (
            "dead-letters/retry",
            "dead-letters/drop",
            "sinks/a/enable",
            "sinks/a/disable",
            "reconnect",
        ):
            assert (await client.post(f"/api/v1/{path}", json={"all": True})).status_code == 404
    assert notebook.asked == [("status",)]


async def test_what_is_for_this_machine_stays_on_the_socket() -> None:
    """Replays and sample events are asked for over the control socket alone."""
    async with served(a_site(access=guarded())) as client:
        for path in ("events/replay", "sinks/a/test"):
            answer = await client.post(f"/api/v1/{path}", json={"all": True}, headers=BEARER)
            assert answer.status_code in (404, 405)  # there may be an event of that name to GET


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `hmac.compare_digest`, whatever was given; of one length, or the time would tell the token's."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return given == token

    monkeypatch.setattr("hmac.compare_digest", compare)
    access = guarded()
    assert [access.is_token(text) for text in ("guess", TOKEN)] == [False, True]
    assert [given == token for given, token in compared] == [False, True]
    assert len({len(text) for pair in compared for text in pair}) == 1
    assert Access().is_token("") is False


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/api/v1/status", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/api/v1/status", 405),
        ("GET", "/api/v1/status", 500),
    ],
)
async def test_every_answer_carries_the_headers(method: str, path: str, status: int) -> None:
    """Answers, refusals and defects: nothing inline, nothing from elsewhere, no frame, no cache."""
    notebook = Notebook()
    notebook.error = RuntimeError("a defect") if status == 500 else None
    async with served(a_site(actions=notebook)) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert answer.headers["cache-control"] == "no-store"


async def test_refusals_are_logged_once_a_second() -> None:
    """Somebody who guesses tokens writes one line, without what was guessed."""
    with capture_logs() as lines:
        async with served(a_site(access=guarded())) as client:
            for _ in range(20):
                await client.get("/api/v1/status", headers={"authorization": "Bearer guess"})
    (line,) = [line for line in lines if line["event"] == "status.refused"]
    assert (line["log_level"], line["status"], line["client"]) == ("warning", 401, "127.0.0.1")
    assert "guess" not in str(line)


async def test_it_is_served_with_tls(tmp_path: Path) -> None:
    """With a certificate it speaks https and nothing else."""
    async with served(
        a_site(), tls_cert_file=make_certificate(tmp_path), tls_key_file=tmp_path / "key.pem"
    ) as client:
        assert (await client.get("/livez")).status_code == 200


async def test_a_port_that_is_taken_is_said() -> None:
    """By the key to change."""
    first = StatusListener(StatusConfig(listen="127.0.0.1:0"))
    await first.bind()
    try:
        with pytest.raises(ReserveListenerError, match=r"cannot listen on .* Set status\.listen"):
            await StatusListener(StatusConfig(listen=f"127.0.0.1:{first.port}")).bind()
    finally:
        await first.close()
