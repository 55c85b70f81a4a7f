"""From file, environment and credentials to one valid `Config`, or one error that lists every mistake."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_origin

from pydantic import ValidationError

from reserve_listener.config import environment, problems, secret_files
from reserve_listener.config.default_store import default_store
from reserve_listener.config.files import collisions, homeless
from reserve_listener.config.model import Config, duplicates
from reserve_listener.config.reading import SecretFiles, read_within
from reserve_listener.config.shown import path_text, quoted
from reserve_listener.config.sinks import file_keys, secret_readers, takes_alerts
from reserve_listener.errors import ConfigError
from reserve_listener.model import SQLITE_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from reserve_listener.protocols import SinkKind, SinkKinds

PLACES: Final = (Path("config.toml"), Path("/etc/reserve-listener/config.toml"))
# Keys that may stand in a file of their own instead: KEY or KEY_file.
SECRET_KEYS: Final = (
    ("lark", "app_secret"),
    ("webhook", "encrypt_key"),
    ("webhook", "verification_token"),
    ("status", "token"),
    ("heartbeat", "url"),
)
_LARGEST_FILE: Final = 1_048_576

_KeyPath = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A configuration with where it came from: `config show` and `check` tell it."""

    config: Config
    file: Path | None
    origins: Mapping[tuple[str, str], str]
    """Of keys that the file does not set: "environment NAME", "credential", "default ($XDG_STATE_HOME)"."""


def load(
    sink_kinds: SinkKinds,
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    secrets: bool = True,
) -> Config:
    """The configuration: the file, the environment over it, secrets read.

    `secrets=False` finds their files and does not read them, for commands that show the configuration: those of a unit
    are nobody's but the unit's.

    `path` is what -c names; without it the usual places are searched. `sink_kinds`: what `type` may be. Blocks for a few
    small reads. Raises ConfigError with every mistake that was found, a line each.
    """
    return load_explained(sink_kinds, path, environ=environ, secrets=secrets).config


def load_explained(
    sink_kinds: SinkKinds,
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    secrets: bool = True,
) -> Loaded:
    """What `load` does, with the file that was read and the origins of keys."""
    file = find_config(path, environ)
    draft = Draft(
        sink_kinds=sink_kinds,
        file=file,
        environ=environ,
        values=read_toml(file) if file else {},
        secrets=secrets,
    )
    draft.lay_environment_over()
    draft.resolve_secrets()
    draft.fill_in_default_store()
    config = draft.validated()
    if config is not None:
        wrong = (*homeless(config), *unfit_for_alerts(config))
        draft.problems += [f"{draft.at(key)}: {why}" for key, why in wrong]
    if config is not None and not draft.problems:
        draft.problems += [
            f'{draft.at(("sinks",))}: sink "{name}": {key}: {why}'
            for name, key, why in collisions(config, file)
        ]
    if config is None or draft.problems:
        raise ConfigError("\n".join(dict.fromkeys(draft.problems)))
    return Loaded(config=config, file=file, origins=draft.origins)


def unfit_for_alerts(config: Config) -> Iterator[tuple[_KeyPath, str]]:
    """Sinks of `[alerts]` that there are not, or that cannot carry what is no event of the platform."""
    tables = {table.name: table for table in config.sinks}
    for name in config.alerts.sinks:
        if name not in tables:
            yield ("alerts", "sinks"), f"there is no sink {quoted(name)}; the sinks are {', '.join(tables)}"
        elif not takes_alerts(tables[name]):
            why = 'which carries only what the platform sent, cannot take alerts: set its format to "cloudevents", or name another sink'
            yield ("alerts", "sinks"), f"the sink {quoted(name)}, {why}"


def find_config(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: -c, else $RESERVE_LISTENER_CONFIG, else the first of the usual places that is there.

    A file that is asked for is not looked for here: that it is missing is an error of `load`.
    """
    if explicit is not None:
        return explicit
    if named := environ.get(environment.PATH_VARIABLE):
        return Path(named)
    return next((place for place in PLACES if _is_there(place)), None)


def _is_there(place: Path) -> bool:
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # There, but not for us: better an error that says so than another file in its stead.
        return True
    return True


def read_toml(file: Path) -> dict[str, Any]:
    """What the file holds, unchecked. Raises ConfigError for one that cannot be read or is no TOML."""
    try:
        return tomllib.loads(_read_text(file))
    except RecursionError:
        raise ConfigError(f"{path_text(file)}: nested too deeply") from None
    except ValueError as error:
        # TOMLDecodeError names line and column; a plain ValueError comes from a number of thousands of digits.
        raise ConfigError(f"{path_text(file)}: not valid TOML: {error}") from None


def _read_text(file: Path) -> str:
    try:
        content = read_within(file, _LARGEST_FILE)
    except IsADirectoryError:
        raise ConfigError(f"{path_text(file)}: is a directory; name a file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path_text(file)}: cannot be read: {secret_files.reason(error)}") from None
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{path_text(file)}: is larger than {_LARGEST_FILE} bytes: not a configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path_text(file)}: not UTF-8 text (line {line})") from None


@dataclass(kw_only=True)
class Draft:
    """The values on their way to a `Config`, and what was found wrong with them so far."""

    sink_kinds: SinkKinds
    file: Path | None
    environ: Mapping[str, str]
    values: dict[str, Any]
    secrets: bool = True
    files: SecretFiles = field(default_factory=SecretFiles)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def lay_environment_over(self) -> None:
        """Environment over file; a secret from the environment also over the file's other form of it."""
        self._refuse_both_forms(self.values, self.at(()), "")
        overrides, wrong = environment.read(self.environ)
        self.problems += wrong
        self._refuse_both_forms(overrides, "environment", environment.PREFIX)
        for section, keys in overrides.items():
            table = self.values.setdefault(section, {})
            if isinstance(table, dict):
                self._lay_over(section, table, keys)

    def _lay_over(self, section: str, table: dict[str, Any], keys: Mapping[str, Any]) -> None:
        for secret_section, key in SECRET_KEYS:
            if section == secret_section and keys.keys() & {key, f"{key}_file"}:
                table.pop(key, None)
                table.pop(f"{key}_file", None)
        table.update(keys)
        for key in keys:
            self.origins[section, key] = f"environment {environment.variable(section, key)}"

    def _refuse_both_forms(self, layer: Mapping[str, Any], where: str, prefix: str) -> None:
        for section, key in SECRET_KEYS:
            table = layer.get(section)
            if isinstance(table, dict) and key in table and f"{key}_file" in table:
                names = [f"{section}.{key}", f"{section}.{key}_file"]
                if prefix:
                    names = [environment.variable(section, key), environment.variable(section, f"{key}_file")]
                self.problems.append(f"{where}: {' and '.join(names)}: both are given; keep one of them")
                del table[f"{key}_file"]

    def resolve_secrets(self) -> None:
        """Find, and read, what `*_file` keys and the systemd credential name. A table of the wrong kind is left to the model."""
        for section, key in SECRET_KEYS:
            if isinstance(self.values.get(section), dict):
                self._read_secret_file(section, key)
        self._take_credential()
        sinks = self.values.get("sinks")
        for index, sink in enumerate(sinks if isinstance(sinks, list) else []):
            if isinstance(sink, dict) and (kind := self._kind_of(sink)) is not None:
                self._find_files(index, sink, kind)

    def _kind_of(self, sink: Mapping[str, Any]) -> SinkKind | None:
        try:
            return self.sink_kinds.find(sink["type"]) if isinstance(sink.get("type"), str) else None
        except ConfigError:
            return None  # for the model to say

    def _read_secret_file(self, section: str, key: str) -> None:
        table, file_key = self.values[section], f"{key}_file"
        name = table.get(file_key)
        if not isinstance(name, str) or not name:
            return
        path = secret_files.locate(name, self.environ)
        table[file_key] = str(path)
        if not self.secrets:
            return
        try:
            table[key] = secret_files.read_secret(path, self.files).get_secret_value()
        except ConfigError as error:
            self.problems.append(f"{self.at((section, file_key))}: {error}")
        else:
            self.origins[section, key] = f"{section}.{file_key}"

    def _take_credential(self) -> None:
        lark = self.values.setdefault("lark", {})
        path = secret_files.app_secret_credential(self.environ)
        if path is None or not isinstance(lark, dict) or lark.keys() & {"app_secret", "app_secret_file"}:
            return
        lark["app_secret_file"] = str(path)
        self._read_secret_file("lark", "app_secret")
        self.origins["lark", "app_secret_file"] = "credential"

    def _find_files(self, index: int, sink: dict[str, Any], kind: SinkKind) -> None:
        """Where the files of a sink are, and whether its secrets can be read."""
        readers = secret_readers(kind)
        for key in file_keys(kind):
            if not _takes_a_table(kind, key):
                self._find_file(("sinks", index, key), sink, key, readers.get(key))
            elif isinstance(sink.get(key), dict):
                for name in sink[key]:
                    self._find_file(("sinks", index, key, str(name)), sink[key], name, readers.get(key))

    def _find_file(
        self,
        at: _KeyPath,
        table: dict[str, Any],
        key: str,
        read: Callable[[Path, SecretFiles], object] | None,
    ) -> None:
        name = table.get(key)
        if not isinstance(name, str) or not name or name.endswith("/") or not name.isprintable():
            return  # for the model to refuse
        path = secret_files.locate(name, self.environ)
        table[key] = str(path)
        if read is None or not self.secrets:
            return
        try:
            read(path, self.files)
        except ConfigError as error:
            self.problems.append(f"{self.at(at)}: {error}")

    def fill_in_default_store(self) -> None:
        """Said by nobody, the store is where the rule of `default_store` puts it."""
        store = self.values.setdefault("store", {})
        if isinstance(store, dict) and "url" not in store:
            path, origin = default_store(self.environ)
            store["url"] = f"{SQLITE_URL}{path}"
            self.origins["store", "url"] = origin

    def validated(self) -> Config | None:
        """The configuration, or None with the reasons in `problems`."""
        context = {
            "credentials_directory": secret_files.credentials_directory(self.environ),
            "secret_files": self.files,
            "sink_kinds": self.sink_kinds,
        }
        config = None
        self.values.setdefault("lark", {})  # so that it is the app's id that is said to be missing
        try:
            config = Config.model_validate(self.values, context=context)
        except ValidationError as error:
            self.problems += problems.lines(
                error, self.at, self._is_given, problems.Sinks(self.values, self.sink_kinds)
            )
        self._check_across()
        return config

    def _check_across(self) -> None:
        """What no single key tells; checked on the values, so that it is also said beside other mistakes."""
        lark, sinks = self.values["lark"], self.values.get("sinks")
        if isinstance(sinks, list):
            names = [sink.get("name") for sink in sinks if isinstance(sink, dict)]
            if twice := duplicates(name for name in names if isinstance(name, str)):
                self.problems.append(f"{self.at(('sinks',))}: {twice}")
        if isinstance(lark, dict):
            self._require_app_secret(lark)
            self._say_where_a_file_was_looked_for(lark)

    def _require_app_secret(self, lark: Mapping[str, Any]) -> None:
        needed = self.secrets and lark.get("transport", "long_connection") == "long_connection"
        if needed and not lark.keys() & {"app_secret", "app_secret_file"}:
            advice = "set app_secret_file or app_secret, or give the unit a credential named app_secret"
            self.problems.append(f"{self.at(('lark', 'app_secret'))}: missing; {advice}")

    def _say_where_a_file_was_looked_for(self, lark: Mapping[str, Any]) -> None:
        if self.file is None and "app_id" not in lark:
            places = ", ".join(
                ("-c FILE", f"${environment.PATH_VARIABLE}", *(f"{place}" for place in PLACES))
            )
            advice = "begin with `reserve-listener config init`, or set keys as RESERVE_LISTENER_SECTION__KEY"
            if not lark:  # then it is the file that is missing, not one key and another
                self.problems = [text for text in self.problems if not text.startswith(self.at(("lark",)))]
            self.problems.insert(0, f"configuration: no file was found; looked for {places}; {advice}")

    def _is_given(self, path: _KeyPath) -> bool:
        """Whether somebody set the key, wherever; otherwise its default is what is wrong."""
        node: Any = self.values
        for part in path:
            within = (
                isinstance(node, list) if isinstance(part, int) else isinstance(node, dict) and part in node
            )
            if not within:
                return False
            node = node[part]
        return True

    def _refuse(self, path: _KeyPath, text: str) -> None:
        self.problems.append(f"{self.at(path)}: {text}")

    def at(self, path: _KeyPath) -> str:
        """Where a key stands, and its name: `config.toml: lark.app_id`, `environment: RESERVE_LISTENER_…`."""
        section, key = (*map(str, path), "", "")[:2]
        if _is_variable(self.origins.get((section, key), "")):
            return f"environment: {environment.variable(section, key)}"
        where = path_text(self.file) if self.file else "configuration"
        return f"{where}: {problems.label(path, self.values)}" if path else where


def _takes_a_table(kind: SinkKind, key: str) -> bool:
    """Whether a key holds a table of files. Anything else in its place is no path, and may be a secret."""
    return any(
        get_origin(each) is dict for each in environment.within(kind.settings.model_fields[key].annotation)
    )


def _is_variable(origin: str) -> bool:
    return origin.startswith("environment ")
