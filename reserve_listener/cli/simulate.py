"""`reserve-listener simulate`: a local platform to develop and try faults against, without credentials."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from reserve_listener.cli.options import UnusedConfigOption

if TYPE_CHECKING:
    from reserve_listener.simulator import Faults
    from reserve_listener.simulator.console import Console

DROP_EVERY: Final = 10.0
"""Seconds, for `--fault drop` without `--drop-every`."""
ANSWER_TIMEOUT: Final = 3.0
CLIENT_CONFIG: Final = {"ReconnectCount": -1, "ReconnectInterval": 3, "ReconnectNonce": 2, "PingInterval": 10}
"""Shorter than the platform's 120 s and 30 s, so that a person sees a client come back after a fault."""


class Fault(StrEnum):
    """A fault that can be had from the start."""

    DROP = "drop"
    STALL = "stall"
    REFUSE = "refuse"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    SPLIT = "split"
    GARBAGE = "garbage"
    WRONG_SIGNATURE = "wrong-signature"
    STALE = "stale"
    WRONG_TOKEN = "wrong-token"  # noqa: S105  # a fault's name
    PLAIN = "plain"


def simulate(
    port: Annotated[
        int,
        typer.Option(metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 picks a free one."),
    ] = 7070,
    rate: Annotated[
        float,
        typer.Option(metavar="RATE", min=0, help="Events per second while a client is connected; 0: none."),
    ] = 0.5,
    events: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, help="Stop after this many events, each answered 200 or given up."
        ),
    ] = None,
    fault: Annotated[
        list[Fault] | None,
        typer.Option(metavar="FAULT", help=f"A fault to begin with; repeatable. One of: {', '.join(Fault)}."),
    ] = None,
    drop_every: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Reset all connections this often; 0: never."),
    ] = 0.0,
    app_id: Annotated[str | None, typer.Option(metavar="ID", help="The app_id to accept.")] = None,
    app_secret: Annotated[
        str | None,
        typer.Option(metavar="SECRET", help="The app_secret to accept. It is printed, so invent one."),
    ] = None,
    time_scale: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            min=0.0001,
            help="Multiply the delays between the platform's retries (15 s, 5 min, 1 h, 6 h) by this.",
        ),
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Generate the same events every time.")
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Push to this address instead of serving a long connection."),
    ] = None,
    encrypt_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --webhook: encrypt and sign with the key in this file."),
    ] = None,
    verification_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --webhook: the file with the verification token that pushes carry."
        ),
    ] = None,
    _config: UnusedConfigOption = None,
) -> None:
    """Simulate the platform on this machine. With faults on demand.

    It prints the configuration that a daemon needs to connect to it, then pushes
    events and prints one line for each with its answer. On a terminal, press keys
    to push events and to turn faults on and off (? lists them).

    \b
    Examples:
      reserve-listener simulate
      reserve-listener simulate --rate 20 --events 1000
      reserve-listener simulate --fault duplicate --fault reorder
      reserve-listener simulate --drop-every 5 --time-scale 0.01
      reserve-listener simulate --webhook http://127.0.0.1:7777/webhook/event
          --encrypt-key-file encrypt_key --fault wrong-signature
    """
    from reserve_listener.simulator.console import Console, Plan  # --help must not wait for it

    console = Console(Plan(rate=rate, events=events, seed=seed), typer.echo)
    options: dict[str, Any] = {
        "port": port,
        "seed": seed,
        "time_scale": time_scale,
        "client_config": CLIENT_CONFIG,
    }
    if app_id is not None:
        options["app_id"] = app_id
    if app_secret is not None:
        options["app_secret"] = app_secret
    if webhook is not None:
        secrets = {
            "encrypt_key": _secret(encrypt_key_file, "--encrypt-key-file"),
            "verification_token": _secret(verification_token_file, "--verification-token-file"),
        }
        given = {name: value for name, value in secrets.items() if value is not None}
        if app_id is not None:
            given["app_id"] = app_id
        asyncio.run(_push_to(webhook, console, given, fault or [], time_scale, seed))
        return
    try:
        asyncio.run(_simulate(console, options, fault or [], drop_every))
    except OSError as error:
        typer.echo(f"Cannot listen on 127.0.0.1:{port}: {error.strerror}. Try another --port.", err=True)
        raise typer.Exit(1) from error


async def _simulate(
    console: "Console", options: dict[str, Any], chosen: list[Fault], drop_every: float
) -> None:
    from reserve_listener.simulator import Simulator

    faults = _faults(chosen, drop_every)
    # The scale is for the waits between attempts: a client has its 3 s to answer all the same.
    answer_timeout = ANSWER_TIMEOUT / options["time_scale"]
    async with Simulator(
        faults=faults, watcher=console, answer_timeout=answer_timeout, **options
    ) as simulator:
        await console.run(simulator)


async def _push_to(
    url: str,
    console: "Console",
    options: dict[str, Any],
    chosen: list[Fault],
    time_scale: float,
    seed: int | None,
) -> None:
    from reserve_listener.simulator import WebhookPlatform

    async with WebhookPlatform(
        url,
        faults=_faults(chosen, 0.0),
        watcher=console,
        time_scale=time_scale,
        answer_timeout=ANSWER_TIMEOUT / time_scale,
        seed=seed,
        **options,
    ) as platform:
        await console.run(platform)


def _secret(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}", param_hint=option) from None


def _faults(chosen: list[Fault], drop_every: float) -> "Faults":
    from reserve_listener.simulator import Faults
    from reserve_listener.simulator.console import AUTH_FAILED, PARTS

    return Faults(
        drop_every=drop_every or (DROP_EVERY if Fault.DROP in chosen else 0.0),
        stall=Fault.STALL in chosen,
        endpoint_code=AUTH_FAILED if Fault.REFUSE in chosen else 0,
        duplicate=Fault.DUPLICATE in chosen,
        reorder=Fault.REORDER in chosen,
        split=PARTS if Fault.SPLIT in chosen else 1,
        garbage=Fault.GARBAGE in chosen,
        wrong_signature=Fault.WRONG_SIGNATURE in chosen,
        stale=Fault.STALE in chosen,
        wrong_token=Fault.WRONG_TOKEN in chosen,
        plain=Fault.PLAIN in chosen,
    )
