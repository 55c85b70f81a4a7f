"""Every built-in sink keeps what `reserve_listener.testing` asks of a plugin's, and the suite finds those that do not."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from reserve_listener.errors import DeliveryError, PermanentDeliveryError, TransientDeliveryError
from reserve_listener.simulator import Answer, HttpServer, Receiver
from reserve_listener.sinks.registry import make_sink_spec
from reserve_listener.testing import SinkContract, SinkWorld
from tests.configuring import made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from reserve_listener.model import Delivery
    from reserve_listener.protocols import Sink

TOKEN = "b34rer-token-value"


async def nowhere(_: object) -> None:
    """No log sink is made with it."""


class TestLog(SinkContract):
    """The log sink, and a log that cannot be written."""

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        lines: list[dict[str, Any]] = []
        broken: list[bool] = []

        async def write(new: Sequence[dict[str, Any]]) -> None:
            if broken:
                raise OSError(28, "No space left on device")
            lines.extend(new)

        yield SinkWorld(
            make=lambda: make_sink_spec(made("log", name="a"), write).sink,
            delivered=lambda: [line["event_id"] for line in lines],
            refuse=lambda: broken.append(True),
        )


class TestFile(SinkContract):
    """The file sink, and a folder that is no more."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "folder"
        self.folder.mkdir()

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        path = self.folder / "events.jsonl"

        def ids() -> list[str]:
            return (
                [json.loads(line)["id"] for line in path.read_bytes().splitlines()] if path.exists() else []
            )

        def refuse() -> None:
            path.unlink(missing_ok=True)
            path.mkdir()

        yield SinkWorld(
            make=lambda: make_sink_spec(made("file", name="a", path=path), nowhere).sink,
            delivered=ids,
            refuse=refuse,
        )


class TestHttp(SinkContract):
    """The http sink, a receiver that quotes the request, and one that does not answer."""

    format = "cloudevents"
    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def world(self) -> AsyncIterator[SinkWorld]:
        token, receiver = self.folder / "token", Receiver()
        token.write_text(TOKEN)
        keys: dict[str, Any] = {"bearer_token_file": token, "format": self.format, "max_in_flight": 4}
        if self.format == "feishu":
            keys |= {"verification_token_file": token, "encrypt_key_file": token}
        async with HttpServer(receiver) as server:

            def answer(with_this: Callable[..., Answer]) -> Callable[[], None]:
                return lambda: setattr(receiver, "answer", with_this)

            table = made("http", name="a", url=f"{server.url}/hook/s3cret-part-0", timeout=2, **keys)
            yield SinkWorld(
                make=lambda: make_sink_spec(table, nowhere).sink,
                delivered=lambda: [one.headers["webhook-id"] for one in receiver.received],
                refuse=answer(lambda got: Answer(status=503, body=f"{got.path} {got.headers}".encode())),
                hang=answer(lambda _: Answer(delay=5)),
                secrets=(TOKEN, "s3cret-part-0"),
            )


class TestFeishu(TestHttp):
    """The http sink with the platform's own form."""

    format = "feishu"


class Toy:
    """A sink in memory, and what one can do wrong."""

    batch_size = 3
    max_in_flight = 2
    needs_raw = False

    def __init__(self, arrived: list[str], refusing: list[bool]) -> None:
        self.name = "toy"
        self.arrived = arrived
        self.refusing = refusing

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        if self.refusing:
            raise self.refusal()
        self.arrived += [one.event_id for one in deliveries]

    def refusal(self) -> Exception:
        """What a failure raises."""
        return TransientDeliveryError("the toy is broken")

    async def close(self) -> None:
        """Nothing is held."""


class Backwards(Toy):
    """Turns the order around."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        await super().deliver(deliveries[::-1])


class Forgetful(Toy):
    """Takes no second delivery of an event."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        if any(one.event_id in self.arrived for one in deliveries):
            raise PermanentDeliveryError("known already")
        await super().deliver(deliveries)


class Talkative(Toy):
    """Shows its secret."""

    def refusal(self) -> Exception:
        """What a failure raises."""
        return TransientDeliveryError(f"the toy is broken: {TOKEN}")


class Honest(Toy):
    """Raises what it finds."""

    def refusal(self) -> Exception:
        """What a failure raises."""
        return KeyError("answer")


class Silent(Toy):
    """Keeps failures to itself."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        if not self.refusing:
            await super().deliver(deliveries)


class Stubborn(Toy):
    """Makes an error of being cancelled."""

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See `protocols.Sink.deliver`."""
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise TransientDeliveryError("interrupted") from None
        await super().deliver(deliveries)


class ClosedOnce(Toy):
    """Cannot be closed again."""

    closed = False

    async def close(self) -> None:
        """See `protocols.Sink.close`."""
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class Nameless(Toy):
    """Says nothing of its bounds."""

    batch_size = 0


def contract(make: Callable[[list[str], list[bool]], Sink]) -> SinkContract:
    """The suite over a toy."""

    class Contract(SinkContract):
        @asynccontextmanager
        async def world(self) -> AsyncIterator[SinkWorld]:
            arrived: list[str] = []
            refusing: list[bool] = []
            yield SinkWorld(
                make=lambda: make(arrived, refusing),
                delivered=lambda: arrived,
                refuse=lambda: refusing.append(True),
                secrets=(TOKEN,),
            )

    return Contract()


def failing(suite: SinkContract) -> set[str]:
    """The tests of the suite that fail."""
    failed = set()
    for name in dir(suite):
        if name.startswith("test_"):
            try:
                getattr(suite, name)()
            except pytest.skip.Exception:
                continue
            except (AssertionError, DeliveryError, KeyError, RuntimeError, pytest.fail.Exception):
                failed.add(name)
    return failed


@pytest.mark.parametrize(
    ("toy", "found"),
    [
        (Toy, None),
        (Backwards, "test_it_delivers_in_the_order_given"),
        (Forgetful, "test_it_delivers_again"),
        (Talkative, "test_a_failure_is_a_delivery_error_without_secrets"),
        (Honest, "test_a_failure_is_a_delivery_error_without_secrets"),
        (Silent, "test_a_failure_is_a_delivery_error_without_secrets"),
        (Stubborn, "test_it_can_be_cancelled_at_any_moment"),
        (ClosedOnce, "test_it_can_be_closed_twice"),
        (Nameless, "test_what_the_daemon_asks_of_it"),
    ],
)
def test_the_suite_finds_what_is_wrong(toy: type[Toy], found: str | None) -> None:
    """A sink in memory that keeps the contract passes; each that breaks one promise fails the test of that promise."""
    failed = failing(contract(toy))
    assert failed == set() if found is None else found in failed
