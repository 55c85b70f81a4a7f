r"""Foreign text on its way to people and programs. A leaf: everybody may use it.

What must stay true: what comes out of here neither drives a terminal, nor ends a line, nor turns the direction of what
stands beside it. Nothing is dropped: what would do so is shown as its escape, `\n`, `\x1b`, `\u202e`.

Each text is treated once, where it leaves: `visible` for a line that people read, `escaped_json` for a line of JSON,
`ESCAPE` for what an encoding cannot express.
"""

from __future__ import annotations

import codecs
import os
import re
from typing import Final, TextIO
from urllib.parse import quote, urlencode

MASK: Final = "********"
"""What stands in the place of a secret."""

LONGEST: Final = 2_000
"""Characters of a foreign text that are shown: some 25 lines of a terminal, more than any reason takes."""

ESCAPE: Final = "reserve_listener.escape"
r"""An error handler for `str.encode`: what the encoding lacks becomes `\uXXXX`, which JSON reads as what it was."""

# C0, DEL, C1 (NEL among them); the soft hyphen; marks, embeddings, overrides and isolates of the bidi algorithm; line and
# paragraph separators; what has no width and no use but to hide (joiners have: emoji and Persian need them); half a
# surrogate pair; tag characters. Blanks stay, U+3000 among them: Chinese text has them.
_CONTROLS: Final = r"\x00-\x1f\x7f-\x9f"
_INVISIBLE: Final = (
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0001\U000e0020-\U000e007f"
)
_UNSAFE: Final = re.compile(f"[{_CONTROLS}{_INVISIBLE}]")
# What JSON's own rules let stand in a string. C0 is escaped there, and between values it is the layout.
_UNSAFE_IN_JSON: Final = re.compile(f"[\x7f-\x9f{_INVISIBLE}]")


def colourful(stream: TextIO) -> bool:
    """Whether colours and bold letters may go to this stream: a person's terminal, who has not said no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def visible(text: str, longest: int = LONGEST) -> str:
    """A text of unknown origin as a piece of one line, of at most `longest` characters. Done twice it changes nothing."""
    cut = text[: longest + 1]
    if not cut.isprintable():  # quick, and true of nothing that is unsafe
        cut = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), cut)
    return cut if len(cut) <= longest else f"{cut[: longest - 1]}…"


def page_of(scope_id: str) -> str:
    """Where the page of a room or level is, below `status.public_url`. A browser would take `.` and `..` out of a path."""
    if scope_id.strip(".") == "":
        return f"/scopes?{urlencode({'id': scope_id})}"
    return f"/scopes/{quote(scope_id, safe='', errors='replace')}"


def visible_lines(text: str) -> str:
    """A text of several lines, such as a traceback, each of them safe. They stay lines, however long."""
    return "\n".join(visible(line, len(line) * 10) for line in text.split("\n"))


def escaped_json(document: str) -> str:
    """JSON that means the same, without characters that drive a terminal or end a line for some programs."""
    if document.isascii():  # which a text knows of itself; JSON has escaped the rest but for DEL
        return document.replace("\x7f", "\\u007f")
    if document.isprintable():
        return document
    return _UNSAFE_IN_JSON.sub(lambda found: _utf16_escapes(found[0]), document)


def _utf16_escapes(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _utf16_escapes(error.object[error.start : error.end]), error.end


codecs.register_error(ESCAPE, _escape)
