"""What a person is told of an error that a client library raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reserve_listener.net.causes import said_by_system
from reserve_listener.redact import redact
from reserve_listener.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN_CHARS: Final = 300


class Saying:
    """Somebody else's words on one line, without `secrets`, after where they come from."""

    def __init__(self, place: str, secrets: Iterable[str]) -> None:
        self._place = place
        self._secrets = tuple(sorted(filter(None, secrets), key=len, reverse=True))

    def __call__(self, error: BaseException | str, advice: str = "") -> str:
        """What went wrong, and what to look at."""
        if isinstance(error, str):
            said = error
        else:
            said = said_by_system(error) or str(error) or type(error).__name__
        text = visible(redact(" ".join(said.split()), self._secrets), SHOWN_CHARS)
        return f"{self._place}: {text}" + (f" ({advice})" if advice else "")
