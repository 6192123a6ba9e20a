"""What the terminal shows of progress and status."""

import io

import pytest
from rich.console import Console

from compose import view
from compose.components import COMPONENTS
from compose.events import Event, Phase
from compose.graph import by_name
from compose.state import Known
from compose.status import Status


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(out: io.StringIO) -> Console:
    return Console(file=out, width=80, highlight=False)


def test_without_a_terminal_each_end_is_one_plain_line(console: Console, out: io.StringIO) -> None:
    with view.Progress(console) as progress:
        for phase in (Phase.LOOKING, Phase.WAITING, Phase.STARTING, Phase.READY):
            progress(Event("loki", phase))
        progress(Event("tempo", Phase.FAILED, "it ended\n    the [last] line"))
        progress(Event(None, None, "loki uses port [1]"))
    lines = out.getvalue().splitlines()
    assert [line[10:].split() for line in lines[:2]] == [
        ["loki", "ready"],
        ["tempo", "failed", "it", "ended"],
    ]
    assert lines[2:] == ["    the [last] line", "loki uses port [1]"]
    assert "\x1b" not in out.getvalue()


def test_a_step_that_only_counts_on_is_not_repeated(console: Console, out: io.StringIO) -> None:
    with view.Progress(console) as progress:
        progress(Event("loki", Phase.LOOKING, "downloading, 1.5 MB"))
        for second in range(20):
            progress(Event("loki", Phase.LOOKING, f"building with Go, {second} s"))
        assert len(out.getvalue().splitlines()) == 2
        progress.begun -= 31
        progress(Event("loki", Phase.LOOKING, "building with Go, 31 s"))
    assert out.getvalue().splitlines()[-1].endswith("building with Go, 31 s")


def test_on_a_terminal_what_goes_on_is_shown_while_it_does(out: io.StringIO) -> None:
    with view.Progress(Console(file=out, width=80, force_terminal=True)) as progress:
        progress(Event("loki", Phase.STARTING))
        assert progress.live is not None
        progress.live.refresh()
        assert "starting" in out.getvalue()
        progress(Event("loki", Phase.READY))
    assert "ready" in out.getvalue()


def status(name: str, condition: str, pid: int | None = None, reasons: tuple[str, ...] = ()) -> Status:
    component = by_name(COMPONENTS)[name]
    known = Known(version="3.7.6", source="cache", reasons=list(reasons))
    return Status(
        component,
        condition,
        True,
        pid,
        dict(component.ports),
        known,
        5 * 2**20 if pid else 0,
        7300.0,
        12.34 if pid else 0.0,
    )


def test_status_names_every_fact_in_one_row_and_reasons_below(console: Console, out: io.StringIO) -> None:
    rows = [
        status("loki", "ready", 77),
        status("tempo", "missing", reasons=("PATH: no tempo", "cache: [none]")),
    ]
    view.statuses(rows, {"loki": "http://127.0.0.1:3100"}, console)
    lines = out.getvalue().splitlines()
    row = next(line for line in lines if line.strip().startswith("loki"))
    assert (
        " ".join(row.split())
        == "loki ready 77 3100 9096 http://127.0.0.1:3100 3.7.6 cache 2 h 1 min 12.3 % 5 MiB"
    )
    assert "  tempo is missing: cache: [none]" in lines
    assert "  in all: 5 MiB of memory, 12.3 % of one core" in lines


@pytest.mark.parametrize(
    ("condition", "good"),
    [
        ("ready", True),
        ("done", True),
        ("not ready", False),
        ("died", False),
        ("stopped", False),
        ("missing", False),
    ],
)
def test_what_is_wanted_must_be_ready_or_done(condition: str, good: bool) -> None:
    assert status("loki", condition).good is good


def test_addresses_to_open_are_listed_with_what_is_there(console: Console, out: io.StringIO) -> None:
    view.urls(COMPONENTS, {"api": "http://127.0.0.1:8000", "redis": "redis://:secret@x"}, console)
    assert "http://127.0.0.1:8000" in out.getvalue()
    assert "secret" not in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1
