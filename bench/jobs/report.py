"""The figures for people: a table on the terminal, Markdown for the guide."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.jobs.contender import IO_SECONDS
from bench.jobs.figures import RATES, Cell, Row, Spread
from bench.jobs.run import Result
from loadtest.report.words import NONE, milliseconds

BEGIN, END = "<!-- figures of the jobs suite: begin -->", "<!-- figures of the jobs suite: end -->"
_HEADS = (
    "no-op, jobs/s",
    f"{IO_SECONDS * 1000:.0f} ms of I/O, jobs/s",
    "enqueued/s",
    "wait p50, ms",
    "wait p99, ms",
)


def line(cell: Cell, rounds: int) -> str:
    """One contender's round, as it is done."""
    values = cell.values
    told = [f"round {cell.round}/{rounds}  {cell.contender:25}"]
    told += [f"{measure} {values[measure]:,.0f}/s" for measure in RATES if measure in values]
    if "wait_p99" in values:
        told.append(
            f"wait p50 {milliseconds(values['wait_p50'])} ms, p99 {milliseconds(values['wait_p99'])} ms"
        )
    told += [f"VOID {part}: {why}" for part, why in cell.void.items()]
    return "  ".join(told)


def show(console: Console, result: Result) -> None:
    """The summary, the targets, and what is void."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("median (lowest to highest)")
    for head in (*_HEADS, "no-op: x arq", "x best peer"):
        table.add_column(head, justify="right")
    for row in result.rows:
        name = Text(row.contender, style="bold" if row.ours else "")
        table.add_row(
            name, *_figures(row), *(_ratio(r.get("noop")) for r in (row.to_baseline, row.to_best_peer))
        )
    console.print()
    console.print(table)
    for target in result.targets:
        mark = Text("met     ", style="green") if target.met else Text("not met ", style="bold red")
        console.print(Text.assemble("  ", mark, f"{target.text}: {target.measured:.2f}"))
    for left, why in result.left_out.items():
        console.print(Text(f"  left out: {left}: {why}", style="yellow"))
    for why in result.void:
        console.print(Text(f"  VOID {why}", style="bold red"))


def markdown(result: Result) -> str:
    """The same with everything that one needs to judge it."""
    plan = result.plan
    parts = [
        f"Run of {result.started}, rounds: {result.rounds}. {_sure(result)}",
        _grid(
            ("contender", *_HEADS),
            [(f"**{row.contender}**" if row.ours else row.contender, *_figures(row)) for row in result.rows],
        ),
        "Ratios, each taken within a round. The best peer is the fastest of that round that is not ours.",
        _grid(
            (
                "contender",
                *(f"{head}: x {of}" for head in ("no-op", "I/O", "enqueued") for of in ("arq", "best peer")),
            ),
            [
                (
                    row.contender,
                    *(_ratio(of.get(m)) for m in RATES for of in (row.to_baseline, row.to_best_peer)),
                )
                for row in result.rows
            ],
        ),
    ]
    if result.targets:
        lines = [
            f"- {target.text}: {target.measured:.2f}, {'met' if target.met else '**not met**'}"
            for target in result.targets
        ]
        parts.append("\n".join(lines))
    if result.void:
        parts.append("Void, and counted nowhere:\n\n" + "\n".join(f"- {why}" for why in result.void))
    if result.left_out:
        parts.append(
            "Not measured:\n\n" + "\n".join(f"- {name}: {why}" for name, why in result.left_out.items())
        )
    parts.append(
        f"{plan.jobs:,} jobs to be drained (times each one's share), {plan.concurrency} at once; waits at"
        f" {plan.rate:g} jobs a second for {plan.seconds:g} s."
    )
    parts.append(
        _grid(
            ("contender", "setting", "versions"),
            [
                (name, text, ", ".join(f"{package} {v}" for package, v in result.versions[name].items()))
                for name, text in result.settings.items()
            ],
        )
    )
    parts.append(_grid(("machine", ""), list(result.machine.items())))
    return "\n\n".join(parts) + "\n"


def publish(result: Result, guide: Path) -> None:
    """Put the figures into the guide, in place of those that are there. Raises ValueError without a place."""
    text = guide.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{guide} has no place for figures: {BEGIN} and {END}")
    guide.write_text(f"{before}{begin}\n{markdown(result)}{end}{after}", encoding="utf-8")


def _figures(row: Row) -> list[str]:
    rates = [_spread(row.measures.get(measure), "{:,.0f}".format) for measure in RATES]
    return [*rates, *(_spread(row.measures.get(m), milliseconds) for m in ("wait_p50", "wait_p99"))]


def _spread(value: Spread | None, words: Callable[[float], str]) -> str:
    if value is None:
        return NONE
    if value.rounds == 1:
        return words(value.median)
    return f"{words(value.median)} ({words(value.low)} to {words(value.high)})"


def _ratio(value: Spread | None) -> str:
    return _spread(value, "{:.2f}".format)


def _sure(result: Result) -> str:
    if result.rounds < 2:
        return "One round says nothing of the spread."
    return (
        "Each cell is the median of the rounds (lowest to highest). If rounds are independent, that range"
        f" holds the true median with {result.confidence:.0%} confidence."
    )


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:" if len(heads) > 3 else "---"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
