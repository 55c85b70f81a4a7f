"""Limits by their names."""

from __future__ import annotations

import pytest

from reserve_listener.intake.terms import TERMS
from reserve_listener.web.page import words as page_words


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_limit_has_the_same_name_everywhere(language: str) -> None:
    """On the page, in cards, tables and spreadsheets; two limits never share one; with a unit over bare values only."""
    names = [term.names[language] for term in TERMS]
    assert len(set(names)) == len(names)
    page = page_words.LANGUAGES[language]
    assert [page[term.path] for term in TERMS] == names
    for term in TERMS:
        assert term.heading(language).startswith(term.names[language])
        assert (term.heading(language) == term.names[language]) is (term.units is None)
