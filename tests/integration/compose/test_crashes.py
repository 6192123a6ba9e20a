"""Commands that are interrupted or killed, damaged state, pids of strangers, and two commands at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from compose import processes
from compose.events import Phase
from compose.model import StackError
from compose.native import Stack
from compose.paths import ROOT
from compose.state import Running, State
from tests.integration.compose.fake import table


def command(what: str, state: Path, base: int, *words: str) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-m", "tests.integration.compose.fake", what, str(state), str(base), *words]
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def marked(state: Path) -> set[str]:
    return {found.component for found in processes.marked(state.resolve())}


def test_processes_live_on_after_the_command_that_started_them(state: Path, base: int) -> None:
    up = command("up", state, base)
    out, _ = up.communicate(timeout=30)
    assert up.returncode == 0, out
    assert marked(state) == {"store", "app", "side"}
    again = command("up", state, base)
    out, _ = again.communicate(timeout=30)
    assert "app kept" in out
    down = command("down", state, base)
    down.communicate(timeout=30)
    assert marked(state) == set()


@pytest.mark.parametrize("next_command", ["up", "down"])
def test_a_runner_killed_in_mid_start_leaves_nothing_that_is_not_found_again(
    state: Path, base: int, next_command: str
) -> None:
    up = command("up", state, base, "app=delay=30")
    until(lambda: "app" in marked(state))
    up.kill()
    up.communicate()
    orphans = {found.pid for found in processes.marked(state.resolve())}
    after = command(next_command, state, base)
    out, _ = after.communicate(timeout=30)
    assert after.returncode == 0, out
    left = {found.pid for found in processes.marked(state.resolve())}
    if next_command == "down":
        assert left == set()
    else:
        assert len(left) == 3
        assert len(left & orphans) == 2, "store and side are kept, the unready app is not"


def test_a_runner_killed_before_it_could_write_is_survived(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base))
    stack.up()
    orphans = {found.pid for found in processes.marked(state.resolve())}
    (state / "state.json").unlink()
    outcome = Stack(state, table=table(base)).up()
    assert outcome["app"][0] is Phase.READY
    assert not orphans & {found.pid for found in processes.marked(state.resolve())}
    assert stack.endpoints()["app"].endswith(str(base + 1)), "the usual port was free again"


def test_ctrl_c_in_mid_start_stops_what_was_started_and_only_that(state: Path, base: int) -> None:
    Stack(state, only=["store"], table=table(base)).up()
    up = command("up", state, base, "app=delay=30")
    until(lambda: "app" in marked(state))
    up.send_signal(signal.SIGINT)
    out, _ = up.communicate(timeout=30)
    assert up.returncode == 130, out
    assert "app skipped interrupted" in out
    assert "failed" not in out
    assert marked(state) == {"store"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ports": 3}', "\udcff\x00"])
def test_a_damaged_state_file_is_named_and_the_processes_are_found_anyway(
    state: Path, base: int, content: str
) -> None:
    Stack(state, table=table(base)).up()
    (state / "state.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    said: list[str] = []
    stack = Stack(state, table=table(base), report=lambda event: said.append(event.text))
    assert stack.up()["app"][0] is Phase.READY
    assert any("state.json" in text for text in said)
    assert sum("ending a left-over" in text for text in said) == 3
    assert len(processes.marked(state.resolve())) == 3


def test_a_stranger_with_a_remembered_pid_is_not_touched(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base))
    stack.up()
    stack.down()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        started = processes.start_mark(stranger.pid)
        assert started is not None
        remembered = State.load(state / "state.json")
        for name, mark in (("app", started), ("side", started - 1)):
            remembered.running[name] = Running(stranger.pid, mark, "", time.time(), ready=True)
        remembered.save()
        stack.kill("app")
        stack.stop("side")
        stack.down()
        assert stranger.poll() is None
        stack.up()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_two_stacks_that_start_at_the_same_time_stand_side_by_side(
    state: Path, base: int, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    commands = [command("up", folder, base) for folder in (state, other)]
    try:
        outputs = [one.communicate(timeout=60)[0] for one in commands]
        assert [one.returncode for one in commands] == [0, 0], outputs
        addresses = [json.loads((folder / "endpoints.json").read_text()) for folder in (state, other)]
        assert not set(addresses[0].values()) & set(addresses[1].values())
        Stack(state, table=table(base)).down()
        assert marked(other) == {"store", "app", "side"}
    finally:
        Stack(other, table=table(base)).down()


def test_two_commands_on_one_stack_take_turns(state: Path, base: int) -> None:
    first = command("up", state, base, "app=delay=1.5")
    until(lambda: "store" in marked(state))
    second = command("up", state, base, "app=delay=1.5")
    outputs = [one.communicate(timeout=60)[0] for one in (first, second)]
    assert f"another command (pid {first.pid}) works on" in outputs[1]
    assert "app kept" in outputs[1]
    assert len(processes.marked(state.resolve())) == 3


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path, base: int) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"cannot write the stack's state to .*/file/below: Not a directory"):
        Stack(tmp_path / "file" / "below", table=table(base)).up()


def test_down_after_the_state_folder_was_removed_by_hand(state: Path, base: int) -> None:
    Stack(state, table=table(base)).up()
    pids = [found.pid for found in processes.marked(state.resolve())]
    shutil.rmtree(state)
    Stack(state, table=table(base)).down()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
    assert os.path.lexists(state) is False
