"""A `[[sinks]]` table: the keys that every sink has, and those of its kind beside them.

What must stay true: a secret's file is read once, so that what a sink uses, what is masked and what a reload compares are
the same (`SinkTable.read_secrets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from pydantic import Field, PrivateAttr, SecretStr, ValidationInfo, create_model, field_validator

from reserve_listener.config import secret_files, values
from reserve_listener.config.reading import SecretFiles, real_path
from reserve_listener.config.section import Section, not_below
from reserve_listener.errors import ConfigError
from reserve_listener.protocols import SinkKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Reader = Callable[[Path, SecretFiles], Any]


class RetryConfig(Section):
    """`retry` of a sink: when a delivery that failed is tried again. Times are seconds."""

    base: values.Seconds = Field(default=1.0, description="Seconds before the first retry, approximately.")
    # Validated although it is the default: base alone can exceed it.
    cap: values.Seconds = Field(
        default=3600.0, description="Seconds: the longest that delays grow to.", validate_default=True
    )
    max_attempts: values.Attempts | None = Field(
        default=None, description="Give up after this many attempts; if unset, only max_age counts."
    )
    max_age: values.LongSeconds = Field(
        default=259_200.0, description="Give up once the event has been in the store for this many seconds."
    )

    @field_validator("cap")
    @classmethod
    def _cap_not_below_base(cls, cap: float, info: ValidationInfo) -> float:
        return not_below(cap, info, "base")


class SinkTable(Section):
    """What every sink has. Those that are loaded are of a class that `table_of` makes."""

    sink_kind: ClassVar[SinkKind]

    name: values.SinkName = Field(
        description="Unique; it identifies the sink in the store. a-z, 0-9, - and _, at most 64 characters."
    )
    retry: RetryConfig = Field(default_factory=RetryConfig, description="When to retry a failed delivery.")
    scope_type: Literal["room", "level"] | None = Field(
        default=None, description="Only changes to rooms, or only to levels."
    )
    scope_ids: values.Ids | None = Field(
        default=None, description="Only changes to these rooms and levels, by ID."
    )
    tenants: values.Ids | None = Field(
        default=None, description="Only changes in these tenants, by tenant_key."
    )
    changes_in: values.Changes | None = Field(
        default=None,
        description='Only events that change one of these sections or paths, and first sights; ["*"]: that change anything.',
    )
    events: values.Switch = Field(
        default=True, description="Whether the sink receives events; false: only alerts."
    )
    type: str

    _files: SecretFiles = PrivateAttr(default_factory=SecretFiles)

    def use(self, files: SecretFiles) -> None:
        """Read secrets from what `load` has read."""
        self._files = files

    def read_secrets(self) -> dict[str, Any]:
        """What is in the files of the kind's `secrets`, by key; of a table of files by key and name.

        Files are read once: `load` has done it, else the first call does, and blocks. Raises ConfigError, whose text holds
        the sink, the key and the path.
        """
        return {
            key: self._read_all(key, named, read)
            for key, read in secret_readers(self.sink_kind).items()
            if (named := getattr(self, key)) is not None
        }

    def secret_texts(self) -> Iterator[SecretStr]:
        """Everything of the sink that no text may hold. Blocks and raises as above."""
        secrets = self.read_secrets()
        yield from _flat(secrets.values())
        for key in type(self).model_fields:
            value = getattr(self, key)
            # Of a proxy without a login everybody may see the host.
            if isinstance(value, SecretStr) and not (key == "proxy" and "@" not in value.get_secret_value()):
                yield value
        masks: Callable[..., Iterable[str]] | None = getattr(self.sink_kind, "masks", None)
        if masks is not None:
            yield from map(SecretStr, masks(self, secrets))

    def files_read(self) -> Iterator[Path]:
        """The files that the sink reads, secret or not."""
        for key in file_keys(self.sink_kind):
            yield from _paths(getattr(self, key))

    def files_written(self) -> Iterator[tuple[str, Path]]:
        """The files that the sink writes to, with their keys."""
        for key in getattr(self.sink_kind, "writes", ()):
            yield from ((key, path) for path in _paths(getattr(self, key)))

    def fingerprint(self) -> tuple[Any, ...]:
        """What is not the same twice if the sink has to be made anew. Blocks and raises as above."""
        plain = getattr(self.sink_kind, "files", ())
        return (
            self,
            self.read_secrets(),
            [_version(path) for key in plain for path in _paths(getattr(self, key))],
            [_leads_to(path) for _, path in self.files_written()],  # a link may lead elsewhere by now
        )

    def _read_all(self, key: str, named: Any, read: Reader) -> Any:
        if isinstance(named, Mapping):
            return {name: self._read(f"{key}.{name}", Path(path), read) for name, path in named.items()}
        return self._read(key, Path(named), read)

    def _read(self, key: str, path: Path, read: Reader) -> Any:
        try:
            return read(path, self._files)
        except ConfigError as error:
            raise ConfigError(f'sink "{self.name}": {key}: {error}') from None


def secret_readers(kind: SinkKind) -> Mapping[str, Reader]:
    """Keys that name files with secrets, and how each is read."""
    secrets = getattr(kind, "secrets", ())
    return secrets if isinstance(secrets, Mapping) else dict.fromkeys(secrets, secret_files.read_secret)


def takes_alerts(table: SinkTable) -> bool:
    """Whether such a sink can carry what is no event of the platform."""
    takes: Callable[[Any], bool] | None = getattr(table.sink_kind, "takes_alerts", None)
    return takes is None or takes(table)


def for_alerts_only(table: SinkTable) -> bool:
    """Whether all that such a sink ever gets is alerts."""
    return not table.events and takes_alerts(table)


def file_keys(kind: SinkKind) -> tuple[str, ...]:
    """All keys that name files which such sinks read."""
    return (*secret_readers(kind), *getattr(kind, "files", ()))


_tables: Final[dict[int, tuple[SinkKind, type[SinkTable]]]] = {}


def table_of(kind: SinkKind) -> type[SinkTable]:
    """The model of a table of this kind; the same each time, or a reload would find every sink changed.

    Raises ConfigError for a kind whose keys are the daemon's.
    """
    known = _tables.get(id(kind))
    if known is None:
        known = _tables[id(kind)] = (kind, _made(kind))
    return known[1]


def _made(kind: SinkKind) -> type[SinkTable]:
    if taken := [
        key for key in kind.settings.model_fields if hasattr(SinkTable, key) or key in SinkTable.model_fields
    ]:
        raise ConfigError(
            f'type "{kind.name}": {", ".join(taken)}: every sink has this key already; the plugin must use another name'
        )
    # The daemon's model comes last: of the two configurations of pydantic the stricter one, ours, holds then.
    bases: Any = (kind.settings, SinkTable)
    fields: dict[str, Any] = {"type": (Literal[kind.name], ...)}
    name = f"{kind.name.title()}Sink"
    table = cast(
        "type[SinkTable]", create_model(name, __base__=bases, __doc__=kind.settings.__doc__, **fields)
    )
    table.sink_kind = kind
    return table


def _flat(found: Iterable[Any]) -> Iterator[SecretStr]:
    for one in found:
        if isinstance(one, SecretStr):
            yield one
        else:
            yield from _flat(one.values() if isinstance(one, Mapping) else one)


def _paths(value: Any) -> Iterator[Path]:
    """The path, or the paths, that a key's value names."""
    if isinstance(value, Mapping):
        yield from map(Path, value.values())
    elif value is not None:
        yield Path(value)


def _leads_to(path: Path) -> Path:
    try:
        return real_path(path)
    except TimeoutError:  # known as it stands, until its disk responds
        return path


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
