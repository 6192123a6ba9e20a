"""Progress and tables on the terminal: live where there is one, plain lines where there is none."""

import re
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from compose.docker import Container
from compose.events import GOOD, Event, Phase
from compose.model import Component
from compose.status import Status

FINAL = GOOD | {Phase.STOPPED, Phase.MISSING, Phase.SKIPPED, Phase.FAILED}
STYLE = {
    Phase.READY: "green",
    Phase.KEPT: "green",
    Phase.DONE: "green",
    Phase.STOPPED: "dim",
    Phase.MISSING: "yellow",
    Phase.SKIPPED: "yellow",
    Phase.FAILED: "red",
}
CONDITION = {"ready": "green", "done": "green", "missing": "yellow", "-": "dim"}


class Progress:
    """Shows events as they come; safe to call from several threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun = time.monotonic()
        self.last: dict[str, tuple[Phase, str, float]] = {}
        self.steps: dict[str, tuple[str, float]] = {}
        self.live = (
            Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        )
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        with self._guard:
            if event.component is None or event.phase is None:
                self.console.print(escape(event.text), style="yellow", highlight=False, soft_wrap=True)
                return
            seconds = time.monotonic() - self.begun
            self.last[event.component] = (event.phase, event.text, seconds)
            if self.live is None and event.phase is Phase.LOOKING and event.text:
                self._say_seldom(event.component, event.text, seconds)
            if event.phase in FINAL:
                self.console.print(_line(event.component, event.phase, event.text, seconds), soft_wrap=True)
            if self.live:
                self.live.update(self._table())

    def _say_seldom(self, name: str, text: str, seconds: float) -> None:
        """Print a step of fetching or building; one that only counts on, every half minute."""
        step = re.sub(r"[\d.]+", "#", text)
        before, at = self.steps.get(name, ("", 0.0))
        if step != before or seconds - at >= 30:
            self.steps[name] = (step, seconds)
            self.console.print(Text(f"{seconds:6.1f} s  {name:<13}{text}", style="dim"), soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, (phase, text, _) in self.last.items():
            if phase not in FINAL:
                table.add_row(Spinner("dots"), name, Text(text or phase.value, style="dim"))
        return table


def _line(name: str, phase: Phase, text: str, seconds: float) -> Text:
    first, _, rest = text.partition("\n")
    line = Text(f"{seconds:6.1f} s  {name:<13}")
    line.append(phase.value, STYLE.get(phase, ""))
    if first:
        line.append(f"  {first}")
    if rest:
        line.append(f"\n{rest}")
    return line


def urls(table: Iterable[Component], addresses: Mapping[str, str], console: Console) -> None:
    """The addresses a person opens."""
    grid = Table.grid(padding=(0, 2))
    for component in table:
        if component.show and component.show in addresses:
            grid.add_row(f"  {component.name}", addresses[component.show], Text(component.about, style="dim"))
    if grid.row_count:
        console.print(grid)


def statuses(found: Iterable[Status], addresses: Mapping[str, str], console: Console) -> None:
    """The table of `status`; on a narrow or no terminal it is not folded."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading in ("component", "state", "pid", "port", "url", "version", "from", "up", "memory"):
        right = heading in ("pid", "up", "memory")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True, overflow="ignore")
    total = 0
    for one in found:
        total += one.memory
        table.add_row(
            one.component.name,
            Text(one.condition, style=CONDITION.get(one.condition, "red")),
            str(one.pid or ""),
            " ".join(str(port) for port in one.ports.values()) if one.pid else "",
            next(
                (addresses[n] for n in one.component.endpoints if n in addresses and one.component.metrics),
                "",
            ),
            one.program.version,
            one.program.source,
            _duration(one.uptime) if one.pid else "",
            f"{one.memory / 2**20:.0f} MiB" if one.memory else "",
        )
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    for one in found:
        for reason in one.program.reasons:
            console.print(
                f"  {one.component.name} is missing: {escape(reason)}", soft_wrap=True, highlight=False
            )
    console.print(f"  memory in all: {total / 2**20:.0f} MiB", style="dim", highlight=False)


def containers(found: Iterable[Container], addresses: Mapping[str, str], console: Console) -> None:
    """The table of `status` for a stack in containers."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading in ("service", "container", "state", "url", "image", "cpu", "memory / limit"):
        right = heading in ("cpu", "memory / limit")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True, overflow="ignore")
    total = 0.0
    for one in found:
        total += mebibytes(one.memory)
        state = Text(one.state, style="green" if one.good else "red")
        # The edge is where the API is reached.
        url = addresses.get(
            "api" if one.service == "edge" else "" if one.service == "api" else one.service, ""
        )
        table.add_row(one.service, one.name, state, url, one.image, one.cpu, one.memory)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    console.print(f"  memory in all: {total:.0f} MiB", style="dim", highlight=False)


def mebibytes(usage: str) -> float:
    """`82.2MiB / 384MiB` as the first of the two, in MiB."""
    found = re.match(r"([\d.]+)([KMG]i)?B", usage)
    if not found:
        return 0.0
    return float(found[1]) * {"Ki": 2**-10, "Mi": 1.0, "Gi": 2.0**10, None: 2**-20}[found[2]]


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
