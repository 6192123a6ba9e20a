"""`python -m compose`: up, down, status, logs, endpoints, run, verify.

Exit codes: 0 all well, 1 something failed or is not ready, 2 wrong use or not built yet, 130 interrupted.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from compose import logs as log_view
from compose import verify as verification
from compose import view
from compose.components import COMPONENTS
from compose.events import GOOD, Phase
from compose.graph import by_name
from compose.model import StackError
from compose.native import Stack
from compose.paths import ROOT, Paths

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The stack on this machine.",
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class Mode(StrEnum):
    """How the stack is run."""

    NATIVE = "native"
    DOCKER = "docker"


@contextmanager
def _readable() -> Iterator[None]:
    """Expected faults become one message and an exit code."""
    try:
        yield
    except StackError as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        errors.print(
            f"{error.filename or 'the system'}: {error.strerror or error}", style="red", markup=False
        )
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted", style="red")
        raise typer.Exit(130) from None


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@app.command()
def up(
    only: Annotated[
        str, typer.Option(help="Components, with commas between; what they need comes too.")
    ] = "",
    mode: Annotated[Mode, typer.Option(help="Plain processes, or Docker (not built yet).")] = Mode.NATIVE,
) -> None:
    """Start what does not run yet and wait until it is ready."""
    if mode is Mode.DOCKER:
        errors.print("--mode docker is not built yet; use --mode native.", style="red")
        raise typer.Exit(2)
    signal.signal(signal.SIGTERM, _terminated)
    names = [name.strip() for name in only.split(",") if name.strip()]
    _known(names)
    with _readable():
        with view.Progress(console) as progress:
            stack = Stack(None, names or None, report=progress)
            outcome = stack.up()
        failed = [name for name, (phase, _) in outcome.items() if phase not in {*GOOD, Phase.MISSING}]
        missing = {name for name, (phase, _) in outcome.items() if phase is Phase.MISSING}
        failed += [name for name in missing if by_name(COMPONENTS)[name].required]
        view.urls(COMPONENTS, stack.endpoints(), console)
        if missing:
            absent = ", ".join(sorted(missing))
            console.print(f"Without {absent}; the rest runs. `make programs` tries again.", style="yellow")
        if failed:
            errors.print(
                f"Not ready: {', '.join(failed)}. `make status` and `make logs` tell more.", style="red"
            )
            raise typer.Exit(1)


@app.command()
def down(
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Remove data, logs and configuration too.")
    ] = False,
) -> None:
    """Stop the stack, and whatever a crashed command of it left behind."""
    with _readable(), view.Progress(console) as progress:
        Stack(report=progress).down(volumes=volumes)
        console.print("The stack is down" + ("; its data is removed." if volumes else "; its data stays."))


@app.command()
def status() -> None:
    """What runs, where, in which version, and what memory it takes."""
    with _readable():
        stack = Stack()
        found = stack.status()
        if not any(one.wanted for one in found):
            console.print(f"The stack of {stack.paths.state} is not up; `make up` starts it.")
            raise typer.Exit(1)
        view.statuses(found, stack.endpoints(), console)
        if not all(one.good for one in found):
            raise typer.Exit(1)


@app.command()
def logs(
    names: Annotated[list[str] | None, typer.Argument(help="Components; all if none is named.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=0, help="How many of the newest lines of each.")
    ] = 20,
) -> None:
    """The newest lines of each component, in the order of their time."""
    _known(names or [])
    with _readable():
        log_view.show(
            Paths.of(None), names or [component.name for component in COMPONENTS], lines, follow, console
        )


@app.command()
def endpoints(
    show: Annotated[bool, typer.Option("--show", help="Only the addresses to open, for reading.")] = False,
) -> None:
    """Addresses of the running stack as JSON; the ones of PostgreSQL and Redis hold their passwords."""
    with _readable():
        addresses = Stack().endpoints()
        if not addresses:
            errors.print("The stack is not up; `make up` starts it.", style="red")
            raise typer.Exit(1)
        if show:
            view.urls(COMPONENTS, addresses, console)
        else:
            typer.echo(json.dumps(addresses, indent=1))


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(command: Annotated[list[str], typer.Argument(help="A command and its arguments.")]) -> None:
    """Run a command with the environment of the stack's API process."""
    with _readable():
        own = Stack().environment("api")
        # Its lines belong on the terminal, not into the file that the collector tails.
        own = {name: value for name, value in own.items() if not name.startswith("TELEMETRY_LOG")}
        try:
            code = subprocess.run(command, env={**os.environ, **own}, cwd=ROOT, check=False).returncode
        except OSError as error:
            raise StackError(f"{command[0]} cannot be run: {error.strerror}") from error
    raise typer.Exit(code if code >= 0 else 128 - code)


@app.command()
def verify() -> None:
    """Let each program check its own configuration, and name what was not checked."""
    with _readable():
        if not verification.verify(console):
            raise typer.Exit(1)


def _known(names: list[str]) -> None:
    unknown = [name for name in names if name not in by_name(COMPONENTS)]
    if unknown:
        errors.print(
            f"There is no component {', '.join(unknown)}. There are: {', '.join(by_name(COMPONENTS))}.",
            style="red",
        )
        raise typer.Exit(2)
