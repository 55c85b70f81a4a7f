"""The nats sink logs in with a user's credentials (.creds), as `nsc` makes them; with Debian's NATS."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from nats.js.api import StreamConfig

from reserve_listener.errors import ConfigError, MisconfiguredSinkError
from reserve_listener.sinks.registry import look_over
from reserve_listener.testing import sample_deliveries
from tests.brokers import NatsServer, running
from tests.configuring import made
from tests.sinks.test_sink_nats import failure, ids, sink_of, table, until_delivered

if TYPE_CHECKING:
    from pathlib import Path

    from reserve_listener.config import SinkTable

ACCOUNT, OPERATOR, USER = 0, 14 << 3, 20 << 3
"""With what the name of a key of each begins: A, O and U."""
SEED = 18 << 3


@pytest.fixture
def name() -> str:
    """What nobody else has."""
    return f"rooms-{uuid4().hex}"


def unconnected(folder: Path) -> SinkTable:
    """A sink with the credentials in this folder."""
    return made("nats", name="bus", servers=("nats://h",), subject="rooms", creds_file=folder / "creds")


class Signer:
    """Who signs in NATS: a key with a name that says whose it is; `prefix`: operator, account or user."""

    def __init__(self, prefix: int) -> None:
        self._key = ECC.generate(curve="Ed25519")
        self._prefix = prefix
        self.name = self._written(bytes([prefix]) + self._key.public_key().export_key(format="raw"))

    @property
    def seed(self) -> str:
        """As a file of credentials has it: "S", then whose it is."""
        head = bytes([SEED | self._prefix >> 5, (self._prefix & 31) << 3])
        return self._written(head + self._key.seed)

    def token(self, name: str, **told: Any) -> str:
        """What it says of `name`."""
        claims = {
            "jti": "1",
            "iat": 1_790_000_000,
            "iss": self.name,
            "name": "test",
            "sub": name,
            "nats": told,
        }
        parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)
        text = ".".join(_short(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_short(eddsa.new(self._key, 'rfc8032').sign(text.encode()))}"

    @staticmethod
    def _written(key: bytes) -> str:
        summed = key + binascii.crc_hqx(key, 0).to_bytes(2, "little")
        return base64.b32encode(summed).decode().rstrip("=")


def _short(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


@dataclass
class Operated:
    """A server whose users log in with credentials that an account has given them, and those of one user."""

    config: str
    creds: str
    secrets: tuple[str, str]


@pytest.fixture(scope="module")
def operated() -> Operated:
    """All that `nsc` would make."""
    operator, system, account, user = Signer(OPERATOR), Signer(ACCOUNT), Signer(ACCOUNT), Signer(USER)
    every = dict.fromkeys(("subs", "conn", "leaf", "data", "payload", "imports", "exports"), -1)
    stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    accounts = {
        one.name: operator.token(one.name, type="account", version=2, limits=every | more)
        for one, more in ((system, {}), (account, stored))
    }
    preloaded = "\n".join(f"{name}: {token}" for name, token in accounts.items())
    operator_token = operator.token(operator.name, type="operator", version=2)
    config = f"operator: {operator_token}\nsystem_account: {system.name}\nresolver: MEMORY\n"
    token = account.token(user.name, type="user", version=2, subs=-1, data=-1, payload=-1)
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return Operated(f"{config}resolver_preload {{\n{preloaded}\n}}\n", creds, (token, user.seed))


async def test_credentials_log_in(tmp_path: Path, operated: Operated, name: str) -> None:
    """A server takes the signature that is made of a .creds file, after a reconnect, too; another key's is refused."""
    config, creds, foreign = tmp_path / "server.conf", tmp_path / "creds", tmp_path / "foreign"
    config.write_text(operated.config)
    creds.write_text(operated.creds)
    foreign.write_text(operated.creds.replace(operated.secrets[1], Signer(USER).seed))
    server = NatsServer(tmp_path, "-c", str(config))
    with running(server):
        sink: Any = sink_of(table(server, name, creds_file=creds, timeout=2))
        with pytest.raises(MisconfiguredSinkError, match="no stream takes"):
            await sink.deliver(sample_deliveries(1))
        context = (await sink._link.client()).jetstream()
        await context.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"]))
        server.kill()
        server.start()
        await until_delivered(sink, sample_deliveries(1)[0])
        assert await ids(context, name) == ["event-0001"]
        await sink.close()
        error = await failure(sink_of(table(server, name, creds_file=foreign, timeout=2)))
    assert type(error) is MisconfiguredSinkError
    assert "check the sink's login" in str(error)


@pytest.mark.parametrize("cut", ["BEGIN NATS USER JWT", "END USER NKEY SEED", "last letters", "foreign"])
def test_what_is_no_users_credentials_is_an_error_at_the_start(
    tmp_path: Path, operated: Operated, cut: str
) -> None:
    """Without a token, without a seed, with a part of one or an account's: said with the file, and nothing that is in it."""
    seed = operated.secrets[1]
    other = {"last letters": seed[:-4], "foreign": Signer(ACCOUNT).seed}.get(cut, seed)
    (tmp_path / "creds").write_text(operated.creds.replace(cut, "").replace(seed, other))
    with pytest.raises(ConfigError, match=f"creds_file: {tmp_path}/creds has") as caught:
        look_over(unconnected(tmp_path))
    assert not any(secret in str(caught.value) for secret in (*operated.secrets, other))


def test_credentials_are_masked_by_line(tmp_path: Path, operated: Operated) -> None:
    """A .creds file has several lines, and none of its secrets is shown."""
    (tmp_path / "creds").write_text(operated.creds)
    texts = {secret.get_secret_value() for secret in unconnected(tmp_path).secret_texts()}
    assert set(operated.secrets) <= texts
