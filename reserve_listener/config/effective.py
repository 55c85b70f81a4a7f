"""The configuration as it took effect: what is set, to what, and by whom; secrets masked."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, SecretStr, create_model
from pydantic.json_schema import GenerateJsonSchema

from reserve_listener.config.model import Config
from reserve_listener.config.shown import public_sink_url, public_store_url, public_url, suggests_secret
from reserve_listener.config.sinks import SinkTable, table_of
from reserve_listener.errors import ConfigError
from reserve_listener.model import POSTGRES_URL
from reserve_listener.text import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core.core_schema import NullableSchema

    from reserve_listener.config.loading import Loaded
    from reserve_listener.protocols import SinkKinds


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key with its value as TOML and JSON have it (tables and arrays too); None when it is not set."""

    section: str
    index: int | None
    """Of a sink, its place in the list from 0; of the others None."""
    key: str
    value: Any
    origin: str
    """"default", "file", "environment NAME", "credential", or the `*_file` key that a secret was read from."""

    @property
    def path(self) -> str:
        """The key's name with its section: `lark.app_id`, `sinks[0].name`."""
        return f"{self.section}{'' if self.index is None else f'[{self.index}]'}.{self.key}"


def settings(loaded: Loaded) -> Iterator[Setting]:
    """All keys of the sections in effect, in the order of the models."""
    config = loaded.config
    for section in Config.model_fields:
        value = getattr(config, section)
        if section == "sinks":
            for index, sink in enumerate(value):
                yield from _of_table(loaded, section, sink, index)
        elif value is not None:
            yield from _of_table(loaded, section, value, None)


def _of_table(loaded: Loaded, section: str, table: BaseModel, index: int | None) -> Iterator[Setting]:
    for key in type(table).model_fields:
        origin = loaded.origins.get((section, key)) or _file_or_default(loaded.config, table, key)
        value = _plain(getattr(table, key), key)
        if value is None and getattr(table, f"{key}_file", None) is not None:
            value, origin = MASK, f"{section}.{key}_file"
        yield Setting(section=section, index=index, key=key, value=value, origin=origin)


def _file_or_default(config: Config, table: BaseModel, key: str) -> str:
    # Without any sinks, and with `sinks = []`, nobody has set the keys of the one that there is then.
    ours = isinstance(table, SinkTable) and "sinks" not in config.model_fields_set
    return "file" if key in table.model_fields_set and not ours else "default"


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, BaseModel):
        value = {key: getattr(value, key) for key in type(value).model_fields}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, SecretStr):
        # A proxy keeps its host, so that one can see which it is and what is shown loads again.
        return public_url(value.get_secret_value()) if name == "proxy" else MASK
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return _plain_text(value, name)
    return value


def _plain_text(text: str, name: str) -> str:
    if suggests_secret(name) and not name.endswith("_file"):
        return MASK  # a plugin may have taken a plain text for it
    if name == "url" and text.startswith(POSTGRES_URL):
        return public_store_url(text)
    return public_sink_url(text) if name == "url" and text.startswith("http") else text


class _WithoutNull(GenerateJsonSchema):
    """TOML has no null: what is optional is left out."""

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def json_schema(sink_kinds: SinkKinds) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the file, for editors and checkers, with the sinks of all kinds that can be used."""
    tables: Any = reduce(or_, _tables(sink_kinds))
    field = copy(Config.model_fields["sinks"])
    fields: dict[str, Any] = {"sinks": (tuple[Annotated[tables, Field(discriminator="type")], ...], field)}
    model: type[Config] = create_model("Config", __base__=Config, __doc__=Config.__doc__, **fields)
    schema = model.model_json_schema(schema_generator=_WithoutNull)
    _drop_nulls(schema)
    return {"$schema": _WithoutNull.schema_dialect, **schema, "title": "reserve-listener configuration"}


def _tables(sink_kinds: SinkKinds) -> Iterator[type[SinkTable]]:
    for name in dict.fromkeys((*sink_kinds.built_in, *sink_kinds.installed())):
        try:
            kind = sink_kinds.find(name)
            if kind is not None:
                yield table_of(kind)
        except ConfigError:
            continue  # it harms nothing while it is not used


def _drop_nulls(node: Any) -> None:
    """Take out what has no value: as a default, and within one."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _drop_nulls(child)
    if isinstance(node, dict):
        for key in [key for key, value in node.items() if value is None]:
            del node[key]
