"""The SDK, loaded lean: what it costs, that it is the same SDK, and that the private names we touch are still there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from reserve_listener.simulator import patience
from reserve_listener.transports.long_connection.connection import MODULE_NAMES, TOUCHED

INSTANCE_NAMES = ("_conn", "_service_id", "_cache")
"""Of the touched names those that an instance has, not the class."""

DESCRIBE = """
import asyncio, inspect, json, sys, warnings

def code_of(function):
    return function.__code__.co_code.hex() if inspect.isfunction(function) else None

def describe(module, client, handler):
    return {
        "class": {name: code_of(value) for name, value in vars(module.Client).items()},
        "module": sorted(name for name in vars(module) if not name.startswith("__")),
        "instance": sorted(vars(client)),
        "cache": sorted(vars(client._cache)),
        "registry": sorted(handler._processorMap),
        "loop_is_running": module.loop is asyncio.get_running_loop(),
        "loaded": sum(name == "lark_oapi" or name.startswith("lark_oapi.") for name in sys.modules),
        "finders": [type(finder).__name__ for finder in sys.meta_path if "Lean" in type(finder).__name__],
    }

async def main():
    LOAD
    heard = []
    handler = dispatcher.builder("", "").register_p2_vc_reserve_config_updated_v1(heard.append).build()
    client = module.Client("app", "secret", event_handler=handler)
    description = describe(module, client, handler)
    client._cache._cron.cancel()
    handler._do_without_validation(json.dumps(SAMPLE).encode())
    description["typed"] = json.loads(marshal(heard[0]))
    print(json.dumps(description))

asyncio.run(main())
"""
LEAN = """
    from reserve_listener.transports.long_connection import sdk
    loaded = sdk.load()
    assert sdk.load() is loaded
    module, dispatcher, marshal = loaded.client, loaded.dispatcher, loaded.json.marshal
"""
NORMAL = """
    warnings.simplefilter("ignore")
    import lark_oapi, lark_oapi.ws.client
    module, dispatcher, marshal = lark_oapi.ws.client, lark_oapi.EventDispatcherHandler, lark_oapi.JSON.marshal
"""
BEHIND = """
    warnings.simplefilter("ignore")
    import lark_oapi
""" + LEAN  # fmt: skip
SAMPLE: dict[str, Any] = {
    "schema": "2.0",
    "header": {"event_id": "e", "event_type": "vc.reserve_config.updated_v1", "tenant_key": "t"},
    "event": {"scope_id": "s", "scope_type": 2, "time_config": {"start_time": "0", "max_duration": 3}},
}


def python(code: str) -> str:
    """What a fresh interpreter prints; its errors are the test's."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=patience(60),
        env={key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def describe(load: str) -> dict[str, Any]:
    code = DESCRIBE.replace("    LOAD", load).replace("SAMPLE", repr(SAMPLE))
    description: dict[str, Any] = json.loads(python(code).splitlines()[-1])
    return description


@pytest.fixture(scope="module")
def lean() -> dict[str, Any]:
    """The SDK as the daemon loads it."""
    return describe(LEAN)


@pytest.fixture(scope="module")
def normal() -> dict[str, Any]:
    """The SDK as everybody loads it."""
    return describe(NORMAL)


@pytest.mark.parametrize("name", TOUCHED)
def test_the_names_we_touch_are_there(lean: dict[str, Any], normal: dict[str, Any], name: str) -> None:
    """Every private name of the client that we rely on exists in the installed SDK."""
    for description in (lean, normal):
        place = "instance" if name in INSTANCE_NAMES else "class"
        assert name in description[place], (
            f"lark-oapi {version('lark-oapi')} has moved Client.{name}: see transports/long_connection.py"
        )


@pytest.mark.parametrize("name", MODULE_NAMES)
def test_the_modules_names_are_there(lean: dict[str, Any], normal: dict[str, Any], name: str) -> None:
    """Every name of the client's module that we replace or use exists in the installed SDK."""
    for description in (lean, normal):
        assert name in description["module"], f"lark-oapi {version('lark-oapi')} has moved ws.client.{name}"


def test_the_caches_task_is_there(lean: dict[str, Any], normal: dict[str, Any]) -> None:
    """The task that each discarded client would leak is where we cancel it."""
    assert "_cron" in lean["cache"]
    assert "_cron" in normal["cache"]


def test_the_seams_are_still_called(lean: dict[str, Any]) -> None:
    """`_connect` still asks for the address, makes its arguments and starts the receive loop by the names we replace."""
    code = """
import inspect, asyncio
async def main():
    from reserve_listener.transports.long_connection import sdk
    print(inspect.getsource(sdk.load().client.Client._connect))
asyncio.run(main())
"""
    source = python(code)
    for seam in ("self._get_conn_url()", "_ws_connect_kwargs(", "loop.create_task(self._receive_message_loop())", "self._conn = conn", "self._service_id = service_id"):  # fmt: skip
        assert seam in source, f"lark-oapi {version('lark-oapi')}: Client._connect has no {seam} any more"


def test_lean_is_lean(lean: dict[str, Any], normal: dict[str, Any]) -> None:
    """Loaded our way the SDK is at most 400 modules, a fraction of what it is otherwise, and the finder is gone."""
    assert lean["loaded"] <= 400
    assert normal["loaded"] > 5_000
    assert lean["finders"] == []


def test_what_the_sdk_does_without_others_may_have() -> None:
    """The client is loaded without requests and cffi, and a plugin that imports them afterwards gets the real ones."""
    code = """
import asyncio, sys
async def main():
    from reserve_listener.transports.long_connection import sdk
    sdk.load()
    print("requests" in sys.modules, "cffi" in sys.modules)
    import cffi
    import requests
    from Crypto.Cipher import AES
    print(callable(requests.post), callable(cffi.FFI), AES.new(bytes(32), AES.MODE_CBC, bytes(16)).encrypt(bytes(16)).hex()[:8])
asyncio.run(main())
"""
    # The key of zeros over a block of zeros: a known answer of AES-256 (NIST, CAVP).
    assert python(code).split() == ["False", "False", "True", "True", "dc95c078"]


def test_lean_is_the_same_sdk(lean: dict[str, Any], normal: dict[str, Any]) -> None:
    """The client's module, its class down to the code of each method, and its instances are those of a normal import."""
    for part in ("class", "module", "instance", "cache"):
        assert lean[part] == normal[part]


def test_the_registered_handler_works_lean(lean: dict[str, Any], normal: dict[str, Any]) -> None:
    """The handler registered the SDK's way gets the same typed event, and is all there is in the registry."""
    assert lean["registry"] == normal["registry"] == ["p2.vc.reserve_config.updated_v1"]
    assert lean["typed"] == normal["typed"] == SAMPLE


def test_the_sdk_asks_for_our_loop(lean: dict[str, Any]) -> None:
    """Loaded inside the running loop, the module's global is that loop."""
    assert lean["loop_is_running"]


def test_somebody_elses_import_comes_first(normal: dict[str, Any]) -> None:
    """With the SDK imported already the very same modules are used, and nothing is made lean."""
    behind = describe(BEHIND)
    assert behind["loaded"] == normal["loaded"]
    assert behind["typed"] == SAMPLE


def test_its_log_goes_our_way() -> None:
    """The SDK's own handler, which writes to stdout, is taken off; its records go to the daemon's."""
    code = """
import asyncio, logging
async def main():
    from reserve_listener.transports.long_connection import sdk
    sdk.load()
    logger = logging.getLogger("Lark")
    logger.setLevel(logging.INFO)
    logger.info("not to be seen")
    print(len(logger.handlers), logger.propagate)
asyncio.run(main())
"""
    assert python(code) == "0 True\n"


def test_a_layout_that_moved_is_one_sentence() -> None:
    """An SDK that lacks what we need ends with a sentence for people, not with a traceback, and leaves no finder behind."""
    code = """
import asyncio, sys
async def main():
    from reserve_listener.transports.long_connection import sdk
    from reserve_listener.errors import ReserveListenerError
    sdk.DISPATCHER = "lark_oapi.event.moved"
    try:
        sdk.load()
    except ReserveListenerError as error:
        print(error)
    print([f for f in sys.meta_path if "Lean" in type(f).__name__])
asyncio.run(main())
"""
    said = python(code)
    assert said.startswith("this version of lark-oapi cannot be used: ")
    assert said.endswith(" Install the version that reserve-listener requires.\n[]\n")


def test_loading_warns_of_nothing() -> None:
    """With every warning an error the lean SDK still loads."""
    code = """
import asyncio, warnings
warnings.simplefilter("error")
async def main():
    from reserve_listener.transports.long_connection import sdk
    sdk.load()
asyncio.run(main())
"""
    assert python(code) == ""


@pytest.mark.parametrize(
    "module",
    [
        "reserve_listener.cli.main",
        "reserve_listener.transports.long_connection.supervisor",
        "reserve_listener.config",
    ],
)
def test_who_does_not_load_the_sdk(module: str) -> None:
    """Importing the commands, the supervisor or the configuration imports nothing of the SDK."""
    code = f"import {module}, sys; print([name for name in sys.modules if name.split('.')[0] == 'lark_oapi'])"
    assert python(code) == "[]\n"


def test_help_does_not_load_the_sdk() -> None:
    """`--help` imports nothing of the SDK."""
    code = """
import sys
from reserve_listener.cli.main import app
try:
    app(["--help"])
except SystemExit:
    pass
print([name for name in sys.modules if name.split(".")[0] == "lark_oapi"])
"""
    assert python(code).endswith("\n[]\n")
