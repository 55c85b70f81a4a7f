"""The platform's Python SDK as its event page uses it, its log level too: the handler prints the event and keeps nothing."""

from __future__ import annotations

import sys

import lark_oapi as lark


def show(event: lark.vc.v1.P2VcReserveConfigUpdatedV1) -> None:
    """Print the typed event, in the page's words."""
    print(f"[ do_p2_vc_reserve_config_updated_v1 access ], data: {lark.JSON.marshal(event, indent=4)}")


if __name__ == "__main__":
    domain, app_id, app_secret = sys.argv[1:4]
    dispatcher = (
        lark.EventDispatcherHandler.builder("", "").register_p2_vc_reserve_config_updated_v1(show).build()
    )
    lark.ws.Client(
        app_id, app_secret, event_handler=dispatcher, domain=domain, log_level=lark.LogLevel.DEBUG
    ).start()
