"""Whoever guesses tokens is slowed down, and nobody else is."""

from __future__ import annotations

import time

import pytest

from reserve_listener.web.guesses import ADDRESSES, TRIES, TRIES_OF_ALL, WINDOW_S, Guesses
from tests.web.serving import BEARER, TOKEN, a_site, served
from tests.web.test_access import guarded


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock; its only entry is the time."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def guess(counter: Guesses, address: str, number: int = TRIES) -> None:
    """So many wrong tokens, each another one."""
    for one in range(number):
        counter.failed(address, b"guess %d" % one)


def test_an_address_has_to_wait_for_its_oldest_failure_to_pass(clock: list[float]) -> None:
    """After five; the others may go on, and the wait ends by itself."""
    counter = Guesses()
    guess(counter, "192.0.2.1", TRIES - 1)
    assert counter.wait_s("192.0.2.1") == 0
    clock[0] += 10
    counter.failed("192.0.2.1", b"another")
    assert counter.wait_s("192.0.2.1") == pytest.approx(WINDOW_S - 10)
    assert counter.wait_s("192.0.2.2") == 0
    clock[0] += WINDOW_S - 10
    assert counter.wait_s("192.0.2.1") == 0


@pytest.mark.usefixtures("clock")
def test_the_right_token_forgives_the_slips_before_it() -> None:
    """A person who mistypes twice a day is never kept out."""
    counter = Guesses()
    for _ in range(3):
        guess(counter, "192.0.2.1", TRIES - 1)
        counter.succeeded("192.0.2.1")
    assert counter.wait_s("192.0.2.1") == 0


@pytest.mark.usefixtures("clock")
def test_the_same_wrong_token_again_is_no_guess() -> None:
    """A monitor with an old token must not keep those out who share its address."""
    counter = Guesses()
    for _ in range(1000):
        counter.failed("192.0.2.1", b"old")
    assert counter.wait_s("192.0.2.1") == 0


@pytest.mark.usefixtures("clock")
def test_a_network_of_its_own_is_one_address() -> None:
    """Whoever has an IPv6 address has 2^64 of them; IPv4 written as IPv6 is IPv4."""
    counter = Guesses()
    for one in range(TRIES):
        counter.failed(f"2001:db8::{one:x}", b"guess %d" % one)
    assert counter.wait_s("2001:db8::ffff") > 0
    assert counter.wait_s("2001:db8:0:1::1") == 0
    guess(counter, "::ffff:192.0.2.1")
    assert counter.wait_s("::ffff:192.0.2.2") == 0


@pytest.mark.usefixtures("clock")
def test_many_addresses_together_have_to_wait_too() -> None:
    """And what is remembered of them stays bounded."""
    counter = Guesses()
    for one in range(ADDRESSES * 2):
        counter.failed(f"10.0.{one // 256}.{one % 256}", b"guess")
        if one < TRIES_OF_ALL - 1:
            assert counter.wait_s("192.0.2.9") == 0
    assert counter.wait_s("192.0.2.9") > 0
    assert len(counter._by_address) == ADDRESSES


async def test_the_right_token_gets_in_whoever_guesses() -> None:
    """A hundred wrong ones from everywhere, and five from the same address: neither keeps out who has it."""
    access = guarded()
    for one in range(2 * TRIES_OF_ALL):
        access.try_token(f"guess {one}", f"10.0.0.{one % 50}")
    assert access.try_token("wrong", "192.0.2.1").wait_s > 0
    for address in ("192.0.2.1", "10.0.0.1"):
        assert access.try_token(TOKEN, address).is_right
    async with served(a_site(access=access)) as client:
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 303


async def test_wrong_tokens_of_the_api_and_of_the_login_count_together() -> None:
    """Then a wrong one gets 429, which says for how long; the right one is taken, or anybody behind a proxy could keep all others out."""
    async with served(a_site(access=guarded())) as client:
        assert (await client.post("/login", data={"token": TOKEN})).status_code == 303
        for one in range(TRIES):
            if one % 2:
                answer = await client.post("/login", data={"token": f"guess {one}"})
                assert answer.status_code == 403
            else:
                wrong = {"authorization": f"Bearer guess{one}"}
                assert (await client.get("/api/v1/status", headers=wrong)).status_code == 401
        wrong = {"authorization": "Bearer one-more"}
        answer = await client.get("/api/v1/status", headers=wrong)
        assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
        assert 0 < int(answer.headers["retry-after"]) <= WINDOW_S
        answer = await client.post("/login", data={"token": "one-more"})
        assert answer.status_code == 429
        assert "set-cookie" not in answer.headers
        assert (await client.get("/api/v1/status")).status_code == 200
        client.cookies.clear()
        assert (await client.get("/api/v1/status", headers=BEARER)).status_code == 200
        assert (await client.get("/readyz", headers=BEARER)).status_code == 200
