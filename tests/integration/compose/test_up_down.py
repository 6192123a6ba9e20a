"""The runner with real processes: what it starts, keeps, restarts, stops, and says."""

import json
import os
import socket
import urllib.request
from pathlib import Path

import psutil
import pytest

from compose import binaries, processes
from compose.components import COMPONENTS
from compose.events import Event, Phase
from compose.graph import by_name
from compose.model import StackError
from compose.native import Stack
from tests.integration.compose.fake import table


def get(url: str) -> int:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return int(answer.read())


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_everything_is_ready_when_up_returns_and_gone_after_down(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base, {"app": "delay=0.7"}))
    outcome = stack.up()
    assert {name: phase for name, (phase, _) in outcome.items()} == {
        "store": Phase.READY, "prepare": Phase.DONE, "app": Phase.READY, "side": Phase.READY,
    }  # fmt: skip
    addresses = json.loads((state / "endpoints.json").read_text())
    pids = [get(address) for address in addresses.values()]
    assert pids == [stack.pid("store"), stack.pid("app"), stack.pid("side")]
    for pid in pids:
        assert os.getsid(pid) == pid != os.getsid(0), "it would not outlive the terminal"
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    stack.down()
    assert not any(alive(pid) for pid in pids)
    assert not (state / "endpoints.json").exists()
    stack.down()


def test_a_second_up_starts_nothing_and_says_what_it_kept(state: Path, base: int) -> None:
    first = Stack(state, table=table(base))
    first.up()
    pids = [first.pid(name) for name in ("store", "app", "side")]
    again = Stack(state, table=table(base)).up()
    assert [phase for phase, _ in again.values()] == [Phase.KEPT, Phase.DONE, Phase.KEPT, Phase.KEPT]
    assert [first.pid(name) for name in ("store", "app", "side")] == pids


def test_up_restarts_what_changed_and_starts_what_is_missing(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base))
    stack.up()
    store = stack.pid("store")
    stack.kill("side")
    changed = Stack(state, table=table(base, {"app": "delay=0.1"}))
    outcome = changed.up()
    assert {name: phase for name, (phase, _) in outcome.items()} == {
        "store": Phase.KEPT, "prepare": Phase.DONE, "app": Phase.READY, "side": Phase.READY,
    }  # fmt: skip
    assert changed.pid("store") == store


def test_a_port_that_is_taken_is_left_alone_and_another_is_used(state: Path, base: int) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", base + 1)):
        stack = Stack(state, table=table(base), report=lambda event: said.append(event.text))
        stack.up()
        moved = stack.endpoints()["app"]
        assert moved != f"http://127.0.0.1:{base + 1}"
        assert get(moved) == stack.pid("app")
        assert any(f"{base + 1} is held by" in text and f"pid {os.getpid()}" in text for text in said), said
    stack.down()
    stack.up()
    assert stack.endpoints()["app"] == moved, "an earlier port that is free is kept"


def test_a_component_that_ends_shows_its_last_lines_and_the_others_stay(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base, {"prepare": "import sys; print('no such column'); sys.exit(3)"}))
    outcome = stack.up()
    phase, text = outcome["prepare"]
    assert phase is Phase.FAILED
    assert "exit code 3" in text
    assert "no such column" in text
    assert str(state / "logs" / "prepare.log") in text
    assert outcome["app"] == (Phase.SKIPPED, "it needs prepare, which is not there")
    assert outcome["side"][0] is Phase.READY
    mended = Stack(state, table=table(base)).up()
    assert mended["app"][0] is Phase.READY


def test_last_lines_are_those_of_this_start_only(state: Path, base: int) -> None:
    Stack(state, table=table(base)).up()
    outcome = Stack(state, table=table(base, {"side": "exit=4"})).up()
    phase, text = outcome["side"]
    assert phase is Phase.FAILED
    assert text.count("fake server starts") == 1
    assert "the reason why it cannot run" in text


def test_a_component_that_ignores_the_signal_is_killed_and_that_is_said(state: Path, base: int) -> None:
    events: list[Event] = []
    stack = Stack(state, table=table(base, {"side": "stubborn"}), report=events.append)
    stack.up()
    pid = stack.pid("side")
    stack.down()
    assert pid is not None
    assert not alive(pid)
    notes = [event.text for event in events if event.component == "side" and event.phase is Phase.STOPPED]
    assert notes == ["killed: it had not ended 1 s after SIGTERM"]


def test_what_a_component_started_itself_ends_with_it(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base, {"side": "child"}))
    stack.up()
    assert len(processes.marked(state.resolve())) == 4
    stack.stop("side")
    assert len(processes.marked(state.resolve())) == 2
    assert stack.pid("app") is not None


def test_one_component_can_be_killed_stopped_and_started_again_on_its_port(state: Path, base: int) -> None:
    with Stack(state, table=table(base)) as stack:
        before, address = stack.pid("store"), stack.endpoints()["store"]
        stack.kill("store")
        assert stack.pid("store") is None
        assert [one.condition for one in stack.status()] == ["died", "done", "ready", "ready"]
        stack.start("store")
        assert get(address) == stack.pid("store") != before
        stack.stop("store")
        assert [one.condition for one in stack.status()] == ["stopped", "done", "ready", "ready"]
        stack.start("store")
        stack.wait_ready("store")


def test_only_brings_what_is_needed_and_leaves_the_rest(state: Path, base: int) -> None:
    stack = Stack(state, only=["app"], table=table(base))
    assert list(stack.up()) == ["store", "prepare", "app"]
    assert [one.wanted for one in stack.status()] == [True, True, True, False]
    with pytest.raises(StackError, match="no component 'nothing'"):
        Stack(state, only=["nothing"], table=table(base))


def test_a_missing_program_is_named_and_the_rest_runs(
    state: Path, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(state.parent / "cache"))
    monkeypatch.setenv("YARDSTICK_OFFLINE", "1")
    components = (*table(base), by_name(COMPONENTS)["alertmanager"])
    with pytest.raises(StackError, match="PATH: no "):
        Stack(state, table=components).__enter__()
    outcome = Stack(state, table=components).up()
    phase, text = outcome["alertmanager"]
    assert phase is Phase.MISSING
    assert "cache: no" in text
    assert outcome["app"][0] is Phase.READY
    status = Stack(state, table=components).status()[-1]
    assert (status.condition, status.wanted, status.good) == ("missing", False, True)


def test_a_program_that_could_not_be_fetched_is_not_fetched_again_before_a_down(
    state: Path, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unavailable(name: str, **_: object) -> None:
        asked.append("obtain" if _ else "locate")
        raise binaries.ProgramUnavailable(name, (f"{asked[-1]}: nothing",))

    monkeypatch.setattr(binaries, "obtain", unavailable)
    monkeypatch.setattr(binaries, "locate", unavailable)
    stack = Stack(state, table=(*table(base), by_name(COMPONENTS)["alertmanager"]))
    outcomes = [stack.up()["alertmanager"] for _ in range(2)]
    stack.down()
    stack.up()
    assert asked == ["obtain", "locate", "obtain"]
    assert outcomes == [(Phase.MISSING, "obtain: nothing")] * 2


def test_scrape_targets_are_those_of_this_stack(state: Path, base: int) -> None:
    with Stack(state, only=["app"], table=table(base)):
        folder = state / "config" / "prometheus" / "targets"
        assert {file.name for file in folder.glob("*.json")} == {"store.json", "app.json"}
        assert json.loads((folder / "app.json").read_text()) == [
            {"targets": [f"127.0.0.1:{base + 1}"], "labels": {"job": "fake-app"}}
        ]
        Stack(state, table=table(base)).up()
        assert (folder / "side.json").exists()


def test_down_with_volumes_removes_all_but_the_secrets(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base))
    stack.up()
    secrets = {file.name: file.read_text() for file in (state / "secrets").iterdir()}
    stack.down(volumes=True)
    assert {file.name for file in state.iterdir()} == {"secrets", "lock"}
    assert {file.name: file.read_text() for file in (state / "secrets").iterdir()} == secrets
    stack.up()
