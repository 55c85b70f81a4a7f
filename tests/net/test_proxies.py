"""Which proxy an address is reached through, by setting and by environment."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from reserve_listener.errors import ConfigError
from reserve_listener.net import proxies
from reserve_listener.net.addresses import is_loopback

PASSWORD = "s3#cr@t%/w?rd:1"  # of no proxy
ENCODED = "s3%23cr%40t%25%2Fw%3Frd%3A1"


def through(url: str, **environ: str) -> str | None:
    """The proxy that the environment sends this address through."""
    proxy = proxies.decide(url, setting=None, key="lark.proxy", environ=environ)
    return None if proxy is None else f"{proxy.source} {proxy.url}"


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.example", {}, None),
        ("https://a.example", {"HTTPS_PROXY": "http://p:3128"}, "HTTPS_PROXY http://p:3128"),
        ("https://a.example", {"https_proxy": "p:3128"}, "https_proxy http://p:3128"),
        ("https://a.example", {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "https_proxy http://p:1"),
        ("https://a.example", {"https_proxy": " ", "HTTPS_PROXY": "http://q:2"}, "HTTPS_PROXY http://q:2"),
        ("wss://a.example/ws", {"HTTPS_PROXY": "https://p"}, "HTTPS_PROXY https://p:443"),
        ("https://a.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://a.example", {"HTTP_PROXY": "http://p"}, "HTTP_PROXY http://p:80"),
        ("ws://a.example", {"http_proxy": "http://p:1"}, "http_proxy http://p:1"),
        ("https://a.example", {"ALL_PROXY": "p:1"}, "ALL_PROXY http://p:1"),
        ("http://a.example", {"all_proxy": "p:1", "HTTP_PROXY": "q:2"}, "HTTP_PROXY http://q:2"),
        ("https://a.example", {"HTTPS_PROXY": "p:1", "ALL_PROXY": "socks5://s:1"}, "HTTPS_PROXY http://p:1"),
        ("https://a.example", {"HTTPS_PROXY": "HTTP://[2001:db8::1]:3128/"}, "HTTPS_PROXY http://[2001:db8::1]:3128"),
        ("http://127.0.0.1:1", {"HTTP_PROXY": "p:1"}, None),
        ("http://localhost", {"ALL_PROXY": "p:1"}, None),
        ("ws://[::1]:1/", {"HTTP_PROXY": "p:1"}, None),
        ("http://127.0.0.1:1", {"HTTP_PROXY": "socks5://p:1"}, None),
    ],
)  # fmt: skip
def test_what_the_environment_says(url: str, environ: dict[str, str], expected: str | None) -> None:
    """Small letters before capitals, ALL_PROXY last, a value without a scheme is http, loopback goes straight."""
    assert through(url, **environ) == expected


@pytest.mark.parametrize(
    ("host", "exceptions", "excepted"),
    [
        ("a.corp", "*", True),
        ("a.corp", "x, *", True),
        ("a.corp", "corp", True),
        ("a.corp", ".corp", True),
        ("a.corp", "*.corp", True),
        ("A.Corp.", "*.CORP", True),
        ("corp", ".corp", True),
        ("a.corp", "a.corp.", True),
        ("acorp", "corp", False),
        ("a.corp", "b.corp", False),
        ("a.corp", "x.example b.example\ta.corp", True),
        ("a.corp", ",,", False),
        ("a.corp", ".", False),
        ("a.corp", "a.corp:443", True),
        ("a.corp", "a.corp:8443", False),
        ("a.corp:8443", "a.corp:8443", True),
        ("a.corp:8443", "a.corp", True),
        ("a.corp", "a.corp:x", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.9.9.9/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "10.1.2.3:80", False),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", "10.0.0.0/99", False),
        ("a.corp", "10.0.0.0/8", False),
        ("[2001:db8::7]", "2001:db8::/32", True),
        ("[2001:db8::7]", "2001:0db8:0::7", True),
        ("[2001:db8::7]", "[2001:db8::7]", True),
        ("[2001:db8::7]", "[2001:db8::7]:443", True),
        ("[2001:db8::7]", "[2001:db8::7]:80", False),
        ("[2001:db8::7]", "2001:db9::/32", False),
        ("[::ffff:10.1.2.3]", "10.0.0.0/8", True),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy(host: str, exceptions: str, excepted: bool, variable: str) -> None:  # noqa: FBT001  # a column
    """Names and all below them, addresses, networks, with a port or without, separated by commas or blanks."""
    found = through(f"https://{host}", HTTPS_PROXY="p:1", **{variable: exceptions})
    assert (found is None) is excepted


def test_no_proxy_in_small_letters_goes_first() -> None:
    """As with the others; an empty one counts as not set."""
    assert through("https://a.corp", HTTPS_PROXY="p:1", no_proxy="b.corp", NO_PROXY="a.corp") is not None
    assert through("https://a.corp", HTTPS_PROXY="p:1", no_proxy="", NO_PROXY="a.corp") is None


def test_the_setting_goes_before_the_environment() -> None:
    """It holds for every address, whatever NO_PROXY says."""
    environ = {"HTTPS_PROXY": "socks5://p:1", "NO_PROXY": "*"}
    for url in ("https://a.corp", "http://127.0.0.1"):
        proxy = proxies.decide(url, setting="http://own:8080", key="lark.proxy", environ=environ)
        assert proxy is not None
        assert (proxy.source, proxy.url) == ("lark.proxy", "http://own:8080")


@pytest.mark.parametrize("written", [PASSWORD, ENCODED, f"{PASSWORD}@"])
@pytest.mark.parametrize("scheme", ["", "http://", "https://"])
def test_any_password_is_read(scheme: str, written: str) -> None:
    """A login ends at the last @, whatever stands in it, percent-encoded or not, and shows in no repr."""
    written = written.replace(
        "%/", "%25/"
    )  # a percent sign itself has to be encoded before two hex digits only
    proxy = proxies.parse(f"{scheme}us%40er:{written}@proxy.example:3128", source="HTTPS_PROXY")
    assert (proxy.user, proxy.host, proxy.port) == ("us@er", "proxy.example", 3128)
    assert proxy.password is not None
    assert proxy.password.removesuffix("@") == PASSWORD
    assert "s3" not in f"{proxy!r} {proxy.url}"


@pytest.mark.parametrize(
    "value",
    [
        f"socks5://user:{PASSWORD}@p:1080",
        f"socks5h://user:{PASSWORD}@p",
        f"ftp://user:{PASSWORD}@p",
        f"http://user:{PASSWORD}@",
        f"http://user:{PASSWORD}@p:0",
        f"http://user:{PASSWORD}@p:65536",
        f"http://user:{PASSWORD}@p:{PASSWORD}",
        f"http://p:3128/{PASSWORD}",
        f"user:{PASSWORD}",
        f"://{PASSWORD}",
        "http://[::1",
        "http:// p",
    ],
)
def test_a_proxy_that_cannot_be_used(value: str) -> None:
    """The error names the variable and what to do, quotes nothing of the value, and comes only where it is used."""
    with pytest.raises(ConfigError, match=r"^HTTPS_PROXY: .*must be http\(s\)://.*NO_PROXY$") as caught:
        through("https://a.example", HTTPS_PROXY=value)
    assert "s3" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert through("http://a.example", HTTPS_PROXY=value) is None
    assert through("https://a.example", HTTPS_PROXY=value, NO_PROXY="a.example") is None
    with pytest.raises(ConfigError, match=r"^lark\.proxy: "):
        proxies.decide("https://a.example", setting=value, key="lark.proxy", environ={})


@pytest.mark.parametrize(
    "written", [f"user:{PASSWORD}@p", f"http://user:{ENCODED}@p:1", f"socks5://user:{PASSWORD}@p"]
)
def test_all_forms_of_a_login_are_secret(written: str) -> None:
    """As it is written, decoded, encoded, and as the header has it, from every variable, used or not."""
    encoded = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    for variable in proxies.VARIABLES:
        texts = set(proxies.secret_texts({variable: written}))
        assert {PASSWORD, ENCODED, encoded} <= texts
        assert "user" not in texts


@given(st.text(max_size=60))
def test_no_value_is_a_defect(value: str) -> None:
    """Whatever stands in a variable, it is a proxy or a ConfigError, and its login can be looked for."""
    list(proxies.login_texts(value))
    with suppress(ConfigError):
        through("https://a.example", HTTPS_PROXY=value, NO_PROXY=value)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("open.feishu.cn", False),
        ("127.0.0.1.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, local: bool) -> None:  # noqa: FBT001  # a column of the table
    """Only the loopback's own names and addresses are this machine."""
    assert is_loopback(host) is local
