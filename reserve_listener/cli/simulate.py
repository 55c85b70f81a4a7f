"""`reserve-listener simulate`: a local platform to develop and try faults against, without credentials."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from reserve_listener.cli.options import UnusedConfigOption

if TYPE_CHECKING:
    from reserve_listener.simulator import Estate, Faults
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
    API_TOKEN = "api-token"  # noqa: S105  # as above
    API_PERMISSION = "api-permission"
    API_TOO_OFTEN = "api-too-often"
    API_BROKEN = "api-broken"
    API_HANG = "api-hang"
    API_CUT = "api-cut"
    API_GARBAGE = "api-garbage"
    API_SLOW = "api-slow"


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
            help="Multiply the delays between the platform's retries (15 s, 5 min, 1 h, 6 h), and the "
            "minute in which limits may be read 100 times, by this.",
        ),
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Generate the same rooms and events every time; without it, only the rooms are the same.",
        ),
    ] = None,
    rooms: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, max=100_000, help="Rooms of the organisation.")
    ] = 40,
    depth: Annotated[
        int, typer.Option(metavar="NUMBER", min=1, max=9, help="Levels above each room, without the root.")
    ] = 3,
    away_change: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            min=0,
            help="Each time the last client disconnects, change the limits of this many rooms without a push.",
        ),
    ] = 0,
    away_rename: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Likewise, rename this many rooms.")
    ] = 0,
    away_delete: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Likewise, delete this many rooms.")
    ] = 0,
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
    events and prints one line for each with its answer. It has rooms and levels,
    answers the platform's API about them, and each event is a change of one of
    them. On a terminal, press keys to change, rename and delete rooms, with or
    without a push, and to turn faults on and off (? lists them).

    \b
    Examples:
      reserve-listener simulate
      reserve-listener simulate --rate 20 --events 1000
      reserve-listener simulate --fault duplicate --fault reorder
      reserve-listener simulate --drop-every 5 --time-scale 0.01
      reserve-listener simulate --rate 0 --away-change 3
      reserve-listener simulate --rooms 1000 --fault api-too-often
      reserve-listener simulate --webhook http://127.0.0.1:7777/webhook/event
          --encrypt-key-file encrypt_key --fault wrong-signature
    """
    from reserve_listener.simulator.console import Console, Plan  # --help must not wait for it

    if webhook is not None and (away_change or away_rename or away_delete):
        raise typer.BadParameter(
            "with --webhook there is no connection whose end could be seen; on a terminal, press E, N or X",
            param_hint="--away-…",
        )
    plan = Plan(
        rate=rate,
        events=events,
        seed=seed,
        away_change=away_change,
        away_rename=away_rename,
        away_delete=away_delete,
    )
    console = Console(plan, typer.echo)
    options = {"app_id": app_id, "app_secret": app_secret, "seed": seed, "time_scale": time_scale}
    secrets = {
        "encrypt_key": _secret(encrypt_key_file, "--encrypt-key-file"),
        "verification_token": _secret(verification_token_file, "--verification-token-file"),
    }
    faults = _faults(fault or [], drop_every)
    estate = _estate(rooms, depth, seed)
    try:
        asyncio.run(_simulate(console, estate, faults, port, webhook, _given(options), _given(secrets)))
    except OSError as error:
        typer.echo(f"Cannot listen on 127.0.0.1:{port}: {error.strerror}. Try another --port.", err=True)
        raise typer.Exit(1) from error


async def _simulate(
    console: "Console",
    estate: "Estate",
    faults: "Faults",
    port: int,
    webhook: str | None,
    options: dict[str, Any],
    secrets: dict[str, Any],
) -> None:
    from reserve_listener.simulator import Simulator, WebhookPlatform

    common: dict[str, Any] = {
        "estate": estate,
        "faults": faults,
        "watcher": console,
        # The scale is for the waits between attempts: a client has its 3 s to answer all the same.
        "answer_timeout": ANSWER_TIMEOUT / options["time_scale"],
    }
    async with Simulator(port=port, client_config=CLIENT_CONFIG, **common, **options) as simulator:
        if webhook is None:
            await console.run(simulator, simulator)
            return
        options.pop("app_secret", None)
        async with WebhookPlatform(webhook, **common, **options, **secrets) as platform:
            await console.run(platform, simulator)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _estate(rooms: int, depth: int, seed: int | None) -> "Estate":
    """The same rooms each time, for a daemon's store may know them from the last."""
    from reserve_listener.simulator import Estate

    return Estate(rooms=rooms, depth=depth) if seed is None else Estate(rooms=rooms, depth=depth, seed=seed)


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
    from reserve_listener.simulator.faults import API_FAULTS, READING

    return Faults(
        api=[API_FAULTS[each] for each in chosen if each in API_FAULTS],
        missing_permissions={READING} if Fault.API_PERMISSION in chosen else set(),
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
