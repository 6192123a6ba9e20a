"""What a contender is. Imported by every side of a run, in every environment: standard library only."""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

Work = Literal["noop", "io"]
IO_SECONDS = 0.010

Run = Callable[[int], Awaitable[None]]
"""The job: takes its number, does the work and writes it into the ledger."""

Send = Callable[[Sequence[int]], Awaitable[None]]
"""Enqueues jobs by their numbers; returns once the broker has answered for all of them."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Where the contender finds its broker, and how many jobs it may run at once.

    `database` is the PostgreSQL of a contender with an outbox.
    """

    broker: str
    queue: str
    concurrency: int
    database: str = ""


class Contender(Protocol):
    """A queue library in one of its settings."""

    def client(self, setup: Setup) -> AbstractAsyncContextManager[Send]:
        """The side that enqueues."""

    async def work(self, setup: Setup, run: Run) -> None:
        """The worker: runs every job that it is given, until its process is ended."""


def load(target: str) -> Contender:
    """The contender at `package.module:attribute`."""
    module, _, attribute = target.partition(":")
    contender: Contender = getattr(importlib.import_module(module), attribute)
    return contender
