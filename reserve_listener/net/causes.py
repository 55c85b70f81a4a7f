"""Why something could not be reached, in the system's words: libraries sum up what is further down in their errors."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
"""What OpenSSL makes of a first answer that is none of TLS."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those it was raised in the handling of.

    httpx2 says that all attempts failed, the SDK puts an exception of its own in the place of websockets' `InvalidStatus`, and
    stumbles (`int(None)`) over headers that are not as it expects; what says why is further down.
    """
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__  # httpx2 hides the first, which is the one that says why


def said_by_system(error: BaseException) -> str | None:
    """What the system said at the bottom of it, of each address of a name once; None: nothing."""
    for link in reversed(list(chain(error))):
        # A group has an error for each address of a name.
        tried = link.exceptions if isinstance(link, ExceptionGroup) else (link,)
        said = dict.fromkeys(filter(None, (system_says(each) for each in tried if isinstance(each, OSError))))
        if said:
            return "; ".join(said)
    return None


def system_says(error: OSError) -> str:
    """In the system's words: Python's name one address of many, or a line of its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message or error.reason or error}"
    if isinstance(error, ssl.SSLError):
        reason = str(error.reason or error)
        return f"what answers there does not speak TLS ({reason})" if reason in NO_TLS else reason
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno) if error.errno else str(error)
