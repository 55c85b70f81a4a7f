"""The default store: the daemon and every command must choose the same file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reserve_listener.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE: Final = "events.db"
FOLDER: Final = "reserve-listener"
OF_ROOT: Final = Path("/var/lib") / FOLDER / FILE


def default_store(environ: Mapping[str, str]) -> tuple[Path, str]:
    """The file, and the rule that chose it, as `config show` tells it. Raises ConfigError when there is no place."""
    # The unit says where state belongs; it may name several directories, the first one is ours.
    if directory := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(directory) / FILE, "default ($STATE_DIRECTORY)"
    if os.geteuid() == 0:
        return OF_ROOT, "default"
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():  # the specification says to ignore a relative one
        return state / FOLDER / FILE, "default ($XDG_STATE_HOME)"
    return _home(environ) / ".local/state" / FOLDER / FILE, "default (~/.local/state)"


def _home(environ: Mapping[str, str]) -> Path:
    try:
        home = Path(environ.get("HOME", "")) if environ.get("HOME") else Path.home()
    except (
        RuntimeError
    ):  # neither a $HOME nor an entry in /etc/passwd, as in a container with a number for a user
        home = Path()
    if not home.is_absolute():
        raise ConfigError(
            "there is nowhere to put the store: this user has no home directory."
            " Set store.url, or set $XDG_STATE_HOME to an absolute path."
        )
    return home
