"""`reserve-listener config init`: a first configuration, asked for on a terminal, given as options elsewhere."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reserve_listener.cli.called import called
from reserve_listener.errors import ReserveListenerError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from reserve_listener.config import LarkConfig

APP_ID = re.compile(r"cli_[!-~]+")
"""Loose after the beginning: it tells an id from a name or a secret, which people paste here; the platform knows the rest."""
NO_APP_ID = (
    "must be the app's ID: cli_ and some letters and digits, such as cli_a1b2c3d4e5f6."
    ' The developer console shows it under "Credentials & Basic Info"'
)
REGIONS = {"feishu": "https://open.feishu.cn", "lark": "https://open.larksuite.com"}

CONFIGURATION = """\
# reserve-listener. Run `reserve-listener check` to check this file, and `reserve-listener config init --example` to see an
# example that shows every key.

[lark]
# The ID of the app that subscribes to the room events, from the developer console ("Credentials & Basic Info").
app_id = {app_id}
# A file whose only line is the app's secret. Make it readable only by the daemon's user (mode 0600).
app_secret_file = {app_secret_file}
# The platform: https://open.feishu.cn (Feishu) or https://open.larksuite.com (Lark).
domain = {domain}

[store]
# Where events are kept until every sink has them, and for a while longer. If unset: {store}
#url = {store_url}

# Where events go: any number of sinks, each with a unique name.

# The daemon's log.
[[sinks]]
name = "console"
type = "log"

# A file, one JSON object per line.
#[[sinks]]
#name = "audit"
#type = "file"
#path = "/var/log/reserve-listener/events.jsonl"

# An HTTP endpoint: each event is posted to it as a CloudEvent.
#[[sinks]]
#name = "booking"
#type = "http"
#url = "https://booking.example/hooks/rooms"
"""

CREATED = """\
Created {config}{secret}.

Next:
{steps}
"""

CONSOLE_STEPS = """\
  {number}. In the developer console ({domain}/app), under Events & Callbacks, choose "Receive events through a long
     connection" and save while the daemon is running; then add the event vc.reserve_config.updated_v1
     ("Meeting room reservation limits updated").
  {last}. Change a room's limits, and see it arrive: {called} events list{option}"""

AppIdOption = Annotated[
    str | None,
    typer.Option("--app-id", metavar="ID", help="The app's ID (cli_…), from the developer console."),
]
SecretFileOption = Annotated[
    Path | None,
    typer.Option(
        "--app-secret-file",
        metavar="FILE",
        help="The file that holds, or will hold, the app's secret. Default: app_secret beside the configuration.",
    ),
]
DomainOption = Annotated[
    str | None,
    typer.Option(
        "--domain",
        metavar="REGION",
        help="feishu, lark, or the platform's address. Default: feishu.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What goes into the file. `secret`: to be written into `secret_file`; None leaves that file alone."""

    app_id: str
    secret_file: Path
    domain: str
    secret: "SecretStr | None" = None


def write_first_configuration(
    path: Path, app_id: str | None, secret_file: Path | None, domain: str | None
) -> None:
    """Ask for what is not given, on a terminal; write the file, 0600, and say what comes next."""
    if os.path.lexists(path):
        raise ReserveListenerError(
            f"{path} already exists and was left unchanged. Name another file with -c FILE."
        )
    secret_file = Path(os.path.abspath(secret_file or path.parent / "app_secret"))  # noqa: PTH100  # links stay
    answers = (_asked if _at_a_terminal() else _given)(app_id, secret_file, domain)
    _write(path, _text(answers))
    if answers.secret is not None:
        try:
            _write(answers.secret_file, f"{answers.secret.get_secret_value()}\n")
        except ReserveListenerError:
            path.unlink()
            raise
    typer.echo(_what_next(path, answers), nl=False)


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _given(app_id: str | None, secret_file: Path, domain: str | None) -> Answers:
    if app_id is None:
        raise typer.BadParameter("is required when there is no terminal to ask on", param_hint="--app-id")
    return Answers(app_id=_app_id(app_id), secret_file=secret_file, domain=_domain(domain or "feishu"))


def _asked(app_id: str | None, secret_file: Path, domain: str | None) -> Answers:
    """Questions go to standard error: standard output may be somewhere else."""
    from pydantic import SecretStr

    app_id = _app_id(app_id) if app_id else typer.prompt("App ID (cli_…)", value_proc=_app_id, err=True)
    secret = None
    if not os.path.lexists(secret_file):
        prompt = f"App secret, kept in {secret_file} (not shown; Enter to add it later)"
        text = typer.prompt(prompt, default="", show_default=False, hide_input=True, err=True).strip()
        secret = SecretStr(text) if text else None
    if domain is None:
        domain = typer.prompt("Region, feishu or lark", default="feishu", value_proc=_domain, err=True)
    return Answers(app_id=app_id, secret_file=secret_file, domain=_domain(domain), secret=secret)


def _app_id(text: str) -> str:
    text = text.strip()
    if not APP_ID.fullmatch(text):
        _refuse("--app-id", NO_APP_ID)
    return _checked("--app-id", app_id=text).app_id


def _domain(text: str) -> str:
    return _checked("--domain", domain=REGIONS.get(text.strip().lower(), text.strip())).domain


def _checked(option: str, **keys: str) -> "LarkConfig":
    """What the configuration says of these values, so that nothing is written that it would refuse."""
    from pydantic import ValidationError

    from reserve_listener.config import LarkConfig

    try:
        return LarkConfig.model_validate({"app_id": "any"} | keys)
    except ValidationError as error:
        reason = error.errors()[0].get("ctx", {}).get("error", "cannot be used")
        _refuse(option, f"{reason}; or use the name feishu or lark" if option == "--domain" else f"{reason}")


def _refuse(option: str, reason: str) -> NoReturn:
    raise typer.BadParameter(reason, param_hint=option) from None


def _text(answers: Answers) -> str:
    from reserve_listener.cli.toml import toml_value
    from reserve_listener.config import default_store

    store, _ = default_store(os.environ)
    return CONFIGURATION.format(
        app_id=toml_value(answers.app_id),
        app_secret_file=toml_value(str(answers.secret_file)),
        domain=toml_value(answers.domain),
        store=store,
        store_url=toml_value(f"sqlite:///{store}"),
    )


def _write(path: Path, text: str) -> None:
    """A new file, for its owner only; what is there stays as it is."""
    from reserve_listener import ownership

    try:
        with os.fdopen(ownership.create_file(path, os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ReserveListenerError(f"{path} cannot be created: {error.strerror}.") from None


def _what_next(path: Path, answers: Answers) -> str:
    option = "" if path == Path("config.toml") else f" -c {shlex.quote(str(path))}"
    steps = [
        f"Check it:   {called()} check{option}",
        f"Start:      {called()} run{option}      (until it says connection.connected)",
    ]
    if not answers.secret_file.exists():
        secret_file = shlex.quote(str(answers.secret_file))
        steps.insert(
            0, f"Add the secret:   install -m 600 /dev/stdin {secret_file}      (paste it, Enter, Ctrl-D)"
        )
    lines = [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
    lines.append(
        CONSOLE_STEPS.format(
            number=len(steps) + 1,
            last=len(steps) + 2,
            domain=answers.domain,
            called=called(),
            option=option,
        )
    )
    secret = f" and {answers.secret_file}" if answers.secret else ""
    return CREATED.format(config=path, secret=secret, steps="\n".join(lines))
