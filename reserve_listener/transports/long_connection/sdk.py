"""Loading lark-oapi lean: the long-connection client and the vc models without the other 10,000 modules.

`import lark_oapi` runs the `__init__` of every API package of the SDK: 2.3 s and 173 MB, of which the client needs a
fiftieth. While `load` runs, a finder stands before the usual ones and
- gives the SDK's root and its API packages an empty `__init__` (their modules are then imported by name),
- gives the dispatcher's event families other than vc an empty `processor` module,
- leaves empty what the client imports and the daemon never uses: the SDK's HTTP transport, which brings httpx and rich,
  the `__init__` that would load pkg_resources to declare a namespace, and requests, which only asks for the endpoint
  (`connection` does that itself): 90 ms and 4.5 MB; and cffi, with which pycryptodome would first parse declarations in C
  (50 ms; without it, it takes ctypes),
- compiles the dispatcher with postponed annotations, since those name the families' classes.

What must stay true: nothing but import time changes, in this process only; no file is written, the finder is gone after
`load`, and an SDK whose layout moved fails here with a sentence. `tests/transports/long_connection/test_sdk.py` holds the lean modules against a
normal import.
"""

from __future__ import annotations
import __future__

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from reserve_listener.errors import ReserveListenerError
from reserve_listener.imports import replaced

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

ROOT: Final = "lark_oapi"
API: Final = f"{ROOT}.api"
KEPT_API: Final = f"{API}.vc.v1"
DISPATCHER: Final = f"{ROOT}.event.dispatcher_handler"
UNUSED: Final = frozenset({f"{ROOT}.core.http.transport", f"{ROOT}.ws.pb.google"})
_USELESS: Final = {"requests": ModuleType("requests"), "cffi": None}
"""The first one has to be there to be imported."""
EVENT_MODEL: Final = f"{KEPT_API}.model.p2_vc_reserve_config_updated_v1"


@dataclass(frozen=True, slots=True)
class Sdk:
    """The parts of lark-oapi that the daemon touches."""

    client: ModuleType
    """`lark_oapi.ws.client`"""
    dispatcher: Any
    """The class `EventDispatcherHandler`."""
    json: Any
    """The class `lark_oapi.core.json.JSON`."""


_loaded: list[Sdk] = []


def load() -> Sdk:
    """The SDK, loaded once. Call it inside a running event loop: the SDK asks for one as it is imported."""
    if not _loaded:
        _loaded.append(_import())
    return _loaded[0]


def _import() -> Sdk:
    finder = _LeanFinder()
    lean = ROOT not in sys.modules  # somebody's own import comes first: then there is nothing to save
    if lean:
        sys.meta_path.insert(0, finder)
    try:
        # Since Python 3.12 the protobuf that it carries warns; where warnings are errors nothing would ever connect.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning), replaced(_USELESS):
            return Sdk(
                client=importlib.import_module(f"{ROOT}.ws.client"),
                dispatcher=importlib.import_module(DISPATCHER).EventDispatcherHandler,
                json=importlib.import_module(f"{ROOT}.core.json").JSON,
            )
    except (ImportError, AttributeError, NameError) as error:
        raise ReserveListenerError(
            f"this version of lark-oapi cannot be used: {error}."
            " Install the version that reserve-listener requires."
        ) from error
    finally:
        if lean:
            sys.meta_path.remove(finder)
        _quiet_logger()


def _quiet_logger() -> None:
    """Take the SDK's own stdout handler off; its records then reach the daemon's, redacted."""
    logger = logging.getLogger("Lark")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


class _LeanFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != ROOT and not fullname.startswith(f"{ROOT}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        if fullname == DISPATCHER:
            spec.loader = _PostponedAnnotations(fullname, spec.loader.path)
        elif _is_left_out(fullname, is_package=spec.submodule_search_locations is not None):
            spec.loader = _Empty(fullname, spec.loader.path)
        return spec


def _is_left_out(fullname: str, *, is_package: bool) -> bool:
    in_api = fullname == API or fullname.startswith(f"{API}.")
    if fullname in UNUSED:
        return True
    if is_package:
        return fullname == ROOT or in_api
    return in_api and not fullname.startswith(f"{KEPT_API}.")


class _Empty(importlib.machinery.SourceFileLoader):
    """A module with its place and its name, and nothing in it."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # the base class's signature
        return compile("", self.path, "exec")


class _PostponedAnnotations(importlib.machinery.SourceFileLoader):
    """The module as it stands, with annotations that are never evaluated. Not cached: the .pyc is for others."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # as above
        flags = __future__.annotations.compiler_flag
        code: CodeType = compile(self.get_data(self.path), self.path, "exec", flags=flags, dont_inherit=True)
        return code
