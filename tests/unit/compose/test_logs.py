"""Log lines of many components, merged and readable."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from compose import logs
from compose.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.of(tmp_path)
    paths.make()
    return paths


def shown(paths: Paths, names: list[str], lines: int = 20) -> list[str]:
    out = io.StringIO()
    logs.show(paths, names, lines, False, Console(file=out, width=60, highlight=False))
    return out.getvalue().splitlines()


def record(moment: str, event: str, **more: object) -> str:
    return (
        json.dumps({"timestamp": f"2026-11-21T08:00:{moment}Z", "level": "info", "event": event, **more})
        + "\n"
    )


def test_lines_of_all_files_stand_in_the_order_of_their_time(paths: Paths) -> None:
    (paths.logs / "service" / "api.jsonl").write_text(record("02.5", "second") + record("04.0", "fourth"))
    paths.log("loki").write_text('level=warn ts=2026-11-21T08:00:01.123456789Z msg="first"\n  goes on\n')
    paths.log("postgres").write_text("2026-11-21 08:00:03.000 UTC [1] LOG:  third\n")
    assert [line.split()[0] for line in shown(paths, ["api", "loki", "postgres"])] == [
        "loki", "loki", "api", "postgres", "api",
    ]  # fmt: skip


def test_a_json_line_is_read_out_and_what_it_knows_is_kept(paths: Paths) -> None:
    error = {"type": "ValueError", "value": "no such [thing]", "frames": []}
    line = record("02.5", "http.request", action="GET /x", status=500, requestId="r-1", exception=[error])
    (paths.logs / "service" / "api.jsonl").write_text(line)
    assert shown(paths, ["api"]) == [
        "api           08:00:02.5Z info     http.request action=GET /x status=500 requestId=r-1",
        "    ValueError: no such [thing]",
    ]


@pytest.mark.parametrize("line", ["{broken", "[1]", '"text"', "3", '{"other": 1}', "[bold]no markup[/bold]"])
def test_any_other_line_is_shown_as_it_is(paths: Paths, line: str) -> None:
    paths.log("api").write_text(line + "\n")
    assert shown(paths, ["api"]) == [f"api           {line}"]


def test_only_the_newest_lines_are_shown(paths: Paths) -> None:
    paths.log("api").write_text("".join(f"line {i}\n" for i in range(100)))
    assert [line.split()[-1] for line in shown(paths, ["api"], lines=3)] == ["97", "98", "99"]
    assert shown(paths, ["api"], lines=0) == []


def test_a_component_without_a_log_is_no_fault(paths: Paths) -> None:
    assert shown(paths, ["tempo"]) == []


def test_following_shows_what_comes_also_after_a_rotation(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = paths.log("api")
    file.write_text("before the start of this test\n")
    steps = iter(["append", "half", "rotate", "end"])

    def sleep(_: float) -> None:
        step = next(steps)
        if step == "append":
            with file.open("a") as log:
                log.write("appended\nhalf a ")
        elif step == "half":
            with file.open("a") as log:
                log.write("line\n")
        elif step == "rotate":
            file.write_text("rotated\n")
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        logs.show(paths, ["api"], 0, True, Console(file=out, width=60, highlight=False))
    assert [line[14:] for line in out.getvalue().splitlines()] == ["appended", "half a line", "rotated"]
