"""What is known to go wrong with message brokers. `TRAPS` says where each is tried, with real servers where there are any."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from reserve_listener.errors import TransientDeliveryError
from reserve_listener.sinks.brokers.together import Batch
from reserve_listener.testing import sample_deliveries
from tests.brokers import NatsServer, running
from tests.configuring import made
from tests.helpers import until
from tests.sinks.test_sink_nats import sink_of, stream

NATS: Final = "test_sink_nats.py"
REDIS: Final = "test_sink_redis.py"
KAFKA: Final = "test_sink_kafka.py"
AMQP: Final = "test_sink_amqp.py"
TOGETHER: Final = "test_brokers_together.py"
HERE: Final = "test_broker_traps.py"

TRAPS: Final = {
    "nats: what timed out is sent after the reconnect": (NATS, "test_a_server_that_is_away_is_a_sink_that_is_down"),
    "nats: what is buffered meanwhile is bounded": (HERE, "test_what_waits_for_a_reconnect_is_bounded"),
    "nats: the client gives up after 60 attempts": (NATS, "test_it_reconnects_for_ever"),
    "nats: the client stays with a server that is silent": (NATS, "test_a_server_that_falls_silent_is_left_for_another"),
    "nats: nobody takes the subject": (NATS, "test_no_stream_is_misconfigured"),
    "nats: over the server's or the stream's bound": (NATS, "test_what_is_too_large_is_a_dead_letter"),
    "nats: the client raises a refusal where nobody hears": (NATS, "test_a_full_stream_is_tried_again"),
    "nats: the window of ids is the stream's": (NATS, "test_beyond_the_streams_window_a_repeat_is_a_second_message"),
    "nats: an id is one token of a subject": (NATS, "test_ids_that_differ_make_tokens_that_differ"),
    "nats: plain text in place of TLS": (NATS, "test_no_login_goes_over_a_connection_that_should_be_encrypted"),
    "redis: the client repeats by itself": (REDIS, "test_the_client_repeats_nothing"),
    "redis: only newer servers know ids": (REDIS, "test_a_repeat_adds_nothing"),
    "redis: to set the window anew forgets all ids": (REDIS, "test_a_server_that_knows_ids_is_asked_to"),
    "redis: the client hides the code of a refusal": (REDIS, "test_what_a_refusal_means"),
    "redis: connections outlive a failover": (REDIS, "test_after_a_failover_the_next_attempt_is_at_the_new_master"),
    "redis: a late answer is taken for the next one's": (REDIS, "test_answers_that_came_too_late_are_nobody_elses"),
    "kafka: acks, idempotence, partitioner, lingering": (KAFKA, "test_what_the_client_is_told"),
    "kafka: partitioners differ": (KAFKA, "test_murmur2_is_javas"),
    "kafka: a producer is unusable after a fatal error": (KAFKA, "test_a_producer_that_will_never_send_again_is_replaced"),
    "kafka: queued is not delivered": (KAFKA, "test_a_broker_that_is_away_is_a_sink_that_is_down"),
    "kafka: the client repeats in its own session": (KAFKA, "test_a_broker_that_hangs_for_a_while_gets_each_event_once"),
    "amqp: unroutable is no error by default": (AMQP, "test_what_no_queue_takes_is_misconfigured"),
    "amqp: a channel is stuck after a time-out": (AMQP, "test_after_a_time_out_the_channel_is_another"),
    "amqp: a quorum queue gives no confirm after a kill": (AMQP, "test_a_quorum_queue_that_is_stuck_sticks_no_other"),
    "amqp: no confirm does not mean not stored": (AMQP, "test_a_broker_that_is_away_is_a_sink_that_is_down"),
    "amqp: messages are not persistent by default": (AMQP, "test_a_message_is_persistent_has_an_id_and_is_structured_json"),
    "amqp: one that is too large closes the channel": (
        AMQP, "test_what_was_on_its_way_beside_one_that_is_too_large_is_tried_again"
    ),
    "all: a repeat after a kill": (TOGETHER, "test_kill_9_of_daemon_and_servers_loses_nothing"),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_its_test(trap: str) -> None:
    """Under its name."""
    file, name = TRAPS[trap]
    assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


async def test_what_waits_for_a_reconnect_is_bounded(tmp_path: Path) -> None:
    """While the server is away the client keeps 2 MiB; what does not fit is tried again by us, and told at once."""
    events = sample_deliveries(3)
    with running(NatsServer(tmp_path)) as server:
        async with stream(server.port, "rooms"):
            pass
        servers = [f"nats://127.0.0.1:{server.port}"]
        sink: Any = sink_of(made("nats", name="bus", servers=servers, subject="rooms.a", timeout=600))
        await sink.deliver(events[:1])
        client = await sink._link.client()
        with server.hanging():
            waiting = asyncio.create_task(sink.deliver(events[:1]))
            await until(lambda: client.answers._waiting)
            server.kill()
        with pytest.raises(TransientDeliveryError, match="the connection broke"):
            await waiting  # so that it has been noticed
        batch: Batch[Exception] = Batch(len(events))
        for number in range(len(events)):
            await client.answers.ask(batch, number, subject="rooms.a", body=b"x" * 1_000_000, headers={})
        assert [type(outcome) is TimeoutError for outcome in batch.outcomes] == [True, True, False]
        error = sink._error(batch.outcomes[2], None, events[2], "acknowledgement")
        assert type(error) is TransientDeliveryError
        await sink.close()
