"""What may be wrong on the way to the database, in words: what waiting may mend, and what a person has to. Pure.

libpq hands on a server's refusal as text, without its SQLSTATE, so the text is all that there is to go by.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from reserve_listener.errors import StoreAwayError, StoreError, WrongStoreError
from reserve_listener.store.postgres.connection import SCHEMA, told
from reserve_listener.store.shared.medium import MediumError

if TYPE_CHECKING:
    import psycopg

MAY_CREATE: Final = (
    f"Let the role create its schema, or create it: CREATE SCHEMA {SCHEMA} AUTHORIZATION <role>."
)

_FOR_A_PERSON: Final = (
    (
        r"(password|SASL) authentication failed|no password supplied",
        "Set the right password (store.password_file, or the URL), and the user's name in store.url.",
    ),
    (
        r'authentication failed for user|pg_hba\.conf|role "[^"]*" (does not exist|is not permitted)|no such user',
        "Check the user in store.url and the server's pg_hba.conf.",
    ),
    (
        r'database "[^"]*" does not exist|no such database',
        "Create the database, or name another one in store.url.",
    ),
    (
        r"permission denied for database",
        "Let the role connect: GRANT CONNECT ON DATABASE <database> TO <role>.",
    ),
    (
        r"certificate file|private key file",
        (
            "Check sslrootcert, sslcert and sslkey in store.url: the authority that signed the server's certificate, and"
            " this client's own certificate, as files on this machine."
        ),
    ),
    (
        (
            r"invalid (integer |port |\S+ )?(value|number)|invalid SSL protocol|could not match \d|could not parse network"
            r"|service file|definition of service|bad value for"
        ),
        "Correct that setting in store.url (or in libpq's own environment variables, PG…).",
    ),
)
"""What waiting does not mend: how to know it, and what to do."""


class AwayError(MediumError, StoreAwayError):
    """The server cannot be reached, or does not take connections now: waiting may help."""


def explained(name: str, error: psycopg.Error) -> StoreError:
    """Why there is no connection to the store of this name."""
    text, advice = told(error), _advice(str(error))
    if advice is None:
        return AwayError(f"the store {name} cannot be reached: {text}. {_look_at(text)}")
    return WrongStoreError(f"the store {name} cannot be used: {text}. {advice}")


def _advice(text: str) -> str | None:
    """What a person has to do; None: waiting may help."""
    if "starting up" in text:
        return None
    return next((advice for mark, advice in _FOR_A_PERSON if re.search(mark, text)), None)


def _look_at(text: str) -> str:
    """What may be wrong; what waiting may mend is not known to be a person's mistake."""
    if "read-only" in text:
        return (
            "If it is a standby, wait for the failover to end, and name all hosts in store.url; if not, look at"
            " default_transaction_read_only."
        )
    if re.search("too many|connection slots|no more connections", text):
        return "Each replica takes four connections: raise the limit, or run fewer replicas."
    if "certificate" in text or "SSL" in text:
        return "Check the server's certificate, and sslmode and sslrootcert in store.url."
    return "Is the server running, and is the address in store.url right?"
