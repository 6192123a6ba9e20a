"""State folders and ports of their own for the runner's tests."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose import processes
from compose.native import Stack
from compose.ports import is_free
from tests.integration.compose.fake import table


@pytest.fixture
def base() -> int:
    """The first of four free ports."""
    while True:
        port = random.randrange(10100, 15000)
        if all(is_free(port + i) for i in range(4)):
            return port


@pytest.fixture
def state(tmp_path: Path, base: int) -> Iterator[Path]:
    """A state folder with a space in its name; after the test nothing of it may run."""
    folder = tmp_path / "my stack"
    yield folder
    Stack(folder, table=table(base)).down()
    assert processes.marked(folder.resolve()) == []
