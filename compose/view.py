"""Progress and tables on the terminal: live where there is one, plain lines where there is none."""

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
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


def urls(
    table: Iterable[Component],
    addresses: Mapping[str, str],
    console: Console,
    others: Mapping[str, str] | None = None,
) -> None:
    """The addresses a person opens: of the table's components, and of others with what they are."""
    grid = Table.grid(padding=(0, 2))
    for component in table:
        if component.show and component.show in addresses:
            grid.add_row(f"  {component.name}", addresses[component.show], Text(component.about, style="dim"))
    for name, about in (others or {}).items():
        if name in addresses:
            grid.add_row(f"  {name}", addresses[name], Text(about, style="dim"))
    if grid.row_count:
        console.print(grid)


def statuses(found: Sequence[Status], addresses: Mapping[str, str], console: Console) -> None:
    """The table of `status`; on a narrow or no terminal it is not folded."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading in ("component", "state", "pid", "port", "url", "version", "from", "up", "cpu", "memory"):
        right = heading in ("pid", "up", "cpu", "memory")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True, overflow="ignore")
    for one in found:
        table.add_row(
            one.component.name,
            Text(one.condition, style=CONDITION.get(one.condition, "red")),
            str(one.pid or ""),
            " ".join(str(port) for port in one.ports.values()) if one.pid else "",
            address(one, addresses),
            one.program.version,
            one.program.source,
            _duration(one.uptime) if one.pid else "",
            f"{one.cpu:.1f} %" if one.pid else "",
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
    _total(sum(one.memory for one in found) / 2**20, sum(one.cpu for one in found), console)


def address(one: Status, addresses: Mapping[str, str]) -> str:
    """Where a component is reached over HTTP; empty for what has no page, or a password in its URL."""
    return next(
        (addresses[n] for n in one.component.endpoints if n in addresses and one.component.metrics), ""
    )


def _total(mebibytes: float, cpu: float, console: Console) -> None:
    console.print(
        f"  in all: {mebibytes:.0f} MiB of memory, {cpu:.1f} % of one core", style="dim", highlight=False
    )


def containers(found: Sequence[Container], addresses: Mapping[str, str], console: Console) -> None:
    """The table of `status` for a stack in containers."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading in ("service", "container", "state", "url", "image", "cpu", "memory / limit"):
        right = heading in ("cpu", "memory / limit")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True, overflow="ignore")
    for one in found:
        state = Text(one.state, style="green" if one.good else "red")
        url = _published(one, addresses)
        table.add_row(one.service, one.name, state, url, one.image, one.cpu, one.memory)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    _total(sum(mebibytes(one.memory) for one in found), sum(per_cent(one.cpu) for one in found), console)


def _published(one: Container, addresses: Mapping[str, str]) -> str:
    # The edge is where the API is reached.
    return addresses.get("api" if one.service == "edge" else "" if one.service == "api" else one.service, "")


def report(found: Sequence[Status], addresses: Mapping[str, str]) -> dict[str, object]:
    """What `status --json` gives for plain processes: memory in bytes, CPU in per cent of one core."""
    rows = [
        {
            "name": one.component.name, "state": one.condition, "wanted": one.wanted, "good": one.good,
            "pid": one.pid, "ports": one.ports if one.pid else {}, "url": address(one, addresses),
            "version": one.program.version, "from": one.program.source, "missing": one.program.reasons,
            "uptimeSeconds": round(one.uptime, 1), "memoryBytes": one.memory, "cpuPercent": round(one.cpu, 1),
        }
        for one in found
    ]  # fmt: skip
    memory, cpu = sum(one.memory for one in found), sum(one.cpu for one in found)
    total = {"memoryBytes": memory, "cpuPercent": round(cpu, 1)}
    return {"mode": "native", "components": rows, "total": total}


def container_report(found: Sequence[Container], addresses: Mapping[str, str]) -> dict[str, object]:
    """What `status --json` gives for containers; a component has a row for each of its replicas."""
    rows = [
        {
            "name": one.service, "container": one.name, "state": one.state, "good": one.good,
            "url": _published(one, addresses), "image": one.image,
            "memoryBytes": round(mebibytes(one.memory) * 2**20), "cpuPercent": per_cent(one.cpu),
        }
        for one in found
    ]  # fmt: skip
    memory, cpu = sum(mebibytes(one.memory) for one in found), sum(per_cent(one.cpu) for one in found)
    total = {"memoryBytes": round(memory * 2**20), "cpuPercent": round(cpu, 1)}
    return {"mode": "docker", "components": rows, "total": total}


def per_cent(usage: str) -> float:
    """`12.34%` as a number; what Docker gives for a container that has just ended, `--`, is none."""
    found = re.match(r"([\d.]+)%", usage)
    return float(found[1]) if found else 0.0


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
