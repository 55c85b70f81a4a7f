"""A local Feishu platform: endpoint, WebSocket, pushes and HTTP API, with faults on demand.

It knows the wire format (`reserve_listener.lark.frames`) and nothing of the daemon, so no test passes merely because both ends
share a mistake. It listens on 127.0.0.1 only.
"""

from reserve_listener.simulator.administrator import Administrator
from reserve_listener.simulator.estate import Estate, Place
from reserve_listener.simulator.events import APP_ID, realistic_events, sample_event
from reserve_listener.simulator.faults import ApiFault, Faults, Refusal
from reserve_listener.simulator.http import HttpServer
from reserve_listener.simulator.openapi import Call, Unstated
from reserve_listener.simulator.platform import APP_SECRET, Simulator
from reserve_listener.simulator.pushes import Attempt, Push
from reserve_listener.simulator.receiver import Answer, Received, Receiver
from reserve_listener.simulator.signal import Signal, patience
from reserve_listener.simulator.watcher import Watcher
from reserve_listener.simulator.webhook import WebhookPlatform

__all__ = [
    "APP_ID",
    "APP_SECRET",
    "Administrator",
    "Answer",
    "ApiFault",
    "Attempt",
    "Call",
    "Estate",
    "Faults",
    "HttpServer",
    "Place",
    "Push",
    "Received",
    "Receiver",
    "Refusal",
    "Signal",
    "Simulator",
    "Unstated",
    "Watcher",
    "WebhookPlatform",
    "patience",
    "realistic_events",
    "sample_event",
]
