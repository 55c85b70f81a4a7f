"""What is loaded of uvicorn, and what others get of it."""

from __future__ import annotations

import subprocess
import sys

from reserve_listener.simulator import patience

LOOK = """
import sys
import reserve_listener.net.asgi_server
print("click" in sys.modules, "uvicorn.main" in sys.modules)
import uvicorn
print(callable(uvicorn.run), uvicorn.Server.__name__, uvicorn.Config is reserve_listener.net.uvicorn.Config)
import uvicorn.protocols.http.h11_impl
print(uvicorn.protocols.http.h11_impl.H11Protocol is reserve_listener.net.uvicorn.H11Protocol)
"""


def test_the_server_is_loaded_without_a_command_line_and_others_get_all_of_uvicorn() -> None:
    """Without click; a plugin that imports uvicorn afterwards has its functions, and the same classes."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=patience(30), check=True
    )
    assert done.stdout.split() == ["False", "False", "True", "Server", "True", "True"]
