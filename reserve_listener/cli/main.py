"""`reserve-listener`: the commands, put together. Nothing heavy is imported until a command runs."""

import contextlib
import os
import sys
import threading
from typing import Annotated

import typer

from reserve_listener import __version__
from reserve_listener.cli.check import check
from reserve_listener.cli.completion import PROGRAM, answer_the_shell, completion
from reserve_listener.cli.config import config_app
from reserve_listener.cli.dead_letters import dead_letters_app
from reserve_listener.cli.demo import demo
from reserve_listener.cli.events import events_app
from reserve_listener.cli.history import history
from reserve_listener.cli.reconcile import reconcile
from reserve_listener.cli.reconnect import reconnect
from reserve_listener.cli.run import run
from reserve_listener.cli.scopes import scopes_app
from reserve_listener.cli.simulate import simulate
from reserve_listener.cli.sinks import sinks_app
from reserve_listener.cli.status import status
from reserve_listener.cli.store import store_app
from reserve_listener.cli.streams import set_up_streams
from reserve_listener.cli.version import version
from reserve_listener.errors import ReserveListenerError
from reserve_listener.text import visible_lines

app = typer.Typer(
    name=PROGRAM,
    help="Receives every change to the reservation limits of Feishu/Lark meeting rooms"
    " and delivers it to logs, files and HTTP endpoints, without losing any.",
    epilog="New here? Try: reserve-listener demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """What may stand before a command."""


app.command()(run)
app.command()(check)
app.command()(demo)
app.command()(simulate)
app.command()(status)
app.command()(reconnect)
app.command()(reconcile)
app.command()(history)
app.add_typer(scopes_app, name="scopes")
app.add_typer(events_app, name="events")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(sinks_app, name="sinks")
app.add_typer(store_app, name="store")
app.add_typer(config_app, name="config")
app.command()(completion)
app.command()(version)


def main() -> None:
    """The console script. A `ReserveListenerError` is shown as it stands and gives the exit code."""
    code = _exit_code()
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        # A thread that hangs in the kernel (a name server, a network disk) would keep the process for ever; all that was
        # to be kept is on the disk.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _exit_code() -> int:
    set_up_streams()
    try:
        if sys.stdout is None:  # `>&-`: the next file opened would take its place
            raise ReserveListenerError("standard output is closed. Redirect it instead, e.g. >/dev/null.")
        if any(not _is_text(argument) for argument in sys.argv[1:]):
            raise ReserveListenerError("the command line is not UTF-8 text.")
        answer_the_shell()
        app(prog_name=PROGRAM)
    except SystemExit as end:  # how typer ends a command
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ReserveListenerError as error:
        sys.stderr.write(f"error: {visible_lines(str(error))}\n")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output is gone (`… | head`); there is nobody left to tell.
        sys.stderr.close()
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {visible_lines(str(error))}\n")
        # What could not be written would be tried, and fail, once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0
