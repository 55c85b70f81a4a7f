"""The configuration as the commands load it: with all kinds of sinks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from reserve_listener import config
from reserve_listener.config.sinks import table_of
from reserve_listener.sinks.kinds import KINDS

if TYPE_CHECKING:
    from reserve_listener.config import SinkTable

Settings = TypeVar("Settings")

load = functools.partial(config.load, KINDS)
load_explained = functools.partial(config.load_explained, KINDS)
locate = functools.partial(config.locate, KINDS)
json_schema = functools.partial(config.json_schema, KINDS)
CONTEXT = {"sink_kinds": KINDS}
TYPES = ", ".join(f'"{name}"' for name in KINDS.built_in)
"""What `type` may be, as errors list it."""


def model_of(kind: str) -> type[SinkTable]:
    """The model of a `[[sinks]]` table of this type."""
    found = KINDS.find(kind)
    assert found is not None
    return table_of(found)


def made(kind: str, **keys: Any) -> SinkTable:
    """A sink that is built by hand."""
    return model_of(kind)(type=kind, **keys)


def as_settings(kind: type[Settings], table: object) -> Settings:
    """The same table as its kind sees it."""
    assert isinstance(table, kind)
    return table
