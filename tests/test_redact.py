"""What must not leave: tokens in payloads, credentials in texts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from reserve_listener import redact as redact_module
from reserve_listener.redact import DEPTH, blank_tokens, redact
from reserve_listener.text import MASK


class Nested:
    """JSON that is a string of JSON."""

    def __init__(self, inner: Any, ascii_only: bool, indent: int | None) -> None:  # noqa: FBT001  # drawn by hypothesis
        self.inner = inner
        self.ascii_only = ascii_only
        self.indent = indent

    def __repr__(self) -> str:
        return f"Nested({self.inner!r}, {self.ascii_only}, {self.indent})"


def written(document: Any, secret: str, *, ascii_only: bool, indent: int | None) -> bytes:
    """The document in JSON with this secret under its tokens."""

    def plain(value: Any) -> Any:
        if isinstance(value, Nested):
            return json.dumps(plain(value.inner), ensure_ascii=value.ascii_only, indent=value.indent)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return secret if value == SECRET else value

    text = json.dumps(plain(document), ensure_ascii=ascii_only, indent=indent)
    return text.encode("utf-8", "surrogatepass")


SECRET = "Zq9verification0Xw7"


@pytest.mark.parametrize(
    ("raw", "blanked"),
    [
        (b'{"token":"abc"', b'{"token":""'),
        (b'{"token" : "abc","x":1', b'{"token" : "","x":1'),
        (b'{"Token":"abc"', b'{"Token":""'),
        (b'"token":"a\\"b","x"', b'"token":"","x"'),
        (b'"token":"a\\\\","x"', b'"token":"","x"'),
        (b'"token":"a\nb","x"', b'"token":"","x"'),
        (b'"token":"abc', b'"token":"'),
        (b'"token":"abc\\', b'"token":"'),
        (b'"token":"', b'"token":"'),
        (b'"token":"a""token":"b"', b'"token":"""token":""'),
        (b'"{\\"token\\": \\"abc\\", \\"x\\"', b'"{\\"token\\": \\"\\", \\"x\\"'),
        (b'"{\\"token\\": \\"abc', b'"{\\"token\\": \\"'),
        (b'"{\\"token\\"\\n:\\t\\"abc\\"}"', b'"{\\"token\\"\\n:\\t\\"\\"}"'),
        (b'"{\\u0022token\\u0022:\\u0022abc\\u0022}"', b'"{\\u0022token\\u0022:\\u0022\\u0022}"'),
        (b'{"\\u0074o\\u006Ben":"abc"}', b'{"\\u0074o\\u006Ben":""}'),
        (b'"{\\"\\\\u0074oken\\":\\"abc\\"}"', b'"{\\"\\\\u0074oken\\":\\"\\"}"'),
        (b'{"token":["a",{"b":"c"}],"d":"e"}', b'{"token":["",{"":""}],"d":"e"}'),
        (b'{"token":[],"d":"e"}', b'{"token":[],"d":"e"}'),
        (b'{"token":{},"token":"a"}', b'{"token":{},"token":""}'),
        (b'x":"y","token":"abc","z', b'x":"y","token":"","z'),
        (b'["token","abc"]', b'["token","abc"]'),
        (b'"tokens":"abc"', b'"tokens":"abc"'),
        (b'"token":5', b'"token":5'),
        (b"", b""),
    ],
)
def test_tokens_go_and_all_else_stays(raw: bytes, blanked: bytes) -> None:
    """Every token is blanked, cut off or escaped or in JSON within JSON; all else stays byte for byte."""
    assert blank_tokens(raw) == blanked


def test_what_is_nested_too_deeply_to_be_read_is_blanked_whole() -> None:
    """No number of wrappers hides a token, and what stands beside the wrapped stays."""
    wrapped = SECRET
    for _ in range(DEPTH + 3):
        wrapped = wrapped.replace("\\", "\\u005c").replace('"', "\\u0022")
        wrapped = f'{{"token":"{wrapped}"}}' if wrapped == SECRET else f'{{"a":"{wrapped}"}}'
    blanked = blank_tokens(f'{{"beside":"kept","x":{wrapped}}}'.encode())
    assert SECRET.encode() not in blanked
    assert json.loads(blanked)["beside"] == "kept"


names = st.sampled_from(("a", "b", "tokens", "token_", 'say "token"', "\\u0074oken")) | st.text(max_size=5)
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
documents = st.recursive(
    st.just({"token": SECRET}) | st.just({"TOKEN": SECRET, "b": 1}) | plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3)
        | st.builds(Nested, inner, st.booleans(), st.sampled_from((None, 1)))
    ),
    max_leaves=12,
)


@given(documents, st.booleans(), st.sampled_from((None, 2)))
def test_any_document_keeps_all_but_its_tokens(document: Any, ascii_only: bool, indent: int | None) -> None:  # noqa: FBT001  # drawn
    """At every depth, in strings of JSON within strings of JSON, whatever their layout: what was without tokens is the same."""
    raw = written(document, SECRET, ascii_only=ascii_only, indent=indent)
    assert blank_tokens(raw) == written(document, "", ascii_only=ascii_only, indent=indent)


@given(documents, st.floats(0, 1), st.floats(0, 1))
def test_no_token_survives_a_cut(document: Any, begin: float, end: float) -> None:
    """Wherever the payload ends not even the beginning of a token is left, and nothing is added to it."""
    raw = written({"a": document, "token": SECRET}, SECRET, ascii_only=True, indent=None)
    cut = raw[: round(len(raw) * end)]
    blanked = blank_tokens(cut)
    assert SECRET[:3].encode() not in blanked
    assert len(blanked) <= len(cut)


@given(
    st.binary() | st.text('tokenTOKEN\\"u07456fbe:,[]{} \n').map(str.encode), st.sampled_from(((), ("abcd",)))
)
def test_blanking_anything_twice_is_blanking_it_once(raw: bytes, values: tuple[str, ...]) -> None:
    """Any bytes are taken; nothing is added, and what is blank stays so."""
    once = blank_tokens(raw, values)
    assert len(once) <= len(raw)
    assert values or blank_tokens(once) == once


PIECES = st.lists(
    st.sampled_from(['"token":"', '"', "token", "Token", ":", "abc", "\\", "{", " ", "\u00fc"]), max_size=8
)


@given(PIECES, PIECES, st.sampled_from([(), ("abc",), ("a-b",)]))
def test_the_short_way_and_the_long_way_agree(
    before: list[str], after: list[str], values: tuple[str, ...]
) -> None:
    """One plain key is blanked at once; what comes out is what reading all of it would have left."""
    raw = "".join([*before, '"token":"', *after]).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact_module, "_USUAL", b"never in it")
        at_length = blank_tokens(raw, values)
    assert blank_tokens(raw, values) == at_length


@pytest.mark.parametrize("value", ["plain-value_1", 'with "quotes" and \\ in it', "北京 token é", "a/b+c=="])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_configured_token_goes_wherever_it_stands(value: str, depth: int, ascii_only: bool) -> None:  # noqa: FBT001  # a table's
    """Under another key, within a text, in JSON within JSON, escaped in another way than ours: the value is not kept."""
    document: Any = {"note": f"see {value}!", "token": value, "list": [value]}
    expected: Any = {"note": "see !", "token": "", "list": [""]}
    for _ in range(depth):
        document, expected = (
            {"wrapped": json.dumps(each, ensure_ascii=ascii_only)} for each in (document, expected)
        )
    raw = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert json.loads(blank_tokens(raw, [value])) == expected


def test_a_value_spelled_in_escapes() -> None:
    """JSON has many spellings of a letter: the value is known in each."""
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
    assert blank_tokens(f'{{"x":"<{spelled}>"}}'.encode(), [SECRET]) == b'{"x":"<>"}'


@pytest.mark.parametrize("value", ["", "e", "abc"])
def test_a_value_of_hardly_a_letter_blanks_no_words(value: str) -> None:
    """An empty or very short value is no reason to take letters out of everything."""
    assert blank_tokens(b'{"x":"one e abc"}', [value]) == b'{"x":"one e abc"}'


def cost(raw: bytes) -> float:
    """Processor time for one payload: the best of three, since others share the machine."""

    def once() -> float:
        started = time.process_time()
        blank_tokens(raw, [SECRET])
        return time.process_time() - started

    return min(once() for _ in range(3))


ATOMS = (b'"', b"\\", b'\\"', b'"token', b'"token"', b":", b"token", b"\\u0074", b"\\u005c", b"u0022", b"[", b"{", b" ", b"x", b'"token\\": \\"')  # fmt: skip
SEED = (b'"token\\": \\"',), (b'"token\\"',), (b"\\u005c",), (b'"token', b"\\"), (b'"token":[',), (b'\\"',)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(ATOMS), min_size=1, max_size=5).map(b"".join),
    st.sampled_from((b"", b'"', b'"token":"', b'"token')),
)
@pytest.mark.slow
def test_blanking_takes_linear_time(unit: bytes, begin: bytes) -> None:
    """Eight times as much of whatever is hard takes about eight times as long; were it quadratic, 64 times."""
    size = 8_000
    small, large = (begin + unit * (count // len(unit)) for count in (size, 8 * size))
    assert cost(large) < 0.01 + 24 * cost(small)


@pytest.mark.parametrize("unit", SEED, ids=lambda unit: b"".join(unit).decode())
def test_known_attacks_take_linear_time(unit: tuple[bytes, ...]) -> None:
    """What once took a quadratic time, as large as it was then."""
    *begin, last = unit
    small, large = (b"".join(begin) + last * (count // len(last)) for count in (75_000, 600_000))
    assert cost(large) < 0.01 + 24 * cost(small)


@pytest.mark.parametrize(
    "unit",
    [
        "token",
        "token=",
        "token'",
        "token: ",
        "token ",
        "'",
        " ",
        "\\",
        "bearer ",
        "authorization: bearer ",
        "a",
    ],
)
@pytest.mark.parametrize("begin", ["", "token", "token=", "authorization: bearer"])
def test_masking_takes_linear_time(begin: str, unit: str) -> None:
    """Texts that were made to be hard cost eight times as much when they are eight times as long, not 64 times."""

    def cost(text: str) -> float:
        started = time.process_time()
        redact(text, ("hunter2",))
        return time.process_time() - started

    small, large = (
        min(cost(begin + unit * (size // len(unit))) for _ in range(3)) for size in (8_000, 64_000)
    )
    assert large < 0.01 + 24 * small


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("wss://h/ws?device_id=1&access_key=AAA&ticket=BBB&x=1", "wss://h/ws?device_id=1&access_key=***&ticket=***&x=1"),
        ('{"AppID": "cli_1", "AppSecret": "s3cr3t"}', '{"AppID": "cli_1", "AppSecret": "***"}'),
        ("app_secret=abc, next", "app_secret=***, next"),
        ("'verification_token': 'abc'", "'verification_token': '***'"),
        ('{\\"token\\":\\"abc\\"}', '{\\"token\\":\\"***\\"}'),
        ("tenant_access_token: t-1", "tenant_access_token: ***"),
        ("encrypt_key = kkk", "encrypt_key = ***"),
        ("signing_secret=whsec_abc", "signing_secret=***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("authorization=Basic Zm9v", "authorization=Basic ***"),
        ('{"authorization": "Bearer abc"}', '{"authorization": "Bearer ***"}'),
        ("authorization: abc", "authorization: ***"),
        ("nothing to hide, tokens: 5", "nothing to hide, tokens: 5"),
    ],
)  # fmt: skip
def test_credentials_in_texts(text: str, redacted: str) -> None:
    """What looks like a credential is masked; the words around it stay."""
    assert redact(text) == redacted.replace("***", MASK)


def test_the_configured_secrets() -> None:
    """A secret of the configuration is masked wherever it stands, in the order given; an empty one masks nothing."""
    assert redact("as is, a class", ("s", "as", "cla")) == "as is, a class"  # too short to be one
    assert redact("a s3cr3t-long in s3cr3t", ("s3cr3t-long", "s3cr3t", "")) == f"a {MASK} in {MASK}"


def test_an_error_that_names_a_missing_key_stays_readable() -> None:
    """What the configuration's own errors say of a secret's key is no secret."""
    for text in (
        "config.toml: lark.app_secret: missing; set app_secret_file",
        "lark.app_secret: not set",
        "lark.app_secret_file: cannot read /etc/app_secret: No such file or directory",
        "create it with `install -m 600 /dev/stdin /etc/app_secret` (paste the secret, Enter, Ctrl-D)",
    ):
        assert redact(text) == text
    assert "hunter2" not in redact("app_secret: hunter2; missing; ")
