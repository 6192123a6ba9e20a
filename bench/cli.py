"""`python -m bench jobs`. Exit codes: 0 measured, 1 a run is void or a server failed, 2 wrong use."""

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.jobs import report
from bench.jobs.cell import Plan
from bench.jobs.run import Result, estimate, execute
from bench.jobs.table import ENTRIES, ROOT, BenchError, chosen
from compose.model import StackError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmarks beside peers.",
)
PLAIN_WIDTH = 180  # where there is no terminal to ask
GUIDE = ROOT / "docs" / "benchmarks.md"


@app.callback()
def suites() -> None:
    """Benchmarks, a suite by name."""


@app.command()
def publish(result: Annotated[Path, typer.Argument(help="A result.json of the jobs suite.")]) -> None:
    """Put the figures of an earlier run into docs/benchmarks.md."""
    try:
        report.publish(Result.of(result.read_text(encoding="utf-8")), GUIDE)
    except (OSError, ValueError) as error:
        _console(stderr=True).print(f"{result}: {error}", style="red", markup=False)
        raise typer.Exit(2) from None


@app.command()
def jobs(  # noqa: PLR0917 - typer reads the options from the arguments
    rounds: Annotated[int, typer.Option(min=1, help="How often every contender has its turn.")] = 5,
    contenders: Annotated[
        str, typer.Option(help="Beginnings of names, with commas between; all if absent.")
    ] = "",
    count: Annotated[int, typer.Option("--jobs", min=1, help="Jobs to be drained.")] = Plan.jobs,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long waits are measured.")] = Plan.seconds,
    rate: Annotated[float, typer.Option(min=1, help="Jobs a second while waits are measured.")] = Plan.rate,
    published: Annotated[
        bool, typer.Option("--publish", help="Put the figures into docs/benchmarks.md.")
    ] = False,
) -> None:
    """Jobs per second and enqueue-to-start, beside plain arq, taskiq and SAQ, in one interleaved run."""
    out, errors = _console(stderr=False), _console(stderr=True)
    # However it is told to end, the servers end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        entries = chosen(contenders, ENTRIES)
        plan = Plan(jobs=count, rate=rate, seconds=seconds)
        minutes = estimate(len(entries), rounds, plan) / 60
        errors.print(
            f"rounds: {rounds}, contenders: {len(entries)}; about {minutes:.0f} minutes on a quiet machine"
        )
        result = execute(entries, rounds, plan, lambda cell: errors.print(report.line(cell, rounds)))
    except (BenchError, StackError) as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, BenchError) else 1) from None
    except KeyboardInterrupt:
        errors.print("interrupted", style="red")
        raise typer.Exit(130) from None
    report.show(out, result)
    folder = ROOT / "reports" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-bench-jobs"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result.document(), indent=1) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(report.markdown(result), encoding="utf-8")
    out.print(f"  written: {folder.relative_to(ROOT)}/result.json, summary.md", highlight=False)
    if published:
        report.publish(result, GUIDE)
        out.print(f"  published: {GUIDE.relative_to(ROOT)}", highlight=False)
    raise typer.Exit(1 if result.void else 0)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=stderr)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
