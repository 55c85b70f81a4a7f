"""What somebody may have meant by a name that does not exist. All known names are in lower case."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CUTOFF: Final = 0.75
"""One letter of four is wrong, or one of five too many. With less, words are found that have only some letters in common."""
MOST: Final = 3
"""Names that have the word in them; of more, none is meant in particular."""


def near(name: str, known: Iterable[str]) -> list[str]:
    """Those that have `name` in them as a word, such as `url_file` for `url`; else the one of which it may be a slip."""
    names, wanted = list(known), name.lower()
    containing = [each for each in names if f"_{wanted}_" in f"_{each}_"]
    if 0 < len(containing) <= MOST:
        return containing
    return difflib.get_close_matches(wanted, names, n=1, cutoff=CUTOFF)
