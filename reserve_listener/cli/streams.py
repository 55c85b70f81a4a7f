"""Standard output and standard error in any encoding: no character can make printing fail.

Also how a command that prints until Ctrl-C ends.
"""

import codecs
import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

from reserve_listener.text import ESCAPE


def set_up_streams() -> None:
    r"""What an encoding cannot express is written as `\uXXXX`, which JSON reads as what it was."""
    sys.stdout, sys.stderr = _escaping(sys.stdout), _escaping(sys.stderr)


def _escaping(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # closed (None), or a test's own
        return stream
    stream.reconfigure(errors=ESCAPE)
    if codecs.lookup(stream.encoding).name != "ascii":
        return stream
    # Typer takes ASCII for a mistake, and would write UTF-8 past the stream. A writer of this class does not say its encoding.
    return codecs.StreamReaderWriter(
        stream.buffer, codecs.getreader("ascii"), codecs.getwriter("ascii"), ESCAPE
    )


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C ends the process there and then, with 0: each line is out once it is printed.

    A KeyboardInterrupt would be lost where Python drops exceptions, in `__del__` or a callback, and the command go on.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # nohup, or in a script's background
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
