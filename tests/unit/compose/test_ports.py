"""Ports: the one it had, the usual one, or a free one; never one of another stack."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest

from compose import ports
from compose.model import Component, Finished, StackError
from compose.processes import start_mark
from compose.state import Running, State


def component(name: str, **usual: int) -> Component:
    return Component(name=name, program="python", about="", ready=Finished(), ports=MappingProxyType(usual))


def allocate(
    state: Path,
    *table: Component,
    earlier: dict[str, dict[str, int]] | None = None,
    held: tuple[str, ...] = (),
) -> tuple[dict[str, dict[str, int]], list[ports.Moved]]:
    state.mkdir(exist_ok=True)
    return ports.allocate(state, table, earlier or {}, lambda name: name in held, lambda _: True)


@pytest.fixture(autouse=True)
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens, low enough to be a usual one."""
    for port in range(10100, 20000):
        if ports.is_free(port) and ports.is_free(port + 10000):
            with socket.create_server(("127.0.0.1", port)):
                yield port
            return


def test_a_free_usual_port_is_given_without_a_remark(tmp_path: Path, taken: int) -> None:
    usual = taken + 10000
    assert allocate(tmp_path / "a", component("x", http=usual)) == ({"x": {"http": usual}}, [])


def test_a_taken_port_is_replaced_and_its_holder_named(tmp_path: Path, taken: int) -> None:
    assert not ports.is_free(taken)
    chosen, moved = allocate(tmp_path / "a", component("x", http=taken))
    assert chosen == {"x": {"http": taken + 10000}}
    assert [(move.usual, move.given) for move in moved] == [(taken, taken + 10000)]
    assert f"(pid {os.getpid()})" in moved[0].holder


def test_a_port_that_listens_on_every_address_counts_as_taken(taken: int) -> None:
    with socket.create_server(("0.0.0.0", taken + 10000)):  # noqa: S104
        assert not ports.is_free(taken + 10000)


def test_an_earlier_port_is_kept_while_it_is_free(tmp_path: Path, taken: int) -> None:
    x = component("x", http=taken + 10000)
    chosen, _ = allocate(tmp_path / "a", x, earlier={"x": {"http": 20777}})
    assert chosen == {"x": {"http": 20777}}
    chosen, _ = allocate(tmp_path / "a", x, earlier={"x": {"http": taken}})
    assert chosen == {"x": {"http": taken + 10000}}


def test_a_running_component_keeps_the_port_that_it_holds_itself(tmp_path: Path, taken: int) -> None:
    chosen, _ = allocate(tmp_path / "a", component("x", http=1), earlier={"x": {"http": taken}}, held=("x",))
    assert chosen == {"x": {"http": taken}}


def test_two_components_with_one_usual_port_do_not_collide(tmp_path: Path, taken: int) -> None:
    usual = taken + 10000
    chosen, _ = allocate(tmp_path / "a", component("x", http=usual), component("y", http=usual))
    assert chosen["x"]["http"] == usual != chosen["y"]["http"]


def test_a_stack_that_is_being_started_holds_ports_that_nobody_listens_on_yet(
    tmp_path: Path, taken: int
) -> None:
    x = component("x", http=taken + 10000)
    first, _ = allocate(tmp_path / "a", x)
    second, moved = allocate(tmp_path / "b", x)
    assert first != second
    assert moved[0].holder == f"the stack of {tmp_path / 'a'}"
    ports.release(tmp_path / "a")
    third, _ = allocate(tmp_path / "c", x)
    assert third == first


@pytest.mark.parametrize("runs", [True, False])
def test_a_claim_ends_with_the_last_process_of_its_stack(tmp_path: Path, taken: int, runs: bool) -> None:
    x = component("x", http=taken + 10000)
    first, _ = allocate(tmp_path / "a", x)
    registry = ports.registry()
    registry.write_text(registry.read_text().replace(f'"runner": {os.getpid()}', '"runner": 1'))
    mark = start_mark(os.getpid())
    assert mark is not None
    running = Running(os.getpid(), mark if runs else mark - 1, "", 0.0)
    State(tmp_path / "a" / "state.json", running={"x": running}).save()
    second, _ = allocate(tmp_path / "b", x)
    assert (second != first) is runs


def test_a_claim_ends_when_its_state_folder_is_gone(tmp_path: Path, taken: int) -> None:
    x = component("x", http=taken + 10000)
    first, _ = allocate(tmp_path / "a", x)
    (tmp_path / "a").rmdir()
    assert allocate(tmp_path / "b", x)[0] == first


@pytest.mark.parametrize("content", ["{", "[]", '{"/x": 3}', '{"/x": {"ports": "no"}}'])
def test_a_damaged_registry_is_started_anew(tmp_path: Path, taken: int, content: str) -> None:
    ports.registry().write_text(content)
    assert allocate(tmp_path / "a", component("x", http=taken + 10000))[1] == []


def test_a_registry_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ports.registry().parent
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    folder.rename(folder.with_name("yardstick-12345"))
    with pytest.raises(StackError, match="belongs to someone else"):
        ports.registry()


def test_replacements_are_below_the_ports_that_the_kernel_gives_out() -> None:
    for usual in (3000, 9090, 14317, 31000):
        wishes = list(ports.candidates(usual))
        assert wishes[0] == usual
        assert all(1024 < port < 32768 for port in wishes)
        assert len(set(wishes)) > 9000
