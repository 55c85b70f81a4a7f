"""What is suggested for a name that does not exist: what may have been meant, and nothing far-fetched."""

from __future__ import annotations

import pytest

from reserve_listener.config.near import near

KNOWN = ("type", "url_file", "sasl_user", "sasl_password_file", "path", "servers", "max_in_flight", "timeout")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tpye", "type"),
        ("pth", "path"),
        ("Server", "servers"),
        ("url", "url_file"),
        ("user", "sasl_user"),
        ("password", "sasl_password_file"),
        ("max", "max_in_flight"),
    ],
)
def test_what_may_have_been_meant(name: str, found: str) -> None:
    """A slip, or a word of a longer name."""
    assert near(name, KNOWN) == [found]


@pytest.mark.parametrize("name", ["typo_here", "hear_path_finder", "x", "", "_", "time", "flight_path"])
def test_what_was_not_meant(name: str) -> None:
    """Some letters in common are no reason."""
    assert near(name, KNOWN) == []


def test_a_word_of_many_names_means_none_of_them() -> None:
    """Three can be named; of four, the list of all keys says as much."""
    files = [f"{name}_file" for name in ("alpha", "beta", "gamma", "delta")]
    assert near("file", files[:3]) == files[:3]
    assert near("file", files) == []
