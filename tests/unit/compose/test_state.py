"""The remembered state, the lock and the secrets."""

import json
import stat
import threading
from pathlib import Path

import pytest

from compose import secret, state
from compose.model import StackError
from compose.paths import Paths
from compose.state import Known, Running, State


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    saved = State(
        tmp_path / "state.json",
        ports={"api": {"http": 8000}},
        wanted=["api"],
        running={"api": Running(12, 345, "abc", 1.5, ready=True)},
        programs={"api": Known("/bin/python", "3.11", "PATH"), "loki": Known(reasons=["PATH: no loki"])},
    )
    saved.save()
    assert State.load(tmp_path / "state.json") == saved
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600


def test_no_file_is_an_empty_state_without_trouble(tmp_path: Path) -> None:
    assert State.load(tmp_path / "none") == State(tmp_path / "none")


def test_a_file_that_is_not_whole_is_trouble(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    State(file, running={"api": Running(12, 345, "abc", 1.5)}).save()
    content = json.loads(file.read_text())
    del content["running"]["api"]["pid"]
    file.write_text(json.dumps(content))
    loaded = State.load(file)
    assert loaded.running == {}
    assert loaded.trouble is not None
    assert str(file) in loaded.trouble


def test_many_threads_can_save_at_once(tmp_path: Path) -> None:
    shared = State(tmp_path / "state.json")
    threads = [
        threading.Thread(target=shared.set_running, args=(f"c{i}", Running(i, i, "", 0.0))) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(State.load(shared.file).running) == 20
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_a_write_that_fails_leaves_the_old_file_and_says_why(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(StackError, match=f"cannot write {target}"):
        state.write(target, "text")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_the_lock_is_held_by_one_and_the_other_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    paths = Paths.of(tmp_path)
    with (
        state.locked(paths, told.append),
        pytest.raises(StackError, match="another command"),
        state.locked(paths, told.append, seconds=0.3),
    ):
        pytest.fail("two hold the lock")
    assert len(told) == 1
    with state.locked(paths, told.append):
        pass


def test_a_secret_is_long_private_and_made_once(tmp_path: Path) -> None:
    first = secret.values(tmp_path)
    assert set(first) == {
        f"{name}_password" for name in ("postgres", "redis", "rabbitmq", "files", "grafana", "s3")
    }
    assert len(set(first.values())) == len(first)
    assert all(len(value) >= 32 for value in first.values())
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    assert secret.values(tmp_path) == first


def test_a_secret_that_the_user_put_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_text("mine\n")
    assert secret.secret(tmp_path, "redis") == "mine"
    assert (tmp_path / "redis-password").read_text() == "mine\n"


def test_the_state_folder_is_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARDSTICK_STATE", str(tmp_path / "x" / ".." / "named"))
    assert Paths.of(None).state == (tmp_path / "named").resolve()
    monkeypatch.delenv("YARDSTICK_STATE")
    assert Paths.of(None).state.name == ".stack"
