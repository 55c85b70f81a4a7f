"""The API's client against a platform that answers what it should not: each trap of the API's map, and of the way there."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import Response, StreamingResponse

from reserve_listener.lark.api import codes, exchange
from reserve_listener.lark.api.caller import ATTEMPTS, TOKEN_PATH
from reserve_listener.lark.api.client import CONNECTIONS_PATH, LIMITS_PATH, PEOPLE_PATH, Client
from reserve_listener.lark.api.errors import (
    ApiError,
    AppRefusedError,
    GoneError,
    PermissionMissingError,
    TryAgainError,
)
from reserve_listener.net.proxies import VARIABLES
from tests.daemon.test_proxy import LOGIN, PASSWORD, Proxy, url_of
from tests.lark.scripted import APP_ID, DATE_MS, SECRET, Asked, World, ok, refused, told, world
from tests.sinks.test_sink_http import make_certificate, raw_server, server_tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reserve_listener.lark.api.answers import RoomsApi

LIMITS = {"time_config": {"time_switch": 1}}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes through this machine's own proxy."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def there() -> AsyncIterator[World]:
    """The usual world."""
    async with world() as found:
        yield found


async def failure(there: World, kind: type[ApiError] = TryAgainError) -> Any:
    """How asking for a room's limits ends."""
    with pytest.raises(ApiError) as caught:
        await there.client.limits("room", "omm_1")
    assert type(caught.value) is kind
    return caught.value


# -- the token ----------------------------------------------------------------------------------------------------------


async def test_a_call_has_the_token_and_what_is_asked(there: World) -> None:
    """The token is asked for with id and secret, lies outside of `data`, and goes along as a header; hours are strings."""
    there.platform.answers[LIMITS_PATH] = [LIMITS]
    api: RoomsApi = there.client
    await api.limits("level", "omb_1")
    token, call = there.platform.asked
    assert (token.method, token.path, token.content) == (
        "POST",
        TOKEN_PATH,
        {"app_id": APP_ID, "app_secret": SECRET},
    )
    assert "authorization" not in token.headers
    assert call.method == "GET"
    assert call.query == {"scope_id": "omb_1", "scope_type": "1", "user_id_type": "open_id"}
    assert call.headers["authorization"] == "Bearer t-number1"
    assert call.headers["user-agent"].startswith("reserve-listener/")


@pytest.mark.parametrize("code", [99991663, 99991661])
async def test_a_refused_token_is_replaced_once(there: World, code: int) -> None:
    """A token that died early costs one more request, and nobody hears of it."""
    there.platform.answers[LIMITS_PATH] = [refused(code), LIMITS]
    await there.client.limits("room", "omm_1")
    assert [each.headers["authorization"] for each in there.platform.of(LIMITS_PATH)] == [
        "Bearer t-number1",
        "Bearer t-number2",
    ]


async def test_a_platform_that_refuses_every_token_is_not_asked_for_ever(there: World) -> None:
    """With more than 30 minutes left it gives the refused one again: one new token a call, then an error."""
    there.platform.answers[LIMITS_PATH] = [refused(99991663, x_tt_logid="20261126A")]
    error = await failure(there, codes.TokenRefusedError)
    assert (len(there.platform.of(LIMITS_PATH)), there.platform.tokens) == (2, 2)
    assert error.log_id == "20261126A"


async def test_the_secret_is_read_anew_for_each_token(tmp_path: Path) -> None:
    """A secret that was replaced while the daemon runs is used for the next token, and the log masks it before."""
    file = tmp_path / "app_secret"
    file.write_text("first-secret\n")
    async with world(app_secret=None, app_secret_file=file) as there:
        there.platform.answers[LIMITS_PATH] = [LIMITS]
        await there.client.limits("room", "omm_1")
        file.write_text("second-secret\n")
        there.clock.now_s += 5401
        await there.client.limits("room", "omm_1")
        sent = [each.content["app_secret"] for each in there.platform.of(TOKEN_PATH)]
    assert sent == ["first-secret", "second-secret"]
    assert [each for each, _ in there.hidden] == ["first-secret", "t-number1", "second-secret", "t-number2"]


async def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    """It is an error of the app that names key and file; with a token that serves, it is none yet."""
    file = tmp_path / "app_secret"
    file.write_text("first-secret\n")
    async with world(app_secret=None, app_secret_file=file) as there:
        there.platform.answers[LIMITS_PATH] = [LIMITS]
        await there.client.limits("room", "omm_1")
        file.unlink()
        there.clock.now_s += 5401
        await there.client.limits("room", "omm_1")
        there.clock.now_s += 1800
        error = await failure(there, AppRefusedError)
    assert str(error).startswith(f"lark.app_secret_file: cannot read {file}: No such file")


async def test_without_a_secret_nothing_is_asked() -> None:
    """The webhook needs none: the error says which key is not set."""
    async with world(app_secret=None) as there:
        error = await failure(there, AppRefusedError)
        assert there.platform.asked == []
    assert str(error) == "lark.app_secret: not set"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"code": 10014, "msg": "app secret invalid"}, AppRefusedError),
        ({"code": 10003, "msg": "invalid param"}, AppRefusedError),
        ({"code": 0, "msg": "ok", "expire": 7200}, TryAgainError),
        ({"code": 0, "tenant_access_token": "", "expire": 7200}, TryAgainError),
        ({"code": 0, "tenant_access_token": "t-a\r\nx: y", "expire": 7200}, TryAgainError),
        ({"code": 0, "tenant_access_token": "t-é", "expire": 7200}, TryAgainError),
        ({"code": 0, "tenant_access_token": "t-abcd", "expire": "7200"}, TryAgainError),
        ({"code": 0, "tenant_access_token": "t-abcd", "expire": 0}, TryAgainError),
        ({"code": 0, "tenant_access_token": "t-abcd"}, TryAgainError),
    ],
)
async def test_no_token(there: World, answer: dict[str, Any], kind: type[ApiError]) -> None:
    """A refusal is final until somebody mends it; an answer that has no usable token may pass. None goes into a header."""
    there.platform.answers[TOKEN_PATH] = [told(answer)]
    error = await failure(there, kind)
    assert there.platform.of(LIMITS_PATH) == []
    assert "t-a" not in str(error)


async def test_tokens_that_have_ended_are_not_masked_for_ever(there: World) -> None:
    """Sixteen tokens a day would slow down each line of the log: of three, the first is forgotten."""
    there.platform.answers[LIMITS_PATH] = [LIMITS]
    for _ in range(4):
        await there.client.limits("room", "omm_1")
        there.clock.now_s += 5401
    assert [pair for pair in there.hidden if pair[0] != SECRET] == [
        ("t-number1", ""),
        ("t-number2", ""),
        ("t-number3", "t-number1"),
        ("t-number4", "t-number2"),
    ]


# -- trying again, and giving up ----------------------------------------------------------------------------------------


async def test_a_hiccup_is_waited_out(there: World) -> None:
    """Internal errors, a conflict and a gateway's page are tried again, a little later each time."""
    page = Response("<html>", 502, media_type="text/html")
    there.platform.answers[LIMITS_PATH] = [
        refused(121001, status=500),
        refused(121006, status=404),
        page,
        LIMITS,
    ]
    await there.client.limits("room", "omm_1")
    assert there.clock.slept == [1, 2, 4]


async def test_what_does_not_pass_goes_to_the_caller(there: World) -> None:
    """After four attempts, with the code and the log id: the client never tries for ever."""
    there.platform.answers[LIMITS_PATH] = [refused(424242, "odd", status=200, x_tt_logid="20261126A")]
    error = await failure(there)
    assert len(there.platform.of(LIMITS_PATH)) == ATTEMPTS
    assert str(error) == "code 424242: odd (log id 20261126A)"
    assert error.after_s is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (121003, ApiError),
        (121005, ApiError),
        (121004, GoneError),
        (126001, GoneError),
        (99991543, AppRefusedError),
    ],
)
async def test_what_is_final_is_asked_once(there: World, code: int, kind: type[ApiError]) -> None:
    """No second request says anything else."""
    there.platform.answers[LIMITS_PATH] = [refused(code)]
    assert (await failure(there, kind)).code == code
    assert len(there.platform.of(LIMITS_PATH)) == 1


async def test_a_missing_permission_is_named(there: World) -> None:
    """That of the answer; and each call knows what it needs if the answer does not say."""
    there.platform.answers[LIMITS_PATH] = [
        told(
            {
                "code": 99991672,
                "msg": "Access denied.",
                "error": {"permission_violations": [{"subject": "vc:rooms.room.basicinfo:read"}]},
            },
            status=400,
        ),
    ]
    there.platform.answers[PEOPLE_PATH] = [refused(99991672)]
    error = await failure(there, PermissionMissingError)
    assert error.permissions == ("vc:rooms.room.basicinfo:read",)
    with pytest.raises(PermissionMissingError) as caught:
        await there.client.people(["ou_1"])
    assert caught.value.permissions == ("contact:user.basic_profile:readonly",)


async def test_too_often_is_waited_out_as_long_as_the_platform_says(there: World) -> None:
    """Under 429, and under 400 as older calls have it; only calls of this kind wait."""
    there.platform.answers[LIMITS_PATH] = [
        refused(99991400, status=429, x_ogw_ratelimit_reset="7"),
        refused(99991400, status=400, x_ogw_ratelimit_reset="30"),
        LIMITS,
    ]
    start_s = there.clock.now_s
    waiting = asyncio.create_task(there.client.limits("room", "omm_1"))
    await waiting
    assert there.clock.now_s - start_s == pytest.approx(37 + 1 + 2, abs=3)
    assert len(there.platform.of(LIMITS_PATH)) == 3


async def test_a_long_pause_goes_to_the_caller_and_holds_for_all(there: World) -> None:
    """The wish of an hour is told at once; who asks in spite of it is told what is left, and no request goes out."""
    there.platform.answers[LIMITS_PATH] = [
        refused(99991400, status=429, x_ogw_ratelimit_reset="3000"),
        LIMITS,
    ]
    there.platform.answers[CONNECTIONS_PATH] = [{"online_instance_cnt": 3}]
    assert (await failure(there)).after_s == 3000
    there.clock.now_s += 1000
    assert (await failure(there)).after_s == 2000
    assert len(there.platform.of(LIMITS_PATH)) == 1
    assert await there.client.connections() == 3
    there.clock.now_s += 2000
    await there.client.limits("room", "omm_1")


async def test_retries_count_as_calls() -> None:
    """A platform that fails is not asked more often than the pace allows."""
    async with world(requests_per_minute=1) as there:
        there.platform.answers[LIMITS_PATH] = [refused(121001, status=500)]
        start_s = there.clock.now_s
        await failure(there)
        assert there.clock.now_s - start_s >= 3 * 61 - 5


# -- the way there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (
            Response("<html>log in</html>", 200, media_type="text/html"),
            "the answer is not the platform's JSON",
        ),
        (
            Response("", 302, {"location": "https://portal.example/"}),
            "HTTP 302: a redirect, which is not followed",
        ),
        (Response("Not Found", 404), "HTTP 404, without an answer of the platform's"),
        (
            Response(gzip.compress(b'{"code":0}'), 200, {"content-encoding": "gzip"}),
            "not the platform's JSON",
        ),
        (told({"code": 0, "msg": "ok"}), "the answer has no data"),
        (told({"code": 0, "msg": "ok", "data": []}), "the answer has no data"),
    ],
)
async def test_who_else_may_answer(there: World, response: Response, said: str) -> None:
    """A login portal, a gateway, an answer without substance: it may pass, and nothing of it is taken for an empty list."""
    there.platform.answers[LIMITS_PATH] = [response]
    assert said in str(await failure(there))
    assert len(there.platform.of(LIMITS_PATH)) == ATTEMPTS


async def test_an_answer_has_a_size(there: World) -> None:
    """One of many megabytes is left."""

    async def huge() -> AsyncIterator[bytes]:
        for _ in range(2 * exchange.ANSWER_BYTES // 65_536):
            yield b" " * 65_536

    there.platform.answers[LIMITS_PATH] = [lambda _: StreamingResponse(huge())]
    assert "longer than" in str(await failure(there))


async def test_an_answer_has_an_end() -> None:
    """One that drips is left after the time for the whole exchange, and so is silence."""

    async def dripping() -> AsyncIterator[bytes]:
        for _ in range(100):  # 2 s
            yield b" "
            await asyncio.sleep(0.02)

    async def silence(_: Asked) -> Response:
        await asyncio.sleep(3600)
        return ok()

    async with world(endpoint_timeout=0.2) as there:
        there.platform.answers[LIMITS_PATH] = [
            lambda _: StreamingResponse(dripping()),
            silence,
            lambda _: StreamingResponse(dripping()),
            LIMITS,
        ]
        await there.client.limits("room", "omm_1")
        there.platform.answers[LIMITS_PATH] = [silence]
        assert "no answer in time" in str(await failure(there))


async def test_a_cancelled_call_ends_at_once(there: World) -> None:
    """A daemon that stops does not wait for the platform."""
    reached = asyncio.Event()

    async def silence(_: Asked) -> Response:
        reached.set()
        await asyncio.sleep(3600)
        return ok()

    there.platform.answers[LIMITS_PATH] = [silence, LIMITS]
    asking = asyncio.create_task(there.client.limits("room", "omm_1"))
    async with asyncio.timeout(10):
        await reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await there.client.limits("room", "omm_1")


async def test_a_connection_that_breaks(there: World) -> None:
    """An answer that is cut off, and a kept connection that the other side has closed, are tried again on a new one."""
    body = json.dumps({"code": 0, "data": LIMITS}).encode()

    async def half(_: Asked) -> Response:
        async def cut() -> AsyncIterator[bytes]:
            yield body[:5]
            raise ConnectionResetError

        return StreamingResponse(cut(), headers={"content-length": str(len(body))})

    there.platform.answers[LIMITS_PATH] = [half, LIMITS]
    await there.client.limits("room", "omm_1")
    assert len(there.platform.of(LIMITS_PATH)) == 2


async def test_no_cookies_are_kept(there: World) -> None:
    """What the other side wants to be remembered is not sent back."""
    there.platform.answers[LIMITS_PATH] = [told({"code": 0, "data": LIMITS}, set_cookie="a=b")]
    for _ in range(2):
        await there.client.limits("room", "omm_1")
    assert all("cookie" not in each.headers for each in there.platform.asked)


async def test_nobody_listens() -> None:
    """It says what was tried, where, and which key to look at."""
    async with world(domain="http://127.0.0.1:1") as there:
        error = await failure(there)
    assert str(error) == "TCP connect to 127.0.0.1:1 failed: Connection refused"
    assert (error.hint or "").startswith("check lark.domain")


async def test_a_proxy_is_used_and_its_login_is_not_told() -> None:
    """`lark.proxy` holds for the API; a proxy that refuses and quotes the login is shown without it."""
    async with Proxy().serve() as proxy, world(proxy=url_of(proxy)) as there:
        await there.client.prove()
        assert proxy.requests == [f"POST {TOKEN_PATH}"]
    async with (
        Proxy(refusal=f"407 {LOGIN}").serve() as proxy,
        world(proxy=url_of(proxy)) as there,
    ):
        error = await failure(there)
        assert PASSWORD not in str(error)
        assert LOGIN not in str(error)


async def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Socks is refused before anything is asked, with the name of the variable."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    async with world(domain="https://open.feishu.cn") as there:
        assert "HTTPS_PROXY" in str(await failure(there, AppRefusedError))


async def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    """TLS is verified, and the error says where to look."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's view is no news here

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    certificate = make_certificate(tmp_path)
    async with raw_server(never, server_tls(certificate)) as place, world(domain=f"https://{place}") as there:
        error = await failure(there)
    assert str(error).startswith(f"TLS handshake with {place} failed: the certificate is not trusted")
    assert "SSL_CERT_FILE" in (error.hint or "")


# -- what is told -------------------------------------------------------------------------------------------------------


async def test_no_text_of_an_error_holds_a_secret_or_acts(there: World) -> None:
    """A platform, or what pretends to be it, that quotes secret and token gets them masked; its controls are visible."""
    quoted = f"{SECRET} t-number1 \x1b[2J\n\u202eevil"
    there.platform.answers[LIMITS_PATH] = [refused(1, quoted)]
    error = await failure(there)
    assert str(error) == r"code 1: ******** ******** \x1b[2J \u202eevil"


async def test_a_long_text_is_cut_after_it_is_masked(there: World) -> None:
    """Half a secret at the edge would not be recognised."""
    there.platform.answers[LIMITS_PATH] = [refused(1, "x" * (exchange.SHOWN_CHARS - 10) + SECRET * 1_000)]
    text = (await failure(there)).message
    assert len(text) <= exchange.SHOWN_CHARS
    assert SECRET[:4] not in text


async def test_of_a_text_that_is_too_long_the_end_is_not_looked_at(there: World) -> None:
    """A secret that stands across the end of what is looked through does not come out by half."""
    blanks = " " * (exchange.SEEN_CHARS - 5)
    there.platform.answers[LIMITS_PATH] = [refused(1, "a" + blanks + SECRET)]
    assert SECRET[:4] not in (await failure(there)).message


async def test_every_error_has_the_platforms_log_id() -> None:
    """Also of an answer that lacks what it should have."""
    for path, answer in (
        (LIMITS_PATH, told({"code": 0}, x_tt_logid="20261126A")),
        (LIMITS_PATH, told({"code": 0, "data": LIMITS}, x_tt_logid="20261126A", date="")),
        (LIMITS_PATH, Response("<html>", 502, {"x-tt-logid": "20261126A"})),
        (LIMITS_PATH, refused(121005, x_tt_logid="20261126A")),
        (LIMITS_PATH, refused(99991672, x_tt_logid="20261126A")),
        (TOKEN_PATH, told({"code": 0}, x_tt_logid="20261126A")),
    ):
        async with world() as another:
            another.platform.answers = {LIMITS_PATH: [LIMITS], path: [answer]}
            with pytest.raises(ApiError) as caught:
                await another.client.limits("room", "omm_1")
        assert caught.value.log_id == "20261126A"
        assert str(caught.value).endswith("(log id 20261126A)")


# -- limits -------------------------------------------------------------------------------------------------------------


async def test_limits_are_told_in_the_words_of_the_event(there: World) -> None:
    """People have one id here and three in the event; a section may go by its other name; what is unknown stays."""
    person = {"user_id": "ou_1", "user_name": "Wang"}
    there.platform.answers[LIMITS_PATH] = [
        {
            "approval_config": {
                "approval_switch": 1,
                "approvers": [person, {"user_id": {"open_id": "ou_2"}}, 7],
            },
            "time_config": {"opening_hour": "28800", "if_cover_child_scope": True},
            "reserve_scope_config": {
                "allow_users": [{"user_id": "ou_3"}],
                "allow_depts": [{"department_id": "od-1"}],
            },
            "other": 1,
        }
    ]
    limits = await there.client.limits("room", "omm_1")
    assert (limits.scope_type, limits.scope_id) == ("room", "omm_1")
    assert limits.config == {
        "approve_config": {
            "approval_switch": 1,
            "approvers": [
                {"user_id": {"open_id": "ou_1"}, "user_name": "Wang"},
                {"user_id": {"open_id": "ou_2"}},
                7,
            ],
        },
        "time_config": {"opening_hour": "28800", "if_cover_child_scope": True},
        "reserve_scope_config": {
            "allow_users": [{"user_id": {"open_id": "ou_3"}}],
            "allow_depts": [{"department_id": "od-1"}],
        },
    }


async def test_what_an_answer_lacks_was_not_told(there: World) -> None:
    """A section that is absent or null is absent, not empty."""
    there.platform.answers[LIMITS_PATH] = [{"time_config": None, "approve_config": {"approvers": None}}]
    assert (await there.client.limits("room", "omm_1")).config == {"approve_config": {"approvers": None}}


async def test_limits_were_in_force_between_two_moments(there: World) -> None:
    """From the `Date` less the call's duration less a second, to a second after it: on the platform's clock, not on ours."""

    def slowly(_: Asked) -> Response:
        there.clock.now_s += 2.5
        return ok(**LIMITS)

    there.platform.answers[LIMITS_PATH] = [slowly]
    limits = await there.client.limits("room", "omm_1")
    assert (limits.as_of_ms, limits.until_ms) == (DATE_MS - 2500 - 1000, DATE_MS + 1000)


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Nov 2026 08:00:00 GMT"])
async def test_an_answer_without_a_date_says_nothing(there: World, date: str) -> None:
    """Our own clock may be wrong by more than a change takes: it is no substitute."""
    there.platform.answers[LIMITS_PATH] = [told({"code": 0, "data": LIMITS}, date=date)]
    error = await failure(there)
    assert "no usable Date header" in str(error)
    assert "proxy" in (error.hint or "")


# -- people -------------------------------------------------------------------------------------------------------------


def named(asked: Asked) -> dict[str, Any]:
    """Everybody's name, but for ou_7's."""
    ids = asked.content["user_ids"]
    return {
        "users": [
            {"user_id": each, "name": f"名{each}", "i18n_name": {"en_us": f"Name {each}", "zh_cn": ""}}
            for each in ids
            if each != "ou_7"
        ]
    }


async def test_people_are_asked_for_ten_at_a_time(there: World) -> None:
    """Each once, by their open_id; whoever has no name is absent."""
    there.platform.answers[PEOPLE_PATH] = [named]
    names = await there.client.people(["ou_1", "ou_1", "", *(f"ou_{number}" for number in range(23))])
    assert [len(each.content["user_ids"]) for each in there.platform.of(PEOPLE_PATH)] == [10, 10, 3]
    assert there.platform.of(PEOPLE_PATH)[0].query == {"user_id_type": "open_id"}
    assert names == {f"ou_{number}": f"Name ou_{number}" for number in range(23) if number != 7}


async def test_names_are_in_the_daemons_language() -> None:
    """Chinese if that is its language; without a name in it, the one that the organisation uses."""
    async with world(language="zh") as there:
        there.platform.answers[PEOPLE_PATH] = [named]
        assert await there.client.people(["ou_1"]) == {"ou_1": "名ou_1"}


async def test_one_wrong_id_costs_nobody_else_a_name(there: World) -> None:
    """A person of another app makes the platform refuse all ten: the others are asked for without."""

    def choosy(asked: Asked) -> Any:
        wrong = "ou_foreign" in asked.content["user_ids"]
        return refused(99992361, "open_id cross app") if wrong else named(asked)

    there.platform.answers[PEOPLE_PATH] = [choosy]
    names = await there.client.people(["ou_1", "ou_2", "ou_foreign", "ou_4"])
    assert names.keys() == {"ou_1", "ou_2", "ou_4"}


async def test_names_nobody_asked_for_are_left(there: World) -> None:
    """An answer about others, or of odd shapes, names nobody."""
    there.platform.answers[PEOPLE_PATH] = [
        {
            "users": [
                {"user_id": "ou_9", "name": "x"},
                7,
                {"user_id": ["ou_1"]},
                {"user_id": "ou_1", "name": 3},
            ]
        }
    ]
    assert await there.client.people(["ou_1"]) == {}


async def test_close_twice() -> None:
    """Closing is harmless, also before anything was asked."""
    async with world() as there:
        await there.client.close()
        await there.client.close()
        assert isinstance(there.client, Client)
