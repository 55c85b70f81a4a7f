"""`reserve-listener demo`: the real daemon against the local platform, watched from outside."""

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reserve_listener.cli import stage as stages
from reserve_listener.cli.called import called
from reserve_listener.cli.options import UnusedConfigOption
from reserve_listener.cli.saying import bold, dim, green, mark, red, say
from reserve_listener.cli.stage import START_TIMEOUT_S, Stage, Transport

if TYPE_CHECKING:
    from reserve_listener.simulator import Place, Push

EVENTS = 5
MANY_EVENTS = 40
MANY_AT_LEAST = 4
"""Half of them come one by one, the other half while a replica is killed."""
ARRIVAL_TIMEOUT_S = 10.0
FOUND_TIMEOUT_S = 30.0
"""The daemon asks for a room or level every 0.8 s: for all of the demo's in some 6 s."""
PAUSE_S = 0.6
UNHEARD = 3
"""Rooms that are changed while the daemon is away."""


def demo(
    events: Annotated[
        int | None,
        typer.Option(
            "--events",
            metavar="NUMBER",
            min=0,
            help="How many changes to send; 0: keep going until Ctrl-C. 5 by default, and 40 with --replicas.",
        ),
    ] = None,
    transport: Annotated[Transport, typer.Option(help="How events arrive.")] = Transport.long_connection,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            metavar="NUMBER",
            min=2,
            max=9,
            help="Run this many daemons on one PostgreSQL store (needs reserve-listener[demo]), and kill one.",
        ),
    ] = None,
    _config: UnusedConfigOption = None,
) -> None:
    """Watch the daemon work, without an account. A local platform sends changes, three sinks receive them.

    Then more rooms change while the daemon is stopped; once restarted, it finds these changes. With --replicas, several
    daemons share a store instead, and the one that delivers is killed.

    Exit codes: 0 everything arrived, 1 something did not.

    Example: reserve-listener demo --events 3 --transport webhook
    """
    with suppress(KeyboardInterrupt):
        if replicas is not None:
            well = asyncio.run(_replicas(events, transport, replicas))
        else:
            well = asyncio.run(_demo(EVENTS if events is None else events, transport))
        if not well:
            raise typer.Exit(1)


async def _replicas(events: int | None, transport: Transport, count: int) -> bool:
    from reserve_listener.cli import replicas

    if transport is not Transport.long_connection:
        raise typer.BadParameter(
            "replicas are shown with the long connection only.", param_hint="--transport"
        )
    if events is not None and events < MANY_AT_LEAST:
        raise typer.BadParameter(f"with --replicas at least {MANY_AT_LEAST}.", param_hint="--events")
    return await replicas.play(events or MANY_EVENTS, count)


async def _demo(events: int, transport: Transport) -> bool:
    began = time.monotonic()
    say(dim("Starting a local platform and an HTTP receiver …"))
    async with stages.set_up(transport) as stage:
        say(dim(f"Starting the daemon, and waiting for it to connect (up to {START_TIMEOUT_S:.0f} s) …"))
        async with stage.running():
            say(dim(f"Connected after {time.monotonic() - began:.1f} s.\n"))
            _introduce(stage)
            await _arrives(lambda: stage.daemon.has_said("names.read"))
            await stage.has_asked()
            arrived = await _pushed(stage, events)
        rooms, since = _change_unheard(stage), len(stage.events())
        async with stage.running():
            found = await _found_out(stage, rooms, since)
            await _history(stage)
        _conclude(stage, events + len(rooms), arrived + found, time.monotonic() - began)
    return events + len(rooms) == arrived + found


def _introduce(stage: Stage) -> None:
    say(bold("reserve-listener, live: every change of a room's reservation limits, delivered to three sinks"))
    long = stage.platform is stage.api
    how = "a local one: real frames" if long else "is pushed to by a local one: encrypted, signed"
    estate = stage.estate
    say(f"""
  platform  {stage.platform.domain}   {how}, no account needed
  rooms     {len(estate.rooms)} on {len(estate.levels)} levels; the daemon asks the platform for their names and limits
  daemon    process {stage.daemon.process.pid}, {"connected" if long else "listening"}; to ask it while the demo runs:
            {called()} status -c {shlex.quote(str(stage.folder / "config.toml"))}
  sinks     console (log) · audit (file {stage.folder.name}/events.jsonl) · booking (http {stage.receiver_url})
  page      {stage.page}   open it in a browser, and see the changes come in""")


# -- changes that are pushed ------------------------------------------------------------------------------------------------


async def _pushed(stage: Stage, events: int) -> int:
    """How many of so many changes arrived in all sinks; 0 goes on until Ctrl-C."""
    from reserve_listener.simulator import realistic_events

    changes = realistic_events(
        estate=stage.estate, rooms=1, levels=0
    )  # one room, so that each change has one before it
    sent = arrived = 0
    while not events or sent < events:
        sent += 1
        push = stage.platform.push(next(changes))
        arrived += await _show(f"{sent}/{events}" if events else str(sent), push, stage)
        await asyncio.sleep(PAUSE_S)
    return arrived


async def _show(number: str, push: "Push", stage: Stage) -> bool:
    event = json.loads(push.payload)
    code = await push.answered(ARRIVAL_TIMEOUT_S)
    took = f" in {push.attempts[-1].elapsed * 1000:.0f} ms" if push.attempts else ""
    say(
        f"\n{number}  {bold('room ' + event['event']['scope_id'])}  → answered {code}{took}, after the commit"
    )
    return await _arrived(stage, str(push.event_id)) and code == 200  # noqa: PLR2004  # the platform's answer for success


async def _arrived(stage: Stage, event_id: str) -> bool:
    """Whether the event is in all sinks; shows where, and what it says."""
    arrived = [
        await _report("log ", "a line of the daemon's log", lambda: stage.in_log(event_id)),
        await _report("file", "a line of events.jsonl", lambda: stage.in_file(event_id)),
        await _report("http", "POST /hooks/rooms", lambda: stage.at_receiver(event_id)),
    ]
    if event := stage.in_file(event_id):
        say(f"     {bold(_sentence(event['data']))}")
    return all(arrived)


def _sentence(data: dict[str, Any]) -> str:
    """`Tower A / 3F / Ada: at most 1 h → 2 h per booking`, with the names as far as the daemon knows them."""
    named = " / ".join([*data.get("scope_path", []), data.get("scope_name", "")])
    return f"{named}: {data['summary']}" if named else str(data["summary"])


async def _report(what: str, place: str, arrived: Callable[[], Any]) -> bool:
    found = await _arrives(arrived)
    say(f"     {mark(found)} {what}  {place if found else f'nothing within {ARRIVAL_TIMEOUT_S:g} s'}")
    return found


async def _arrives(arrived: Callable[[], Any], timeout_s: float | None = None) -> bool:
    """Whether it becomes true in time. Polls: a file and a pipe of another process are watched."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s or ARRIVAL_TIMEOUT_S):
            while not arrived():  # noqa: ASYNC110  # a file of another process sets no event
                await asyncio.sleep(0.01)
            return True
    return False


# -- changes that nobody pushed ---------------------------------------------------------------------------------------------


def _change_unheard(stage: Stage) -> "list[Place]":
    rooms = stage.estate.rooms[:UNHEARD]
    for room in rooms:
        stage.api.admin.change_at_random(room, push=False)
    say(f"\n{bold('The daemon is stopped')}, and {len(rooms)} rooms get new limits that no push announces.")
    return rooms


async def _found_out(stage: Stage, rooms: "list[Place]", since: int) -> int:
    """How many of the changes the daemon found by asking, and delivered to all sinks."""
    say("Started again, it asks for the limits of all rooms and finds the changes:")
    return sum([await _show_found(stage, room, since) for room in rooms])


async def _show_found(stage: Stage, room: "Place", since: int) -> bool:
    await _arrives(lambda: stage.found_out(room, since=since), FOUND_TIMEOUT_S)
    event = stage.found_out(room, since=since)
    outcome = "found changed" if event else f"nothing found within {FOUND_TIMEOUT_S:g} s"
    say(f"\n{mark(event is not None)}  {bold('room ' + room.id)}  → {outcome}")
    return event is not None and await _arrived(stage, event["id"])


async def _history(stage: Stage) -> None:
    """What the store now knows of a room. Not as a command to copy: the store is gone when somebody types it."""
    room = stage.estate.rooms[0].id
    say(f"\n{bold('What changed in the first of them')}, as the command `history` tells it:\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "reserve_listener", "history", room]
    process = await asyncio.create_subprocess_exec(*command, "-c", str(stage.folder / "config.toml"))
    await process.wait()


def _conclude(stage: Stage, sent: int, arrived: int, took_s: float) -> None:
    if events := stage.events():
        say(f"\n{bold('What a sink receives')} (CloudEvents 1.0; the last line of events.jsonl):\n")
        say(json.dumps(events[-1], indent=2, ensure_ascii=False))
    if sent != arrived:
        say(red(f"\n{sent - arrived} of {sent} changes did not arrive everywhere."))
        return
    say(f"""
{green(f"All {sent} changes arrived in all three sinks.")} It took {took_s:.1f} s. Where to go next:

  your own app       README.md, "Connect a real app": create the app, then
                     {called()} config init && {called()} run
  play the platform  {called()} simulate   (drops, stalls, refusals, duplicates, changes of rooms at the press of a key)
""")
