"""Standard output and standard error in whatever encoding they have: nothing that is printed can fail for its letters."""

import codecs
import io
import sys
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
