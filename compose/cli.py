"""`python -m compose`: brings the stack up and down, looks at it and keeps its data safe.

What a stack was brought up as, plain processes or containers, the other commands find in its state folder.
Exit codes: 0 all well, 1 something failed or is not ready, 2 wrong use, 130 interrupted.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from compose import logs as log_view
from compose import measure as measuring
from compose import rolling, view
from compose import verify as verification
from compose.backup import restore as restoring
from compose.backup import take
from compose.backup.archive import Archive
from compose.backup.containers import InContainers
from compose.backup.place import Place
from compose.backup.processes import Processes
from compose.components import COMPONENTS
from compose.docker import OPTIONAL, Containers, engine
from compose.effective import by_yaml
from compose.events import GOOD, Event, Phase
from compose.graph import by_name
from compose.hardening import faults
from compose.model import StackError
from compose.native import Stack
from compose.paths import ROOT, Paths
from compose.state import State

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The stack on this machine.",
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class Mode(StrEnum):
    """How the stack is run; `auto` is containers where a Docker engine answers."""

    NATIVE = "native"
    DOCKER = "docker"
    AUTO = "auto"


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
    mode: Annotated[Mode, typer.Option(help="Plain processes, or containers.")] = Mode.NATIVE,
) -> None:
    """Start what does not run yet and wait until it is ready."""
    signal.signal(signal.SIGTERM, _terminated)
    names = [name.strip() for name in only.split(",") if name.strip()]
    if _in_containers(mode):
        _known_services(names)
        _up_in_containers(names)
        return
    _known(names)
    with _readable():
        if Containers().is_up:
            raise StackError("this stack runs in containers; `make down` first, then `make up MODE=native`")
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
        if Containers().is_up:
            if code := Containers(report=progress).down(volumes=volumes):
                raise typer.Exit(code)
        else:
            Stack(report=progress).down(volumes=volumes)
        console.print("The stack is down" + ("; its data is removed." if volumes else "; its data stays."))


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What runs, where, in which version, and what CPU and memory it takes."""
    with _readable():
        if Containers().is_up:
            found_containers, published = Containers().status(), Containers().endpoints()
            if as_json:
                typer.echo(json.dumps(view.container_report(found_containers, published), indent=1))
            else:
                view.containers(found_containers, published, console)
            raise typer.Exit(0 if all(one.good for one in found_containers) else 1)
        stack = Stack()
        found = stack.status()
        if as_json:
            typer.echo(json.dumps(view.report(found, stack.endpoints()), indent=1))
        elif any(one.wanted for one in found):
            view.statuses(found, stack.endpoints(), console)
        else:
            console.print(f"The stack of {stack.paths.state} is not up; `make up` starts it.")
        if not any(one.wanted for one in found):
            raise typer.Exit(1)
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
    if Containers().is_up:
        _known_services(names or [])
        with _readable():
            raise typer.Exit(Containers().logs(names or [], lines, follow))
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
    """Run a command with the environment of the stack's API process, or in its container."""
    with _readable():
        if Containers().is_up:
            raise typer.Exit(Containers().run(command))
        own = Stack().environment("api")
        # Its lines belong on the terminal, not into the file that the collector tails.
        own = {name: value for name, value in own.items() if not name.startswith("TELEMETRY_LOG")}
        try:
            code = subprocess.run(command, env={**os.environ, **own}, cwd=ROOT, check=False).returncode
        except OSError as error:
            raise StackError(f"{command[0]} cannot be run: {error.strerror}") from error
    raise typer.Exit(code if code >= 0 else 128 - code)


@app.command()
def secrets() -> None:
    """Generate the secrets that are not there yet, for containers and plain processes alike."""
    with _readable():
        containers = Containers()
        names = containers.secrets()
        console.print(
            f"{', '.join(names)} in {containers.paths.secrets}, each for your eyes only.", soft_wrap=True
        )


@app.command()
def roll(service: Annotated[str, typer.Argument(help="api, worker or scheduler.")] = "api") -> None:
    """Replace a service's containers by new ones, one after the other, with no request lost."""
    with _readable():
        replaced = rolling.roll(Containers(), service)
        console.print(f"{replaced} of {service} replaced.")


@app.command()
def backup(
    folder: Annotated[Path, typer.Option(help="Where the archive goes.")] = take.FOLDER,
) -> None:
    """Write PostgreSQL's data, and Grafana's state where there is one, into one archive."""
    signal.signal(signal.SIGTERM, _terminated)
    with _readable():
        path, manifest = take.take(_place(), folder, _say)
        rows = sum(table.rows for table in manifest.tables.values())
        size = path.stat().st_size / 2**20
        console.print(
            f"{path}: {size:.1f} MiB, {len(manifest.tables)} tables with {rows} rows", soft_wrap=True
        )


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="An archive that `backup` wrote.")],
    yes: Annotated[bool, typer.Option("--yes", help="Replace data that is there.")] = False,
) -> None:
    """Replace the stack's data by that of an archive; on any failure the old data stays."""
    signal.signal(signal.SIGTERM, _terminated)
    with _readable():
        place = _place()
        _say(f"reading all of {file}")
        restoring.restore(place, Archive.of(file), _say, force=yes)
        console.print("The backup is restored.")


@app.command()
def measure(
    seconds: Annotated[float, typer.Option(min=1, help="How long to watch it at rest.")] = 60.0,
    scenario: Annotated[str, typer.Option(help="The load test.")] = "average",
    publish: Annotated[
        bool, typer.Option("--publish", help="Put the table into docs/containers.md.")
    ] = False,
) -> None:
    """CPU and memory of each component at rest and under load."""
    signal.signal(signal.SIGTERM, _terminated)
    with _readable():
        docker = Containers().is_up
        sample = measuring.of_containers(Containers().status) if docker else measuring.of_processes(Stack())
        figures = measuring.measure(
            "docker" if docker else "native", sample, _say, seconds=seconds, scenario=scenario
        )
        today = datetime.now(UTC).date().isoformat()
        console.print(measuring.markdown(figures, today), soft_wrap=True, markup=False)
        if publish:
            measuring.publish(figures, today)
            console.print(f"published: {measuring.GUIDE.relative_to(ROOT)}")


@app.command()
def verify() -> None:
    """Let each program check its own configuration, and name what was not checked."""
    with _readable():
        broken = faults(by_yaml())
        for fault in broken:
            errors.print(f"compose.yaml: {fault}", style="red", markup=False, soft_wrap=True)
        if not verification.verify(console) or broken:
            raise typer.Exit(1)


def _place() -> Place:
    if Containers().is_up:
        return InContainers(Containers(report=_remark))
    return Processes(Stack(report=_remark))


def _remark(event: Event) -> None:
    if event.component is None:
        _say(event.text)


def _say(text: str) -> None:
    console.print(f"  {text}", style="dim", markup=False, soft_wrap=True)


def _in_containers(mode: Mode) -> bool:
    if mode is not Mode.AUTO:
        return mode is Mode.DOCKER
    # A stack that is up stays what it is.
    return Containers().is_up or (not State.load(Paths.of(None).file).wanted and engine())


def _up_in_containers(names: list[str]) -> None:
    with _readable():
        # Compose shows its own progress; a remark comes before it.
        containers = Containers(report=lambda event: console.print(event.text, style="yellow", markup=False))
        code = containers.up(names)
        view.urls(COMPONENTS, containers.endpoints(), console, OPTIONAL)
        if code:
            bad = [one.name for one in containers.status() if not one.good]
            errors.print(
                f"Not ready: {', '.join(bad) or 'see above'}. `make status` and `make logs` tell more; "
                "`make up MODE=native` needs no images.",
                style="red",
                soft_wrap=True,
            )
            raise typer.Exit(1)


def _known_services(names: list[str]) -> None:
    known = by_yaml()["services"]
    if unknown := [name for name in names if name not in known]:
        errors.print(f"There is no service {', '.join(unknown)}. There are: {', '.join(known)}.", style="red")
        raise typer.Exit(2)


def _known(names: list[str]) -> None:
    unknown = [name for name in names if name not in by_name(COMPONENTS)]
    if unknown:
        errors.print(
            f"There is no component {', '.join(unknown)}. There are: {', '.join(by_name(COMPONENTS))}.",
            style="red",
        )
        raise typer.Exit(2)
