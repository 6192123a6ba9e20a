"""`python -m loadtest run | scenarios`. Exit codes are those of `loadtest.verdict.Code`."""

import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtest import report, scenario, slo, target
from loadtest.errors import LoadTestError, UsageError
from loadtest.progress import Progress
from loadtest.result import Result, assemble
from loadtest.run import Order, execute, not_run
from loadtest.terminal import print_result
from loadtest.verdict import Code

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Load tests with a verdict.")
REPORTS = Path("reports")
PLAIN_WIDTH = 140  # where there is no terminal to ask


@app.command()
def run(  # noqa: PLR0917 - typer reads the options from the arguments
    name: Annotated[str, typer.Option("--scenario", help="A name from `scenarios`, or a .yaml file.")],
    url: Annotated[str | None, typer.Option("--target", help="The service's URL.")] = None,
    stack: Annotated[bool, typer.Option("--stack", help="Load the running stack of this checkout.")] = False,
    users: Annotated[int | None, typer.Option(min=1, help="Instead of the scenario's users.")] = None,
    duration: Annotated[int | None, typer.Option(min=1, help="Seconds, instead of the scenario's.")] = None,
    report_dir: Annotated[
        Path | None, typer.Option(help="A new folder; reports/<time>-<scenario> if absent.")
    ] = None,
    slo_file: Annotated[Path, typer.Option("--slo", help="The file with the objectives.")] = slo.SLO_FILE,
    prometheus: Annotated[
        str | None, typer.Option(help="Its URL, for the server's side of the report.")
    ] = None,
    tempo: Annotated[str | None, typer.Option(help="Its URL, for links to traces.")] = None,
    grafana: Annotated[str | None, typer.Option(help="Its URL, for better links to traces.")] = None,
) -> None:
    """Run a scenario against a target and judge it.

    Ends with 0 passed, 99 a limit not met, 97 generator saturated, 98 the target failed,
    1 the generator failed, 2 wrong usage, 130 interrupted.
    """
    out = _console(stderr=False)
    try:
        wanted = scenario.load(name).resized(users, duration)
        known = target.chosen(url, prometheus, tempo, grafana, stack=stack)
        slos = slo.load(slo_file, wanted.slos)
        now = datetime.now(UTC)
        folder = _new_folder(report_dir, f"{now:%Y%m%dT%H%M%SZ}-{wanted.name}")
        order = Order(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}", wanted, known.api, slos, folder)
        result = _run(order, known)
        report.write(result, folder)
    except UsageError as error:
        _complain(error)
        raise typer.Exit(Code.USAGE) from error
    except LoadTestError as error:
        _complain(error)
        raise typer.Exit(Code.GENERATOR_FAILED) from error
    except OSError as error:
        _complain(LoadTestError(f"the run could not be written down: {error}"))
        raise typer.Exit(Code.GENERATOR_FAILED) from error
    print_result(out, result)
    out.print(f"  report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
    raise typer.Exit(result.verdict.code)


@app.command()
def scenarios() -> None:
    """List the scenarios that come with the harness."""
    out = _console(stderr=False)
    for name in scenario.known():
        one = scenario.load(name)
        out.print(
            f"{name:10} {one.model.users:4d} users  {one.model.duration_seconds:5d} s  {one.title}",
            highlight=False,
        )


def _run(order: Order, stack: target.Stack) -> Result:
    progress = Progress(_console(stderr=True))
    why_not = target.unready(order.target, order.scenario.ready_path)
    if why_not:
        return assemble(order, not_run(order, why_not), stack)
    with progress.shown():
        measured = execute(order, progress.show)
    if not measured.recording.marks and measured.course.generator_failed:
        raise UsageError(measured.course.generator_failed)
    return assemble(order, measured, stack)


def _new_folder(wanted: Path | None, name: str) -> Path:
    folder = wanted or REPORTS / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(
            f"--report-dir {folder} exists already, and nothing is overwritten: give a new one"
        ) from error
    except OSError as error:
        raise UsageError(f"the report folder {folder} cannot be made: {error.strerror}") from error
    return folder


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr) if stream.isatty() else Console(stderr=stderr, width=PLAIN_WIDTH)


def _complain(error: LoadTestError) -> None:
    _console(stderr=True).print(
        f"loadtest: {error}", style="red", highlight=False, markup=False, soft_wrap=True
    )
