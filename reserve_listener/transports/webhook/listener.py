"""The webhook as a transport: it listens, and there is nothing to connect, lose or retry."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from reserve_listener.config import certificates
from reserve_listener.errors import ReserveListenerError, StoreError
from reserve_listener.model import State
from reserve_listener.net.addresses import read_network
from reserve_listener.transports.webhook.push import Credentials

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from reserve_listener.config import WebhookConfig
    from reserve_listener.protocols import Accept
    from reserve_listener.transports.webhook.server import Webhook

log = structlog.get_logger("webhook")


def make_webhook(settings: WebhookConfig, app_id: str, accept: Accept) -> Webhook:
    """The webhook of `[webhook]`, not yet listening. Blocks for its certificate; `ConfigError` when that is amiss."""
    from reserve_listener.transports.webhook.server import Webhook  # noqa: PLC0415  # only this transport pays for it

    host, port = settings.address
    key, token = settings.encrypt_key, settings.verification_token
    return Webhook(
        host=host,
        port=port,
        path=settings.path,
        app_id=app_id,
        accept=accept,
        credentials=Credentials(
            encrypt_key=key.get_secret_value() if key else None,
            verification_token=token.get_secret_value() if token else None,
        ),
        freshness_s=settings.freshness,
        tls=certificates.serving("webhook", settings.tls_cert_file, settings.tls_key_file),
        trusted_proxies=[read_network(text) for text in settings.trusted_proxies or ()],
        allowed_senders=[read_network(text) for text in settings.allowed_senders or ()],
    )


class Listener:
    """See `protocols.Transport`. `on_listening` is called once pushes can come in."""

    def __init__(
        self,
        webhook: Webhook,
        *,
        where: str,
        on_listening: Callable[[], Awaitable[None]],
        on_state: Callable[[State], None],
    ) -> None:
        self.state = State("starting", time.monotonic())
        self._webhook = webhook
        self._where = where
        self._on_listening = on_listening
        self._on_state = on_state

    async def run(self) -> None:
        """See `protocols.Transport.run`."""
        try:
            await self._webhook.open()
        except OSError as error:
            raise ReserveListenerError(
                f"the webhook cannot listen on {self._where}: {error.strerror or error}. Set webhook.listen."
            ) from error
        self.state = State("listening", time.monotonic(), change="connected")
        self._on_state(self.state)
        log.info("webhook.listening", listen=self._where, port=self._webhook.port)
        try:
            await self._on_listening()
        except StoreError as error:  # pushes are answered 500 meanwhile
            log.error("connection.not_recorded", error=str(error))
        await asyncio.Event().wait()

    def on_resume(self) -> None:
        """Nothing to look after: whoever pushes finds us."""

    last_frame_s = None

    def reconnect(self) -> bool:
        """See `protocols.Transport`: there is nothing to connect."""
        return False

    def stop_accepting(self) -> None:
        """See `protocols.Transport.stop_accepting`."""
        self._webhook.stop_receiving()

    async def close(self) -> None:
        """See `protocols.Transport.close`."""
        await self._webhook.close()
