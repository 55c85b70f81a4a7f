"""The configuration: what can be set (`model`), and how it is found and read (`loading`).

Importing this package imports pydantic, so commands import it when they run.
"""

from reserve_listener.config.default_store import default_store
from reserve_listener.config.effective import Setting, json_schema, settings
from reserve_listener.config.loading import Loaded, find_config, load, load_explained
from reserve_listener.config.model import (
    AlertsConfig,
    Config,
    DeliveryConfig,
    HeartbeatConfig,
    LarkConfig,
    RoomsConfig,
    StatusConfig,
    StoreConfig,
    WebhookConfig,
)
from reserve_listener.config.secret_files import signing_key
from reserve_listener.config.sinks import RetryConfig, SinkTable
from reserve_listener.config.tolerant import Located, locate

__all__ = [
    "AlertsConfig",
    "Config",
    "DeliveryConfig",
    "HeartbeatConfig",
    "LarkConfig",
    "Loaded",
    "Located",
    "RetryConfig",
    "RoomsConfig",
    "Setting",
    "SinkTable",
    "StatusConfig",
    "StoreConfig",
    "WebhookConfig",
    "default_store",
    "find_config",
    "json_schema",
    "load",
    "load_explained",
    "locate",
    "settings",
    "signing_key",
]
