"""The file sink: what is written is there, turned over by size, and a fault is counted and said once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from observability import get_logger
from observability.sinks import FileDescriptorSink, RotatingFileSink
from tests.unit.observability.harness import Harness

LINE = b"0123456789abcde\n"


def lines_of(directory: Path) -> list[bytes]:
    return [line for path in sorted(directory.iterdir()) for line in path.read_bytes().splitlines()]


def test_files_turn_over_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    sink = RotatingFileSink(tmp_path / "logs" / "app.jsonl", max_bytes=64, backups=2)
    for number in range(20):
        sink.write(b"%015d\n" % number)
    sink.close()
    files = {path.name: path.read_bytes().split() for path in (tmp_path / "logs").iterdir()}
    assert set(files) == {"app.jsonl", "app.jsonl.1", "app.jsonl.2"}
    kept = files["app.jsonl.2"] + files["app.jsonl.1"] + files["app.jsonl"]
    assert [int(line) for line in kept] == list(range(8, 20))
    assert all(path.stat().st_size <= 64 for path in (tmp_path / "logs").iterdir())


def test_without_backups_the_file_starts_again(tmp_path: Path) -> None:
    sink = RotatingFileSink(tmp_path / "a", max_bytes=32, backups=0)
    for _ in range(5):
        sink.write(LINE)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == LINE


def test_a_line_longer_than_the_limit_is_still_one_line(tmp_path: Path) -> None:
    sink = RotatingFileSink(tmp_path / "a", max_bytes=10, backups=1)
    sink.write(b"x" * 100 + b"\n")
    sink.write(b"y" * 100 + b"\n")
    assert (tmp_path / "a").read_bytes() == b"y" * 100 + b"\n"
    assert (tmp_path / "a.1").read_bytes() == b"x" * 100 + b"\n"


def test_an_existing_file_is_continued_and_its_size_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(LINE)
    RotatingFileSink(tmp_path / "a", max_bytes=40, backups=1).write(LINE)
    assert (tmp_path / "a").read_bytes() == LINE * 2
    RotatingFileSink(tmp_path / "a", max_bytes=40, backups=1).write(LINE)
    assert (tmp_path / "a.1").read_bytes() == LINE * 2


def test_threads_share_a_file_without_tearing_lines(tmp_path: Path) -> None:
    sink = RotatingFileSink(tmp_path / "a", max_bytes=2_000, backups=500)

    def write(name: int) -> None:
        for number in range(200):
            sink.write(b"%d-%d-%s\n" % (name, number, b"x" * 50))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines_of(tmp_path)
    assert len(found) == len(set(found)) == 800
    assert all(line.endswith(b"x" * 50) for line in found)


def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    sink = RotatingFileSink(path, max_bytes=1_000, backups=1)
    sink.write(LINE)
    path.rename(tmp_path / "taken")
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        sink.write(LINE)
        time.sleep(0.05)
    assert path.read_bytes() == LINE


def test_a_killed_process_has_lost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    program = f"""
import sys
from pathlib import Path
from observability.sinks import RotatingFileSink
sink = RotatingFileSink(Path({str(path)!r}), 10**9, 1)
for number in range(10**9):
    sink.write(b"%d\\n" % number)
    if number == 1000:
        print("ready", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    written = path.read_bytes()
    assert written.endswith(b"\n")
    numbers = [int(line) for line in written.split()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 1000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_counted_and_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    lost: list[int] = []
    descriptor = os.open("/dev/full", os.O_WRONLY)
    sink = FileDescriptorSink(descriptor, lambda: lost.append(1), "app.jsonl")
    for _ in range(5):
        sink.write(LINE)
    os.close(descriptor)
    assert len(lost) == 5
    said = capfd.readouterr().err
    assert said == "log lines are being lost: app.jsonl: No space left on device\n"


def test_a_line_cut_by_a_full_disk_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    sink = RotatingFileSink(tmp_path / "a", max_bytes=1_000, backups=1, on_lost=lambda: lost.append(1))
    real = os.write
    room = 5

    def nearly_full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if descriptor == 2:
            return len(data)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(descriptor, data[:room])
        room -= done
        return done

    monkeypatch.setattr(os, "write", nearly_full)
    sink.write(LINE)
    sink.write(LINE)
    monkeypatch.setattr(os, "write", real)
    sink.write(LINE)
    assert (tmp_path / "a").read_bytes() == LINE[:5] + b"\n" + LINE
    assert len(lost) == 2


def test_a_rotation_that_fails_keeps_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []
    sink = RotatingFileSink(tmp_path / "a", max_bytes=20, backups=1, on_lost=lambda: lost.append(1))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    for _ in range(4):
        sink.write(LINE)
    assert (tmp_path / "a").read_bytes() == LINE * 4
    assert not lost


def test_a_closed_pipe_is_a_loss_not_an_error() -> None:
    lost: list[int] = []
    reader, writer = os.pipe()
    os.close(reader)
    FileDescriptorSink(writer, lambda: lost.append(1)).write(LINE)
    os.close(writer)
    assert lost == [1]


async def test_lost_lines_are_a_metric(
    start: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = start()
    log = get_logger("tests")
    log.info("kept")
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if descriptor == 2:
            return real(descriptor, data)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.info("lost")
    log.info("lost")
    monkeypatch.undo()
    log.info("kept again")
    assert [line["event"] for line in harness.lines()] == ["kept", "kept again"]
    assert harness.sample("telemetry_log_lines_lost_total") == 2


async def test_the_file_sink_turns_over_by_the_settings(
    start: Callable[..., Harness], tmp_path: Path
) -> None:
    path = tmp_path / "service" / "api.jsonl"
    start(log_file=path, log_max_bytes=2_000, log_backups=2)
    log = get_logger("tests")
    for number in range(60):
        log.info("line", number=number)
    assert sorted(p.name for p in path.parent.iterdir()) == ["api.jsonl", "api.jsonl.1", "api.jsonl.2"]
