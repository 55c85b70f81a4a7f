"""`check --online` against the local platform, real receivers and a real proxy."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from reserve_listener.simulator import HttpServer, Receiver, Simulator, patience
from tests.commands import COMMANDS
from tests.daemon.test_proxy import LOGIN, PASSWORD, Proxy, url_of
from tests.daemon_process import environment, running, write_config, write_sinks_config
from tests.net.test_resolver import HANGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NO_SUCH_NAME = HANGS.replace(
    "threading.Event().wait()", 'raise socket.gaierror(-2, "Name or service not known")'
)


async def check(config: Path, **environ: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what is said, by subject; of two findings of one subject the second."""
    command = ("check", "--online", "-c", str(config))
    done = await asyncio.to_thread(COMMANDS.run, *command, env=environment(**environ), timeout=patience(60))
    assert done.stderr == ""
    rows = [re.fullmatch(r"(ok|warn|FAIL)\t(.+?)\t(.+)", line) for line in done.stdout.splitlines()]
    return done.returncode, {row[2]: f"{row[1]} {row[3]}" for row in rows if row}


def sink(name: str, url: str, more: str = "") -> str:
    """A further http sink."""
    return f'[[sinks]]\nname = "{name}"\ntype = "http"\nurl = "{url}"\n{more}\n'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for receiver.test with its key, in one file, trusted by nobody."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subject = ["-subj", "/CN=receiver.test", "-addext", "subjectAltName=DNS:receiver.test,IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *key, *subject, "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_name("both.pem.crt").read_bytes())
    return path


@asynccontextmanager
async def tls_server(certificate: Path) -> AsyncIterator[int]:
    """A server that shakes hands and says nothing; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_all_is_well(tmp_path: Path) -> None:
    """The app is accepted, its gateway and each sink reached; nobody connects, and no sink gets a request."""
    receiver = Receiver()
    async with Simulator() as platform, HttpServer(receiver) as server:
        code, told = await check(write_config(tmp_path, platform, server.url))
        assert (platform.connects, platform.endpoint_calls, receiver.received) == (0, 1, [])
    assert code == 0
    assert told["the platform"] == "ok accepts lark.app_id and the secret"
    assert told["the long connection"] == "ok can be reached"
    assert told["other clients"] == "ok none connected"
    assert told['sink "booking"'] == "ok can be reached"


async def test_other_clients_of_the_app_are_counted(tmp_path: Path) -> None:
    """The daemon that runs on this store is not counted among the others; a second one is, with a warning."""
    for name in ("one", "two"):
        await asyncio.to_thread((tmp_path / name).mkdir)
    async with Simulator() as platform, HttpServer(Receiver()) as server:
        first, second = (write_config(tmp_path / name, platform, server.url) for name in ("one", "two"))
        async with running(tmp_path / "one", first):
            await platform.connected(20)
            assert (await check(first))[1][
                "other clients"
            ] == "ok none connected besides the daemon on this machine"
            code, told = await check(second)
            assert code == 0
            assert told["other clients"].startswith("warn 1 connected: each event goes to only one client")
            async with running(tmp_path / "two", second):
                await platform.connected(20, count=2)
                told = (await check(first))[1]
                assert told["other clients"].startswith(
                    "warn 1 connected besides the daemon on this machine: each"
                )


async def test_a_wrong_secret(tmp_path: Path) -> None:
    """What the platform refuses is exit code 77, with its reason and where the right secret is found."""
    async with Simulator() as platform, HttpServer(Receiver()) as server:
        config = write_config(tmp_path, platform, server.url)
        await asyncio.to_thread((tmp_path / "secret").write_text, "wr0ng-secret")
        code, told = await check(config)
    assert code == 77
    assert told["the platform"].startswith("FAIL")
    assert "authentication failed" in told["the platform"]
    assert "check lark.app_id and lark.app_secret against Credentials" in told["the platform"]
    assert told['sink "booking"'] == "ok can be reached"


async def test_what_cannot_be_reached(tmp_path: Path, certificate: Path) -> None:
    """Name, port and certificate: each says what was tried, where, and what to look at; the exit code is 1."""
    (tmp_path / "sitecustomize.py").write_text(NO_SUCH_NAME)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with (
            Simulator() as platform,
            HttpServer(Receiver()) as server,
            tls_server(certificate) as tls_port,
        ):
            url = f"https://127.0.0.1:{tls_port}/hook"
            sinks = sink("name", "https://x.hangs.test/") + sink("port", f"http://127.0.0.1:{port}/")
            sinks += sink("tls", url) + sink("trusted", url, f'ca_bundle = "{certificate}"')
            config = write_config(tmp_path, platform, server.url, more=sinks)
            code, told = await check(config, PYTHONPATH=str(tmp_path))
    assert code == 1
    name, refused, tls = (told[f'sink "{name}"'] for name in ("name", "port", "tls"))
    assert name.startswith("FAIL DNS lookup of x.hangs.test failed: Name or service not known; check")
    assert refused.startswith(f"FAIL TCP connect to 127.0.0.1:{port} failed: Connection refused; check")
    assert 'sink "port": proxy or HTTPS_PROXY' in refused
    assert tls.startswith(
        f"FAIL TLS handshake with 127.0.0.1:{tls_port} failed: the certificate is not trusted"
    )
    assert told['sink "trusted"'] == "ok can be reached, and its certificate is trusted"
    assert told["the platform"].startswith("ok")


async def test_the_push_monitor_is_reached_and_not_asked(tmp_path: Path) -> None:
    """A check that beat would tell the monitor that a daemon is well; one that cannot be reached says where to look."""
    receiver = Receiver()
    async with Simulator() as platform, HttpServer(receiver) as server:
        for url, expected in (
            (server.url, "ok can be reached"),
            (
                "http://127.0.0.1:1",
                "FAIL TCP connect to 127.0.0.1:1 failed: Connection refused; check heartbeat.url_file",
            ),
        ):
            (tmp_path / "monitor").write_text(f"{url}/api/push/s3cr3t-t0ken")
            more = f'[heartbeat]\nurl_file = "{tmp_path}/monitor"\n'
            code, told = await check(write_config(tmp_path, platform, server.url, more=more))
            assert told["heartbeat"].startswith(expected)
            assert code == int(expected.startswith("FAIL"))
            assert "s3cr3t" not in repr(told)
    assert receiver.received == []


async def test_a_name_that_hangs(tmp_path: Path) -> None:
    """The check comes to its end, with all else that it found."""
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    async with Simulator() as platform, HttpServer(Receiver()) as server:
        config = write_config(tmp_path, platform, server.url, more=sink("far", "https://x.hangs.test/"))
        code, told = await check(config, PYTHONPATH=str(tmp_path))
    assert code == 1
    assert told['sink "far"'].startswith(
        "FAIL DNS lookup of x.hangs.test failed: the name server does not answer within 8 s"
    )
    assert told['sink "booking"'] == "ok can be reached"


@pytest.mark.parametrize("refusal", ["", f"407 not {PASSWORD}, not {LOGIN}"])
async def test_through_a_proxy(tmp_path: Path, certificate: Path, refusal: str) -> None:
    """The proxy is asked with its login and tunnels to the sink; should it refuse, its password is not shown."""
    async with (
        Simulator() as platform,
        HttpServer(Receiver()) as server,
        tls_server(certificate) as port,
        Proxy(refusal=refusal).serve() as proxy,
    ):
        more = f"ca_bundle = '{certificate}'\nproxy = '{url_of(proxy)}'"
        config = write_config(
            tmp_path, platform, server.url, more=sink("far", f"https://127.0.0.1:{port}/", more)
        )
        code, told = await check(config)
        assert proxy.requests == ["CONNECT"]
        assert proxy.login(proxy.heads[0]) == f"user:{PASSWORD}"
    assert PASSWORD[:9] not in str(told)
    if not refusal:
        assert (code, told['sink "far"']) == (0, "ok can be reached, and its certificate is trusted")
        return
    assert code == 1
    place = f"127.0.0.1:{port} through the proxy {proxy.address} failed: the proxy answers 407"
    assert told['sink "far"'] == f'FAIL proxy CONNECT to {place}; check sink "far": proxy'


@pytest.mark.parametrize(
    ("missing", "found"),
    [
        ((), {"names of rooms": "ok", "reconciling": "ok", "names of people": "ok"}),
        (
            ("contact:user.basic_profile:readonly",),
            {"names of rooms": "ok", "reconciling": "ok", "names of people": "warn"},
        ),
        (("vc:room:readonly",), {"names of rooms": "warn", "names of people": "ok"}),
    ],
)
async def test_what_the_app_may_ask(tmp_path: Path, missing: tuple[str, ...], found: dict[str, str]) -> None:
    """Each kind of call is tried once; a permission that is missing is named, with what is lost and where to add it. It is no failure."""
    async with Simulator() as platform, HttpServer(Receiver()) as server:
        platform.faults.missing_permissions.update(missing)
        code, told = await check(
            write_config(tmp_path, platform, server.url, more="[rooms]\npeople_names = true\n")
        )
        calls = len(platform.calls)
    assert code == 0
    asked = {
        where: told[where] for where in ("names of rooms", "reconciling", "names of people") if where in told
    }
    assert {where: text.split()[0] for where, text in asked.items()} == found
    for text in (text for text in asked.values() if text.startswith("warn")):
        assert all(word in text for word in (*missing, "IDs only", "Permissions & Scopes"))
    assert calls <= 6


async def test_nothing_is_asked_that_is_not_wanted(tmp_path: Path) -> None:
    """Without names and reconciling, no room is asked about."""
    more = "[rooms]\nnames = false\nreconcile = false\n"
    async with Simulator() as platform, HttpServer(Receiver()) as server:
        _, told = await check(write_config(tmp_path, platform, server.url, more=more))
        assert [call.path for call in platform.calls if "/vc/" in call.path or "/contact/" in call.path] == []
    assert "names of rooms" not in told


@pytest.mark.parametrize(
    ("secret", "code", "expected"),
    [
        ('app_secret = "simulated0secret0simulated0secret"', 0, "ok accepts lark.app_id and the secret"),
        (
            'app_secret = "wr0ng"',
            77,
            "FAIL refuses the app or its secret: code 10014: app secret invalid (log id",
        ),
        ("", 0, "ok not asked, because there is no secret"),
    ],
)
async def test_with_the_webhook(tmp_path: Path, secret: str, code: int, expected: str) -> None:
    """The secret is tried if there is one; nobody is asked for an address to connect to."""
    async with Simulator() as platform, HttpServer(Receiver()) as server:
        lark = (
            f'app_id = "{platform.app_id}"\ndomain = "{platform.domain}"\ntransport = "webhook"\n{secret}\n'
        )
        found, told = await check(write_sinks_config(tmp_path, server.url, lark=lark, more=""))
        assert platform.endpoint_calls == 0
    assert found == code
    assert told["the platform"].startswith(expected)
    assert ("rooms" in told) == (not secret)
    if not secret:
        assert told["rooms"].startswith(
            "warn off, because there is no secret to ask the platform with: names of rooms, reconciling"
        )
    assert told.get("names of rooms") == ("ok the app may ask for them" if code == 0 and secret else None)


async def test_the_simulators_api() -> None:
    """A token for the right credentials only, and a count for the right token only, with the platform's codes."""
    async with Simulator() as platform, httpx2.AsyncClient(base_url=platform.domain, trust_env=False) as http:
        token_path, count_path = (
            "/open-apis/auth/v3/tenant_access_token/internal",
            "/open-apis/event/v1/connection",
        )

        async def ask(**credentials: str) -> dict[str, object]:
            return dict((await http.post(token_path, json=credentials)).json())

        assert (await ask(app_id="cli_other", app_secret=platform.app_secret))["code"] == 10003
        assert (await ask(app_id=platform.app_id, app_secret="wrong"))["code"] == 10014  # of nothing
        token = (await ask(app_id=platform.app_id, app_secret=platform.app_secret))["tenant_access_token"]
        assert (await http.get(count_path)).json()["code"] == 99991661
        assert (await http.get(count_path, headers={"authorization": "Bearer t-x"})).json()[
            "code"
        ] == 99991663
        answer = await http.get(count_path, headers={"authorization": f"Bearer {token}"})
        assert answer.json() == {"code": 0, "msg": "success", "data": {"online_instance_cnt": 0}}
