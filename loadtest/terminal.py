"""The outcome on the terminal: verdict first, then the limits, then the latencies."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.report.words import NONE, margin, milliseconds
from loadtest.result import Result
from loadtest.stats import PERCENTILES
from loadtest.verdict import Code


def print_result(console: Console, result: Result) -> None:
    """Write the verdict with its figures."""
    code = result.verdict.code
    style = "green" if code == Code.PASSED else "yellow" if code == Code.ABORTED else "red"
    head = Text.assemble(
        (f" {code.words.upper()} ", f"bold white on {style}"),
        f"  {result.scenario} against {result.target}",
    )
    console.print()
    console.print(head)
    for reason in result.verdict.reasons:
        console.print(Text(f"  {reason}"))
    console.print(
        f"  {result.requests:,} requests in {result.load_seconds:.1f} s, {result.rate:.1f}/s, "
        f"{result.failed:,} failed; generator {_cpu(result.generator.cpu_mean)} of a core "
        f"(limit {result.generator.cpu_limit:.0%})",
        highlight=False,
    )
    if result.checks:
        console.print(_checks(result))
    if result.routes:
        console.print(_routes(result))


def _checks(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for head in ("", "limit", "on", "required"):
        table.add_column(head)
    for head in ("measured", "bad / all", "margin"):
        table.add_column(head, justify="right")
    for check in result.checks:
        of = f"{check.bad:,} / {check.total:,}" if check.bad is not None else f"{check.total:,}"
        mark = Text("✓", style="green") if check.passed else Text("✗", style="bold red")
        table.add_row(mark, check.name, check.route, check.required, check.measured, of, margin(check.margin))
    return table


def _routes(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("latency, ms")
    for head in ("count", "failed", "/s", *(f"p{p:g}" for p in PERCENTILES), "max"):
        table.add_column(head, justify="right")
    for route in result.routes:
        cells = [milliseconds(route.percentiles_ms[f"{p:g}"]) for p in PERCENTILES]
        figures = (
            f"{route.count:,}",
            f"{route.failed:,}",
            f"{route.rate:.1f}",
            *cells,
            milliseconds(route.max_ms),
        )
        table.add_row(route.route, *figures)
    return table


def _cpu(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"
