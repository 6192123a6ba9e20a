"""Progress on the terminal while a run is under way: a live table, or plain lines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest import stats
from loadtest.report.words import NONE
from loadtest.run import Watch

RECENT_SECONDS = 5.0


@dataclass(frozen=True)
class Now:
    """The last seconds of a run, for a person to glance at."""

    stage: str
    elapsed: float
    planned: float
    users: int
    rate: float
    p95_ms: float | None
    settle_p95_ms: float | None
    failed: int
    total: int
    cpu: float | None
    failing: tuple[str, ...]


def glance(watch: Watch) -> Now:
    """What to show of the run at this moment."""
    now, samples, marks = time.time(), watch.recording.samples, watch.recording.marks
    start, planned = watch.start, float(watch.order.scenario.model.duration_seconds)
    if start is None:
        return Now("starting", 0.0, planned, 0, 0.0, None, None, 0, 0, None, ())
    since = max(start, now - RECENT_SECONDS)
    recent = [sample for sample in samples[-50_000:] if sample.end >= since]
    http = [sample for sample in recent if sample.is_http]
    right = sorted(sample.elapsed * 1000 for sample in http if not sample.error)
    settled = sorted(sample.elapsed * 1000 for sample in recent if sample.kind == "JOB" and not sample.error)
    cpu = watch.generator.cpu[-10:]
    return Now(
        stage="finishing" if watch.end else "running",
        elapsed=(watch.end or now) - start,
        planned=planned,
        users=marks[-1].users if marks else 0,
        rate=len(http) / max(now - since, 1e-3),
        p95_ms=stats.percentile(right, 95) if right else None,
        settle_p95_ms=stats.percentile(settled, 95) if settled else None,
        failed=sum(1 for sample in samples if sample.error),
        total=len(samples),
        cpu=(cpu[-1][1] - cpu[0][1]) / (cpu[-1][0] - cpu[0][0]) if len(cpu) > 1 else None,
        failing=tuple(
            f"{check.name} on {check.route}" for check in watch.checks if check.total and not check.passed
        ),
    )


class Progress:
    """Draws a run that is under way; one line for each second or two where nothing can be redrawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last_line = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield

    def show(self, watch: Watch) -> None:
        now = glance(watch)
        if self._live is not None:
            self._live.update(_table(now))
        elif time.monotonic() - self._last_line >= max(1.0, now.planned / 30):
            self._last_line = time.monotonic()
            self._console.print(_line(now), highlight=False, soft_wrap=True)


def _line(now: Now) -> str:
    parts = [
        f"{now.stage:9} {now.elapsed:5.0f}/{now.planned:.0f} s",
        f"{now.users:4d} users",
        f"{now.rate:7.1f} req/s",
        f"p95 {_ms(now.p95_ms):>8}",
        f"settle p95 {_ms(now.settle_p95_ms):>8}",
        f"{now.failed:5d} errors",
    ]
    return "  ".join(parts)


def _table(now: Now) -> Table:
    done = int(40 * min(1.0, now.elapsed / now.planned))
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(now.stage, style="bold"),
        Text.assemble(("━" * done, "cyan"), ("━" * (40 - done), "bright_black")),
        f"{now.elapsed:.0f}/{now.planned:.0f} s",
    )
    figures = Table.grid(padding=(0, 3))
    for _ in range(6):
        figures.add_column(justify="right")
    heads = ("users", "req/s", "p95", "settle p95", "errors", "generator")
    figures.add_row(*(Text(head, style="bright_black") for head in heads))
    figures.add_row(
        str(now.users),
        f"{now.rate:.1f}",
        _ms(now.p95_ms),
        _ms(now.settle_p95_ms),
        Text(str(now.failed), style="bold red" if now.failed else ""),
        NONE if now.cpu is None else f"{now.cpu:.0%} CPU",
    )
    rows = Table.grid()
    rows.add_row(grid)
    rows.add_row(figures)
    if now.failing and now.stage != "starting":
        rows.add_row(Text("over the limit so far: " + ", ".join(now.failing), style="yellow"))
    return rows


def _ms(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
