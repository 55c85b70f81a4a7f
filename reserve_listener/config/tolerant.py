"""The store's place, also while the configuration is broken or missing.

Looking at the store is most needed when something is wrong, and a mistake in `[[sinks]]` says nothing about where it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from reserve_listener.config import environment
from reserve_listener.config.files import homeless
from reserve_listener.config.loading import Draft, find_config, read_toml
from reserve_listener.config.model import Config, LarkConfig, StoreConfig
from reserve_listener.config.shown import path_text
from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from reserve_listener.protocols import SinkKinds


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where the store is, and what else of the configuration can be relied on."""

    store: StoreConfig
    config: Config | None
    """The whole configuration, its secrets not read; None while it is broken, or when there is none."""
    language: str
    """The language in which changes are told; that of the default platform while the configuration is broken."""
    file: Path | None
    problems: tuple[str, ...]
    """What is wrong with the configuration. That there is none is no problem."""


def locate(
    sink_kinds: SinkKinds, path: Path | None = None, *, environ: Mapping[str, str] = os.environ
) -> Located:
    """Find the store with as much of the configuration as can be read. Secrets are left alone.

    `path` is what -c names. Raises ConfigError only when a file that was asked for is not there: another store than
    the one that was meant would be looked at.
    """
    file = find_config(path, environ)
    found, unreadable = _values(file)
    draft = Draft(sink_kinds=sink_kinds, file=file, environ=environ, values=found, secrets=False)
    draft.lay_environment_over()
    _use_default_store(draft)
    lark = draft.values.setdefault("lark", {})
    # Without the app's id, and without a file that should have it, there is no configuration; its other keys still count.
    nameless = isinstance(lark, dict) and (file is None or bool(unreadable)) and "app_id" not in lark
    if nameless:
        lark["app_id"] = "unknown"
    config = draft.validated()
    problems = tuple(dict.fromkeys((*unreadable, *draft.problems)))
    whole = config if not (nameless or problems) else None
    store = config.store if config else _store(draft)
    if store.path is not None and not store.path.is_absolute() and config is not None:
        for key, why in homeless(config):
            raise ConfigError(f"{draft.at(key)}: {why}")
    return Located(
        store=store,
        config=whole,
        language=(config.lark if config else LarkConfig(app_id="unknown")).tells_in,
        file=file,
        problems=problems,
    )


def _values(file: Path | None) -> tuple[dict[str, Any], list[str]]:
    """What the file says, or nothing and why."""
    if file is None:
        return {}, []
    if not os.path.lexists(file) and _folder_can_be_searched(file):
        raise ConfigError(
            f"{path_text(file)}: there is no such file. Name another with -c FILE or ${environment.PATH_VARIABLE}."
        )
    try:
        return read_toml(file), []
    except ConfigError as error:
        return {}, [str(error)]


def _folder_can_be_searched(file: Path) -> bool:
    """Otherwise the file may well be there."""
    return os.access(file.parent, os.X_OK) or not os.path.lexists(file.parent)


def _use_default_store(draft: Draft) -> None:
    """A table that is none would hide the store that the daemon used while the configuration was good."""
    if not isinstance(draft.values.get("store", {}), dict):
        draft.problems.append(f"{draft.at(('store',))}: must be a section, [store]")
        draft.values["store"] = {}
    draft.fill_in_default_store()


def _store(draft: Draft) -> StoreConfig:
    """Of a broken configuration: the section if it is good, else its url, else the default place."""
    table = draft.values["store"]
    for candidate in (table, {"url": table["url"]}):
        try:
            return StoreConfig.model_validate(candidate)
        except ValidationError:
            continue
    default = Draft(sink_kinds=draft.sink_kinds, file=None, environ=draft.environ, values={})
    default.fill_in_default_store()
    return StoreConfig.model_validate(default.values["store"])
