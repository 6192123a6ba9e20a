"""Components that stand still for a while, and what ran before runs again."""

import fcntl
from pathlib import Path

import pytest

from compose.model import StackError
from compose.native import Stack
from tests.integration.compose.fake import table


def test_what_ran_stands_still_in_the_block_and_runs_after_it(state: Path, base: int) -> None:
    stack = Stack(state, table=table(base))
    stack.up()
    stack.stop("side")
    before = {name: stack.pid(name) for name in ("store", "app")}
    with stack.without(["app", "side", "prepare"]):
        assert (stack.pid("app"), stack.pid("store")) == (None, before["store"])
        # No other command works on the stack meanwhile.
        with stack.paths.lock.open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert stack.pid("app") not in (None, before["app"])
    assert stack.pid("side") is None, "it did not run before"
    assert {one.component.name: one.condition for one in stack.status()}["app"] == "ready"


@pytest.mark.parametrize("fault", [ValueError("in the block"), KeyboardInterrupt()])
def test_what_ran_runs_again_whatever_happens_in_the_block(
    state: Path, base: int, fault: BaseException
) -> None:
    stack = Stack(state, table=table(base))
    stack.up()
    with pytest.raises(type(fault)), stack.without(["app", "store"]):
        raise fault
    assert stack.pid("app")
    assert stack.pid("store")


def test_one_that_does_not_come_back_is_told_and_the_others_do(state: Path, base: int) -> None:
    said: list[str] = []
    Stack(state, table=table(base)).up()
    broken = Stack(
        state, table=table(base, {"store": "exit=3"}), report=lambda event: said.append(event.text)
    )
    failing = pytest.raises(StackError, match="store ended with exit code 3 while starting")
    with failing, broken.without(["app", "store"]):
        pass
    assert broken.pid("app")
    # Beside a fault in the block it is a remark.
    Stack(state, table=table(base)).start("store")
    with pytest.raises(ValueError, match="the first"), broken.without(["app", "store"]):
        raise ValueError("the first")
    assert any("store ended with exit code 3" in text for text in said)
