"""The result of a check: a list of findings, one per thing checked."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from reserve_listener.errors import ConfigError, ReserveListenerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

STEP_TIMEOUT_S: Final = 10.0
"""How long a step may take, such as reading a secret from a network disk that hangs. What works takes milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    `what` is how it is; `do` says what to do about it and is there unless all is well. `exit_code` is what a failure gives
    the command.
    """

    where: str
    what: str
    level: Literal["ok", "warn", "fail"] = "ok"
    do: str = ""
    exit_code: int = ConfigError.exit_code

    @property
    def text(self) -> str:
        """Both in a line."""
        return f"{self.what}; {self.do}" if self.do else self.what


class WrongError(Exception):
    """What is wrong with one thing, and what to do about it."""

    level: Literal["warn", "fail"] = "fail"

    def __init__(self, what: str, do: str = "", *, exit_code: int = ConfigError.exit_code) -> None:
        super().__init__(what)
        self.do = do
        self.exit_code = exit_code


class DoubtfulError(WrongError):
    """The same of what does not keep the daemon from starting."""

    level = "warn"


def look(where: str, at: Callable[[], str]) -> Finding:
    """What `at` finds: the text it returns, or why it raises `WrongError` or an error of ours. It has `STEP_TIMEOUT_S`."""
    try:
        return Finding(where=where, what=within(at))
    except ReserveListenerError as error:
        return Finding(where=where, level="fail", what=str(error), exit_code=error.exit_code)
    except WrongError as error:
        return Finding(
            where=where, level=error.level, what=str(error), do=error.do, exit_code=error.exit_code
        )


def within(step: Callable[[], T], timeout_s: float = STEP_TIMEOUT_S) -> T:
    """What the step returns or raises; `WrongError` when it takes too long. It is then left behind in its thread."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(step())
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run, name="check-step", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except TimeoutError:
        if outcome.done():  # its own
            raise
        raise WrongError(
            f"does not finish within {timeout_s:g} s",
            "look at the files that it names: one may be a pipe, or on a network disk that does not respond",
        ) from None


def exit_code(findings: Sequence[Finding]) -> int:
    """0 when nothing fails; else what is to be mended first: the configuration, then what the platform refuses."""
    return max((finding.exit_code for finding in findings if finding.level == "fail"), default=0)
