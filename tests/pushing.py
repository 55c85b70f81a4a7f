"""Pushes to a webhook as the platform makes them, for tests."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from reserve_listener.lark import encryption
from reserve_listener.simulator import events, sample_event
from tests.daemon_process import write_sinks_config

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = events.TOKEN
KEY = "the app's encrypt key"


def event(**more: Any) -> bytes:
    """The platform's JSON of one change."""
    return msgspec.json.encode(sample_event(**more))


def challenge(token: str | None = TOKEN) -> bytes:
    """What the console sends when an address is saved."""
    content = {"type": "url_verification", "challenge": "c-0123", "token": token}
    return msgspec.json.encode({name: value for name, value in content.items() if value is not None})


def sealed(plain: bytes, key: str = KEY) -> bytes:
    """The body of an encrypted push."""
    return msgspec.json.encode({"encrypt": encryption.encrypt(key, plain, iv=os.urandom(16))})


def signed(body: bytes, *, key: str = KEY, at_s: float | None = None) -> dict[str, str]:
    """The headers of a push with this body."""
    timestamp = str(int(time.time() if at_s is None else at_s))
    return {
        "Content-Type": "application/json; charset=utf-8",
        encryption.TIMESTAMP: timestamp,
        encryption.NONCE: "n0nce",
        encryption.SIGNATURE: encryption.sign(timestamp, "n0nce", key, body),
    }


def write_webhook_config(folder: Path, receiver_url: str, *, listen: str = "127.0.0.1:0") -> Path:
    """A configuration with the webhook and the three sinks, all of it in `folder`."""
    (folder / "key").write_text(KEY)
    (folder / "token").write_text(TOKEN)
    lark = 'app_id = "cli_x"\ntransport = "webhook"'
    more = f"""
[webhook]
listen = "{listen}"
path = "/hook"
encrypt_key_file = "{folder}/key"
verification_token_file = "{folder}/token"
"""
    return write_sinks_config(folder, receiver_url, lark=lark, more=more)
